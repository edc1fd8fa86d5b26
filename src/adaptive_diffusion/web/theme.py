"""How the page looks, so that it can be read: colours of enough contrast, and names that screen readers take."""

from __future__ import annotations

from typing import Any

import gradio as gr

_THEME = gr.themes.Default(
    primary_hue="indigo",
    font=["system-ui", "sans-serif"],  # none from afar
    font_mono=["ui-monospace", "monospace"],
).set(
    body_text_color_subdued="*neutral_500",  # explanations of fields, which would be too pale
    input_placeholder_color="*neutral_500",
    input_placeholder_color_dark="*neutral_400",
    color_accent="*primary_600",
    link_text_color_dark="*secondary_400",
    checkbox_border_color_dark="*neutral_500",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
)
_CSS = """
.gradio-container img { image-rendering: pixelated; }
.gradio-container .plot img { image-rendering: auto; }
.gradio-container .files .empty.large { min-height: 5rem; }  /* not as high as a field to drop files on */
[data-testid="status-tracker"]:has(> .error) { display: none !important; }  /* the sentence in the corner says more */
.gradio-container .files .label-clear-button { display: none; }  /* files to take, which nobody chose */
.gradio-container :is([type=range], [type=checkbox], [type=radio]):focus-visible {
    outline: 2px solid var(--color-accent); outline-offset: 2px;
}
/* what a run is stands below its image, since it has more words than a line */
#runs .thumbnail-item { display: flex; flex-direction: column; aspect-ratio: auto; }
#runs .thumbnail-item img { height: auto; aspect-ratio: 1; }
#runs .caption-label { position: static; max-width: none; border: 0; opacity: 1; white-space: normal; }
@media (width < 640px) { #runs .grid-container { grid-template-columns: 1fr 1fr; } }
@media (width < 420px) {
    .head { gap: 4px !important; }  /* a short label and its number share a line */
    .head .tab-like-container { margin-bottom: 0 !important; }
}
/* Gradio says "Error", whatever title is given, and most often a field is to be changed */
.toast-title.error { font-size: 0; }
.toast-title.error::before { content: "Not done"; font-size: 1rem; }
.dark [type=range] { --neutral-200: var(--neutral-600); }  /* what is not filled */
.dark { --color-accent: var(--primary-400); }
"""
# Gradio gives the empty place of an image a name, but no role that may have a name. Where a button copies a text, the
# label names the button alone.
_SCRIPT = """() => {
    const name = () => {
        document.querySelectorAll(".empty[aria-label]:not([role])").forEach(place => place.setAttribute("role", "img"));
        document.querySelectorAll("label:has(button) textarea:not([aria-label])").forEach(text =>
            text.ariaLabel = text.closest("label").querySelector("[data-testid=block-info]").innerText);
    };
    new MutationObserver(name).observe(document.body, {childList: true, subtree: true});
    name();
}"""

LOOK: dict[str, Any] = {"theme": _THEME, "css": _CSS, "js": _SCRIPT}  # arguments of `launch`
