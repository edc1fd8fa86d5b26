"""A model, images and configurations small enough to run a whole job in a test."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path

import mlx.core as mx
import numpy as np
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from adaptive_diffusion.cli.schemas import register
from adaptive_diffusion.encoder.encoder import Encoder
from adaptive_diffusion.encoder.network import EncoderConfig, EncoderNetwork
from adaptive_diffusion.encoder.words import load_words
from adaptive_diffusion.models.checkpoint import save_model
from adaptive_diffusion.models.unet import SimpleUNet, UNetConfig
from adaptive_diffusion.tracking.mlflow import MlflowTracker

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf"
LABELS = {
    "portraits": ["official"],
    "landscapes": ["forest", "sunrise"],
    "abstract": [],
    "general": ["butterfly", "apple"],
}


def tiny_model(**metadata: object) -> SimpleUNet:
    """An untrained 8x8 U-Net that draws something, conditional on four domains and five labels."""
    mx.random.seed(0)
    model = SimpleUNet(
        UNetConfig(
            image_size=8, widths=(8, 16), blocks=(1, 1), attention_levels=(), embedding_dim=16, num_classes=(4, 5)
        )
    )
    model.head.weight = 0.2 * mx.random.normal(model.head.weight.shape)
    for block in model.down[0].blocks:
        block.modulation.weight = 0.5 * mx.random.normal(block.modulation.weight.shape)
        block.conv2.weight = 0.1 * mx.random.normal(block.conv2.weight.shape)
    model._metadata = {
        "prediction_type": "v_prediction",
        "noise_schedule": {"beta_schedule": "squaredcos_cap_v2"},
        "domains": list(LABELS),
        "labels": LABELS,
        "guidance_scale": 1.5,
        **metadata,
    }
    return model


def tiny_checkpoint(folder: Path, **metadata: object) -> Path:
    """The model's file."""
    path = folder / "tiny.safetensors"
    save_model(path, tiny_model(**metadata))
    return path


def tiny_pictures(folder: Path) -> Path:
    """A file of 40 noisy 8x8 images with two labels."""
    path, rng = folder / "cats.npz", np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8), rng.integers(0, 2, 40)
    np.savez(path, images=images, labels=labels, label_names=np.array(["tabby", "black"]))
    return path


def configuration(root: str, folder: Path, *overrides: str) -> DictConfig:
    """Compose a root configuration whose run lies in `folder`."""
    os.environ["ADAPTIVE_DIFFUSION_ROOT"] = str(ROOT)
    register()
    paths = [f"paths.outputs={folder}/outputs", f"paths.mlruns={folder}/mlruns", f"paths.run={folder}/run"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose(root, overrides=[*paths, *overrides])
    if "experiment" in cfg.tracking:
        cfg.tracking.experiment = "test"  # normally the name of Hydra's job
    if "calibrate" in cfg.get("scheduler", {}) and not any("calibrate" in override for override in overrides):
        cfg.scheduler.calibrate = "never"  # a run of a test does not calibrate unless it is about that
    return cfg


@functools.cache
def _database() -> Path:
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    tracker = MlflowTracker(str(folder / "mlflow.db"), str(folder / "artifacts"), "unused", 1.0, 5001)
    assert tracker.experiment_id
    return tracker.database


def mlflow_database(folder: Path) -> Path:
    """A copy of a database that MLflow has set up, which takes seconds and is done once."""
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(_database(), folder / "mlflow.db"))


def tiny_folder(folder: Path) -> Path:
    """A folder with the model, the images and an empty database."""
    mlflow_database(folder / "mlruns")
    tiny_checkpoint(folder)
    tiny_pictures(folder)
    return folder


@functools.cache
def tiny_encoder() -> Encoder:
    """An untrained encoder of 8x8 images with learned features of width 4, and the shipped word vectors."""
    mx.random.seed(0)
    words = load_words()
    config = EncoderConfig(tuple(LABELS), image_size=8, widths=(6, 8), dimension=4, word_dimension=words.dimension)
    metadata = {"words_hash": words.content_hash, "content_hash": "tiny"}
    return Encoder(EncoderNetwork(config), words, metadata)
