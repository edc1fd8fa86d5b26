"""Find a pipeline: a folder on this machine, or a repository of the Hugging Face hub.

A complete pipeline in the hub's cache is used without the network. Otherwise, only the files of the pipeline are
fetched; the hub shows its own progress bars.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...errors import UnusableFile
from ...io.files import home_path
from ...io.hub import fetching, hub_package, is_hub_id
from .file_kinds import INDEX, error_about_file
from .pipeline_folder import TOKENIZER_FILES, PipelineFolder
from .weight_files import NAMES, weight_names

log = logging.getLogger(__name__)

MODELS = ("unet", "vae", "text_encoder", "text_encoder_2")


def pipeline_folder(path: str, revision: str | None = None, half: bool = False) -> Path:
    """The folder of a pipeline, fetched from the hub if necessary.

    Args:
        path: A folder, or a hub id "owner/name". HF_HUB_OFFLINE=1 forbids the network; HF_TOKEN is used if set.
        revision: Branch, tag or commit on the hub; None: the cached version, or the newest if none is cached.
        half: Prefer files in half precision.

    Raises:
        ValueError: for an empty path.
        UnusableFile: if there is no such folder, or the hub does not have it.
        MissingPackage: without `huggingface_hub`.
        MachineError: if the disk is full.
    """
    if not str(path).strip():
        raise ValueError("path is empty; give a folder or a hub id such as google/ddpm-cifar10-32")

    folder = home_path(path)
    if folder.is_file():
        raise UnusableFile(error_about_file(folder))
    if folder.is_dir():
        if revision not in (None, folder.name):  # a folder in the hub's cache has the name of its commit
            log.warning("revision=%s is for models of the hub; the folder %s is taken as it is", revision, path)
        return folder
    if not is_hub_id(path):
        raise UnusableFile(f"there is no model folder {path}; give a folder or a hub id such as google/ddpm-cifar10-32")

    hub = hub_package(path)
    cached = _cached(hub, path, revision)
    lacks = "" if cached is None else _unfit(cached, half)
    return _fetched(hub, path, revision, half, lacks) if cached is None or lacks else cached


def _cached(hub: Any, repository: str, revision: str | None) -> Path | None:
    """The folder in the hub's cache, complete or not; None if there is none."""
    try:
        index = hub.try_to_load_from_cache(repository, INDEX, revision=revision)
    except (OSError, ValueError):  # the base classes of the hub's errors
        return None
    return Path(index).parent if isinstance(index, str) else None


def _unfit(folder: Path, half: bool) -> str:
    """The reason why a folder cannot be used, or ""."""
    try:
        PipelineFolder.open(folder, half)
    except UnusableFile as error:
        return str(error)
    return ""


def _fetched(hub: Any, repository: str, revision: str | None, half: bool, lacks: str) -> Path:
    """Fetch the missing files of a pipeline and return its folder.

    Args:
        hub: The module `huggingface_hub`.
        repository: Hub id.
        revision: See `pipeline_folder`.
        half: See `pipeline_folder`.
        lacks: Why the cached folder cannot be used, or "" if nothing is cached.
    """
    log.info("asking the Hugging Face hub for %s", repository)
    cached = f"what the cache has of it cannot be used ({lacks})" if lacks else "the cache does not have it"
    with fetching(repository, cached):
        names = hub.HfApi().list_repo_files(repository, revision=revision)
        if INDEX not in names:
            raise UnusableFile(f"{repository} is no diffusers pipeline: it has no {INDEX}; give the id of one that has")

        files = files_to_fetch(names, half)
        # Weights come last: an interrupted download then lacks weights only.
        for patterns in ([name for name in files if name.endswith((".json", ".txt"))], files):
            folder = Path(hub.snapshot_download(repository, revision=revision, allow_patterns=patterns))

    PipelineFolder.open(folder, half)
    return folder


def files_to_fetch(names: Iterable[str], half: bool) -> list[str]:
    """The files of a repository that a pipeline needs.

    Args:
        names: Names of all files.
        half: Prefer weights in half precision, if every model has them.

    Returns:
        Sorted names: configurations, tokenizers, and the best set of weights of each model.
    """
    names = set(names)

    wanted = {name for name in names if name in (INDEX, "config.json", "scheduler_config.json")}
    wanted |= {name for name in names if name.startswith("scheduler/") and name.endswith(".json")}
    wanted |= {name for name in names if re.match(r"tokenizer(_2)?/", name) and Path(name).name in TOKENIZER_FILES}

    # Very old pipelines of one model have its files in their own folder.
    folders = [f"{model}/" for model in MODELS if f"{model}/config.json" in names] or [""]
    wanted |= {f"{folder}config.json" for folder in folders}
    contents = {folder: {n.removeprefix(folder) for n in names if n.startswith(folder)} for folder in folders}

    # Half precision, if every model has it; otherwise full precision.
    variants = ["fp16", None] if half else [None]
    sets = next(
        (s for v in variants if all((s := {f: _weights(inside, v) for f, inside in contents.items()}).values())),
        {f: _weights(inside, None) for f, inside in contents.items()},
    )

    return sorted(wanted | {folder + name for folder, files in sets.items() for name in files})


def _weights(names: set[str], variant: str | None) -> set[str]:
    """The best weight file among those of a folder, or an index and its shards."""
    for best in weight_names(variant):
        if best not in names:
            continue
        if not best.endswith(".json"):
            return {best}

        suffix, infix = re.match(r".*\.(\w+)\.index(\..*)?\.json", best).groups()  # type: ignore[union-attr]
        stems = "|".join(NAMES[suffix])
        shard = re.compile(rf"({stems})(\.[a-z]\w*)?-\d+-of-\d+(\.[a-z]\w*)?\.{suffix}")
        same = {n for n in names if (m := shard.fullmatch(n)) and (m[2] or m[3]) == infix}
        return {best, *same}

    return set()
