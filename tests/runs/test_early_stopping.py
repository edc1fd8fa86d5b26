"""`sampler=quality_guided` as it is typed, without further settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny import configuration

from adaptive_diffusion.runs.sample import draw
from adaptive_diffusion.runs.setup import prepare
from adaptive_diffusion.sampling.converged import paired_rmse

IMAGES = 4


@pytest.mark.parametrize(("domain", "guidance"), [("landscapes", "default"), ("abstract", "constant")])
def test_by_default_early_stopping_saves_passes_of_the_shipped_model(
    tmp_path: Path, domain: str, guidance: str, caplog: pytest.LogCaptureFixture
) -> None:
    images, passes = {}, {}
    for sampler in ("standard", "quality_guided"):
        given = [f"sampler={sampler}", f"domain={domain}", f"guidance={guidance}", f"num_samples={IMAGES}"]
        given += ["metrics=none", "tracking=none"]
        setup = prepare(configuration("sample", tmp_path, *given))
        batches = list(draw(setup))
        images[sampler] = np.concatenate([np.array(batch.images) for batch in batches])
        passes[sampler] = setup.denoiser.cost.passes

    assert "no image can stop early" not in caplog.text
    assert passes["quality_guided"] <= 0.95 * passes["standard"]
    apart = paired_rmse(images["standard"], np.roll(images["standard"], 1, axis=0)).mean()
    assert paired_rmse(images["quality_guided"], images["standard"]).mean() < 0.25 * apart
