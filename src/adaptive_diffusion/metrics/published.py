"""The published weight files of the metrics: their hashes, their folders, and where to get them."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import UnusableFile
from ..io.files import home_path

FOLDER_VARIABLE = "ADAPTIVE_DIFFUSION_WEIGHTS"


@dataclass(frozen=True)
class PublishedFile:
    """A weight file as its authors published it.

    Attributes:
        title: Content of the file, for messages.
        names: Usual file names. A file of the same name with the suffix `.safetensors` is preferred.
        sha256: Hash of the file. A metric has its published name only with a file of this hash.
        url: Address of the file.
    """

    title: str
    names: tuple[str, ...]
    sha256: str
    url: str


INCEPTION = PublishedFile(
    "InceptionV3 weights of FID",
    ("pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth"),
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
)
LPIPS_TRUNKS = {
    "alex": PublishedFile(
        "AlexNet weights of LPIPS",
        ("alexnet-owt-7be5be79.pth",),
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    ),
    "vgg": PublishedFile(
        "VGG-16 weights of LPIPS",
        ("vgg16-397923af.pth",),
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        "https://download.pytorch.org/models/vgg16-397923af.pth",
    ),
}
LPIPS_HEADS = {
    "alex": PublishedFile(
        "linear heads of LPIPS 0.1 for AlexNet",
        ("lpips-v0.1-alex.pth", "alex.pth"),
        "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1/alex.pth",
    ),
    "vgg": PublishedFile(
        "linear heads of LPIPS 0.1 for VGG-16",
        ("lpips-v0.1-vgg.pth", "vgg.pth"),
        "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        "https://github.com/richzhang/PerceptualSimilarity/raw/master/lpips/weights/v0.1/vgg.pth",
    ),
}
# sha256 of model files of openai/clip-vit-base-patch32 and -large-patch14, which identify a copied folder.
CLIP_HASHES = frozenset(
    {
        "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",  # ViT-B/32, pytorch_model.bin
        "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",  # ViT-L/14, model.safetensors
        "f1a17cdbe0f36fec524f5cafb1c261ea3bbbc13e346e0f74fc9eb0460dedd0d3",  # ViT-L/14, pytorch_model.bin
    }
)
CLIP_OWNERS = ("openai", "laion")  # publishers of OpenAI's and OpenCLIP's models on the hub


def weight_folders() -> list[Path]:
    """Folders of published files: our own folder, then the download folders of PyTorch's libraries."""
    own = os.environ.get(FOLDER_VARIABLE) or Path.home() / ".cache" / "adaptive_diffusion" / "weights"
    torch_home = os.environ.get("TORCH_HOME") or Path.home() / ".cache" / "torch"
    folders = [home_path(own), home_path(torch_home) / "hub" / "checkpoints"]

    # The package lpips contains the heads; an import would load PyTorch.
    lpips = importlib.util.find_spec("lpips")
    if lpips is not None and lpips.submodule_search_locations:
        folders.append(Path(lpips.submodule_search_locations[0]) / "weights" / "v0.1")

    return folders


def find_published(file: PublishedFile, given: str | Path | None = None) -> Path:
    """Find a published file.

    Args:
        file: The file.
        given: A path, which is returned as it is if it is a file; a folder to search; None: search `weight_folders`.

    Raises:
        UnusableFile: if the file is not there, with the searched folders and the address of the file.
    """
    if given is not None:
        given = home_path(given)
        if given.is_file():
            return given

    folders = weight_folders() if given is None else [given]
    names = [name for n in file.names for name in (Path(n).with_suffix(".safetensors").name, n)]
    for folder in folders:
        for name in names:
            if (folder / name).is_file():
                return folder / name

    raise UnusableFile(
        f"the {file.title} were not found: no {file.names[0]} in {' or '.join(map(str, folders))}; download it from "
        f"{file.url} into the first of these, or name another folder with {FOLDER_VARIABLE}"
    )
