"""The tabs that are filled when they are opened: Tune and History."""

from __future__ import annotations

import gradio as gr

from .bounds import FEWEST_EPISODES, MOST_EPISODES
from .choosing import Choosing
from .lifetime import Lifetime
from .parts import COMPUTES, QUICK, command_field, start_button
from .tuning import AIMS, Tuning


def tune_tab(
    tuning: Tuning,
    choosing: Choosing,
    lifetime: Lifetime,
    controls: list[gr.components.Component],
    tab: gr.Tab,
) -> None:
    """What it costs is said when the tab is opened, and again before a tuning begins."""
    gr.Markdown(
        "Searches for the weight of guidance, the noise levels that need it and the number of steps, in the chosen "
        "domain, up to the Steps of the controls. What it finds is compared, on fresh noises, with the default: the "
        "adaptive scheduler at constant guidance, with the Steps and the Weight of the controls. It is kept if it is "
        "better by more than two standard errors. Scheduler, Guidance and Label of the controls are ignored here."
    )
    aim = gr.Radio(list(AIMS), value=next(iter(AIMS)), label="What counts")
    episodes = gr.Slider(FEWEST_EPISODES, MOST_EPISODES, 20, step=10, label="Episodes of the search")
    cost = gr.Markdown(elem_id="tuning-cost")
    start = start_button(lifetime, "Tune", "tune")
    status = gr.Markdown(elem_id="tuned")
    heads = ["", "steps", "passes", "guidance", "quality gained"]
    table = gr.Dataframe(headers=heads, label="Default and found", interactive=False)
    found = gr.State([])
    use = gr.Button("Use these settings", elem_id="use")
    command = command_field()

    asked = [aim, episodes, *controls]
    told = [cost, command]
    gr.on([tab.select, episodes.change], tuning.estimate, asked, told, trigger_mode="always_last", **COMPUTES)
    # what was said is of other controls then; in the browser, so that it comes before what is asked for next
    model, prompt, domain, _, _, steps, _, weight, *_ = controls
    changes = [each.change for each in (aim, model, prompt, domain, steps, weight)]
    gr.on(changes, None, None, told, js="() => ['', '']")
    said = start.success(tuning.estimate, asked, told, show_progress_on=cost, **COMPUTES)
    said.success(tuning.tune, asked, [status, table, found], show_progress_on=status, **COMPUTES)
    use.click(choosing.adopt, found, controls, **QUICK)


def history_tab(choosing: Choosing, controls: list[gr.components.Component], tab: gr.Tab) -> None:
    """The runs are listed when the tab is opened."""
    gr.Markdown(
        "What this page has drawn since it was opened. Nobody else sees it. "
        "The list and its copies go when the page is closed; the files in outputs/ stay."
    )
    runs = gr.Gallery(label="Runs", columns=3, object_fit="contain", allow_preview=False, buttons=[], elem_id="runs")
    chosen = gr.State(None)
    command = command_field()
    files = gr.File(label="Images of the run", file_count="multiple", interactive=False)
    again = gr.Button("Use these settings", elem_id="again")
    given = gr.File(label="Or upload an image drawn here or by sample.py", file_types=[".png"])

    tab.select(choosing.history, None, runs, **QUICK)
    runs.select(choosing.recall, None, [command, files, chosen], **QUICK)
    again.click(choosing.reuse, chosen, controls, **QUICK)
    given.upload(choosing.restore, given, controls, **QUICK)
