"""Every part of adaptive sampling is worth having: switched off, the images are further from the converged solution."""

from __future__ import annotations

from dataclasses import replace

import pytest
from program import Forked
from shipped import Shipped


@pytest.mark.parametrize(("domain", "steps"), [("landscapes", 5), ("general", 10)])
def test_each_part_makes_images_better_and_the_check_of_every_step_leaves_good_ones_alone(domain, steps):
    shipped = Shipped([domain] * 2)
    known = shipped.calibration(domain)
    only = {n: replace(found, corrections=None) for n, found in known.steps.items()}
    variants = {
        "everything": shipped.adaptive(steps, domain),
        "no check": shipped.adaptive(steps, domain, adaptive_threshold=1.0),
        "no weights": shipped.adaptive(steps, calibration=replace(known, steps=only)),
        "no calibration": shipped.adaptive(steps),
        "no second order": shipped.adaptive(steps, adaptive_threshold=0.0),
    }
    errors = {name: shipped.errors(scheduler).mean() for name, scheduler in variants.items()}
    assert errors["no check"] == pytest.approx(errors["everything"], rel=1e-3)  # it guards against what never happened
    assert errors["everything"] < errors["no weights"] < errors["no calibration"] < errors["no second order"]


def test_a_sweep_over_a_part_has_a_row_for_every_job(tmp_path):
    program = Forked(tmp_path, "num_samples=1", "num_steps=2", "domain=portraits", "metrics=none")
    code, out, err = program.run("-m", "scheduler=adaptive,ddim")
    assert code == 0, err
    table = [line.split()[:4] for line in out.splitlines() if line.lstrip().startswith("#") and "=" not in line]
    assert table == [["#0", "adaptive", "2", "4"], ["#1", "ddim", "2", "4"]]  # evaluations and passes an image
