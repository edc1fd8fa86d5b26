"""What a sampling run prints at its end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..diffusion.conditions import NO_LABEL
from ..diffusion.guidance import name_of, reads_text
from ..io.counted import count
from ..metrics.quality import Measurement
from .first_use import advice_of_own_guidance
from .job import in_sweep
from .measure_run import SECONDS_PER_IMAGE
from .naming import drawn_by, guidance_of_steps, timesteps_source
from .output import log_rows, look
from .sample_files import QUALITY
from .setup import Setup

LONGEST_PROMPT = 60  # characters that are printed


def print_summary(
    setup: Setup, metrics: Mapping[str, float], quality: list[Measurement], folder: Path, page: str | None
) -> None:
    """Print what was drawn, where it is, and how to look at it.

    Args:
        setup: What drew.
        metrics: The numbers of the run.
        quality: What was measured of the images.
        folder: Of the run.
        page: Address of the run in the tracker's UI, or None.
    """
    cfg, m = setup.cfg, metrics
    steps = count(m["details/steps"], "step")
    evaluations = count(round(m["sampling/nfe"], 2), "network evaluation")
    passes = count(round(m["sampling/passes"], 2), "pass")

    rows = _prompt(setup)
    rows["images"] = _images(setup)
    if (labels := str(setup.conditions)) and not _unguided(setup):
        rows["labels"] = labels
    rows["scheduler"] = f"{' '.join(drawn_by(cfg))}, {steps}, {evaluations} ({passes}) per image"
    if source := timesteps_source(setup):
        advice = advice_of_own_guidance(cfg, setup.model) if guidance_of_steps(setup) else ""
        rows["steps"] = f"{source}\n{advice}".rstrip()
    rows |= {
        "time": f"{m['details/seconds']:.2f} s, {m[SECONDS_PER_IMAGE]:.3g} s per image, "
        f"a step {m['details/step_seconds']:.3g} s (median)",
        "memory": f"{m['sampling/peak_mib']:.0f} MiB at most",
        "saved": str(folder / "pictures.png"),
    }
    if cfg.init_image is not None:
        first, taken = setup.scheduler.timesteps[0], len(setup.scheduler)
        rows["begins"] = f"at init_image, noisy as at t = {first:g}: the last {taken} of {count(cfg.num_steps, 'step')}"

    if (estimated := m.get("sampling/estimated_quality")) is not None:
        rows["estimated"] = f"quality {estimated:.3f}"
    if (expected := m.get("sampling/expected_quality")) is not None:
        rows["expected"] = f"quality {expected:.3f} of that many steps, target {m['details/quality_target']:g}"
    if lines := [*_measured(quality), *_of_a_part(setup, quality)]:
        rows["quality"] = "\n".join(lines)

    # A sweep ends with a table of all jobs, and says how to look at them.
    if in_sweep():
        rows = {name: rows[name] for name in ("scheduler", "time", "saved")}
    else:
        rows |= look(setup.tracker, page)

    log_rows(rows)


def _measured(quality: list[Measurement]) -> list[str]:
    """What was measured, a line each; what the images are too few for shares the last."""
    lines = [str(m) for m in quality if m.meaningful]
    if few := [m for m in quality if not m.meaningful]:
        lines.append(f"too few images for {', '.join(m.name for m in few)}; {QUALITY} says why")
    return lines


def _of_a_part(setup: Setup, quality: list[Measurement]) -> list[str]:
    """A line about distances and recall where the images show a part of their domain; [] where they show all of it."""
    cfg = setup.cfg
    label = cfg.label if cfg.label not in (None, NO_LABEL) else "the prompt" if reads_text(setup.model) else None
    if label is None or "recall" not in {m.name for m in quality}:
        return []
    return [f"{label} is compared with all of {cfg.domain.name}: by that, distances are large and recall is small"]


def _prompt(setup: Setup) -> dict[str, str]:
    """What a prompt led to, or what a model that reads was given in its place; {} otherwise."""
    reads = reads_text(setup.model)
    if (c := setup.choice) is not None:
        label = "" if reads or c.label is None else f", {c.label} ({c.label_confidence:.0%})"
        prompt = setup.cfg.prompt[:LONGEST_PROMPT]
        sure = "" if c.domain_confidence is None else f" ({c.domain_confidence:.0%})"
        return {"prompt": f"{prompt!r}: domain {c.domain}{sure}{label}"}
    return {"prompt": f"{setup.caption[:LONGEST_PROMPT]!r}, since none was given"} if reads else {}


def _unguided(setup: Setup) -> bool:
    """Whether the images are drawn without domain and label."""
    return setup.model.conditional and name_of(setup.denoiser.guidance_scale) == "0"


def _images(setup: Setup) -> str:
    """How many images of what, and how they were drawn."""
    cfg = setup.cfg
    label = {None: "", NO_LABEL: " (no label)"}.get(cfg.label, f" ({cfg.label})")
    what = "without domain and label" if _unguided(setup) else f"x {cfg.domain.name}{label}"
    height, width = setup.model.picture_size if cfg.image_size is None else (cfg.image_size, cfg.image_size)
    how = f"{width}x{height}, seed {cfg.seed}, guidance {name_of(setup.denoiser.guidance_scale)}"
    return f"{cfg.num_samples} {what}, {how}"
