"""What distances between real images are printed."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from adaptive_diffusion.encoder.encoder import load_builtin_encoder
from adaptive_diffusion.io.pictures import load_pictures
from adaptive_diffusion.metrics.frechet import frechet_distance
from benchmarks.real_images import main


def test_they_fall_with_the_number_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    colours = np.random.default_rng(0).uniform(0, 255, (60, 1, 1, 3))
    noise = np.random.default_rng(1).uniform(-30, 30, (60, 32, 32, 3))
    np.savez(tmp_path / "hills.npz", images=np.clip(colours + noise, 0, 255).astype(np.uint8))

    rows = []
    for images in (6, 30):
        main([f"hills={tmp_path / 'hills.npz'}", "--images", str(images), "--draws", "2"])
        rows += csv.DictReader(io.StringIO(capsys.readouterr().out))

    few, many = ({name: float(row[f"{name}_mean"]) for name in ("fd_encoder", "fd_vicreg")} for row in rows)
    assert few["fd_encoder"] > many["fd_encoder"]
    assert few["fd_vicreg"] > many["fd_vicreg"]

    features = load_builtin_encoder().features(load_pictures(tmp_path / "hills.npz", 32).images)
    orders = [np.random.default_rng(seed).permutation(60) for seed in range(2)]
    expected = [frechet_distance(features[order[:30]], features[order[30:]]) for order in orders]
    assert many["fd_encoder"] == pytest.approx(np.mean(expected), rel=1e-4)
