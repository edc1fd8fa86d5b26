"""The Python of docs/guide/calibrating.md does what the page says."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "guide" / "calibrating.md"


def test_the_python_blocks_run_as_written():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    calibrated: dict[str, object] = {}
    exec(blocks[0], calibrated)
    assert calibrated["images"].shape == (4, 32, 32, 3)
    assert set(calibrated["schedule"].steps) == {8}
    exec(blocks[1], found := {})
    assert found["scheduler"].calibration is found["calibration"]
