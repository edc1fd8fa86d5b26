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
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
)
_CSS = """
.gradio-container img { image-rendering: pixelated; }
.gradio-container .plot img { image-rendering: auto; }
.gradio-container .files .empty.large { min-height: 5rem; }  /* not as high as a field to drop files on */
[data-testid="status-tracker"]:has(> .error) { display: none !important; }  /* the sentence in the corner says more */
.gradio-container .caption-label { white-space: normal; }  /* a run has more words than a line */
.dark { --color-accent: var(--primary-400); }
"""
# Gradio gives the empty place of an image a name, but no role that may have a name.
_SCRIPT = """() => {
    const name = () => document.querySelectorAll(".empty[aria-label]:not([role])")
        .forEach(place => place.setAttribute("role", "img"));
    new MutationObserver(name).observe(document.body, {childList: true, subtree: true});
    name();
}"""

LOOK: dict[str, Any] = {"theme": _THEME, "css": _CSS, "js": _SCRIPT}  # arguments of `launch`
