"""`bench ddpm` on a small network: both libraries compute the same, in either precision."""

from __future__ import annotations

import re

import pytest

from benchmarks import ddpm

SMALL = {
    "sample_size": 8,
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


@pytest.mark.parametrize(
    ("precision", "lowest", "highest"),
    [([], 0.0, 1e-4), (["--precision", "float32"], 0.0, 1e-4), (["--precision", "bfloat16"], 1e-3, 0.1)],
)
def test_both_libraries_compute_the_same(
    precision: list[str],
    lowest: float,
    highest: float,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ddpm, "ARCHITECTURE", ddpm.ARCHITECTURE | SMALL)
    ddpm.main(["--batch-size", "1", "--repeats", "1", *precision])
    first, *rows, last = capsys.readouterr().out.splitlines()
    found = re.fullmatch(r"largest difference between the two: (\S+) \(values up to (\S+)\)", first)
    assert found is not None
    assert lowest <= float(found[1]) <= highest * float(found[2])
    assert [row.split()[0] for row in rows] == ["MLX", "PyTorch"]
    assert last.startswith("MLX takes ")
