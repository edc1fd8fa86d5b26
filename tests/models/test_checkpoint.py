"""Model files come back as they were written, and anything else is refused with a sentence."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from adaptive_diffusion.errors import UserError
from adaptive_diffusion.models.checkpoint import load_model, save_model
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


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no model file at"):
        load_model(tmp_path / "none.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 200, 1000])
def test_a_truncated_file_is_refused(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        load_model(file)


def test_a_foreign_safetensors_file_is_refused(tmp_path: Path) -> None:
    mx.save_safetensors(str(tmp_path / "x.safetensors"), {"a": mx.zeros(3)})
    with pytest.raises(UserError, match="not a model of this project"):
        load_model(tmp_path / "x.safetensors")


def test_a_missing_tensor_is_named(file: Path) -> None:
    rewrite(file, lambda weights, header: weights.pop("head.weight"))
    with pytest.raises(UserError, match=r"lacks the tensor 'head\.weight'"):
        load_model(file)


def test_an_extra_tensor_is_named(file: Path) -> None:
    rewrite(file, lambda weights, header: weights.update(extra=mx.zeros(1)))
    with pytest.raises(UserError, match="holds the tensor 'extra'"):
        load_model(file)


def test_a_misshaped_tensor_is_named(file: Path) -> None:
    rewrite(file, lambda weights, header: weights.update({"norm.weight": mx.zeros(9)}))
    with pytest.raises(UserError, match=r"'norm\.weight' has shape \(9,\), expected \(8,\)"):
        load_model(file)


def test_a_changed_weight_is_noticed(file: Path) -> None:
    rewrite(file, lambda weights, header: weights.update({"norm.weight": mx.zeros(8)}))
    with pytest.raises(UserError, match="content hash does not match"):
        load_model(file)


def test_an_impossible_description_is_refused(file: Path) -> None:
    rewrite(file, lambda weights, header: header.update(config='{"image_size": 7}'))
    with pytest.raises(UserError, match="does not describe a SimpleUNet"):
        load_model(file)
