"""3x3 convolutions by Winograd's method."""

import time
from concurrent.futures import ThreadPoolExecutor

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from adaptive_diffusion.backend.prepare import one_thread
from adaptive_diffusion.models.convolution import Conv3x3

pytestmark = pytest.mark.skipif(mx.default_device() != mx.cpu, reason="the method is for CPUs")


def layer(C: int = 32, K: int = 40) -> Conv3x3:
    mx.random.seed(1)
    made = Conv3x3(C, K)
    made.update({"bias": mx.random.normal((K,))})
    return made.eval()


def plain(conv: Conv3x3, x: mx.array) -> mx.array:
    return mx.conv2d(x, conv.weight, padding=1) + conv.bias


def counted(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    calls: list[object] = []
    whole = nn.Conv2d.__call__
    monkeypatch.setattr(nn.Conv2d, "__call__", lambda self, x: calls.append(x) or whole(self, x))
    return calls


@pytest.mark.parametrize(("B", "H", "W"), [(8, 4, 4), (2, 16, 16), (3, 8, 12), (2, 5, 7), (9, 1, 1), (4, 3, 9)])
def test_equals_the_plain_convolution_for_every_size(monkeypatch, B, H, W):
    calls, conv, x = counted(monkeypatch), layer(), mx.random.normal((B, H, W, 32))

    found, expected = conv(x), plain(conv, x)

    assert found.shape == (B, H, W, 40)
    assert not calls
    np.testing.assert_allclose(found, expected, atol=3e-5 * float(mx.abs(expected).max()))


def test_an_image_does_not_depend_on_its_batch():
    conv, x = layer(), mx.random.normal((5, 8, 8, 32))

    np.testing.assert_allclose(conv(x)[3:4], conv(x[3:4]), atol=1e-5)


@pytest.mark.parametrize("why", ["training", "half precision", "few channels", "few tiles", "many weights"])
def test_what_gains_nothing_is_left_to_mlx(monkeypatch, why):
    calls = counted(monkeypatch)
    conv = layer(*{"few channels": (31, 40), "many weights": (512, 512)}.get(why, (32, 40)))
    conv.train(why == "training")
    if why == "half precision":
        conv.set_dtype(mx.float16)

    B = 7 if why == "few tiles" else 8
    conv(mx.zeros((B, 4, 4, conv.weight.shape[-1]), conv.weight.dtype))

    assert len(calls) == 1


def replaced(conv: Conv3x3) -> None:
    conv.update({"weight": 2 * conv.weight})


def doubled(conv: Conv3x3) -> None:
    conv.weight *= 2


def set_in_part(conv: Conv3x3) -> None:
    conv.weight[:, 1] = 0


@pytest.mark.parametrize("change", [replaced, doubled, set_in_part])
def test_weights_that_change_are_noticed(change):
    conv, x = layer(), mx.random.normal((1, 8, 8, 32))
    conv(x)

    for _ in range(3):
        change(conv)
        np.testing.assert_allclose(conv(x), plain(conv, x), atol=1e-4)


def test_its_gradients_are_those_of_the_plain_convolution():
    conv, x = layer(), mx.random.normal((2, 8, 8, 32))

    def loss(call, weight, x):
        conv.update({"weight": weight})
        return (call(conv, x) ** 2).sum()

    weight = conv.weight
    found = mx.grad(lambda w, x: loss(Conv3x3.__call__, w, x), argnums=(0, 1))(weight, x)
    expected = mx.grad(lambda w, x: loss(plain, w, x), argnums=(0, 1))(weight, x)

    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * float(mx.abs(b).max()))


def test_it_works_compiled_and_vectorised():
    conv, x = layer(), mx.random.normal((3, 2, 8, 8, 32))
    expected = mx.stack([plain(conv, part) for part in x])

    def with_weights(weight: mx.array, x: mx.array) -> mx.array:
        conv.update({"weight": weight})
        return conv(x)

    np.testing.assert_allclose(mx.vmap(conv)(x), expected, atol=1e-4)
    np.testing.assert_allclose(mx.compile(layer())(x[0]), expected[0], atol=1e-4)
    np.testing.assert_allclose(mx.compile(with_weights)(conv.weight, x[0]), expected[0], atol=1e-4)


def test_two_threads_share_a_layer():
    conv, x = layer(), mx.random.normal((4, 8, 8, 32))
    expected = np.array(plain(conv, x))

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda image: np.array(conv(mx.array(image))), np.array(x)[:, None]))

    np.testing.assert_allclose(np.concatenate(found), expected, atol=1e-4)


@pytest.mark.slow  # a busy machine or another BLAS may make it fail
def test_it_takes_less_time_than_the_plain_convolution():
    conv, x = layer(64, 64), mx.random.normal((8, 16, 16, 64))

    def seconds(function) -> float:
        start = time.process_time()  # of the processor: other work on the machine does not count
        for _ in range(5):
            mx.eval(function(x))
        return time.process_time() - start

    with one_thread():
        ratios = [seconds(conv) / seconds(lambda x: plain(conv, x)) for _ in range(15)]

    assert np.median(ratios) < 0.9  # 0.5 to 0.6 where it was measured
