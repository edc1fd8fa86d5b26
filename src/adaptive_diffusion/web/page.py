"""The layout of the page: which controls there are, and what each of them starts."""

from __future__ import annotations

from typing import Any

import gradio as gr

from .bounds import (
    AT_ONCE,
    FEWEST_EPISODES,
    LONGEST_PROMPT,
    MOST_CELLS,
    MOST_EPISODES,
    MOST_IMAGES,
    MOST_STEPS,
    SIZES,
    Offers,
)
from .choosing import AS_IT_DRAWS, NO_NAME, Choosing
from .curve import MOST_PASSES, domains, images
from .drawing import Drawing
from .handlers import Handlers
from .jobs import Worker
from .looking import Looking
from .sessions import Sessions
from .tuning import AIMS, Tuning

SHEET_STEPS = (4, 5, 6, 8, 10, 15, 20, 25, 35, 50)
COMPUTES: dict[str, Any] = {  # the worker does one after another, and says how many come before
    "concurrency_limit": AT_ONCE,
    "concurrency_id": "computes",
    "api_visibility": "private",
}
QUICK: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}


def page(offers: Offers, worker: Worker, sessions: Sessions) -> gr.Blocks:
    """Build the page.

    Args:
        offers: What can be chosen.
        worker: The thread that computes.
        sessions: What each open page has drawn.
    """
    given = offers, worker, sessions
    choosing, looking, drawing, tuning = Choosing(*given), Looking(*given), Drawing(*given), Tuning(*given)
    with gr.Blocks(title="Adaptive Diffusion", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        gr.Markdown(
            "# Adaptive Diffusion\nThe same images in fewer steps. Choose what to draw, and press **Draw**. "
            "Every run is what `sample` does, and is recorded."
        )
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                controls = _controls(choosing)
                cost = gr.Markdown(elem_id="cost")
            with gr.Column(scale=2, min_width=320):
                with gr.Tab("Draw"):
                    drawn = _draw(drawing, controls)
                with gr.Tab("Compare"):
                    _compare(drawing, controls)
                with gr.Tab("Sheet"):
                    _sheet(drawing, controls)
                with gr.Tab("Schedule"):
                    _schedule(looking, controls)
                with gr.Tab("How few passes?"):
                    _afford(looking, controls, blocks)
                with gr.Tab("Calibrate"):
                    calibrated = _calibrate(drawing, controls)
                with gr.Tab("Tune") as tune:
                    _tune(tuning, choosing, controls, tune)
                with gr.Tab("History") as history:
                    _history(choosing, controls, history)

        model, prompt, domain, label, scheduler, steps, guidance, weight, *_ = controls
        domain.preprocess = label.preprocess = _as_it_is  # while an event waits, their options may become others
        # the cost of another model or domain is asked for once its domains or labels are there to choose from
        of_model = model.input(choosing.choose_model, model, [domain, label], **QUICK)
        of_domain = domain.input(choosing.labels, [model, domain], label, **QUICK)
        ends = [each.then for each in (of_model, of_domain, drawn, calibrated)]  # drawing may calibrate, too
        changes = [*ends, *(each.change for each in (label, scheduler, steps, guidance))]
        for event in (*changes, prompt.blur, weight.blur, blocks.load):
            event(looking.cost, controls, cost, trigger_mode="always_last", show_progress="hidden", **COMPUTES)
        blocks.unload(drawing.leave)
    return blocks


def _as_it_is(value: Any) -> Any:
    """The value of a field that the handlers check, in place of Gradio's own check."""
    return value


def _slider(*bounds: int, **given: Any) -> gr.Slider:
    """A slider over whole numbers, whose field beside it may be empty."""
    slider = gr.Slider(*bounds, **{"step": 1, **given})
    slider.preprocess = _as_it_is
    return slider


def _controls(choosing: Choosing) -> list[gr.components.Component]:
    """What to draw and how, in the order of the fields of `Wish`."""
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
    scheduler = gr.Dropdown(list(offers.schedulers), value="adaptive", label="Scheduler")
    steps = _slider(1, MOST_STEPS, 10, label="Steps")
    with gr.Row():
        guidance = gr.Dropdown(list(offers.guidance), value="default", label="Guidance", min_width=120)
        weight = gr.Textbox(label="Weight", placeholder="the model's own", max_length=20, min_width=120)
    with gr.Row():
        count = _slider(1, MOST_IMAGES, 4, label="Images", min_width=120)
        seed = gr.Number(0, label="Seed", min_width=120)  # its bounds are checked with the others
    sizes = [("as the model draws", 0), *((f"{side} x {side}", side) for side in SIZES)]
    size = gr.Dropdown(sizes, value=0, label="Size of the saved images")

    return [model, prompt, domain, label, scheduler, steps, guidance, weight, count, seed, size]


def _draw(drawing: Drawing, controls: list[gr.components.Component]) -> gr.events.Dependency:
    start = _start_button(drawing, "Draw", "draw")
    picture = gr.Image(label="Images", buttons=["download", "fullscreen"], elem_id="picture", alt_text="What is drawn")
    status = gr.Markdown(elem_id="status")
    command = _command_field()
    files = _files("Images as files (each carries its settings)")
    outputs = [picture, status, files, command]
    return start.success(drawing.draw, controls, outputs, show_progress_on=status, **COMPUTES)


def _compare(drawing: Drawing, controls: list[gr.components.Component]) -> None:
    gr.Markdown("Left: as the controls say. Right: another scheduler, from the same noise.")
    with gr.Row():
        scheduler = gr.Dropdown(list(drawing.offers.schedulers), value="ddim", label="Scheduler on the right")
        steps = _slider(1, MOST_STEPS, 50, label="Steps on the right")
    start = _start_button(drawing, "Compare", "compare")
    slider = gr.ImageSlider(label="Left and right", interactive=False, buttons=["fullscreen"], elem_id="slider")
    status, command = gr.Markdown(), _command_field()
    start.success(
        drawing.compare, [scheduler, steps, *controls], [slider, status, command], show_progress_on=status, **COMPUTES
    )


def _sheet(drawing: Drawing, controls: list[gr.components.Component]) -> None:
    gr.Markdown(f"The first image, drawn by each scheduler in each number of steps: at most {MOST_CELLS} images.")
    common = [name for name in ("ddim", "dpm_solver", "unipc", "adaptive") if name in drawing.offers.schedulers]
    schedulers = gr.Dropdown(list(drawing.offers.schedulers), value=common, multiselect=True, label="Schedulers")
    steps = gr.CheckboxGroup([(str(n), n) for n in SHEET_STEPS], value=[5, 10], label="Numbers of steps")
    start = _start_button(drawing, "Draw the sheet", "sheet")
    sheet = gr.Image(label="Sheet", buttons=["download", "fullscreen"], alt_text="One image by several schedulers")
    status, command = gr.Markdown(), _command_field()
    start.success(
        drawing.sheet, [schedulers, steps, *controls], [sheet, status, command], show_progress_on=status, **COMPUTES
    )


def _schedule(looking: Looking, controls: list[gr.components.Component]) -> None:
    start = gr.Button("Show the schedule", variant="primary", elem_id="schedule")
    line = gr.Markdown()
    curve = gr.Image(
        label="Where the network is evaluated",
        buttons=["download"],
        alt_text="Timestep and log-SNR of each step",
        elem_classes="plot",
    )
    heads = ["step", "timestep", "noise level", "log-SNR", "passes"]
    table = gr.Dataframe(headers=heads, label="Steps", interactive=False)
    start.click(looking.schedule, controls, [curve, table, line], **COMPUTES)


def _afford(looking: Looking, controls: list[gr.components.Component], blocks: gr.Blocks) -> None:
    _, _, wanted, *_ = controls
    measured = domains()
    gr.Markdown(
        "How close does each method come to the converged images with a given number of passes? "
        f"Measured on {images():,} images a point, drawn with labels by share at guidance 1.5."
    )
    with gr.Row():
        domain = gr.Dropdown(
            measured, value=wanted.value if wanted.value in measured else measured[0], label="Domain that was measured"
        )
        passes = _slider(1, MOST_PASSES, 20, label="Passes per image")
    line = gr.Markdown(elem_id="afford")
    curve = gr.Image(
        label="Distance, by passes",
        buttons=["download"],
        alt_text="Distance to the converged images by passes, for each method",
        elem_classes="plot",
    )
    table = gr.Dataframe(
        headers=["method", "steps", "passes", "distance"], label="Within the budget", interactive=False
    )
    for event in (domain.change, passes.change, blocks.load):
        event(looking.afford, [domain, passes], [curve, table, line], trigger_mode="always_last", **QUICK)


def _calibrate(drawing: Drawing, controls: list[gr.components.Component]) -> gr.events.Dependency:
    gr.Markdown(
        "Follows the model's trajectories once, and finds the timesteps and weights for a number of steps in this "
        "domain, with this guidance. The result is kept, and `adaptive` uses it from then on. "
        "What is calibrated already is drawn at once."
    )
    steps = _slider(2, MOST_STEPS, 7, label="Steps to calibrate")
    start = _start_button(drawing, "Calibrate", "calibrate")
    status = gr.Markdown()
    picture = gr.Image(
        label="Drawn with these steps", buttons=["download"], alt_text="What is drawn with the calibrated steps"
    )
    command = _command_field()
    files = gr.File(visible=False, interactive=False, label="Images as files")
    outputs = [picture, status, files, command]
    return start.success(drawing.calibrate, [steps, *controls], outputs, show_progress_on=status, **COMPUTES)


def _tune(tuning: Tuning, choosing: Choosing, controls: list[gr.components.Component], tab: gr.Tab) -> None:
    """What it costs is said when the tab is opened, and again before a tuning begins."""
    gr.Markdown(
        "Searches for the weight of guidance, the noise levels that need it and the number of steps, in the chosen "
        "domain, up to the Steps of the controls. What it finds is compared, on fresh noises, with the default: the "
        "adaptive scheduler at constant guidance, with the Steps and the Weight of the controls. It is kept if it is "
        "better by more than two standard errors. Scheduler, Guidance and Label of the controls are ignored here."
    )
    aim = gr.Radio(list(AIMS), value=next(iter(AIMS)), label="What counts")
    episodes = _slider(FEWEST_EPISODES, MOST_EPISODES, 20, step=10, label="Episodes of the search")
    cost = gr.Markdown(elem_id="tuning-cost")
    start = _start_button(tuning, "Tune", "tune")
    status = gr.Markdown(elem_id="tuned")
    heads = ["", "steps", "passes", "guidance", "quality gained"]
    table = gr.Dataframe(headers=heads, label="Default and found", interactive=False)
    gr.Markdown(
        "A *quality gained* of 1 is 0.1 less in distance to the domain's real images than the default. The *score* of "
        "the sentence above is that quality or, where fewer passes count, a third of it and two thirds of the share "
        "of passes that was saved. Behind +- is one standard error."
    )
    found = gr.State([])
    use = gr.Button("Use these settings", elem_id="use")
    command = _command_field()

    asked = [aim, episodes, *controls]
    told = [cost, command]
    shown_on_cost = {"show_progress_on": cost, **COMPUTES}
    gr.on([tab.select, episodes.change], tuning.look, asked, told, trigger_mode="always_last", **shown_on_cost)
    # what was said is of other controls then; in the browser, so that it comes before what is asked for next
    model, prompt, domain, _, _, steps, _, weight, *_ = controls
    changes = [each.change for each in (aim, model, prompt, domain, steps, weight)]
    gr.on(changes, None, None, told, js="() => ['', '']")
    said = start.success(tuning.estimate, asked, told, **shown_on_cost)
    said.success(tuning.tune, asked, [status, table, found], show_progress_on=status, **COMPUTES)
    use.click(choosing.adopt, found, controls, **QUICK)


def _history(choosing: Choosing, controls: list[gr.components.Component], tab: gr.Tab) -> None:
    """The runs are listed when the tab is opened."""
    gr.Markdown(
        "What this page has drawn since it was opened. Nobody else sees it. "
        "The list and its copies go when the page is closed; the files in outputs/ stay."
    )
    runs = gr.Gallery(label="Runs", columns=3, object_fit="contain", allow_preview=False, buttons=[], elem_id="runs")
    chosen = gr.State(None)
    command = _command_field()
    files = _files("Images of the run")
    again = gr.Button("Use these settings", elem_id="again")
    given = gr.File(label="Or upload an image drawn here or by sample.py", file_types=[".png"])

    tab.select(choosing.history, None, runs, **QUICK)
    runs.select(choosing.recall, None, [command, files, chosen], **QUICK)
    again.click(choosing.reuse, chosen, controls, **QUICK)
    given.upload(choosing.restore, given, controls, **QUICK)


def _start_button(handlers: Handlers, text: str, name: str) -> Any:
    """A button, beside one that stops it; returned is the event after which to start."""
    with gr.Row():
        start = gr.Button(text, variant="primary", elem_id=name, scale=3)
        stop = gr.Button("Cancel", elem_id=f"cancel-{name}", scale=1, min_width=100)
    stop.click(handlers.cancel, None, None, queue=False, **QUICK)
    # outside the queue, so that Cancel knows of what still waits in it
    return start.click(handlers.ask, gr.State(name), None, queue=False, **QUICK)


def _files(label: str) -> gr.File:
    """Where the images of a run can be had."""
    return gr.File(label=label, file_count="multiple", interactive=False, elem_classes="files")


def _command_field() -> gr.Textbox:
    """Where the command is shown that does the same."""
    return gr.Textbox(label="The same on the command line", interactive=False, lines=2)
