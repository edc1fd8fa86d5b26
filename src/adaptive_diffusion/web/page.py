"""The layout of the page: the controls, which every tab uses, and the tabs."""

from __future__ import annotations

from typing import Any

import gradio as gr

from .bounds import FIELDS, KEPT, LONGEST_PROMPT, MOST_IMAGES, SIZES, Offers
from .choosing import AS_IT_DRAWS, NO_NAME, Choosing
from .drawing import Drawing
from .looking import Looking
from .pieces import COMPUTES, NARROW, QUICK, as_it_is, grid_and_guidance, scheduler_and_steps, slider
from .sessions import Sessions
from .tabs import afford_tab, calibrate_tab, compare_tab, draw_tab, history_tab, schedule_tab, sheet_tab, tune_tab
from .tuning import Tuning
from .worker import Worker

PRESS = "() => [...document.querySelectorAll('button.primary')].find(each => each.offsetParent)?.click()"  # of the tab


def page(offers: Offers, worker: Worker, sessions: Sessions) -> gr.Blocks:
    """Build the page.

    Args:
        offers: What can be chosen.
        worker: The thread that computes.
        sessions: The open pages, and what their browsers have drawn.
    """
    given = offers, worker, sessions
    choosing, looking, drawing, tuning = Choosing(*given), Looking(*given), Drawing(*given), Tuning(*given)
    with gr.Blocks(title="Adaptive Diffusion", analytics_enabled=False, delete_cache=(3600, KEPT)) as blocks:
        gr.Markdown(
            "# Adaptive Diffusion\nChoose what to draw, and press **Draw**. A step evaluates the network, in one "
            "pass through it or, with guidance, two. Every run is kept, as those of `sample` are."
        )
        token = gr.BrowserState(storage_key="adaptive-diffusion")
        arrived = blocks.load(choosing.arrive, token, token, queue=False, **QUICK)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                controls, cost, further = _controls(choosing)
            with gr.Column(scale=2, min_width=320):
                with gr.Tab("Draw"):
                    drawn = draw_tab(drawing, controls)
                with gr.Tab("Compare"):
                    compare_tab(drawing, controls)
                with gr.Tab("Sheet"):
                    sheet_tab(drawing, controls)
                with gr.Tab("Schedule") as schedule:
                    schedule_tab(looking, controls, schedule)
                with gr.Tab("How few passes?"):
                    afford_tab(looking, choosing, controls, arrived)
                with gr.Tab("Calibrate") as calibrate:
                    calibrated = calibrate_tab(drawing, looking, controls, calibrate)
                with gr.Tab("Tune") as tune:
                    tune_tab(tuning, choosing, controls, tune)
                with gr.Tab("History") as history:
                    history_tab(choosing, controls, history)

        model, prompt, domain, label = controls[:4]
        domain.preprocess = label.preprocess = as_it_is  # while an event waits, their options may become others
        # the cost of another model or domain is asked for once its domains or labels are there to choose from
        of_model = model.input(choosing.choose_model, model, [domain, label], **QUICK)
        of_domain = domain.input(choosing.labels, [model, domain], label, **QUICK)
        ends = [each.then for each in (of_model, of_domain, drawn, calibrated)]  # drawing may calibrate, too
        of = dict(zip(FIELDS, controls, strict=True))
        changes = [of[name].change for name in ("label", "scheduler", "steps", "grid", "guidance", "stored")]
        for event in (*ends, *changes, prompt.blur, of["weight"].blur, blocks.load):
            event(looking.cost, controls, cost, trigger_mode="always_last", show_progress="hidden", **COMPUTES)
        prompt.submit(None, js=PRESS)
        fold = f"() => innerWidth < {NARROW} ? ({{__type__: 'update', open: false}}) : ({{__type__: 'update'}})"
        blocks.load(None, None, further, js=fold)
        blocks.unload(drawing.leave)
    return blocks


def _controls(choosing: Choosing) -> tuple[list[Any], gr.Markdown, gr.Accordion]:
    """What to draw and how, in the order of the fields of `Wish`; what it costs; where those lie that are used less."""
    offers = choosing.offers
    offer = offers.models[0]

    model = gr.Dropdown([offer.name for offer in offers.models], label="Model", visible=len(offers.models) > 1)
    prompt = gr.Textbox(
        label="Prompt",
        info="Chooses domain and label; leave it empty to choose them below.",
        max_length=LONGEST_PROMPT,
        placeholder="a sunrise over the sea",
    )
    with gr.Row():
        names = list(offer.domains) or AS_IT_DRAWS
        domain = gr.Dropdown(names, value=offer.first, label="Domain", min_width=120)
        label = gr.Dropdown([*NO_NAME, *offer.domains.get(offer.first, ())], value="", label="Label", min_width=120)
    with gr.Row():
        scheduler, steps = scheduler_and_steps(offers, "adaptive", 10)
    cost = gr.Markdown(elem_id="cost")
    with gr.Accordion("Images, guidance and grid", open=True, elem_id="further") as further:
        with gr.Row():
            count = slider(1, MOST_IMAGES, 4, label="Images", min_width=120)
            seed = gr.Number(0, label="Seed", min_width=120)  # its bounds are checked with the others
        grid, guidance, weight, stored = grid_and_guidance(offers)
        sizes = [("as the model draws", 0), *((f"{side} x {side}", side) for side in SIZES)]
        size = gr.Dropdown(sizes, value=0, label="Size of the saved images")

    controls = [model, prompt, domain, label, scheduler, steps, grid, guidance, weight, stored, count, seed, size]
    return controls, cost, further
