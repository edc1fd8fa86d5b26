"""The tabs of the page: what each shows, and what it starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from .bounds import FEWEST_EPISODES, FIELDS, MOST_CELLS, MOST_EPISODES, MOST_STEPS
from .choosing import Choosing
from .curve import MOST_PASSES, domains, images
from .drawing import Drawing
from .looking import Looking
from .pieces import (
    COMPUTES,
    QUICK,
    command_field,
    file_list,
    grid_and_guidance,
    plot,
    scheduler_and_steps,
    slider,
    start_button,
    use_button,
)
from .tuning import AIMS, Tuning

Controls = list[Any]  # components, in the order of the fields of `Wish`

SHEET_STEPS = (4, 5, 6, 8, 10, 15, 20, 25, 35, 50)


def draw_tab(drawing: Drawing, controls: Controls) -> gr.events.Dependency:
    start = start_button(drawing, "Draw", "draw")
    picture = gr.Image(label="Images", buttons=["download", "fullscreen"], elem_id="picture", alt_text="What is drawn")
    status = gr.Markdown(elem_id="status")
    command = command_field()
    files = file_list("Images as files (each carries its settings)")
    outputs = [picture, status, files, command]
    return start.success(drawing.draw, controls, outputs, show_progress_on=status, **COMPUTES)


def compare_tab(drawing: Drawing, controls: Controls) -> None:
    gr.Markdown("Left: as the controls say. Right: in another way, from the same noise.")
    right = " on the right"
    with gr.Row():
        other = scheduler_and_steps(drawing.offers, "ddim", 50, right)
    with gr.Accordion("Guidance and grid on the right", open=False, elem_id="right"):
        other += grid_and_guidance(drawing.offers, right)
    start = start_button(drawing, "Compare", "compare")
    pair = gr.ImageSlider(label="Left and right", interactive=False, buttons=["fullscreen"], elem_id="slider")
    status, command = gr.Markdown(elem_id="compared"), command_field()
    start.success(drawing.compare, [*other, *controls], [pair, status, command], show_progress_on=status, **COMPUTES)


def sheet_tab(drawing: Drawing, controls: Controls) -> None:
    gr.Markdown(f"The first image, drawn by each scheduler in each number of steps: at most {MOST_CELLS} images.")
    common = [name for name in ("ddim", "dpm_solver", "unipc", "adaptive") if name in drawing.offers.schedulers]
    schedulers = gr.Dropdown(list(drawing.offers.schedulers), value=common, multiselect=True, label="Schedulers")
    steps = gr.CheckboxGroup([(str(n), n) for n in SHEET_STEPS], value=[5, 10], label="Numbers of steps")
    start = start_button(drawing, "Draw the sheet", "sheet")
    sheet = gr.Image(
        label="Sheet", show_label=False, buttons=["download", "fullscreen"], alt_text="One image by several schedulers"
    )
    status, command = gr.Markdown(elem_id="sheet-drawn"), command_field()
    start.success(
        drawing.sheet, [schedulers, steps, *controls], [sheet, status, command], show_progress_on=status, **COMPUTES
    )


def schedule_tab(looking: Looking, controls: Controls, tab: gr.Tab) -> None:
    start = gr.Button("Show the schedule", variant="primary", elem_id="schedule")
    line = gr.Markdown(elem_id="scheduled")
    curve = plot("Where the network is evaluated", "Timestep and log-SNR of each step")
    heads = ["step", "timestep", "noise level", "log-SNR", "passes"]
    table = gr.Dataframe(headers=heads, label="Steps", interactive=False)
    asked = [tab.select, start.click]
    gr.on(asked, looking.schedule, controls, [curve, table, line], trigger_mode="always_last", **COMPUTES)


def afford_tab(looking: Looking, choosing: Choosing, controls: Controls, arrived: gr.events.Dependency) -> None:
    wanted = dict(zip(FIELDS, controls, strict=True))["domain"]
    measured = domains()
    gr.Markdown(
        "How near to real images does each method come with a given number of passes through the network? "
        f"Measured on {images():,} images a point of the shipped model, drawn with mixed labels; guidance is "
        "constant where it is not called tuned. The *distance* is the Frechet distance by the project's encoder: "
        "smaller is better, and as many real images among themselves are about 1 apart. Bars: one standard error."
    )
    with gr.Row():
        first = wanted.value if wanted.value in measured else measured[0]
        domain = gr.Dropdown(measured, value=first, label="Domain that was measured")
        passes = slider(1, MOST_PASSES, 7, label="Passes per image")
    line = gr.Markdown(elem_id="afford")
    use = use_button("use-measured")
    curve = plot("Distance, by passes", "Distance to real images by passes, for each method")
    heads = ["method", "steps", "first evaluation", "passes", "distance"]
    table = gr.Dataframe(headers=heads, label="Within the budget, the nearest of each method", interactive=False)
    for event in (domain.change, passes.change, arrived.then):
        event(looking.afford, [domain, passes], [curve, table, line], trigger_mode="always_last", **QUICK)
    use.click(choosing.adopt_measured, [domain, passes, *controls], controls, **QUICK)


def calibrate_tab(drawing: Drawing, looking: Looking, controls: Controls, tab: gr.Tab) -> gr.events.Dependency:
    """What it costs is said when the tab is opened."""
    gr.Markdown(
        "Follows the model's trajectories once, and finds the timesteps and weights for a number of steps in this "
        "domain, with this guidance. The result is kept, and `adaptive` uses it from then on. "
        "What is calibrated already is drawn at once."
    )
    steps = slider(2, MOST_STEPS, 7, label="Steps to calibrate")
    cost = gr.Markdown(elem_id="calibration-cost")
    start = start_button(drawing, "Calibrate", "calibrate")
    status = gr.Markdown(elem_id="calibrated")
    picture = gr.Image(
        label="Drawn with these steps", buttons=["download"], alt_text="What is drawn with the calibrated steps"
    )
    command = command_field()
    files = gr.File(visible=False, interactive=False, label="Images as files")
    asked = [steps, *controls]
    gr.on([tab.select, steps.change], looking.calibration, asked, cost, trigger_mode="always_last", **COMPUTES)
    depends_on = ("model", "prompt", "domain", "label", "grid", "guidance", "weight")
    forget(controls, depends_on, [cost])
    outputs = [picture, status, files, command]
    return start.success(drawing.calibrate, asked, outputs, show_progress_on=status, **COMPUTES)


def tune_tab(tuning: Tuning, choosing: Choosing, controls: Controls, tab: gr.Tab) -> None:
    """What it costs is said when the tab is opened, and again before a tuning begins."""
    gr.Markdown(
        "Searches for the weight of guidance, the noise levels that need it and the number of steps, in the chosen "
        "domain, up to the Steps of the controls. What it finds is compared, on fresh noises, with the default: the "
        "adaptive scheduler at constant guidance, with the Steps and the Weight of the controls; and with the tuned "
        "setting in use, if any. It is kept if it is better by more than two standard errors. Scheduler, Guidance and "
        "Label of the controls are ignored here."
    )
    aim = gr.Radio(list(AIMS), value=next(iter(AIMS)), label="What counts")
    episodes = slider(FEWEST_EPISODES, MOST_EPISODES, 20, step=10, label="Episodes of the search")
    cost = gr.Markdown(elem_id="tuning-cost")
    start = start_button(tuning, "Tune", "tune")
    status = gr.Markdown(elem_id="tuned")
    heads = ["", "steps", "passes", "guidance", "quality gained"]
    with gr.Column(visible=False) as result:
        table = gr.Dataframe(headers=heads, label="Default, in use, and found", interactive=False)
        gr.Markdown(
            "A *quality gained* of 1 is 0.1 less in distance to the domain's real images than the default. The *score* "
            "of the sentence above is that quality or, where fewer passes count, a third of it and two thirds of the "
            "share of passes that was saved. Behind +- is one standard error."
        )
        use = use_button("use")
    found = gr.State([])
    command = command_field()

    asked = [aim, episodes, *controls]
    told = [cost, command]
    shown_on_cost = {"show_progress_on": cost, **COMPUTES}
    gr.on([tab.select, episodes.change], tuning.look, asked, told, trigger_mode="always_last", **shown_on_cost)
    forget(controls, ("model", "prompt", "domain", "steps", "weight"), told, aim)
    said = start.success(tuning.estimate, asked, told, **shown_on_cost)
    # Cancel during the estimate ends this, too: it was asked for before
    said.success(tuning.tune, asked, [status, table, found, result], show_progress_on=status, **COMPUTES)
    use.click(choosing.adopt, found, controls, **QUICK)


def history_tab(choosing: Choosing, controls: Controls, tab: gr.Tab) -> None:
    """The runs are listed when the tab is opened."""
    gr.Markdown(
        "What this browser has drawn, for about a day; no other sees it. Select a run to see its command, files and "
        "settings. The list goes when the program ends; the files of the runs stay where `sample` writes them."
    )
    runs = gr.Gallery(label="Runs", columns=3, object_fit="contain", allow_preview=False, buttons=[], elem_id="runs")
    chosen = gr.State(None)
    command = command_field()
    files = file_list("Images of the run")
    again = use_button("again")
    with gr.Accordion("config.yaml", open=False):
        config = gr.Textbox(
            label="Every setting of the run", interactive=False, lines=4, max_lines=20, buttons=["copy"]
        )
    given = gr.File(label="Or upload an image drawn here or by sample.py", file_types=[".png"], elem_id="given")

    tab.select(choosing.history, None, runs, **QUICK)
    runs.select(choosing.recall, None, [command, files, config, chosen], **QUICK)
    again.click(choosing.reuse, chosen, controls, **QUICK)
    given.upload(choosing.restore, given, controls, **QUICK)


def forget(controls: Controls, names: Sequence[str], outputs: Sequence[Any], *more: Any) -> None:
    """Clear what was said of other values of the controls, once they change.

    It happens in the browser, so that it comes before what is asked for next.

    Args:
        controls: All of them.
        names: Fields of `Wish` that it was said of.
        outputs: Where it stands.
        more: Other components that it was said of.
    """
    of = dict(zip(FIELDS, controls, strict=True))
    changes = [each.change for each in (*more, *(of[name] for name in names))]
    gr.on(changes, None, None, list(outputs), js=f"() => {[''] * len(outputs)}")
