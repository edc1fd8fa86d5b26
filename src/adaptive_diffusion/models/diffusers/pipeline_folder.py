"""The folder of a pipeline: its models, their files, and the hash of all files that decide the images."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from ...errors import UnusableFile
from ...io.digest import digest_of
from ...io.files import read_json
from .file_kinds import INDEX, error_about_folder
from .trained_noise import read_trained_noise
from .weight_files import find_weights, shards_of

PIXEL_PIPELINES = ("DDPMPipeline", "DDIMPipeline", "PNDMPipeline")
_ONE = (("text_encoder", "tokenizer"),)
_TWO = (*_ONE, ("text_encoder_2", "tokenizer_2"))
# Class -> folders of its text encoders and tokenizers. Image-to-image and inpainting classes have the same models.
TEXT_PIPELINES = {
    "StableDiffusionPipeline": _ONE,
    "StableDiffusionImg2ImgPipeline": _ONE,
    "StableDiffusionInpaintPipeline": _ONE,
    "StableDiffusionXLPipeline": _TWO,
    "StableDiffusionXLImg2ImgPipeline": _TWO,
    "StableDiffusionXLInpaintPipeline": _TWO,
}
TOKENIZER_FILES = (
    *("tokenizer.json", "vocab.json", "merges.txt"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)
VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"))  # a tokenizer has one of these sets of files


@dataclass(frozen=True)
class PipelineFolder:
    """A folder of a pipeline, in the layout of `save_pretrained`.

    Attributes:
        path: The folder.
        kind: Class of the pipeline.
        options: Options of the pipeline in its index.
        variant: Variant of the weight files, or None for the plain files.
    """

    path: Path
    kind: str
    options: dict[str, object]
    variant: str | None = None

    @classmethod
    def open(cls, path: Path, half: bool = False) -> PipelineFolder:
        """Open a folder and check that no file is missing.

        Args:
            path: The folder.
            half: Prefer files in half precision, if every model has them.

        Raises:
            UnusableFile: if the folder is no pipeline, its class is not supported, or files are missing.
        """
        if not (path / INDEX).is_file():
            raise UnusableFile(error_about_folder(path))

        content = read_json(path / INDEX)
        kind = str(content.get("_class_name"))
        if kind not in PIXEL_PIPELINES and kind not in TEXT_PIPELINES:
            accepted = ", ".join([*PIXEL_PIPELINES, *TEXT_PIPELINES])
            raise UnusableFile(f"{path} is a {kind}, which is not supported; supported are {accepted}")

        # Lists in the index are the classes of the models; everything else is an option.
        options = {key: value for key, value in content.items() if not isinstance(value, list)}
        if len(TEXT_PIPELINES.get(kind, ())) == 2 and content.get("text_encoder") == [None, None]:
            raise UnusableFile(
                f"{path} is a refiner of SDXL, which finishes images that another model began and is not supported; "
                "give the base model"
            )

        folder = cls(path, kind, options)
        if half and all(_has_variant(folder.model(name), "fp16") for name in folder.models):
            folder = cls(path, kind, options, "fp16")

        folder.check()
        return folder

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models with weights."""
        if self.kind in PIXEL_PIPELINES:
            return ("unet",)
        return ("unet", "vae", *(encoder for encoder, _ in TEXT_PIPELINES[self.kind]))

    @property
    def readers(self) -> list[tuple[Path, Path]]:
        """(folder of the text encoder, folder of its tokenizer) of all text encoders."""
        return [(self.model(encoder), self.model(tokenizer)) for encoder, tokenizer in TEXT_PIPELINES[self.kind]]

    def model(self, name: str) -> Path:
        """The folder of a model; very old pipelines of a single model have its files in their own folder."""
        folder = self.path / name
        return self.path if self.kind in PIXEL_PIPELINES and not folder.is_dir() else folder

    def check(self) -> None:
        """Check that no file is missing.

        Raises:
            UnusableFile: if a file is missing, with its name.
        """
        read_trained_noise(self.path)

        folders = [self.model(name) for name in self.models]
        for folder in folders:
            if not (folder / "config.json").is_file():
                raise self._not_whole(f"{folder.relative_to(self.path) / 'config.json'} is missing")
            shards_of(find_weights(folder, self.variant))

        for _, folder in self.readers if self.kind in TEXT_PIPELINES else ():
            if not folder.is_dir():
                raise self._not_whole(f"its {folder.name} is missing")
            if not any(all((folder / name).is_file() for name in names) for names in VOCABULARIES):
                raise self._not_whole(f"{folder.name} has neither tokenizer.json nor vocab.json with merges.txt")
            if not (folder / "tokenizer_config.json").is_file():  # diffusers needs it, too
                raise self._not_whole(
                    f"{folder.name}/tokenizer_config.json, which says how prompts are filled up, is missing"
                )

    def _not_whole(self, lack: str) -> UnusableFile:
        return UnusableFile(f"{self.path} is not whole: {lack}; get the pipeline again")

    def content_hash(self) -> str:
        """sha256 (hex) of what the model was trained with, the tokenizers, the configurations and the weight files."""
        digest = hashlib.sha256(self.kind.encode())
        noise = read_trained_noise(self.path)  # its file says more, which is for the run to decide
        trained = {name: noise[name] for name in ("noise_schedule", "prediction_type")}
        digest.update(json.dumps(trained, sort_keys=True).encode())
        for _, folder in self.readers if self.kind in TEXT_PIPELINES else ():
            for path in (folder / name for name in TOKENIZER_FILES if (folder / name).is_file()):
                digest.update(f"{folder.name}/{path.name} {_file_hash(path)}".encode())
        for name in self.models:
            folder = self.model(name)
            for path in (folder / "config.json", *shards_of(find_weights(folder, self.variant))):
                digest.update(f"{name}/{path.name} {_file_hash(path)}".encode())

        return digest.hexdigest()


def _has_variant(folder: Path, variant: str) -> bool:
    try:
        find_weights(folder, variant)
    except UnusableFile:
        return False

    return True


def _file_hash(path: Path) -> str:
    """sha256 (hex) of a file; the names of large files in the hub's cache are their hashes."""
    target = path.resolve()
    if target.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", target.name):
        return target.name
    return digest_of(path)
