"""Convergence is what its definition says: near the final best three times in a row, and better than untrained."""

import numpy as np
import pytest

from adaptive_diffusion.rl.convergence import Evaluation, Record, converged_at

SPREAD = np.linspace(-0.01, 0.01, 16)  # of images; its mean is 0


def evaluations(*scores: float, spread: np.ndarray = SPREAD) -> list[Evaluation]:
    first = [Evaluation(0, 0, np.full(len(spread), scores[0]), 0.0)]
    return first + [Evaluation(10 * i, 100 * i, s + spread, 0.0) for i, s in enumerate(scores) if i]


@pytest.mark.parametrize(
    ("scores", "episode"),
    [
        ((0, 0.5, 1.0, 0.99, 1.0, 1.0), 20),
        ((0, 0.99, 1.0, 1.0, 1.0, 1.0), 10),
        ((0, 1.0, 1.0, 0.9, 1.0, 1.0, 0.985), 40),  # it has to stay
        ((0, 1.0, 1.0, 1.0, 0.5, 0.5), 10),
        ((0, 1.0, 1.0, 1.0, 1.5, 1.5), None),  # the best is that of the whole training
        ((0, 0.5, 1.0, 1.0), None),  # three times
        ((1.0, 1.0, 1.0, 1.0), None),  # no better than untrained
        ((1.0, 1.001, 1.001, 1.001), None),
    ],
)
def test_the_first_evaluation_that_stays_near_the_best_counts(scores, episode):
    assert converged_at(evaluations(*scores)) == episode


def test_better_means_two_standard_errors_of_the_paired_difference():
    wide = np.linspace(-1, 1, 16)
    error = wide.std(ddof=1) / 4
    assert converged_at(evaluations(0, *[2.1 * error] * 3, spread=wide)) == 10
    assert converged_at(evaluations(0, *[1.9 * error] * 3, spread=wide)) is None


def test_a_record_survives_json_and_sums_itself_up():
    record = Record(50, [0.1] * 40 + [0.5] * 10, evaluations(0, 1, 1, 1.01), asked=7, computed=3, seconds=1.5)
    again = Record.from_dict(record.to_dict())
    summary = again.summary()
    assert summary == record.summary()
    assert (summary["convergence_achieved"], summary["convergence_episode"]) == (True, 10)
    assert (summary["episodes"], summary["mean_return"], summary["best_episode"]) == (50, pytest.approx(0.5), 30)
    assert (summary["model_evaluations"], summary["model_evaluations_computed"]) == (7, 3)
    assert Record().summary()["convergence_achieved"] is False
