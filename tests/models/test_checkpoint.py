"""Model files come back as they were written, and anything else is refused with a sentence."""

import json
import math
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from adaptive_diffusion.encoder.encoder import load_encoder
from adaptive_diffusion.errors import UnusableFile
from adaptive_diffusion.io.files import ASSETS, read_json
from adaptive_diffusion.io.network_file import content_hash
from adaptive_diffusion.models.checkpoint import load_builtin_model, load_model, save_model
from adaptive_diffusion.models.unet import SimpleUNet, UNetConfig

CONFIG = UNetConfig(image_size=8, widths=(8,), blocks=(1,), attention_levels=(), embedding_dim=8, num_classes=(2,))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    mx.random.seed(0)
    save_model(tmp_path / "model.safetensors", SimpleUNet(CONFIG), {"prediction_type": "v_prediction"})
    return tmp_path / "model.safetensors"


def rewrite(file: Path, change) -> None:
    weights, header = mx.load(str(file), return_metadata=True)
    weights = {name: mx.array(np.array(value)) for name, value in weights.items()}
    change(weights, header)
    mx.save_safetensors(str(file), weights, header)


def test_a_saved_model_comes_back_with_its_weights_architecture_and_metadata(tmp_path: Path) -> None:
    model = SimpleUNet(CONFIG)
    digest = save_model(tmp_path / "m.safetensors", model, {"images_seen": 7})
    loaded = load_model(tmp_path / "m.safetensors")
    assert loaded.config == CONFIG
    assert loaded.metadata == {"images_seen": 7, "content_hash": digest}
    for (name, a), (_, b) in zip(tree_flatten(model.parameters()), tree_flatten(loaded.parameters()), strict=True):
        assert mx.array_equal(a, b), name


def test_half_precision_halves_the_file_and_loads_as_float32(file: Path, tmp_path: Path) -> None:
    save_model(tmp_path / "half.safetensors", load_model(file), dtype=mx.float16)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.7 * file.stat().st_size
    assert load_model(tmp_path / "half.safetensors").stem.weight.dtype == mx.float32


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def broken(path: str, *_: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(mx, "save_safetensors", broken)
    with pytest.raises(OSError, match="no space"):
        save_model(file, SimpleUNet(CONFIG))

    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_what_is_no_network_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="model must be a SimpleUNet, got 'x'"):
        save_model(tmp_path / "m.safetensors", "x")  # type: ignore[arg-type]


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no model file at"):
        load_model(tmp_path / "none.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 200, 1000])
def test_a_truncated_file_is_refused(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        load_model(file)


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    mx.save_safetensors(str(tmp_path / "x.safetensors"), {"a": mx.zeros(3)})
    with pytest.raises(ValueError, match="not a model of this project"):
        load_model(tmp_path / "x.safetensors")


def test_a_missing_tensor_is_named(file: Path) -> None:
    rewrite(file, lambda weights, header: weights.pop("head.weight"))
    with pytest.raises(ValueError, match=r"lacks the tensor 'head\.weight'"):
        load_model(file)


def test_an_extra_tensor_is_named(file: Path) -> None:
    rewrite(file, lambda weights, header: weights.update(extra=mx.zeros(1)))
    with pytest.raises(ValueError, match="holds the tensor 'extra'"):
        load_model(file)


def test_a_misshaped_tensor_is_named(file: Path) -> None:
    rewrite(file, lambda weights, header: weights.update({"norm.weight": mx.zeros(9)}))
    with pytest.raises(ValueError, match=r"'norm\.weight' with the shape \(9,\), expected \(8,\)"):
        load_model(file)


def test_a_changed_weight_is_noticed(file: Path) -> None:
    rewrite(file, lambda weights, header: weights.update({"norm.weight": mx.zeros(8)}))
    with pytest.raises(ValueError, match="content hash does not match"):
        load_model(file)


def test_an_impossible_description_is_refused(file: Path) -> None:
    rewrite(file, lambda weights, header: header.update(config='{"image_size": 7}'))
    with pytest.raises(ValueError, match="does not describe a SimpleUNet"):
        load_model(file)


def edited(header: dict[str, str], **values: object) -> None:
    header["metadata"] = json.dumps(json.loads(header["metadata"]) | values)


def as_0_1_0(file: Path) -> None:
    """The file as version 0.1.0 wrote it: a hash of weights and architecture, and no checksum."""

    def change(weights, header) -> None:
        del header["checksum"]
        header["content_hash"] = content_hash(weights, json.loads(header["config"]))

    rewrite(file, change)


@pytest.mark.parametrize("values", [{"guidance_scale": 4.0}, {"prediction_type": "epsilon"}, {"images_seen": 1}])
def test_edited_metadata_are_noticed(file: Path, values: dict[str, object]) -> None:
    rewrite(file, lambda weights, header: edited(header, **values))
    with pytest.raises(ValueError, match="changed after it was written"):
        load_model(file)


def test_metadata_are_part_of_the_identity(tmp_path: Path) -> None:
    model = SimpleUNet(CONFIG)
    names = {save_model(tmp_path / "m.safetensors", model, {"guidance_scale": scale}) for scale in (1.0, 2.0)}
    assert len(names) == 2


def test_what_the_user_says_that_a_model_predicts_is_part_of_its_identity(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    saved = save_model(file, SimpleUNet(CONFIG), {})
    told = [load_model(file, prediction_type) for prediction_type in ("epsilon", "v_prediction", "epsilon")]
    assert told[0].identity == told[2].identity == told[0].metadata["content_hash"]
    assert len({saved, *(model.identity for model in told)}) == 3


def test_a_model_that_is_saved_again_keeps_its_identity(file: Path, tmp_path: Path) -> None:
    model = load_model(file)
    assert save_model(tmp_path / "again.safetensors", model) == model.identity


@pytest.mark.parametrize("asset", ["model", "encoder"])
def test_an_edit_of_a_shipped_file_is_noticed(asset: str, tmp_path: Path) -> None:
    copy = Path(shutil.copy(ASSETS / f"{asset}.safetensors", tmp_path))
    content = bytearray(copy.read_bytes())
    content[content.index(b"images") if asset == "encoder" else content.index(b"1.5")] ^= 1
    copy.write_bytes(content)
    with pytest.raises(ValueError, match="changed after it was written"):
        (load_model if asset == "model" else load_encoder)(copy)


def test_a_file_of_the_first_version_loads_with_a_word_of_warning(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    as_0_1_0(file)
    assert load_model(file).metadata["prediction_type"] == "v_prediction"
    assert "0.1.0" in caplog.text
    rewrite(file, lambda weights, header: weights.update({"norm.weight": mx.zeros(8)}))
    with pytest.raises(ValueError, match="changed after it was written"):
        load_model(file)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"guidance_scale": "high"}, "guidance_scale"),
        ({"guidance_scale": math.inf}, "guidance_scale"),
        ({"prediction_type": 3}, "prediction_type"),
        ({"noise_schedule": [1, 2]}, "noise_schedule"),
        ({"noise_schedule": {"beta": 1}}, "noise_schedule"),
        ({"noise_schedule": {"beta_end": None}}, "beta_end"),
        ({"domains": "cats"}, "domains"),
        ({"domains": ["a"], "labels": {"a": 5}}, "labels"),
        ({"domains": ["a", "b", "c"]}, "classes"),
        ({"domains": ["a"], "labels": {"a": ["x"]}, "label_counts": {"a": [1, 2]}}, "label_counts"),
        ({"domains": ["a"], "labels": {"a": ["x"]}, "label_counts": {"a": [-1]}}, "label_counts"),
        ({"domains": ["a"], "labels": {"a": ["x"]}, "label_counts": {"a": ["1"]}}, "label_counts"),
        ({"label_counts": {"a": [1]}}, "label_counts"),
        ({"label_counts": [1]}, "label_counts"),
    ],
)
def test_metadata_that_cannot_be_are_refused_when_written_and_when_read(
    file: Path, values: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        save_model(file, SimpleUNet(CONFIG), values)

    rewrite(file, lambda weights, header: edited(header, **values))
    as_0_1_0(file)
    with pytest.raises(ValueError, match=message):
        load_model(file)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused(file: Path, bad: float) -> None:
    model = load_model(file)
    model.norm.weight = mx.full((8,), bad)
    save_model(file, model)
    with pytest.raises(ValueError, match="NaN or infinity"):
        load_model(file)


@pytest.mark.parametrize(
    "config", [{"blocks": [10**11]}, {"widths": [10**30], "head_dim": 1}, {"embedding_dim": 10**12}, [1], {"blocks": 1}]
)
def test_a_description_without_measure_is_refused_before_it_is_built(file: Path, config: object) -> None:
    whole = asdict(CONFIG) | config if isinstance(config, dict) else config
    rewrite(file, lambda weights, header: header.update(config=json.dumps(whole)))
    with pytest.raises(UnusableFile):
        load_model(file)


@pytest.mark.parametrize("key", ["config", "metadata"])
def test_nested_and_missing_descriptions_get_a_sentence(file: Path, key: str) -> None:
    rewrite(file, lambda weights, header: header.update({key: "[" * 200_000}))
    with pytest.raises(ValueError, match="nested too deep"):
        load_model(file)

    rewrite(file, lambda weights, header: header.pop(key))
    with pytest.raises(ValueError, match=key):
        load_model(file)


def test_double_precision_and_git_lfs_are_called_what_they_are(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F64", "shape": [1], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "d.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(ValueError, match="float64"):
        load_model(tmp_path / "d.safetensors")

    (tmp_path / "p.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ValueError, match="git-lfs"):
        load_model(tmp_path / "p.safetensors")


def test_a_file_that_may_not_be_read_is_called_so(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(mx, "load", closed)
    monkeypatch.setattr("builtins.open", closed)
    with pytest.raises(ValueError, match="permission denied"):
        load_model(file)


def test_deeply_nested_json_gets_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a":' * 100_000)
    with pytest.raises(ValueError, match="nested too deep"):
        read_json(tmp_path / "a.json")


def test_other_weights_are_another_model_in_memory_and_in_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(file)
    read = model.identity
    model.update({"stem": {"bias": model.stem.bias + 1}})
    assert model.identity != read
    assert "content_hash" not in model.metadata

    monkeypatch.setenv("ADAPTIVE_DIFFUSION_MODEL", str(file))
    assert load_builtin_model() is load_builtin_model()
    assert load_builtin_model().identity == read
    digest = save_model(file, model)
    os.utime(file, ns=(0, 0))  # some files change within the clock's resolution
    assert load_builtin_model().identity == digest != read
