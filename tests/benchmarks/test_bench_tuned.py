"""The comparison of tuned configurations draws both from the same noises, and says no more digits than it knows."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import tiny_model

from adaptive_diffusion.io.markdown import MINUS
from adaptive_diffusion.optimization.domain_adapter import DomainAdapter
from adaptive_diffusion.optimization.pipeline import OptimizationPipeline
from benchmarks.tuned import Block, comparison, configurations, main, measure, read_blocks, stale, write_blocks


@pytest.fixture(scope="module")
def pipeline() -> OptimizationPipeline:
    """Of the tiny model, with something tuned for landscapes alone."""
    adapter = DomainAdapter(model=tiny_model())
    adapter.learn_from_results("landscapes", 1.0, 1.0, {"num_steps": 3}, quality_error=0.01)
    return OptimizationPipeline(adapter, num_steps=2, min_steps=1)


def a_block(kind: str, seed: int, fd: float, seconds: float) -> Block:
    return Block("portraits", kind, kind, "", "m", "e", seed, 264, 10 if kind == "default" else 12, fd, seconds)


def test_only_what_differs_is_drawn_twice(pipeline):
    assert configurations(pipeline, "landscapes").keys() == {"default", "tuned"}
    as_tuned = OptimizationPipeline(pipeline.adapter, num_steps=3, min_steps=1)
    assert configurations(as_tuned, "landscapes") == {"default": as_tuned.default_config("landscapes")}


def test_blocks_of_both_come_from_the_same_noises_and_are_kept(pipeline, tmp_path):
    blocks = list(measure(pipeline, "landscapes", pictures=5, blocks=2, batch_size=3))
    assert [(b.kind, b.seed, b.evaluations) for b in blocks] == [
        ("default", 5000, 2),
        ("tuned", 5000, 3),
        ("default", 5001, 2),
        ("tuned", 5001, 3),
    ]
    assert len({b.fd_encoder for b in blocks}) == 4
    assert all(b.seconds > 0 for b in blocks)
    again = list(measure(pipeline, "landscapes", pictures=5, blocks=2, batch_size=5))
    np.testing.assert_allclose([b.fd_encoder for b in again], [b.fd_encoder for b in blocks], rtol=1e-2)
    write_blocks(tmp_path / "tuned.csv", blocks)
    assert read_blocks(tmp_path / "tuned.csv") == blocks


def test_the_difference_is_that_of_pairs():
    noises = np.array([0.0, 3.0, -3.0, 6.0])  # shared by both, much larger than their difference
    blocks = [a_block("default", i, 40 + noise, 0.2) for i, noise in enumerate(noises)]
    blocks += [a_block("tuned", i, 39 + noise + 0.1 * i, 0.25 + 0.01 * i) for i, noise in enumerate(noises)]
    *_, row = comparison(blocks)
    _, domain, evaluations, fd, seconds, n, _ = [cell.strip() for cell in row.split("|")]
    assert (domain, evaluations, n) == ("portraits", "10 → 12", "4 x 264")
    assert fd == f"42 ± 4 → 41 ± 4 ({MINUS}0.8 ± 0.1)"
    assert seconds == "0.200000 ± 0.000000 → 0.27 ± 0.01 (+0.07 ± 0.01)"


def test_what_the_default_is_stands_alone():
    *_, row = comparison([a_block("default", i, 40 + i, 0.2 + 0.01 * i) for i in range(3)])
    assert "→" not in row
    assert "| 41 ± 1 |" in row


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match="benchmarks tuned --output"):
        read_blocks(tmp_path / "none.csv")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="make it again"):
        read_blocks(tmp_path / "other.csv")
    with pytest.raises(ValueError, match="no tuned configurations"):
        main(["--tuned", str(tmp_path / "none.json")])


def test_sizes_that_say_nothing_are_refused(pipeline):
    with pytest.raises(ValueError, match="blocks"):
        next(measure(pipeline, "landscapes", pictures=5, blocks=1))


def test_the_file_is_stale_once_something_else_is_tuned(pipeline, tmp_path):
    path = tmp_path / "tuned.csv"
    assert "benchmarks tuned --output" in stale(pipeline, ["landscapes"], path)
    write_blocks(path, list(measure(pipeline, "landscapes", pictures=2, blocks=2)))
    assert stale(pipeline, ["landscapes"], path) is None
    assert "portraits" in stale(pipeline, ["landscapes", "portraits"], path)
    other = OptimizationPipeline(pipeline.adapter, num_steps=3, min_steps=1)
    assert "other configurations of landscapes" in stale(other, ["landscapes"], path)
