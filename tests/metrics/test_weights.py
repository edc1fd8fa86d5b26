"""Weight files of every format, and model folders from the hub."""

import errno
import sys
from pathlib import Path

import mlx.core as mx
import pytest

from adaptive_diffusion.errors import MachineError, MissingPackage, UnusableFile
from adaptive_diffusion.io.clip_tokenizer import CLIPTokenizer
from adaptive_diffusion.io.hub import model_folder
from adaptive_diffusion.metrics import published
from adaptive_diffusion.metrics.weights import Weights, pick, read_weights, read_weights_folder


def test_files_that_cannot_be_read_are_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "w.npz").touch()
    (tmp_path / "w.safetensors").write_bytes(b"no tensors here")

    for name, message in {
        "absent.pth": "no weight file at",
        "w.npz": "is no weight file; give .safetensors",
        "w.safetensors": "cannot be read as safetensors",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_weights(tmp_path / name)

    with pytest.raises(ValueError, match=r"holds no weights: expected .*model\.safetensors"):
        read_weights_folder(tmp_path)


def test_tensors_are_checked_by_name_and_shape() -> None:
    weights = Weights({"a": mx.zeros((2, 3), mx.float16)}, Path("w.pth"), "0")
    assert pick(weights, {"a": (2, 3)}, "a net")["a"].dtype == mx.float32
    with pytest.raises(ValueError, match=r"w\.pth .*a net.*'a' .*\(2, 3\), expected \(3, 2\)"):
        pick(weights, {"a": (3, 2)}, "a net")

    with pytest.raises(ValueError, match="lacks 'b' and 1 more"):
        pick(weights, {"a": (2, 3), "b": (1,), "c": (1,)}, "a net")


def test_published_files_are_looked_for_safetensors_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(published.FOLDER_VARIABLE, str(tmp_path / "mine"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    file = published.PublishedFile("weights", ("w-1.pth", "other-1.pth"), "0", "https://where")
    cache = tmp_path / "torch" / "hub" / "checkpoints"
    cache.mkdir(parents=True)

    with pytest.raises(ValueError, match=r"w-1\.pth .*https://where"):
        published.find_published(file)

    for path in (cache / "other-1.pth", cache / "w-1.pth", cache / "w-1.safetensors"):
        path.touch()
        assert published.find_published(file) == path

    assert published.find_published(file, cache / "other-1.pth") == cache / "other-1.pth"
    with pytest.raises(ValueError, match=r"no w-1\.pth in .*/mine"):
        published.find_published(file, tmp_path / "mine")


def test_a_hub_model_is_fetched_with_pytorch_weights_only_where_there_are_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")

    asked: list[list[str]] = []

    def fetch(repository: str, allow_patterns: list[str]) -> str:
        assert repository == "openai/clip"
        asked.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert model_folder("openai/clip") == tmp_path
    assert [patterns[-1] for patterns in asked] == ["model*.safetensors", "pytorch_model*.bin"]
    (tmp_path / "model.safetensors").touch()
    model_folder("openai/clip")
    assert len(asked) == 3
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)

    with pytest.raises(MissingPackage, match=r"needs huggingface_hub: pip install -e .*standard"):
        model_folder("openai/clip")

    assert model_folder(tmp_path) == tmp_path


@pytest.mark.parametrize(
    ("failure", "expected", "sentence"),
    [
        (RuntimeError("407 Proxy Authentication Required\nSee ..."), UnusableFile, r"\(407 Proxy .* Required\); check"),
        (OSError(errno.ENOSPC, "No space left on device"), MachineError, r"disk is full.*HF_HOME"),
    ],
)
def test_a_hub_model_that_cannot_be_fetched_gets_a_sentence(
    failure: Exception, expected: type[Exception], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub passes on errors of its HTTP library, such as that of a proxy, which are no OSError."""
    huggingface_hub = pytest.importorskip("huggingface_hub")

    def fetch(repository: str, allow_patterns: list[str]) -> str:
        raise failure

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(expected, match=sentence) as error:
        model_folder("openai/clip")
    assert "\n" not in str(error.value)


def test_without_its_package_a_tokenizer_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingPackage, match=r"need tokenizers, which is not installed: pip install -e .*standard"):
        CLIPTokenizer(tmp_path, 77)
