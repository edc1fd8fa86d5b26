"""The tensors of a model folder: one file or shards with an index, in full or half precision.

Safetensors are preferred. PyTorch's own files, which are pickles, are read without running code from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx

from ...errors import UnusableFile
from ...io.files import read_json
from ...io.tensor_file import read_tensors
from ...io.torch_files import read_torch_file

# File names of diffusers and of transformers, the best format first.
NAMES = {"safetensors": ("diffusion_pytorch_model", "model"), "bin": ("diffusion_pytorch_model", "pytorch_model")}


def weight_names(variant: str | None) -> Iterator[str]:
    """Possible names of a weight file or an index, the best first; arguments as for `find_weights`."""
    for suffix, stems in NAMES.items():
        for infix in [f".{variant}"] if variant else ["", ".fp16"]:
            for stem in stems:
                yield f"{stem}{infix}.{suffix}"
                yield f"{stem}.{suffix}.index{infix}.json"


def find_weights(folder: Path, variant: str | None) -> Path:
    """Find the weight file or index of a model folder; safetensors are preferred.

    Args:
        folder: Folder of the model.
        variant: Infix of the name, e.g. "fp16" in `model.fp16.safetensors`; None: no infix, or fp16 if there is no such
            file.

    Raises:
        UnusableFile: if the folder has no weights.
    """
    for name in weight_names(variant):
        if (folder / name).is_file():
            return folder / name

    wanted = " or ".join(f"{stem}{f'.{variant}' if variant else ''}.safetensors" for stem in NAMES["safetensors"])
    raise UnusableFile(
        f"{folder} holds no weights: expected {wanted}, or shards with an index; if it was downloaded, the download is "
        "incomplete"
    )


def shards_of(path: Path) -> list[Path]:
    """The files with the tensors: the path itself, or the shards in an index.

    Raises:
        UnusableFile: if an index has no shards, or a shard is missing or outside the folder.
    """
    if path.suffix != ".json":
        return [path]

    places = read_json(path).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
        raise UnusableFile(f"{path} lists no tensors (it has no weight_map); get the file again")

    for file in sorted(set(places.values())):
        if Path(file).name != file:
            raise UnusableFile(f"{path} points to {file!r}, outside its own folder; do not use this model")
        if not (path.parent / file).is_file():
            raise UnusableFile(
                f"{path.parent / file} is missing, though {path.name} lists it; the download is incomplete, get it "
                "again"
            )

    return [path.parent / file for file in sorted(set(places.values()))]


def read_weights(path: Path) -> dict[str, mx.array]:
    """Read the tensors of a weight file or of all shards of an index (see `find_weights`).

    Raises:
        UnusableFile: if a file is missing or damaged, or the shards lack a tensor of the index.
    """
    tensors: dict[str, mx.array] = {}
    for shard in shards_of(path):
        tensors |= _read_file(shard)

    if path.suffix == ".json" and (lost := sorted(read_json(path)["weight_map"].keys() - tensors.keys())):
        raise UnusableFile(f"no shard beside {path} holds the tensor {lost[0]!r} that it lists; get the model again")

    return tensors


def _read_file(path: Path) -> dict[str, mx.array]:
    if path.suffix == ".bin":
        return {name: mx.array(array) for name, array in read_torch_file(path).items()}
    return read_tensors(path)[0]
