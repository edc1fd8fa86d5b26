"""What is known of domains: answered from measurement, learned by a stated rule, kept by any number of writers."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tiny import ROOT, tiny_model

from adaptive_diffusion import errors
from adaptive_diffusion.encoder.domain import Detection, DomainDetector
from adaptive_diffusion.encoder.encoder import load_builtin_encoder
from adaptive_diffusion.encoder.reference import load_reference
from adaptive_diffusion.metrics.features import picture_statistics
from adaptive_diffusion.optimization.configuration import DomainConfig, confidence_of
from adaptive_diffusion.optimization.domain_adapter import DomainAdapter, DomainType
from adaptive_diffusion.optimization.memory import read_records
from adaptive_diffusion.optimization.records import FORMAT, REMEMBERED, DomainRecord, Result

BETTER = {"num_steps": 8, "adaptive_threshold": 0.6, "progress_power": 2.25, "solver": "dpm_solver"}


@pytest.fixture
def adapter(tmp_path) -> DomainAdapter:
    return DomainAdapter(tmp_path / "known.json", model=tiny_model(content_hash="tiny"))


def adopt(adapter: DomainAdapter, domain: str, steps: int = 6, **more: float) -> DomainConfig:
    measured = {"quality": 0.2, "speed": 2.0, "quality_error": 0.03, "weight": 0.5, **more}
    return adapter.adopt(domain, DomainConfig(steps, source="tuned"), provenance={"pictures": 32}, **measured)


def pictures(folder, seed: int = 0, count: int = 3) -> None:
    """Noise of low contrast around a colour."""
    folder.mkdir()
    for i in range(count):
        pixels = np.random.default_rng([seed, i]).integers(90, 120, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")


# which domain


def test_the_names_are_the_specified_ones():
    assert {d.name: d.value for d in DomainType} == {d.upper(): d for d in load_builtin_encoder().config.domains}


def test_the_given_domain_wins_over_sample_and_sample_over_prompt(adapter):
    sample = np.zeros((2, 32, 32, 3), np.uint8)
    prompt = "a portrait of an old man"
    of_sample = adapter.detector.from_images(sample)[0].domain
    assert adapter.detect("abstract", prompt, sample).domain == "abstract"
    assert adapter.detect(None, prompt, sample).domain == of_sample
    assert adapter.detect(None, prompt, sample[0]).domain == of_sample
    assert adapter.detect(None, prompt).domain == "portraits" != of_sample
    assert (adapter.detect().domain, adapter.detect().confidence) == ("general", 0.0)


def test_copies_of_an_unsure_image_are_as_unsure_as_one(adapter, monkeypatch):
    unsure = Detection("general", 0.4, {"portraits": 0.1, "landscapes": 0.4, "abstract": 0.3, "general": 0.2})
    monkeypatch.setattr(adapter.detector, "from_images", lambda images: [unsure] * len(images))
    for count in (1, 2):
        assert adapter.detect(sample=np.zeros((count, 32, 32, 3), np.uint8)) == unsure


def test_an_unknown_domain_is_answered_with_what_there_is(adapter):
    sentence = (
        "there is no domain 'faces'; there are portraits, landscapes, abstract, general, and DomainAdapter.register"
    )
    with pytest.raises(ValueError, match=sentence):
        adapter.get_config("faces")
    with pytest.raises(ValueError, match="there is no domain 'faces'"):
        adapter.learn_from_results("faces", 0.1, 1.0, {"num_steps": 5})


# what is known


def test_where_nothing_is_known_the_default_is_answered_and_says_so(adapter):
    config = adapter.get_config(DomainType.ABSTRACT)
    assert config == DomainConfig(10, 0.5, 2.0, "dpm_solver")
    assert (config.confidence, config.source) == (0.0, "the default")


def test_what_was_verified_is_answered_with_its_confidence(adapter):
    adopt(adapter, "portraits")
    config = adapter.get_config("portraits")
    assert (config.num_steps, config.source) == (6, "tuned")
    assert config.confidence == pytest.approx(math.erf(0.1 / (0.5 * 0.03 * math.sqrt(2))))
    assert adapter.known("portraits").provenance == {"pictures": 32}


def test_confidence_falls_with_the_standard_error():
    assert confidence_of(0.0) == 1
    assert confidence_of(0.1) == pytest.approx(0.6827, abs=1e-4)
    assert confidence_of(0.05) == pytest.approx(0.9545, abs=1e-4)
    assert confidence_of(math.inf) == 0


def test_other_models_and_guidance_know_nothing_of_it(adapter):
    adopt(adapter, "portraits")
    for other in (
        DomainAdapter(adapter.path, model=tiny_model(content_hash="other")),
        DomainAdapter(adapter.path, model=adapter.model, guidance_scale=3),
    ):
        assert other.get_config("portraits") == DomainConfig()
    assert DomainAdapter(adapter.path, model=adapter.model).get_config("portraits").num_steps == 6


# learning


def test_a_score_weighs_quality_and_speed_and_its_error_counts_results_and_their_spread():
    known = DomainRecord("m", 1.0, "d", weight=0.25)
    assert known.score(BETTER) == (0.0, math.inf)
    known.results = [Result(BETTER, 0.4, 2.0, 0.1)]
    assert known.score(BETTER) == pytest.approx((0.25 * 0.4 + 0.75 * 0.5, 0.025))
    known.results += [Result(BETTER, 0.8, 2.0), Result({**BETTER, "num_steps": 9}, 9.0, 9.0)]
    mean, error = known.score(BETTER)
    assert mean == pytest.approx(0.25 * 0.6 + 0.75 * 0.5)
    assert error == pytest.approx(math.sqrt((0.025**2 + 0.25**2) / 4 + np.var([0.1, 0.2], ddof=1) / 2))


@pytest.mark.parametrize(("margin", "taken"), [(1e-6, True), (-1e-6, False)])
def test_a_configuration_takes_over_when_two_standard_errors_below_its_mean_are_above_the_current_mean(
    adapter, margin, taken
):
    adopt(adapter, "portraits", quality=0.2, speed=1.0, weight=0.5)  # a score of 0.1
    config = adapter.learn_from_results("portraits", 0.2 + 2 * 0.04 + margin, 1.0, BETTER, quality_error=0.04)
    assert (config.num_steps == 8) == taken
    assert config == adapter.get_config("portraits")
    if taken:
        assert config.source == "learned from 1 result"


def test_what_is_learned_was_not_verified_but_the_noises_of_the_verification_stay_used(adapter):
    measured = {"quality": 0.2, "speed": 1.0, "quality_error": 0.1, "weight": 0.5}
    adapter.adopt("portraits", DomainConfig(6), provenance={"noise_seed": 7, "pictures": 32}, **measured)
    assert adapter.learn_from_results("portraits", 5.0, 1.0, BETTER).num_steps == 8
    assert adapter.known("portraits").provenance == {"noise_seed": 7}


def test_claims_add_up_until_they_are_believed(adapter):
    adopt(adapter, "portraits", quality=0.0, speed=1.0, weight=1.0)
    believed = [adapter.learn_from_results("portraits", 0.3, 1.0, BETTER).num_steps for _ in range(4)]
    assert believed == [6, 6, 8, 8]  # 0.3 > 2 * 0.25 / sqrt(n) from n = 3 on
    assert adapter.get_config("portraits").source == "learned from 3 results"


def test_other_results_are_forgotten_in_time_but_never_those_of_the_current_configuration(adapter):
    config = adopt(adapter, "portraits", quality=0.2, speed=1.0)
    known = adapter.known("portraits")
    verified = known.score(known.config)
    for i in range(REMEMBERED + 50):
        known.learn(Result({**BETTER, "num_steps": i}, 0.02, 1.0, 0.001))
    assert known.to_config() == config
    assert known.score(known.config) == verified
    others = [r.hyperparameters["num_steps"] for r in known.results if r.hyperparameters != known.config]
    assert others == list(range(50, REMEMBERED + 50))


def test_what_is_not_said_of_a_configuration_is_the_default(adapter):
    adapter.learn_from_results("portraits", 3.0, 1.0, {"num_steps": 7})
    assert adapter.get_config("portraits").to_dict() == DomainConfig(7).to_dict()


def test_results_in_the_numbers_of_numpy_are_written_like_others(adapter, tmp_path):
    plain = DomainAdapter(tmp_path / "plain.json", model=tiny_model(content_hash="tiny"))
    for one, of in ((adapter, np.float64), (plain, float)):
        given = {"num_steps": of(7), "progress_power": of(2.25), "guidance_weight": of(2), "guidance_low": of(-1)}
        one.learn_from_results("portraits", of(0.25), of(2), given, quality_error=of(0.5))
    assert adapter.path.read_bytes() == (tmp_path / "plain.json").read_bytes()


@pytest.mark.parametrize(
    ("quality", "speed", "given", "sentence"),
    [
        (0.1, 0, {"num_steps": 5}, "speed must be .*greater than 0"),
        (math.nan, 1.0, {"num_steps": 5}, "quality must be"),
        (math.inf, 1.0, {"num_steps": 5}, "quality must be"),
        (0.1, 1.0, {"num_steps": 0}, "num_steps must be .*at least 1"),
        (0.1, 1.0, {"num_steps": 5, "adaptive_threshold": 2}, "adaptive_threshold must be"),
        (0.1, 1.0, {"num_steps": 5, "progress_power": 0}, "progress_power must be"),
        (0.1, 1.0, {"num_steps": 5, "solver": "euler"}, "solver must be one of"),
        (0.1, 1.0, {"num_steps": 5, "power": 2}, "no hyperparameter 'power'; .*num_steps,"),
        (0.1, 1.0, {"solver": "unipc"}, "hyperparameters must say num_steps"),
        (
            0.1,
            1.0,
            {"num_steps": 5, "guidance_weight": 2, "guidance_low": "x"},
            "must have low < high, got 'x' and inf",
        ),
    ],
)
def test_results_that_cannot_be_are_refused_and_nothing_is_lost(adapter, quality, speed, given, sentence):
    adopt(adapter, "portraits")
    before = adapter.path.read_bytes()
    with pytest.raises(ValueError, match=sentence):
        adapter.learn_from_results("portraits", quality, speed, given)
    assert adapter.path.read_bytes() == before


# the file


def test_it_survives_a_restart_and_without_a_path_nothing_is_written(adapter, tmp_path):
    adopt(adapter, "portraits")
    adapter.learn_from_results("landscapes", 5.0, 1.0, BETTER)
    again = DomainAdapter(adapter.path, model=adapter.model)
    for domain in ("portraits", "landscapes"):
        assert again.known(domain) == adapter.known(domain)
    names = {file.name for file in tmp_path.iterdir()}
    DomainAdapter(model=adapter.model).learn_from_results("portraits", 5.0, 1.0, BETTER)
    assert {file.name for file in tmp_path.iterdir()} == names


NO_STEPS = {"model": "m", "guidance_scale": 1, "domain": "d", "config": {"num_steps": 0}, "results": []}

WRITER = """
import sys
sys.path.insert(0, "tests")
from tiny import tiny_model
from adaptive_diffusion.optimization.domain_adapter import DomainAdapter
adapter = DomainAdapter(sys.argv[1], model=tiny_model(content_hash="tiny"))
for i in range(20):
    adapter.learn_from_results("portraits", 0.001 * i, 1.0, {"num_steps": int(sys.argv[2])})
"""


def test_processes_that_learn_into_one_file_lose_nothing(adapter):
    command = [sys.executable, "-c", WRITER, str(adapter.path)]
    writers = [subprocess.Popen([*command, steps], cwd=ROOT) for steps in ("5", "6")]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    results = adapter.known("portraits").results
    for steps in (5, 6):
        own = [r.quality for r in results if r.hyperparameters["num_steps"] == steps]
        assert own == [pytest.approx(0.001 * i) for i in range(20)]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "cannot be read as JSON .*; give another path, or move it away and make it again"),
        ("[]", "holds no tuned configurations"),
        (json.dumps({"format": "another"}), "holds no tuned configurations"),
        (
            json.dumps({"format": FORMAT, "known": [{"model": "m"}], "domains": {}}),
            "is damaged .*; move it away, and tune",
        ),
        (json.dumps({"format": FORMAT, "known": [], "domains": {"walls": {"encoder": "e"}}}), "is damaged"),
        (
            json.dumps({"format": FORMAT, "known": [], "domains": {"walls": {"encoder": "e", "features": ["x"]}}}),
            "is damaged",
        ),
        (
            json.dumps({"format": FORMAT, "known": [NO_STEPS], "domains": {}}),
            "is damaged .*num_steps must be",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_and_left_alone(adapter, content, sentence):
    adapter.path.write_text(content)
    with pytest.raises(ValueError, match=sentence):
        adapter.learn_from_results("portraits", 0.1, 1.0, BETTER)
    with pytest.raises(ValueError, match=sentence) as error:
        DomainAdapter(adapter.path)
    assert "agent=" not in errors.sentence(error.value)  # any agent may have made it
    assert adapter.path.read_text() == content


# domains of one's own, and transfer


def test_a_domain_of_ones_own_is_a_yaml_file_and_a_folder_of_pictures(adapter, tmp_path):
    pictures(tmp_path / "walls")
    (tmp_path / "walls.yaml").write_text("name: walls\npictures: walls\ndescription: bare\n")
    assert adapter.register(tmp_path / "walls.yaml") == "walls"
    assert "walls" in DomainAdapter(adapter.path, model=adapter.model).domains
    kept = read_records(adapter.path).domains["walls"]
    encoder = load_builtin_encoder()
    images = np.stack([np.asarray(Image.open(tmp_path / "walls" / f"{i}.png")) for i in range(3)])
    assert (kept["description"], kept["pictures"], kept["encoder"]) == ("bare", 3, encoder.content_hash)
    assert np.allclose(kept["features"], picture_statistics(encoder, images).mean, atol=1e-5)


def test_by_an_encoder_of_ones_own_no_domain_is_near(adapter, tmp_path, monkeypatch):
    detector = DomainDetector()
    monkeypatch.setattr(type(detector.encoder), "content_hash", "own")
    own = DomainAdapter(adapter.path, model=adapter.model, detector=detector)
    pictures(tmp_path / "walls")
    own.register_pictures("walls", tmp_path / "walls")
    adopt(own, "portraits")
    assert own.get_config("walls") == own.get_config("abstract") == DomainConfig()


def test_a_new_domain_starts_from_the_nearest_known_one(adapter, tmp_path):
    encoder = load_builtin_encoder()
    for name, seed in (("walls", 0), ("floors", 1)):
        pictures(tmp_path / name, seed)
        adapter.register_pictures(name, tmp_path / name)
    assert adapter.get_config("walls") == DomainConfig()
    places = {name: load_reference(name, encoder).mean for name in ("portraits", "abstract")}
    walls = np.array(read_records(adapter.path).domains["walls"]["features"])
    near, far = sorted(places, key=lambda name: np.linalg.norm(places[name] - walls))
    adopt(adapter, far, 5)
    assert adapter.get_config("walls").num_steps == 5
    adopt(adapter, near, 7)
    config = adapter.get_config("walls")
    assert (config.num_steps, config.confidence) == (7, 0.0)
    assert config.source == f"of {near}, the nearest known domain"
    adopt(adapter, "floors", 9)
    assert adapter.get_config("walls").num_steps == 9
    adapter.learn_from_results("walls", -1.0, 1.0, BETTER)
    assert adapter.get_config("walls").num_steps == 9  # what it began with stays
    adopt(adapter, "walls", 4)
    assert adapter.get_config("walls").num_steps == 4


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "there is no domain file"),
        ("name: [", "cannot be read as YAML"),
        ("name: walls", "must say name: .* and pictures:"),
        ("name: portraits\npictures: walls", "a name other than portraits"),
        ("name: walls\npictures: nowhere", "no images at"),
        ("name: walls\npictures: one", "needs at least 2 images to be placed, .* holds 1"),
    ],
)
def test_a_domain_that_cannot_be_read_is_refused(adapter, tmp_path, text, sentence):
    pictures(tmp_path / "walls")
    pictures(tmp_path / "one", count=1)
    file = tmp_path / "domain.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=sentence):
        adapter.register(file)
    assert not adapter.path.exists()


def test_a_configuration_keeps_its_grid_for_any_number_of_steps():
    settings = {"prediction_type": "v_prediction", "clip_sample": True}
    for solver in ("unipc", "ipndm", "dpm_solver"):
        config = DomainConfig(6, progress_power=3.0, solver=solver)
        scheduler = config.scheduler(settings)
        assert scheduler.timesteps == pytest.approx(999 * (1 - np.arange(6) / 6) ** 3)
        scheduler.set_timesteps(9)
        assert scheduler.timesteps == pytest.approx(999 * (1 - np.arange(9) / 9) ** 3)
        assert type(scheduler).from_config(scheduler.config).config == scheduler.config
    assert replace(config, confidence=0.5, source="x") == config  # what is known of it does not make it another one
