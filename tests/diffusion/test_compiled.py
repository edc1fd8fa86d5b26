"""A batch that is computed side by side gives the same images and gradients as in one piece."""

from __future__ import annotations

import threading

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from adaptive_diffusion.backend import prepare
from adaptive_diffusion.backend.blas import Blas, Threads
from adaptive_diffusion.diffusion import compiled as module
from adaptive_diffusion.diffusion.compiled import compiled
from adaptive_diffusion.models.unet import SimpleUNet, UNetConfig

pytestmark = pytest.mark.skipif(mx.default_device() == mx.gpu, reason="a batch is spread on a CPU only")


@pytest.fixture
def library(monkeypatch):
    """A BLAS of three threads: what a matrix product has now."""
    now = [3]
    control = Threads(lambda: now[0], lambda n: now.__setitem__(0, n))
    monkeypatch.setattr(prepare, "_blas", Blas("openblas", threads=3, control=control))
    monkeypatch.setattr(module, "SMALLEST_PART", 100)
    return now


@pytest.fixture(scope="module")
def model():
    mx.random.seed(0)
    config = UNetConfig(
        image_size=8, widths=(8, 16), blocks=(1, 1), attention_levels=(1,), head_dim=8, num_classes=(3,)
    )
    network = SimpleUNet(config)
    network.head.weight = mx.random.normal(network.head.weight.shape)
    return network


@pytest.fixture(scope="module")
def batch():
    """Seven images, which three parts cannot share out evenly."""
    x = mx.random.normal((7, 8, 8, 3), key=mx.random.key(0))
    return x, mx.linspace(1, 900, 7), mx.array([[i % 4] for i in range(7)])


def seen(parts):
    """A network that notes the sizes of its batches."""

    def predict(x, t, condition=None):
        parts.append(len(x))
        assert len(t) == len(x)
        return x * t[:, None, None, None]

    return predict


def test_each_image_is_predicted_as_in_one_piece(library, model, batch):
    whole, spread = model(*batch), compiled(model)(*batch)
    assert np.abs(np.array(whole) - np.array(spread)).max() < 1e-5 * float(mx.abs(whole).max())


def test_parts_share_the_batch_and_the_blas_is_left_as_it_was(library, batch):
    parts = []
    compiled(seen(parts))(batch[0], batch[1])
    assert parts == [2, 2, 3]
    assert library == [3]


@pytest.mark.parametrize(("threads", "images"), [(1, 7), (3, 1)])
def test_a_small_batch_and_a_blas_of_one_thread_are_left_whole(library, batch, threads, images):
    library[0], parts = threads, []
    compiled(seen(parts))(batch[0][:images], batch[1][:images])
    assert parts == [images]


def test_products_have_one_thread_while_parts_are_computed_side_by_side(library):
    with prepare.one_thread():
        assert prepare.product_threads() == 1
    with pytest.raises(ZeroDivisionError), prepare.one_thread():
        _ = 1 / 0
    assert prepare.product_threads() == 3


def test_gradients_are_those_of_the_whole(library, model, batch):
    def gradients(predict):
        value, found = nn.value_and_grad(model, lambda: predict(*batch).square().mean())()
        return np.concatenate([np.array(a).ravel() for _, a in tree_flatten(found)]), float(value)

    whole, loss = gradients(model)
    assert np.abs(whole).max() > 0
    spread, value = gradients(compiled(model))
    assert value == pytest.approx(loss, rel=1e-5)
    assert np.abs(spread - whole).max() < 1e-5 * np.abs(whole).max()


def test_it_can_be_compiled_and_vectorised(library, model, batch):
    x, t, classes = batch
    convolution = nn.Conv2d(3, 3, 3, padding=1)  # a U-Net's many operations would take a C++ compiler seconds

    def small(x, t, classes):
        return convolution(x) + t[:, None, None, None] * classes[:, :, None, None]

    for network, transformed in (
        (small, mx.compile(lambda x: compiled(small)(x, t, classes))(x)),
        (model, mx.vmap(lambda x: compiled(model)(x, t, classes))(x[None])[0]),
    ):
        whole = np.array(network(x, t, classes))
        assert np.abs(np.array(transformed) - whole).max() < 1e-5 * np.abs(whole).max()


def test_another_thread_has_streams_of_its_own(library, model, batch):
    _ = compiled(model)(*batch)
    found = []
    arrays = [np.array(a) for a in batch]
    thread = threading.Thread(target=lambda: found.append(np.array(compiled(model)(*map(mx.array, arrays)))))
    mx.eval(model.parameters())  # arrays that are evaluated belong to no thread
    thread.start()
    thread.join()
    assert np.abs(found[0] - np.array(model(*batch))).max() < 1e-4


def test_a_compiled_module_predicts_with_its_weights_of_now(monkeypatch):
    monkeypatch.setattr(module.mx, "default_device", lambda: mx.gpu)
    network = nn.Linear(3, 3)
    first, x = compiled(network), mx.ones((2, 3))
    first(x)
    network.weight, network.bias = mx.zeros((3, 3)), mx.full((3,), 0.5)
    assert first(x).tolist() == compiled(network)(x).tolist() == [[0.5] * 3] * 2
