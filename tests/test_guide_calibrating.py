"""The Python of docs/guide/own-denoiser.md does what the page says, and calibrating.md names what ships."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from adaptive_diffusion.diffusion.guidance import Interval
from adaptive_diffusion.grids.calibrated import merged
from adaptive_diffusion.grids.schedule_file import SHIPPED, load_schedules

GUIDE = Path(__file__).parent.parent / "docs" / "guide"


def test_the_python_blocks_run_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (GUIDE / "own-denoiser.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    calibrated: dict[str, Any] = {}
    exec(blocks[0], calibrated)
    assert calibrated["images"].shape == (4, 32, 32, 3)
    assert set(calibrated["schedule"].steps) == {8}
    assert load_schedules(tmp_path / "mine.json")[0].model == "my network"

    exec(blocks[1], calibrated)
    assert calibrated["make"]().identity == "my network"
    exec(blocks[2], found := dict[str, Any]())
    assert found["scheduler"].calibration is found["calibration"]


def test_the_numbers_of_steps_that_ship_are_those_of_the_pages() -> None:
    known = merged(load_schedules(SHIPPED))
    constant, tuned = (
        {tuple(s.steps) for s in known if isinstance(s.guidance_scale, kind)} for kind in (float, Interval)
    )
    assert tuned == {tuple(range(4, 11))}, "4 to 10 steps, as the page says"
    (shipped,) = constant
    listed = re.search(r"at guidance 1\.5: ([\d, and]+) steps", (GUIDE / "calibrating.md").read_text(encoding="utf-8"))
    assert listed is not None
    assert tuple(map(int, re.findall(r"\d+", listed[1]))) == shipped
