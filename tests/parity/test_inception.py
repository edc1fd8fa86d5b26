"""InceptionV3 against a plain PyTorch network of the same architecture, and proof that the tolerance notices faults."""

import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from adaptive_diffusion.metrics import inception, published
from adaptive_diffusion.metrics.features import picture_statistics
from adaptive_diffusion.metrics.inception import load_inception
from adaptive_diffusion.metrics.layers import resize_bilinear_tf1
from adaptive_diffusion.metrics.weights import read_weights

TOLERANCE = 5e-6  # relative to the largest feature; float32 leaves about 5e-7


class ConvBN(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int | tuple[int, int] = 1, **options: object):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, bias=False, **options)
        self.bn = nn.BatchNorm2d(outputs, eps=0.001)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn(self.conv(x)))


def same(inputs: int, outputs: int, height: int, width: int) -> ConvBN:
    return ConvBN(inputs, outputs, (height, width), padding=(height // 2, width // 2))


class A(nn.Module):
    def __init__(self, inputs: int, pool: int):
        super().__init__()
        self.branch1x1 = ConvBN(inputs, 64)
        self.branch5x5_1, self.branch5x5_2 = ConvBN(inputs, 48), same(48, 64, 5, 5)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = ConvBN(inputs, 64), same(64, 96, 3, 3)
        self.branch3x3dbl_3 = same(96, 96, 3, 3)
        self.branch_pool = ConvBN(inputs, pool)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        pool = self.branch_pool(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))
        return torch.cat([self.branch1x1(x), five, three, pool], 1)


class B(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch3x3 = ConvBN(288, 384, 3, stride=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = ConvBN(288, 64), same(64, 96, 3, 3)
        self.branch3x3dbl_3 = ConvBN(96, 96, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), three, F.max_pool2d(x, 3, 2)], 1)


class C(nn.Module):
    def __init__(self, c: int):
        super().__init__()
        self.branch1x1 = ConvBN(768, 192)
        self.branch7x7_1, self.branch7x7_2, self.branch7x7_3 = ConvBN(768, c), same(c, c, 1, 7), same(c, 192, 7, 1)
        self.branch7x7dbl_1, self.branch7x7dbl_2 = ConvBN(768, c), same(c, c, 7, 1)
        self.branch7x7dbl_3, self.branch7x7dbl_4 = same(c, c, 1, 7), same(c, c, 7, 1)
        self.branch7x7dbl_5 = same(c, 192, 1, 7)
        self.branch_pool = ConvBN(768, 192)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        pool = self.branch_pool(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))

        return torch.cat([self.branch1x1(x), seven, double, pool], 1)


class D(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = ConvBN(768, 192), ConvBN(192, 320, 3, stride=2)
        self.branch7x7x3_1, self.branch7x7x3_2 = ConvBN(768, 192), same(192, 192, 1, 7)
        self.branch7x7x3_3, self.branch7x7x3_4 = same(192, 192, 7, 1), ConvBN(192, 192, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, F.max_pool2d(x, 3, 2)], 1)


class E(nn.Module):
    def __init__(self, inputs: int, last: bool):
        super().__init__()
        self.last = last
        self.branch1x1 = ConvBN(inputs, 320)
        self.branch3x3_1, self.branch3x3dbl_1 = ConvBN(inputs, 384), ConvBN(inputs, 448)
        self.branch3x3_2a, self.branch3x3_2b = same(384, 384, 1, 3), same(384, 384, 3, 1)
        self.branch3x3dbl_2 = same(448, 384, 3, 3)
        self.branch3x3dbl_3a, self.branch3x3dbl_3b = same(384, 384, 1, 3), same(384, 384, 3, 1)
        self.branch_pool = ConvBN(inputs, 192)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        three, double = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pool = F.max_pool2d(x, 3, 1, 1) if self.last else F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        branches = [self.branch1x1(x), self.branch3x3_2a(three), self.branch3x3_2b(three)]
        branches += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), self.branch_pool(pool)]

        return torch.cat(branches, 1)


def resized(x: torch.Tensor, size: int) -> torch.Tensor:
    """TensorFlow 1's bilinear resize of (B, C, H, W) as an average of four neighbours, in float64."""
    n, m = x.shape[2:]

    def axis(n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        position = (torch.arange(size) * torch.tensor(n / size, dtype=torch.float32)).double()
        low = position.floor().long()
        return low, (low + 1).clamp_max(n - 1), position - low

    (top, bottom, dy), (left, right, dx) = axis(n), axis(m)
    dy, x = dy[:, None], x.double()
    upper = x[:, :, top][..., left] * (1 - dx) + x[:, :, top][..., right] * dx
    lower = x[:, :, bottom][..., left] * (1 - dx) + x[:, :, bottom][..., right] * dx

    return (upper * (1 - dy) + lower * dy).float()


class TorchInception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3, self.Conv2d_2a_3x3 = ConvBN(3, 32, 3, stride=2), ConvBN(32, 32, 3)
        self.Conv2d_2b_3x3 = same(32, 64, 3, 3)
        self.Conv2d_3b_1x1, self.Conv2d_4a_3x3 = ConvBN(64, 80), ConvBN(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = A(192, 32), A(256, 64), A(288, 64)
        self.Mixed_6a = B()
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = C(128), C(160), C(160), C(192)
        self.Mixed_7a, self.Mixed_7b, self.Mixed_7c = D(), E(1280, last=False), E(2048, last=True)
        self.fc = nn.Linear(2048, 1008)

    @torch.inference_mode()
    def forward(self, pixels: np.ndarray) -> np.ndarray:
        x = torch.tensor(pixels).permute(0, 3, 1, 2)
        x = (resized(x, 299) - 128) / 128
        x = F.max_pool2d(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))), 3, 2)
        x = F.max_pool2d(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)), 3, 2)
        x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))
        return np.asarray(x.mean((2, 3)))


@pytest.fixture(scope="module")
def weight_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights that keep the signal's size through the depth; nothing one-dimensional is left at 0 or 1."""
    torch.manual_seed(0)

    network = TorchInception()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)

        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)

    path = tmp_path_factory.mktemp("inception") / "pt_inception-2015-12-05-6726825d.pth"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)  # as the published file
    return path


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (1, 32, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def reference(weight_file: Path, pixels: np.ndarray) -> np.ndarray:
    network = TorchInception()
    network.load_state_dict(torch.load(weight_file))
    return network.eval()(pixels)


def error(weight_file: Path, pixels: np.ndarray, reference: np.ndarray) -> float:
    found = load_inception(weight_file).features(pixels)
    assert found.shape == reference.shape == (1, 2048)
    return float(np.abs(found - reference).max() / np.abs(reference).max())


def test_the_features_agree(weight_file: Path, pixels: np.ndarray, reference: np.ndarray) -> None:
    assert error(weight_file, pixels, reference) < TOLERANCE


def average_with_padding(x: mx.array) -> mx.array:
    """What nn.AvgPool2d computes: the padding counts as zeros."""
    padded = mx.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    h, w = x.shape[1:3]
    return sum((padded[:, i : i + h, j : j + w] for i in range(3) for j in range(3)), mx.zeros(1)) / 9


def resize_with_half_pixels(x: mx.array, size: int) -> mx.array:
    """What every later library does."""
    nchw = torch.tensor(np.array(x)).permute(0, 3, 1, 2)
    out = F.interpolate(nchw, (size, size), mode="bilinear", align_corners=False)
    return mx.array(out.permute(0, 2, 3, 1).contiguous().numpy())


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        ("BN_EPS", 1e-5),
        ("resize_bilinear_tf1", resize_with_half_pixels),
        ("resize_bilinear_tf1", lambda x, size: resize_bilinear_tf1(x, size) + 0.5),  # (x - 127.5) / 128
        ("average_pool_3x3", average_with_padding),
        ("_BLOCKS", {**inception._BLOCKS, "Mixed_7c": inception._BLOCKS["Mixed_7b"]}),
    ],
    ids=["eps", "half-pixel", "centre", "count-padding", "last-pool"],
)
def test_the_tolerance_notices(
    part: str,
    fault: object,
    weight_file: Path,
    pixels: np.ndarray,
    reference: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inception, part, fault)
    assert error(weight_file, pixels, reference) > 4 * TOLERANCE


def test_batches_and_value_types_do_not_matter(weight_file: Path) -> None:
    encoder = load_inception(weight_file)
    pixels = np.random.default_rng(1).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    whole = encoder.features(pixels)
    np.testing.assert_allclose(encoder.features(pixels, batch_size=2), whole, atol=1e-6 * whole.max())
    np.testing.assert_array_equal(encoder.features(pixels / 127.5 - 1.0), whole)
    with pytest.raises(ValueError, match="RGBA"):
        encoder.features(np.zeros((1, 8, 8, 4), np.uint8))


def test_only_the_published_weights_make_a_fid(
    weight_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_inception(weight_file).metric_name == "fd_inception"
    sha256 = read_weights(weight_file).sha256
    monkeypatch.setattr(inception, "INCEPTION", published.PublishedFile("InceptionV3", ("w.pth",), sha256, "url"))
    assert load_inception(weight_file).metric_name == "fid"
    shutil.copy(weight_file, tmp_path / "w.pth")  # folders are searched
    monkeypatch.setenv(published.FOLDER_VARIABLE, str(tmp_path))
    assert load_inception().metric_name == "fid"
    assert load_inception().content_hash == sha256


def test_statistics_name_the_network_and_the_weights(weight_file: Path) -> None:
    encoder = load_inception(weight_file)
    found = picture_statistics(encoder, np.random.default_rng(2).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8))
    assert (found.n, found.encoder, found.mean.shape) == (2, "inception_v3/2048", (2048,))
    assert found.encoder_hash == read_weights(weight_file).sha256


def test_missing_and_foreign_weights_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(published.FOLDER_VARIABLE, str(tmp_path / "mine"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    with pytest.raises(ValueError, match=r"pt_inception.*mine .*checkpoints.*https://"):
        load_inception()

    torch.save({"conv1.weight": torch.zeros(2)}, tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match=r"resnet\.pth .*InceptionV3"):
        load_inception(tmp_path / "resnet.pth")
