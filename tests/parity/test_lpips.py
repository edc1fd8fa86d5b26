"""LPIPS against its formula written out in plain PyTorch, and proof that the tolerance notices faults."""

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import torch
from torch import nn

from adaptive_diffusion.metrics import lpips, published
from adaptive_diffusion.metrics.layers import max_pool
from adaptive_diffusion.metrics.lpips import LPIPS, load_lpips
from adaptive_diffusion.metrics.weights import Weights, read_weights

TOLERANCE = 5e-6  # relative; float32 leaves about 5e-7

VGG_WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512)
AFTER = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}  # the five ReLUs compared, by their place in `features`


def alexnet() -> list[nn.Module]:
    return [
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, 1, 2), nn.ReLU(),
        nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU(), nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(),
    ]  # fmt: skip


def vgg16() -> list[nn.Module]:
    layers: list[nn.Module] = []
    width = 3
    for out in VGG_WIDTHS:
        layers += [nn.Conv2d(width, out, 3, 1, 1), nn.ReLU()] if out else [nn.MaxPool2d(2, 2)]
        width = out or width

    return layers


class TorchLPIPS(nn.Module):
    """Named as torchvision's state file and as the heads of LPIPS 0.1."""

    def __init__(self, trunk: str):
        super().__init__()
        self.after = AFTER[trunk]
        self.features = nn.Sequential(*(alexnet() if trunk == "alex" else vgg16()))
        for depth, index in enumerate(self.after):
            width = self.features[index - 1].out_channels
            head = nn.Sequential(nn.Dropout(), nn.Conv2d(width, 1, 1, bias=False))
            setattr(self, f"lin{depth}", nn.ModuleDict({"model": head}))

    @torch.inference_mode()
    def forward(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        x, y = (((torch.tensor(z) - shift) / scale).permute(0, 3, 1, 2) for z in (a, b))

        total = torch.zeros(len(x))
        for index, layer in enumerate(self.features):
            x, y = layer(x), layer(y)
            if index in self.after:
                u, v = (z / (z.square().sum(1, keepdim=True).sqrt() + 1e-10) for z in (x, y))
                head = getattr(self, f"lin{self.after.index(index)}")["model"]
                total = total + head((u - v) ** 2).mean((1, 2, 3))

        return total.numpy()


class Case:
    def __init__(self, trunk: str, folder: Path, gain: float = 1.0):
        torch.manual_seed(0)

        self.trunk, self.network = trunk, TorchLPIPS(trunk).eval()
        for name, p in self.network.named_parameters():
            if name.startswith("lin"):
                nn.init.uniform_(p, 0, 1)  # the published heads are not negative
            elif p.ndim == 4:
                nn.init.kaiming_normal_(p)
            else:
                nn.init.normal_(p, 0, 0.05)

        with torch.no_grad():
            for p in self.network.features[0].parameters():
                p *= gain

        state = self.network.state_dict()
        self.trunk_file, self.heads_file = folder / f"{trunk}-trunk.pth", folder / f"{trunk}-heads.pth"
        torch.save({k: v for k, v in state.items() if k.startswith("features")}, self.trunk_file)
        torch.save({k: v for k, v in state.items() if k.startswith("lin")}, self.heads_file)
        rng = np.random.default_rng(0)
        self.a = rng.uniform(-1, 1, (2, 35, 40, 3)).astype(np.float32)
        self.b = np.clip(self.a + 0.3 * rng.standard_normal(self.a.shape), -1, 1).astype(np.float32)
        self.expected = self.network(self.a, self.b)

    def load(self) -> LPIPS:
        return load_lpips(self.trunk, self.trunk_file, self.heads_file)

    def error(self) -> float:
        return float(np.abs(self.load().distances(self.a, self.b) / self.expected - 1).max())


@pytest.fixture(scope="module")
def alex(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case("alex", tmp_path_factory.mktemp("alex"))


@pytest.mark.parametrize("trunk", ["alex", "vgg"])
def test_both_trunks_agree(trunk: str, tmp_path: Path) -> None:
    case = Case(trunk, tmp_path)
    assert case.error() < TOLERANCE
    assert case.expected.min() > 0.01


def test_faint_features_agree_too_and_show_where_eps_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Norms near eps: 1e-10 beside the root leaves them alone, 1e-8 under it or another eps does not.
    case = Case("alex", tmp_path, gain=1e-5)
    assert case.error() < TOLERANCE
    monkeypatch.setattr(lpips, "NORM_EPS", 1e-8)
    assert case.error() > 4 * TOLERANCE
    monkeypatch.setattr(lpips, "NORM_EPS", 0.0)
    root = mx.sqrt
    monkeypatch.setattr(mx, "sqrt", lambda x: root(x + 1e-8))  # torchmetrics' variant
    assert case.error() > 4 * TOLERANCE


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        ("_SHIFT", (-0.031, -0.088, -0.188)),
        ("_SCALE", (0.458, 0.448, 0.451)),
        ("max_pool", lambda x, size, stride: max_pool(x, 2, stride)),
    ],
    ids=["shift", "scale", "pool"],
)
def test_the_tolerance_notices(part: str, fault: object, alex: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lpips, part, fault)
    assert alex.error() > 4 * TOLERANCE


def test_it_is_a_distance_of_pictures_in_the_same_place(alex: Case) -> None:
    metric = alex.load()
    np.testing.assert_array_equal(metric.distances(alex.a, alex.a), 0)
    np.testing.assert_allclose(metric.distances(alex.b, alex.a), metric.distances(alex.a, alex.b), rtol=1e-5)
    one = [metric.distances(alex.a[i : i + 1], alex.b[i : i + 1])[0] for i in range(2)]
    np.testing.assert_allclose(metric.distances(alex.a, alex.b, batch_size=1), one, rtol=1e-6)
    pixels = np.random.default_rng(1).integers(0, 256, (2, 2, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(metric.distances(*pixels), metric.distances(*(pixels / np.float32(127.5) - 1)))


def test_the_smallest_picture_works_and_a_smaller_one_is_refused(alex: Case) -> None:
    metric = alex.load()
    assert metric.distances(alex.a[:, :31, :31], alex.b[:, :31, :31]).shape == (2,)
    with pytest.raises(ValueError, match="31 pixels"):
        metric.distances(alex.a[:, :30], alex.b[:, :30])

    with pytest.raises(ValueError, match="same size"):
        metric.distances(alex.a, alex.b[:, :32])


def test_only_the_published_weights_make_an_lpips(alex: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    assert alex.load().metric_name == "perceptual_distance"
    for table, file in (("LPIPS_TRUNKS", alex.trunk_file), ("LPIPS_HEADS", alex.heads_file)):
        known = published.PublishedFile("t", ("t.pth",), read_weights(file).sha256, "url")
        monkeypatch.setattr(lpips, table, {"alex": known})

    assert alex.load().metric_name == "lpips"
    trunk = read_weights(alex.trunk_file)
    retrained = Weights(read_weights(alex.heads_file).tensors, alex.heads_file, "0" * 64)
    assert LPIPS("alex", trunk, retrained).metric_name == "perceptual_distance"


def test_missing_and_foreign_weights_are_explained(alex: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(published.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    with pytest.raises(ValueError, match=r"alexnet-owt-7be5be79\.pth .*https://"):
        load_lpips()

    with pytest.raises(ValueError, match="the trunk 'vgg'"):
        load_lpips("vgg", alex.trunk_file, alex.heads_file)

    with pytest.raises(ValueError, match="squeeze"):
        load_lpips("squeeze")  # type: ignore[arg-type]
