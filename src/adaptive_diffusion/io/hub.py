"""A model folder in Hugging Face's layout: a folder on this machine, or a repository of the hub."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import MachineError, MissingPackage, UnusableFile
from ..program import pip_install
from .files import home_path

_SETTINGS = ["*.json", "merges.txt"]


def model_folder(source: str | Path) -> Path:
    """The folder of a model. A model of the hub is downloaded once, and then found in the hub's cache.

    Args:
        source: A folder, or a hub id "owner/name". HF_HUB_OFFLINE=1 forbids the network; HF_TOKEN is used where set.

    Raises:
        UnusableFile: if there is no such folder, or the download fails.
        MissingPackage: without `huggingface_hub`.
        MachineError: if the disk is full.
    """
    folder = home_path(source)
    if folder.is_dir():
        return folder
    if not is_hub_id(source):
        raise UnusableFile(
            f"there is no model folder {source}; give a folder or a hub id such as openai/clip-vit-base-patch32"
        )

    huggingface_hub, weights = hub_package(source), "model*.safetensors"
    with fetching(source):
        found = Path(huggingface_hub.snapshot_download(str(source), allow_patterns=[*_SETTINGS, weights]))
        if not any(found.glob(weights)):
            huggingface_hub.snapshot_download(str(source), allow_patterns=["pytorch_model*.bin"])

    return found


@contextmanager
def fetching(source: str | Path, cached: str = "") -> Iterator[None]:
    """A download from the hub, silent about retries: a failure ends in one sentence. Its progress bars stay.

    Args:
        source: Hub id.
        cached: Why what the cache has is not enough, if anybody looked.

    Raises:
        UnusableFile: if the download fails.
        MachineError: if the disk is full.
    """
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    except UnusableFile:
        raise
    except Exception as error:  # the hub passes on the errors of its HTTP library, which varies
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MachineError(
                f"the disk is full: {source} could not be fetched as a whole; free some space, or set HF_HOME to a "
                "folder on another disk, and start again"
            ) from error

        first = str(error).strip().partition("\n")[0].rstrip(".")
        raise UnusableFile(
            f"{source} is no folder here{cached and f', {cached},'} and could not be had from the Hugging Face hub "
            f"({first}); check the id, the network and HF_HUB_OFFLINE, or download it elsewhere and give its folder"
        ) from error
    finally:
        logger.setLevel(before)


def hub_package(source: str | Path) -> Any:
    """The package `huggingface_hub`, to fetch what is no folder here.

    Raises:
        MissingPackage: if it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise MissingPackage(
            f"{source} is no folder here, and fetching it from the hub needs huggingface_hub: "
            f"{pip_install('standard')}, or give a folder"
        ) from None
    return huggingface_hub


def is_hub_id(source: str | Path) -> bool:
    """Whether `source` has the form owner/name and is no folder here."""
    return re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(source)) is not None and not home_path(source).is_dir()
