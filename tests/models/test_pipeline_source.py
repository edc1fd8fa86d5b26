"""Pipelines of the hub: what is fetched, what is taken from the cache, and that a part is never taken for the whole.

Nothing here touches the network: a folder plays the hub, and a temporary one its cache.
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import torch
from safetensors.torch import save_file
from tiny import tiny_model
from tiny_pipelines import saved

from adaptive_diffusion.errors import MachineError
from adaptive_diffusion.io.hub import model_folder
from adaptive_diffusion.models.checkpoint import save_model
from adaptive_diffusion.models.diffusers import load_pipeline
from adaptive_diffusion.models.diffusers.source import files_to_fetch, pipeline_folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "someone/tiny-pipeline"

# As in stable-diffusion-v1-5, but for images and whole-model checkpoints of other programs.
SD15 = [
    *("README.md", "model_index.json", "v1-5-pruned.ckpt", "v1-5-pruned.safetensors"),
    *("feature_extractor/preprocessor_config.json", "scheduler/scheduler_config.json"),
    *(f"safety_checker/{n}" for n in ("config.json", "model.safetensors", "pytorch_model.bin")),
    *(f"text_encoder/{n}" for n in ("config.json", "model.fp16.safetensors", "model.safetensors", "pytorch_model.bin")),
    *(f"tokenizer/{n}" for n in ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")),
    *("unet/config.json", "vae/config.json", "unet/diffusion_pytorch_model.non_ema.safetensors"),
    *(
        f"{m}/diffusion_pytorch_model{v}"
        for m in ("unet", "vae")
        for v in (".bin", ".safetensors", ".fp16.safetensors")
    ),
]
SETTINGS = [
    *("model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json"),
    *("tokenizer/merges.txt", "tokenizer/special_tokens_map.json", "tokenizer/tokenizer_config.json"),
    *("tokenizer/vocab.json", "unet/config.json", "vae/config.json"),
]


def test_only_what_is_read_is_fetched() -> None:
    weights = ["text_encoder/model", "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"]
    assert files_to_fetch(SD15, False) == sorted([*SETTINGS, *(f"{name}.safetensors" for name in weights)])
    assert files_to_fetch(SD15, True) == sorted([*SETTINGS, *(f"{name}.fp16.safetensors" for name in weights)])


def test_half_precision_is_taken_for_all_models_or_none() -> None:
    without = [name for name in SD15 if name != "vae/diffusion_pytorch_model.fp16.safetensors"]
    assert files_to_fetch(without, True) == files_to_fetch(without, False) == files_to_fetch(SD15, False)


def test_pytorch_files_are_fetched_where_there_is_nothing_better() -> None:
    old = ["model_index.json", "config.json", "scheduler_config.json", "diffusion_pytorch_model.bin", "samples/1.png"]
    assert files_to_fetch(old, True) == sorted(set(old) - {"samples/1.png"})  # as in google/ddpm-cifar10-32


@pytest.mark.parametrize("infix", ["", ".fp16"])
def test_shards_are_fetched_with_their_index(infix: str) -> None:
    stem = "unet/diffusion_pytorch_model"
    plain = [f"{stem}.safetensors.index.json", *(f"{stem}-0000{i}-of-00002.safetensors" for i in (1, 2))]
    half = [f"{stem}.safetensors.index.fp16.json", *(f"{stem}.fp16-0000{i}-of-00002.safetensors" for i in (1, 2))]
    names = ["model_index.json", "unet/config.json", *plain, *half]
    expected = half if infix else plain
    assert files_to_fetch(names, bool(infix)) == sorted(["model_index.json", "unet/config.json", *expected])


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What lies on the hub: a pipeline, and a file that nobody reads."""
    folder = saved("ddpm", tmp_path_factory.mktemp("remote") / "pipeline")
    (folder / "huge.ckpt").write_bytes(b"not wanted")
    return folder


class Hub:
    """The hub and its cache, in folders."""

    def __init__(self, remote: Path, cache: Path):
        self.remote, self.online, self.calls = remote, True, 0
        self.repository = cache / "models--someone--tiny-pipeline"
        self.snapshot = self.repository / "snapshots" / COMMIT
        self.fails: Exception | None = None
        self.chatty: list[bool] = []

    def list_repo_files(self, repository: str, revision: str | None = None) -> list[str]:
        self._ask(repository, revision)
        return [path.relative_to(self.remote).as_posix() for path in self.remote.rglob("*") if path.is_file()]

    def snapshot_download(self, repository: str, *, revision: str | None = None, allow_patterns: list[str]) -> str:
        self._ask(repository, revision)
        (self.repository / "refs").mkdir(parents=True, exist_ok=True)
        (self.repository / "refs" / "main").write_text(COMMIT)

        names = self.list_repo_files(repository, revision)
        for name in sorted(n for n in names if any(fnmatch.fnmatch(n, pattern) for pattern in allow_patterns)):
            if name.endswith("safetensors") and self.fails is not None:
                raise self.fails
            (self.snapshot / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.remote / name, self.snapshot / name)

        return str(self.snapshot)

    def _ask(self, repository: str, revision: str | None) -> None:
        self.calls += 1
        self.chatty.append(logging.getLogger("huggingface_hub.utils._http").isEnabledFor(logging.WARNING))
        assert repository == REPOSITORY
        assert revision in (None, COMMIT)
        if not self.online:
            raise ConnectionError("Cannot reach the hub: offline mode is enabled.\nTo disable it, ...")


@pytest.fixture
def hub(remote: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    fake = Hub(remote, tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.snapshot_download", fake.snapshot_download)
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: fake)

    return fake


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline that reads prompts."""
    return saved("sd2", tmp_path_factory.mktemp("text") / "pipeline")


@pytest.mark.parametrize("revision", [None, COMMIT])
def test_a_pipeline_is_fetched_once_and_then_needs_no_network(revision: str | None, hub: Hub) -> None:
    assert pipeline_folder(REPOSITORY, revision) == hub.snapshot
    assert not (hub.snapshot / "huge.ckpt").exists()
    asked, hub.online = hub.calls, False
    assert pipeline_folder(REPOSITORY, revision) == hub.snapshot
    assert hub.calls == asked
    model: Any = load_pipeline(REPOSITORY, revision)
    assert model.state_shape == (16, 16, 3)


def test_a_partial_download_is_not_taken_for_the_whole(hub: Hub) -> None:
    hub.fails = ConnectionResetError("the connection broke")
    with pytest.raises(ValueError, match="the connection broke"):
        pipeline_folder(REPOSITORY)

    assert (hub.snapshot / "model_index.json").is_file()
    hub.online = False

    with pytest.raises(ValueError, match=r"cache .*holds no weights"):
        pipeline_folder(REPOSITORY)

    hub.online, hub.fails = True, None
    assert pipeline_folder(REPOSITORY) == hub.snapshot  # goes on where it broke


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_cache_without_a_file_of_the_tokenizer_is_completed(name: str, hub: Hub, text: Path) -> None:
    hub.remote = text
    pipeline_folder(REPOSITORY)
    (hub.snapshot / "tokenizer" / name).unlink()
    hub.online = False

    with pytest.raises(ValueError, match=f"cache .*{name}"):
        pipeline_folder(REPOSITORY)

    hub.online = True
    pipeline_folder(REPOSITORY)
    assert (hub.snapshot / "tokenizer" / name).is_file()


def test_weights_are_fetched_last(hub: Hub, text: Path) -> None:
    hub.remote, hub.fails = text, ConnectionResetError("the connection broke")
    with pytest.raises(ValueError, match="the connection broke"):
        pipeline_folder(REPOSITORY)

    small = {path.relative_to(text) for path in text.rglob("*.json")}
    assert {path.relative_to(hub.snapshot) for path in hub.snapshot.rglob("*") if path.is_file()} == small


def test_the_hub_does_not_tell_of_every_retry(hub: Hub, tmp_path: Path) -> None:
    pipeline_folder(REPOSITORY)
    with pytest.raises(ValueError, match="someone/else is no folder here and could not be had"):
        model_folder("someone/else")

    assert not any(hub.chatty)
    assert len(hub.chatty) > 2
    assert logging.getLogger("huggingface_hub.utils._http").isEnabledFor(logging.WARNING)


def test_a_revision_says_nothing_about_a_folder_here(
    remote: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cached = shutil.copytree(remote, tmp_path / COMMIT)
    assert pipeline_folder(str(cached), COMMIT) == cached
    assert not caplog.records
    assert pipeline_folder(str(remote), "fp16") == remote
    assert "revision=fp16 is for models of the hub; the folder" in caplog.text


def test_offline_without_a_cache_gets_a_sentence(hub: Hub) -> None:
    hub.online = False
    with pytest.raises(ValueError, match=r"offline mode.*HF_HUB_OFFLINE") as error:
        pipeline_folder(REPOSITORY)
    assert "\n" not in str(error.value)


def test_a_broken_network_gets_a_sentence(hub: Hub) -> None:
    class ConnectError(Exception):
        """Of an HTTP library: no OSError."""

    hub.fails = ConnectError("Name or service not known")
    with pytest.raises(ValueError, match="Name or service not known"):
        pipeline_folder(REPOSITORY)


def test_a_full_disk_gets_a_sentence(hub: Hub) -> None:
    hub.fails = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(MachineError, match=r"disk is full.*HF_HOME"):
        pipeline_folder(REPOSITORY)


def test_a_repository_that_is_no_pipeline_gets_a_sentence(hub: Hub, tmp_path: Path) -> None:
    hub.remote = tmp_path / "other"
    hub.remote.mkdir()
    (hub.remote / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"no model_index\.json"):
        pipeline_folder(REPOSITORY)


@pytest.mark.parametrize("path", ["", " "])
def test_no_path_is_not_the_working_directory(path: str) -> None:
    with pytest.raises(ValueError, match=r"path is empty"):
        pipeline_folder(path)


@pytest.mark.parametrize("path", ["nowhere", "a/b/c", "/no/such/folder"])
def test_what_is_neither_folder_nor_id_gets_a_sentence(path: str, hub: Hub) -> None:
    with pytest.raises(ValueError, match="there is no model folder"):
        pipeline_folder(path)
    assert hub.calls == 0


def test_large_files_of_the_cache_are_known_by_their_names(hub: Hub) -> None:
    folder = pipeline_folder(REPOSITORY)
    before = load_pipeline(REPOSITORY).metadata["content_hash"]
    blobs = hub.repository / "blobs"
    blobs.mkdir()

    for file in list(folder.rglob("*.safetensors")):
        name = hashlib.sha256(file.read_bytes()).hexdigest()
        file.rename(blobs / name)
        file.symlink_to(blobs / name)

    assert load_pipeline(REPOSITORY).metadata["content_hash"] == before


def test_the_layout_of_very_old_pipelines_is_understood(remote: Path, tmp_path: Path) -> None:
    """google/ddpm-cifar10-32 has its model and its scheduler in the pipeline's own folder."""
    folder = shutil.copytree(remote, tmp_path / "old")
    for part in ("unet", "scheduler"):
        for file in list((folder / part).iterdir()):
            file.rename(folder / file.name)
        (folder / part).rmdir()

    model: Any = load_pipeline(str(folder))
    assert model.metadata["prediction_type"] == "epsilon"
    assert model.picture_size == (16, 16)


def test_what_is_no_folder_of_a_pipeline_is_called_what_it_is(tmp_path: Path) -> None:
    root = saved("sd1", tmp_path / "sd1")
    save_file({"model.diffusion_model.out.2.bias": torch.zeros(3)}, tmp_path / "pony.safetensors")
    save_file({"unet.conv.lora_A.weight": torch.zeros(3)}, tmp_path / "style.safetensors")
    save_file({"a": torch.zeros(3)}, tmp_path / "a.safetensors")
    torch.save({"state_dict": {}}, tmp_path / "old.ckpt")
    (tmp_path / "q.gguf").write_bytes(b"GGUF")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "p.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    save_model(tmp_path / "ours.safetensors", tiny_model())

    for name in ("alone", "lora", "empty"):
        (tmp_path / name).mkdir()

    shutil.copy(tmp_path / "a.safetensors", tmp_path / "alone")
    shutil.copy(tmp_path / "style.safetensors", tmp_path / "lora" / "pytorch_lora_weights.safetensors")
    cache = shutil.copytree(root, tmp_path / "models--a--b" / "snapshots" / "0").parent.parent

    expected = {
        "pony.safetensors": "from_single_file",
        "old.ckpt": "from_single_file",
        "a.safetensors": "single file of weights",
        "style.safetensors": "LoRA",
        "q.gguf": "GGUF",
        "notes.txt": "is a file",
        "p.safetensors": "git-lfs",
        "ours.safetensors": "model=checkpoint",
        "alone": "a.safetensors is a single file",
        "lora": "LoRA",
        "empty": "has no model_index.json",
        "sd1/vae": "give the folder above",
        "sd1/model_index.json": "give its folder",
        "sd1/vae/diffusion_pytorch_model.safetensors": "whole pipeline",
        str(cache): "give its folder: .*snapshots",
    }
    for name, sentence in expected.items():
        with pytest.raises(ValueError, match=sentence) as error:
            load_pipeline(str(tmp_path / name))
        assert "\n" not in str(error.value)


def test_a_folder_that_may_not_be_read_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "secret")

    monkeypatch.setattr(Path, "is_dir", closed)
    with pytest.raises(ValueError, match=r"secret .*permission denied"):
        load_pipeline(str(tmp_path))


@pytest.mark.parametrize("kind", ["StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline"])
def test_all_parts_of_sdxl_are_sdxl_whichever_class_saved_them(kind: str, tmp_path: Path) -> None:
    root = saved("sdxl", tmp_path / "sdxl")
    index = json.loads((root / "model_index.json").read_text())
    (root / "model_index.json").write_text(json.dumps(index | {"_class_name": kind}))
    model = load_pipeline(str(root))
    assert (model.metadata["guidance_scale"], model.picture_size) == (5.0, (16, 16))
    (root / "model_index.json").write_text(json.dumps(index | {"_class_name": kind, "text_encoder": [None, None]}))

    with pytest.raises(ValueError, match="refiner"):
        load_pipeline(str(root))


@pytest.mark.parametrize(("precision", "times"), [("float32", None), ("float16", "up to 20 times"), ("4bit", "1,500")])
def test_a_precision_for_gpus_is_warned_of_on_a_cpu(
    precision: str, times: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mx, "default_device", lambda: mx.cpu)
    load_pipeline(str(saved("ddpm", tmp_path / "ddpm")), precision=precision)
    assert (times in caplog.text) if times else "is for GPUs" not in caplog.text
