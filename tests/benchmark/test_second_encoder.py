"""The benchmark's second encoder: what a cell measures besides fd_encoder, and files from before it did."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from benchmark_program import tiny_reference
from test_benchmark import RESULTS, a_cell
from tiny import tiny_encoder, tiny_model

from adaptive_diffusion.benchmark import measure, store
from adaptive_diffusion.benchmark.cell import Bench
from adaptive_diffusion.benchmark.report import markdown, summarise, write_report
from adaptive_diffusion.benchmark.second_encoder import SecondEncoder
from adaptive_diffusion.benchmark.store import load_cell, save_cell
from adaptive_diffusion.diffusion.conditions import Same
from adaptive_diffusion.diffusion.guidance import Interval
from adaptive_diffusion.diffusion.guided_model import GuidedModel
from adaptive_diffusion.encoder.domain import DomainDetector
from adaptive_diffusion.metrics.frechet import frechet_distance
from adaptive_diffusion.metrics.precision_recall import ClusterReference
from adaptive_diffusion.metrics.statistics import FeatureStatistics
from adaptive_diffusion.runs.benchmark import variant_of
from adaptive_diffusion.sampling.converged import converged_pictures

MORE = ("fd_vicreg", "precision", "recall")
ENCODER = tiny_encoder()


def a_second_encoder(seed=0):
    """The encoder of the tests with 60 noisy images, in three clusters."""
    pixels = np.random.default_rng(seed).uniform(-1, 1, (60, 8, 8, 3)).astype(np.float32)
    features, identity = ENCODER.features(pixels), (ENCODER.name, ENCODER.content_hash)
    return SecondEncoder(
        ENCODER,
        FeatureStatistics.from_features(features, *identity),
        ClusterReference.from_features(features, *identity, clusters=3),
    )


def a_bench(**more):
    given = {"reference": tiny_reference, "pictures": 5, "seed_blocks": 2, "tolerance": 1.0, "batch_size": 8}
    return Bench(tiny_model(), 1.5, ENCODER, **given | more)


def test_a_cell_measures_by_the_second_encoder_each_block_and_all_images_together(monkeypatch):
    drawn, draw = [], measure._draw

    def noted(*arguments):
        images, cost = draw(*arguments)
        drawn.append(images)
        return images, cost

    monkeypatch.setattr(measure, "_draw", noted)
    second, detector = a_second_encoder(), DomainDetector(ENCODER)
    result = measure.measure_cell(a_cell(), a_bench(second_encoder=lambda domain: second, detector=detector))

    for images, found in [*zip(drawn, result.blocks, strict=True), (np.concatenate(drawn), result)]:
        features = ENCODER.features(images)
        own = FeatureStatistics.from_features(features, ENCODER.name, ENCODER.content_hash)
        assert found.fd_vicreg == pytest.approx(frechet_distance(own, second.statistics), rel=1e-4)
        assert found.precision == second.clusters.precision(features)
        assert found.recall == pytest.approx(second.clusters.recall(features))

    for images, block in zip(drawn, result.blocks, strict=True):
        detected = [one.domain for one in detector.from_images(images)]
        assert block.domain_agreement == detected.count("landscapes") / 5

    assert result.vicreg == f"{ENCODER.name} {ENCODER.content_hash}"


def test_without_the_second_encoder_its_columns_are_empty():
    result = measure.measure_cell(a_cell(), a_bench())
    found = {getattr(one, metric) for one in (result, *result.blocks) for metric in MORE}
    assert found == {None} == {block.domain_agreement for block in result.blocks}
    assert result.vicreg == ""


def test_a_domain_that_the_detector_does_not_know_has_no_agreement():
    cell = replace(a_cell(), domain="towns")
    (*_, block) = measure.measure_cell(cell, a_bench(detector=DomainDetector(ENCODER))).blocks
    assert block.domain_agreement is None


def test_what_is_measured_decides_the_fingerprint():
    encoders = [a_second_encoder(0), a_second_encoder(1)]
    benches = [
        a_bench(),
        *(a_bench(second_encoder=lambda domain, second=second: second) for second in encoders),
        a_bench(detector=DomainDetector(ENCODER)),
    ]
    names = [store.fingerprint(a_cell(), bench) for bench in benches]
    assert len(set(names)) == 4
    assert store.fingerprint(a_cell(), a_bench(second_encoder=lambda domain: None)) == names[0]


def measured(cell):
    """A cell with numbers of the second encoder."""
    blocks = (replace(b, fd_vicreg=20.0 + b.seed, precision=0.5, recall=0.8, domain_agreement=1.0) for b in cell.blocks)
    return replace(cell, blocks=tuple(blocks), fd_vicreg=19.0, precision=0.5, recall=0.75, vicreg="vicreg/64 ab")


def test_older_cells_are_read_and_reported_beside_measured_ones(tmp_path):
    content = json.loads(json.dumps(asdict(RESULTS[0])))
    for name in (*MORE, "vicreg"):
        del content[name]
    for block in content["blocks"]:
        for name in (*MORE, "domain_agreement"):
            del block[name]
    (tmp_path / "old.json").write_text(json.dumps(content))
    save_cell(tmp_path / "new.json", measured(RESULTS[1]))
    cells = [load_cell(tmp_path / "old.json"), load_cell(tmp_path / "new.json")]
    assert cells == [RESULTS[0], measured(RESULTS[1])]

    write_report(tmp_path, cells)
    rows = {row["scheduler"]: row for row in csv.DictReader((tmp_path / "summary.csv").open())}
    new, old = rows["ddim"], rows["dpm"]
    assert [float(new[f"fd_vicreg_{end}"]) for end in ("mean", "sd", "all")] == [20.5, pytest.approx(0.5**0.5), 19]
    assert (new["precision_all"], new["recall_all"], new["domain_agreement_mean"]) == ("0.5", "0.75", "1.0")
    assert {old[f"{metric}_{end}"] for metric in MORE for end in ("mean", "sd", "all")} == {""}
    assert (new["vicreg"], old["vicreg"]) == ("vicreg/64 ab", "")
    blocks = [row["fd_vicreg"] for row in csv.DictReader((tmp_path / "results.csv").open())]
    assert blocks == ["20.0", "21.0", "", ""]


def test_the_markdown_shows_the_second_encoder_and_passes_beside_fd_encoder():
    passes = tuple(replace(block, passes=8.0) for block in measured(RESULTS[1]).blocks)
    lines = markdown(summarise([replace(measured(RESULTS[1]), blocks=passes)])).splitlines()
    overview, head, row = (line.strip("| ").split(" | ") for line in lines if line.startswith(("| ddim", "| method")))
    assert overview[1].endswith(" / 9 / 19")
    shown = dict(zip(head, row, strict=False))
    assert (shown["fd real (all)"], shown["fd vicreg (all)"], shown["fd vicreg"]) == ("9", "19", "20.5 +- 0.71")
    assert (shown["precision (all)"], shown["recall (all)"], shown["passes"]) == ("0.500", "0.750", "8")


def test_converged_solutions_have_the_guidance_of_the_cell(tmp_path):
    guidance = Interval(3.0, -1.0, 1.0)
    bench = replace(a_bench(), guidance_scale=guidance, cache=tmp_path)
    found = measure._converged(a_cell(), bench, 0, 1.0)
    model = GuidedModel.from_model(bench.model, Same((2, 0)), guidance, prediction_type="v_prediction")
    expected = converged_pictures(model, model.noise(0, 5), tolerance=1.0).images
    np.testing.assert_allclose(found.images, np.clip(expected, -1, 1), atol=1e-5)
    constant = measure._converged(a_cell(), replace(bench, guidance_scale=3.0), 0, 1.0)
    assert np.abs(constant.images - found.images).max() > 1e-3  # another solution, and another file of the cache
    assert len(list(tmp_path.glob("*.npz"))) == 2


def test_a_variant_says_the_kind_of_guidance_before_its_interval():
    given = ["scheduler=adaptive", "guidance.low=-2", "paths.outputs=x", "guidance=interval", "guidance.high=1"]
    assert " ".join(variant_of(given)) == "guidance=interval guidance.high=1 guidance.low=-2"
    assert variant_of(["label=none", "num_steps=5", "guidance_scale=2"]) == ("guidance_scale=2", "label=none")


def test_where_a_cell_is_recorded_and_what_it_is_compared_with_are_no_part_of_its_name():
    given = ["tracking.uri=http://me:secret@here", "+tracking.x=1", "paths.outputs=x", "benchmark.baseline='ddim own'"]
    assert variant_of([*given, "benchmark.tolerance=0.1"]) == ("benchmark.tolerance=0.1",)
