"""The facade measures what the library functions measure, under the right names, with sample sizes and caveats."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from tiny import LABELS, tiny_encoder

from adaptive_diffusion.encoder.encoder import load_builtin_encoder, save_encoder
from adaptive_diffusion.encoder.encoder_metrics import EncoderMetrics
from adaptive_diffusion.encoder.reference import (
    kernel_reference_path,
    load_kernel,
    load_reference,
    load_vicreg_reference,
)
from adaptive_diffusion.encoder.vicreg import (
    VICRegConfig,
    VICRegEncoder,
    VICRegNetwork,
    load_builtin_vicreg,
    save_vicreg,
)
from adaptive_diffusion.io.pictures import load_pictures
from adaptive_diffusion.io.pixels import prepare_all, to_float
from adaptive_diffusion.metrics.frechet import frechet_distance
from adaptive_diffusion.metrics.quality import Measurement, NoMetrics, as_metrics, attempt, mean_of, set_distances
from adaptive_diffusion.metrics.standard_metrics import StandardMetrics
from adaptive_diffusion.metrics.statistics import FeatureStatistics
from adaptive_diffusion.runs.references import main as make_references
from adaptive_diffusion.runs.references import write_reference, write_vicreg_reference
from tools.__main__ import read_reference, read_vicreg_reference

RNG = np.random.default_rng(0)
REAL = RNG.integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
DRAWN = RNG.uniform(-1, 1, (30, 8, 8, 3)).astype(np.float32)


@pytest.fixture
def references(tmp_path: Path) -> Path:
    write_reference("landscapes", REAL, tiny_encoder(), tmp_path / "references")
    return tmp_path / "references"


def measured(metrics, **options) -> dict[str, Measurement]:
    options = {"domain": "landscapes", "caption": "the sea", **options}
    return {m.name: m for m in metrics.measure(DRAWN, **options)}


def test_the_vicreg_encoder_measures_beside_the_encoder(references: Path) -> None:
    write_vicreg_reference("landscapes", prepare_all(REAL, (32, 32)), load_builtin_vicreg(), references)
    found = measured(EncoderMetrics(encoder=tiny_encoder(), references=str(references)))
    assert {"fd_encoder", "fd_vicreg", "precision", "recall"} < set(found)
    statistics, clusters = load_vicreg_reference("landscapes", load_builtin_vicreg(), references)
    features = load_builtin_vicreg().features(DRAWN)
    own = FeatureStatistics.from_features(features, "vicreg/64", statistics.encoder_hash)
    assert found["fd_vicreg"].value == pytest.approx(frechet_distance(own, statistics), rel=1e-6)
    assert (found["precision"].value, found["precision"].n) == (clusters.precision(features), 30)
    assert found["recall"].value == clusters.recall(features)
    assert "real images: 1 +- 0" in str(found["recall"])


@pytest.mark.parametrize(("n", "enough"), [(9, False), (10, True)])
def test_precision_and_recall_of_a_few_images_say_nothing(references: Path, n: int, enough: bool) -> None:
    write_vicreg_reference("landscapes", prepare_all(REAL, (32, 32)), load_builtin_vicreg(), references)
    metrics = EncoderMetrics(encoder=tiny_encoder(), references=str(references))
    found = {m.name: m for m in metrics.measure(DRAWN[:n], domain="landscapes", caption="the sea")}
    assert (found["precision"].meaningful, found["recall"].meaningful) == (enough, enough)


def test_too_few_real_images_are_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for n in (23, 24):  # 4 x 6 dimensions
        write_reference("landscapes", REAL[:n], tiny_encoder(), tmp_path)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "landscapes: a distance to these images is not meaningful in itself: 23 real images are fewer than 4 x 6 "
        "dimensions, so bias dominates; compare it only with distances at the same size"
    ]
    assert measured(EncoderMetrics(encoder=tiny_encoder(), references=str(tmp_path)))["fd_encoder"].caveat is None

    write_reference("landscapes", REAL[:23], tiny_encoder(), tmp_path)
    write_vicreg_reference("landscapes", prepare_all(REAL[:23], (32, 32)), load_builtin_vicreg(), tmp_path)
    found = measured(EncoderMetrics(encoder=tiny_encoder(), references=str(tmp_path)))
    assert "23 real images" in str(found["fd_encoder"].caveat)
    assert "23 real images make one cluster" in str(found["precision"].caveat)
    assert {name for name, m in found.items() if not m.meaningful} >= {"fd_encoder", "precision", "recall"}

    write_reference("landscapes", REAL[:14], tiny_encoder(), tmp_path)
    found = measured(EncoderMetrics(encoder=tiny_encoder(), references=str(tmp_path)))
    assert "noise dominates with 14 real images, fewer than the 15" in str(found["kid_encoder"].caveat)


def test_references_of_another_vicreg_encoder_are_stale_and_refused(references: Path) -> None:
    vicreg = load_builtin_vicreg()
    with pytest.raises(ValueError, match="landscapes_vicreg"):
        read_vicreg_reference("landscapes", vicreg, references)
    write_vicreg_reference("landscapes", prepare_all(REAL, (32, 32)), vicreg, references)
    read_vicreg_reference("landscapes", vicreg, references)
    other = VICRegEncoder(vicreg.network, {"content_hash": "other"})
    with pytest.raises(ValueError, match=r"not with vicreg/64 \(other\)"):
        read_vicreg_reference("landscapes", other, references)


@pytest.mark.parametrize("kind", [str, Path])
def test_files_of_encoders_are_given_as_a_path_and_read_as_they_are_now(kind, tmp_path: Path) -> None:
    encoder, vicreg = tmp_path / "encoder.safetensors", tmp_path / "vicreg.safetensors"
    for seed in (0, 1):
        save_encoder(encoder, tiny_encoder().network, {"seed": seed})
        mx.random.seed(seed)
        written = save_vicreg(vicreg, VICRegNetwork(VICRegConfig(16, (4,), 20)), {})
        metrics = EncoderMetrics(encoder=kind(encoder), references=tmp_path, vicreg=kind(vicreg))
        assert metrics.encoder.metadata["seed"] == seed
        assert metrics.vicreg.content_hash == written


def test_the_references_that_ship_fit_the_vicreg_encoder_that_ships() -> None:
    for domain in LABELS:
        read_vicreg_reference(domain, load_builtin_vicreg())


def test_the_encoders_numbers_carry_its_name_and_the_sample_size(references: Path) -> None:
    found = measured(EncoderMetrics(encoder=tiny_encoder(), references=str(references)))
    assert set(found) == {"fd_encoder", "kid_encoder", "clip_encoder", "domain_agreement"}
    assert {m.n for m in found.values()} == {30}


def test_the_distance_to_the_reference_is_the_distance_to_its_pictures(references: Path) -> None:
    encoder = tiny_encoder()
    found = measured(EncoderMetrics(encoder=encoder, references=str(references)))
    expected = frechet_distance(encoder.features(DRAWN), encoder.features(REAL))
    assert found["fd_encoder"].value == pytest.approx(expected, rel=1e-6)


def test_too_few_pictures_are_flagged_and_not_hidden(references: Path) -> None:
    metrics = EncoderMetrics(encoder=tiny_encoder(), references=str(references))
    assert measured(metrics)["fd_encoder"].caveat is None  # 30 >= 4 x 6
    few = {m.name: m for m in metrics.measure(DRAWN[:10], domain="landscapes", caption="the sea")}
    assert "not meaningful" in str(few["fd_encoder"])
    assert "n = 10" in str(few["fd_encoder"])


@pytest.mark.parametrize(
    ("shift", "n", "caveat"),
    [
        (0.0, 16, "subsets of 8 images noise dominates; draw more"),
        (0.0, 2, "subsets of 2 images noise"),
        (3.0, 2, "subsets of 2 images noise"),  # which have no spread
        (3.0, 4, "subsets of 2 images noise"),  # whose spread happens to be small
        (3.0, 62, "subsets of 31 images noise"),
        (3.0, 64, None),
    ],
)
def test_a_kernel_distance_within_its_spread_is_flagged(shift: float, n: int, caveat: str | None) -> None:
    rng = np.random.default_rng(1)
    found = set_distances("encoder", rng.normal(shift, 1, (n, 6)), tiny_encoder(), rng.normal(0, 1, (200, 6)), None)
    (distance,) = [m for m in found if m.name == "kid_encoder"]
    assert distance.caveat is None if caveat is None else caveat in str(distance)


@pytest.mark.parametrize(
    ("value", "spread", "said"),
    [
        (188169.7, 87084.7, "188,200 +- 87,100"),
        (-1640.4, 4074.1, "-1,640 +- 4,070"),
        (999.96, 0.00123, "1,000 +- 0.00123"),
        (46.416, 6.517, "46.42 +- 6.52"),
        (2e10, None, "2e+10"),
    ],
)
def test_large_numbers_are_written_without_powers_of_ten(value: float, spread: float | None, said: str) -> None:
    assert str(Measurement("kid_encoder", value, 16, spread)) == f"kid_encoder {said} (n = 16)"


def test_one_picture_has_no_distance_between_sets_but_a_score(
    references: Path, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = EncoderMetrics(encoder=tiny_encoder(), references=str(references))
    with caplog.at_level("INFO"):
        names = [m.name for m in metrics.measure(DRAWN[:1], domain="landscapes", caption="the sea")]
    assert names == ["clip_encoder", "domain_agreement"]
    assert "no distances to real images, precision and recall: they take at least two images" in caplog.text


def test_a_domain_of_ones_own_has_no_distance_to_a_reference(references: Path) -> None:
    found = measured(EncoderMetrics(encoder=tiny_encoder(), references=str(references)), domain="cats")
    assert set(found) == {"clip_encoder"}


def test_a_folder_of_references_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="is no folder"):
        EncoderMetrics(encoder=tiny_encoder(), references="/nonexistent")


def test_converged_pictures_add_the_paired_distance(references: Path) -> None:
    metrics = EncoderMetrics(converged=True, encoder=tiny_encoder(), references=str(references))
    found = measured(metrics, converged=DRAWN)
    assert found["perceptual_encoder"].value == pytest.approx(0, abs=1e-6)
    assert measured(metrics, converged=DRAWN[::-1].copy())["perceptual_encoder"].value > 0.01


def test_statistics_of_another_encoder_are_refused(references: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny_encoder()
    read_reference("landscapes", encoder, references)
    monkeypatch.setitem(encoder.metadata, "content_hash", "retrained")
    for load in (load_reference, read_reference):
        with pytest.raises(ValueError, match="make them again"):
            load("landscapes", encoder, references)


def test_an_unknown_domain_gets_a_sentence_with_the_known_ones(references: Path) -> None:
    with pytest.raises(ValueError, match=r"'cats'; there are those of landscapes$"):
        load_reference("cats", tiny_encoder(), references)


def test_only_the_published_inception_is_called_fid() -> None:
    features, real = RNG.normal(size=(30, 4)), RNG.normal(size=(40, 4))
    for kind, names in [("fid", ["fid", "kid"]), ("fd_inception", ["fd_inception", "fd_inception_kernel"])]:
        assert [m.name for m in set_distances(kind, features, tiny_encoder(), real, None)] == names


def test_bare_statistics_give_no_kernel_distance() -> None:
    encoder = tiny_encoder()
    real = FeatureStatistics.from_features(RNG.normal(size=(40, 4)), encoder.name, encoder.content_hash)
    assert [m.name for m in set_distances("fid", RNG.normal(size=(30, 4)), encoder, real, None)] == ["fid"]


def test_moments_of_another_encoder_are_refused_too(
    references: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = tiny_encoder()
    before = kernel_reference_path("landscapes", references).read_bytes()
    monkeypatch.setitem(encoder.metadata, "content_hash", "retrained")
    write_reference("landscapes", REAL, encoder, references)
    kernel_reference_path("landscapes", references).write_bytes(before)  # as if interrupted between the two files
    for load in (load_kernel, read_reference):
        with pytest.raises(ValueError, match="make them again"):
            load("landscapes", encoder, references)

    found = measured(EncoderMetrics(encoder=encoder, references=str(references)))
    assert "make them again" in caplog.text
    assert set(found) == {"clip_encoder", "domain_agreement"}  # the images were drawn: the rest is measured


def test_a_caption_without_a_word_costs_only_its_own_measure(
    references: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = measured(EncoderMetrics(encoder=tiny_encoder(), references=str(references)), caption="夕暮れ")
    assert set(found) == {"fd_encoder", "kid_encoder", "domain_agreement"}
    assert "clip_encoder could not be measured" in caplog.text


def test_a_bug_in_a_measure_leaves_its_traceback_in_the_log_and_a_refusal_does_not(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adaptive_diffusion.errors.traceback_log.propagate", True)  # Hydra sets it to False
    assert attempt("the quality", lambda: [mean_of("m", 3.0)], []) == []  # type: ignore[arg-type]
    assert attempt("fid", lambda: float((np.ones(2) + np.ones(3)).sum()), 0.0) == 0
    assert attempt("kid", lambda: FeatureStatistics.load(Path("missing.npz")), None) is None
    assert [record.exc_info is not None for record in caplog.records] == [True, False, True, False, False]
    assert "the quality could not be measured: TypeError: object of type 'float' has no len()" in caplog.text


def test_an_encoder_of_ones_own_is_given_by_its_file(tmp_path: Path) -> None:
    save_encoder(tmp_path / "e.safetensors", tiny_encoder().network, {})
    metrics = EncoderMetrics(encoder=str(tmp_path / "e.safetensors"), references=str(tmp_path))
    assert set(measured(metrics)) == {"clip_encoder", "domain_agreement"}
    with pytest.raises(ValueError, match="no model file"):
        EncoderMetrics(encoder=str(tmp_path / "none.safetensors"))


def test_missing_weights_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADAPTIVE_DIFFUSION_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(ValueError, match="weights of FID were not found"):
        StandardMetrics(reference=str(tmp_path))


class Inception:
    """Stands in for the network: 4 features, by the mean colours of an image."""

    name, content_hash, metric_name = "inception_v3/2048", "weights", "fid"

    def features(self, images: np.ndarray) -> np.ndarray:
        x = np.asarray(images, np.float32)
        x = x / 127.5 - 1 if np.asarray(images).dtype == np.uint8 else x
        return np.concatenate([x.mean(axis=(1, 2)), x.std(axis=(1, 2, 3))[:, None]], axis=1)


@pytest.fixture
def inception(monkeypatch: pytest.MonkeyPatch) -> Inception:
    stand_in = Inception()
    monkeypatch.setattr("adaptive_diffusion.metrics.standard_metrics.load_inception", lambda path: stand_in)
    return stand_in


def test_the_reference_of_fid_is_pictures_or_statistics(tmp_path: Path, inception: Inception) -> None:
    np.savez(tmp_path / "real.npz", images=REAL)
    features = inception.features(REAL)
    FeatureStatistics.from_features(features, inception.name, "weights").save(tmp_path / "stats.npz")
    pictures = measured(StandardMetrics(reference=str(tmp_path / "real.npz"), clip=None))
    statistics = measured(StandardMetrics(reference=str(tmp_path / "stats.npz"), clip=None))
    assert set(pictures) == {"fid", "kid"}
    assert set(statistics) == {"fid"}
    assert statistics["fid"].value == pytest.approx(pictures["fid"].value, rel=1e-6)


@pytest.mark.parametrize("size", [(12, 12), (8, 20), (20, 8), (9, 14)])
def test_the_reference_is_prepared_as_the_pictures_are_whatever_their_shape(
    tmp_path: Path, inception: Inception, size: tuple[int, int]
) -> None:
    from PIL import Image

    pictures = np.random.default_rng(1).integers(0, 256, (12, *size, 3), dtype=np.uint8)
    pictures[..., : size[1] // 4, :] = 0  # what cropping to a square would lose
    for i, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(tmp_path / f"{i:02}.png")

    write_reference("landscapes", load_pictures(tmp_path, 8).images, tiny_encoder(), tmp_path / "references")
    for name, metrics in {
        "fid": StandardMetrics(reference=str(tmp_path), clip=None),
        "fd_encoder": EncoderMetrics(encoder=tiny_encoder(), references=str(tmp_path / "references")),
    }.items():
        found = {m.name: m.value for m in metrics.measure(to_float(pictures), domain="landscapes", caption="the sea")}
        assert found[name] == pytest.approx(0, abs=1e-6)


def test_what_cannot_be_compared_does_not_spoil_a_run(
    tmp_path: Path, inception: Inception, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match="folder without images"):
        StandardMetrics(reference=str(tmp_path), clip=None)

    np.savez(tmp_path / "one.npz", images=REAL[:1])
    assert measured(StandardMetrics(reference=str(tmp_path / "one.npz"), clip=None)) == {}
    assert "fid could not be measured: " in caplog.text
    assert "one.npz holds one image" in caplog.text
    (tmp_path / "one.npz").write_bytes((tmp_path / "one.npz").read_bytes()[:200])

    with pytest.raises(ValueError, match=r"one\.npz cannot be read"):
        StandardMetrics(reference=str(tmp_path / "one.npz"), clip=None)


def test_an_unfit_reference_is_refused_before_anything_is_drawn(tmp_path: Path, inception: Inception) -> None:
    with pytest.raises(ValueError, match=r"reference=.*does not exist"):
        StandardMetrics(reference=str(tmp_path / "nothing"), clip=None)

    np.savez(tmp_path / "foreign.npz", mu=np.zeros(4), sigma=np.eye(4))
    with pytest.raises(ValueError, match="holds mu and sigma"):
        StandardMetrics(reference=str(tmp_path / "foreign.npz"), clip=None)

    FeatureStatistics.from_features(inception.features(REAL), inception.name, "others").save(tmp_path / "other.npz")
    with pytest.raises(ValueError, match="was made with"):
        StandardMetrics(reference=str(tmp_path / "other.npz"), clip=None)


def test_none_measures_nothing() -> None:
    assert measured(NoMetrics()) == {}


def test_metrics_of_a_run_have_the_sample_size_beside_them() -> None:
    found = as_metrics([Measurement("fd_encoder", 1.5, 20), Measurement("clip_encoder", 30.0, 20, 2.0)])
    assert found == {
        "quality/fd_encoder": 1.5,
        "details/fd_encoder_n": 20,
        "quality/clip_encoder": 30.0,
        "details/clip_encoder_n": 20,
        "details/clip_encoder_std": 2.0,
    }


def test_references_of_ones_own_are_made_from_folders_of_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    (tmp_path / "hills").mkdir()
    (tmp_path / "hills" / "broken.png").write_text("no image")

    for i in range(3):
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(tmp_path / "hills" / f"{i}.png")

    make_references(["--output", str(tmp_path / "made"), f"landscapes={tmp_path / 'hills'}"])
    assert str(tmp_path / "made" / "landscapes.npz") in capsys.readouterr().out
    read_reference("landscapes", load_builtin_encoder(), tmp_path / "made")
    assert caplog.text.count("skipped") == 1  # two encoders, of one size

    with pytest.raises(ValueError, match="DOMAIN=PATH"):
        make_references(["--output", str(tmp_path), "landscapes"])
