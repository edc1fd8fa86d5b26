"""Agreement of images and prompts by a pretrained CLIP model, and its image features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from ..errors import UnusableFile
from ..io.clip_tokenizer import CLIPTokenizer
from ..io.files import read_json
from ..io.hub import is_hub_id, model_folder
from .clip import CLIPConfig, CLIPModel
from .clip_pictures import Preparation, read_preparation
from .features import in_batches
from .pictures import as_uint8
from .published import CLIP_HASHES, CLIP_OWNERS
from .weights import Weights, conv_weight, pick, read_weights_folder


class CLIP:
    """A CLIP model with its tokenizer and image preparation; `load_clip` builds it.

    Attributes:
        name: Name in statistics files, e.g. "clip/openai/clip-vit-base-patch32".
        content_hash: sha256 of the weights and of every setting that changes the features.
        metric_name: "clip_score" for the published models of OpenAI and OpenCLIP, else "clip_similarity".
    """

    def __init__(
        self, model: CLIPModel, tokenizer: CLIPTokenizer, preparation: Preparation, name: str, sha256: str, known: bool
    ):
        self._model, self._tokenizer, self._preparation = model, tokenizer, preparation
        self.name = name

        config = asdict(model.config)
        config["projection_dim"] = config["text"].pop("projection_dim")  # of both towers
        settings = json.dumps([config, asdict(preparation), sha256])
        self.content_hash = hashlib.sha256(settings.encode()).hexdigest()

        self.metric_name = "clip_score" if known else "clip_similarity"

    def features(self, images: Any, batch_size: int = 32) -> np.ndarray:
        """Projected features of (N, H, W, 3) images, uint8 or float in [-1, 1] (rounded to uint8).

        Returns:
            (N, D) float32, not normalised.

        Raises:
            ValueError: see `pictures.check_pictures`.
        """
        return in_batches(
            lambda x: self._model.encode_pixels(mx.array(self._preparation(x))), as_uint8(images), batch_size=batch_size
        )

    def text_features(self, prompts: Sequence[str]) -> np.ndarray:
        """Projected features of prompts, (N, D) float32, not normalised; a prompt is cut after 77 tokens.

        Raises:
            ValueError: if there is no prompt, or a prompt is empty.
        """
        if isinstance(prompts, str):
            raise ValueError("prompts must be a list of texts, got one text; give [prompt]")
        if not prompts or not all(isinstance(p, str) and p.strip() for p in prompts):
            raise ValueError("every prompt must be a text with something in it; leave out empty ones")

        ids = self._tokenizer(list(prompts))
        return in_batches(lambda x: self._model.encode_ids(mx.array(x)), ids, batch_size=64)

    def scores(self, images: Any, prompts: str | Sequence[str], batch_size: int = 32) -> np.ndarray:
        """100 x cosine of each image and its prompt, in [-100, 100]; the mean is the score of the run.

        This is the raw cosine, as in torchmetrics. Hessel et al. (2021) clip it at 0 and multiply by 2.5.

        Args:
            images: (N, H, W, 3), see `features`.
            prompts: One prompt for all images, or N prompts.
            batch_size: Images per evaluation of CLIP.

        Returns:
            (N,) float64.

        Raises:
            ValueError: for unfit images or prompts, or for other than one or N prompts.
        """
        pictures = as_uint8(images)

        texts = [prompts] * len(pictures) if isinstance(prompts, str) else list(prompts)
        if len(texts) != len(pictures):
            raise ValueError(f"give one prompt, or as many as images: got {len(texts)} for {len(pictures)}")

        # Encode each different prompt once.
        different = list(dict.fromkeys(texts))
        rows = [different.index(text) for text in texts]
        t = _unit(self.text_features(different))[rows]

        return 100.0 * (_unit(self.features(pictures, batch_size)) * t).sum(axis=1)


def load_clip(source: str | Path = "openai/clip-vit-base-patch32") -> CLIP:
    """A CLIP model from a folder in Hugging Face's layout, or from the hub.

    Args:
        source: Folder, or hub id such as "openai/clip-vit-large-patch14" (see `hub.model_folder`).

    Raises:
        UnusableFile: if the model cannot be found or fetched, is not CLIP, or its files do not fit each other.
        MissingPackage: if it has to be fetched, without `huggingface_hub`.
    """
    folder = model_folder(source)
    try:
        config = CLIPConfig.from_dict(read_json(folder / "config.json"))
    except (TypeError, ValueError) as error:
        raise UnusableFile(f"{folder / 'config.json'} does not describe a CLIP model: {error}") from error

    tokenizer = CLIPTokenizer(folder, config.text.max_position_embeddings)
    if tokenizer.vocab_size > config.text.vocab_size:
        raise UnusableFile(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model {config.text.vocab_size}"
        )

    weights = read_weights_folder(folder)
    from_hub = is_hub_id(source)
    known = weights.sha256 in CLIP_HASHES or (from_hub and str(source).split("/")[0] in CLIP_OWNERS)
    name = str(source) if from_hub else folder.resolve().name

    return CLIP(
        fill_model(CLIPModel(config), weights),
        tokenizer,
        read_preparation(folder, config.vision.image_size),
        f"clip/{name}",
        weights.sha256,
        known,
    )


def fill_model(model: CLIPModel, weights: Weights) -> CLIPModel:
    """Load the tensors of a file into a model.

    Raises:
        UnusableFile: if a tensor is missing or has another shape.
    """
    patches = "vision_model.embeddings.patch_embedding.weight"
    flat = cast("list[tuple[str, mx.array]]", tree_flatten(model.parameters()))
    shapes = {name: value.shape for name, value in flat}

    # The file has the only convolution in PyTorch's order of axes.
    out, height, width, channels = shapes[patches]
    tensors = pick(weights, {**shapes, patches: (out, channels, height, width)}, "CLIP as its config.json says")
    model.load_weights([(name, conv_weight(value) if name == patches else value) for name, value in tensors.items()])
    mx.eval(model.parameters())
    return model


def _unit(x: np.ndarray) -> np.ndarray:
    y = x.astype(np.float64)
    return y / np.linalg.norm(y, axis=1, keepdims=True)
