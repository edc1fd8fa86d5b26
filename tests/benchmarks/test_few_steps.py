"""The image of few steps beside the converged solution."""

from __future__ import annotations

import re

from PIL import Image

from benchmarks.few_steps import main


def test_it_writes_five_rows_a_domain_and_the_error_of_four(tmp_path, capsys):
    main(["--domains", "landscapes", "--steps", "5", "--images", "2", "--output", str(tmp_path / "few.png")])
    *lines, saved = capsys.readouterr().out.splitlines()
    errors = {line.split("RMSE")[0].split(maxsplit=1)[1].strip(): float(line.split()[-1]) for line in lines}
    assert list(errors) == ["ddim uniform 5", "dpm_solver quadratic 5", "adaptive 5", "adaptive 10"]
    assert errors["adaptive 10"] < errors["adaptive 5"] < errors["ddim uniform 5"]
    width, height = Image.open(tmp_path / "few.png").size
    assert re.search(r"few\.png$", saved)
    assert height > 5 * 64 > 2 * 64 < width  # five rows of two, with labels
