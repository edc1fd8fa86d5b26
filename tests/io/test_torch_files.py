"""Weight files of PyTorch: real ones are read exactly, and none can run anything."""

import io
import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adaptive_diffusion.errors import MissingPackage, UnusableFile
from adaptive_diffusion.io.torch_files import read_torch_file


class Attack:
    """Unpickled with the standard module, it creates a file."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(4, 6, generator=generator)
    return {
        "plain": base,
        "transposed": base.T,
        "window": base[1:3, ::2],
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "double": base.double(),
        "count": torch.tensor(7),
        "mask": base > 0,
        "empty": torch.zeros(0, 3),
    }


def same(found: dict[str, np.ndarray], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[name], tensor.float() if name == "bfloat16" else tensor)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_real_files_of_both_formats_are_read_exactly(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(state(), path, _use_new_zipfile_serialization=zipped)
    same(read_torch_file(path), state())


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_modules_parameters_and_wrapped_state_dicts_are_read(zipped: bool, tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    parameters = OrderedDict(module.named_parameters())
    for content, expected in [
        (module.state_dict(), module.state_dict()),
        (parameters, parameters),
        ({"epoch": 3, "lr": 0.1, "state_dict": module.state_dict()}, module.state_dict()),
    ]:
        torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
        same(read_torch_file(tmp_path / "w.pth"), {k: v.detach() for k, v in expected.items()})


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_file_that_wants_to_run_something_is_refused_by_name(zipped: bool, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    content = {**state(), "attack": Attack(trace)}
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"it wants to use (posix|nt)\.mkdir.*safetensors"):
        read_torch_file(tmp_path / "w.pth")
    assert not trace.exists()


def test_a_plain_pickle_and_a_whole_module_are_refused(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for protocol, reason in {2: "mkdir", 4: "more than tensors"}.items():
        (tmp_path / "w.pth").write_bytes(pickle.dumps(Attack(trace), protocol))
        with pytest.raises(ValueError, match=reason) as told:
            read_torch_file(tmp_path / "w.pth")
        assert "weights_only" not in f"{told.value}", "PyTorch's advice to trust the file is not passed on"
        assert not trace.exists()
    torch.save(torch.nn.Linear(2, 2), tmp_path / "m.pth")
    with pytest.raises(ValueError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read_torch_file(tmp_path / "m.pth")


def program(path: Path, body: bytes, storage: bytes = bytes(16)) -> Path:
    """A zip archive with a pickle written by hand."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + body + b".")
        archive.writestr("archive/data/0", storage)
        archive.writestr("archive/version", b"3\n")
    return path


STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def tensor(offset: int, size: int, stride: int) -> bytes:
    """{"w": a window on a storage of four numbers}."""
    window = b"K" + bytes([offset]) + b"K" + bytes([size]) + b"\x85K" + bytes([stride]) + b"\x85"
    return b"}X\x01\x00\x00\x00w" + REBUILD + b"(" + STORAGE + window + b"\x89NtRs"


def test_a_window_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    assert read_torch_file(program(tmp_path / "ok.pth", tensor(1, 3, 1)))["w"].shape == (3,)
    for window in [(1, 4, 1), (0, 2, 4), (5, 1, 1), (0, 200, 1)]:
        with pytest.raises(ValueError, match="cannot be read"):
            read_torch_file(program(tmp_path / "w.pth", tensor(*window)))


@pytest.mark.parametrize("target", [REBUILD, b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n"])
@pytest.mark.parametrize("attributes", [b"}X\x01\x00\x00\x00kK\x01s", b"}}X\x08\x00\x00\x00__call__K\x01s\x86"])
def test_a_pickle_cannot_change_what_it_is_allowed_to_use(target: bytes, attributes: bytes, tmp_path: Path) -> None:
    with pytest.raises(UnusableFile):
        read_torch_file(program(tmp_path / "w.pth", target + attributes + b"b"))
    assert read_torch_file(program(tmp_path / "ok.pth", tensor(0, 4, 1)))["w"].shape == (4,)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_damaged_and_foreign_files_are_refused_in_a_sentence(tmp_path: Path) -> None:
    for zipped in (True, False):
        torch.save(state(), tmp_path / "whole.pth", _use_new_zipfile_serialization=zipped)
        data = (tmp_path / "whole.pth").read_bytes()
        for cut in (0, 10, len(data) // 2, len(data) - 4):
            (tmp_path / "cut.pth").write_bytes(data[:cut])
            with pytest.raises(ValueError, match=r"cut\.pth"):
                read_torch_file(tmp_path / "cut.pth")
    torch.save({"empty": torch.zeros(0)}, tmp_path / "whole.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:-4])  # half of the last storage's length
    with pytest.raises(ValueError, match=r"cut\.pth"):
        read_torch_file(tmp_path / "cut.pth")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="no state dict"):
        read_torch_file(tmp_path / "list.pth")
    with zipfile.ZipFile(tmp_path / "foreign.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1000))
    with pytest.raises(ValueError, match="of another kind"):
        read_torch_file(tmp_path / "foreign.pth")
    (tmp_path / "page.pth").write_text("<html>Not Found</html>")
    with pytest.raises(ValueError, match=r"page\.pth"):
        read_torch_file(tmp_path / "page.pth")
    torch.save({"w": torch.eye(2).to_sparse()}, tmp_path / "sparse.pth")
    with pytest.raises(ValueError, match=r"'w' as .*sparse"):
        read_torch_file(tmp_path / "sparse.pth")
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), buffer)
    (tmp_path / "script.pth").write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="TorchScript"):
        read_torch_file(tmp_path / "script.pth")


def test_without_pytorch_or_with_an_old_one_there_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(state(), tmp_path / "w.bin")
    monkeypatch.setattr(torch, "__version__", "2.5.1+cu124")
    with pytest.raises(MissingPackage, match=r"2\.5\.1.*pip install -U torch"):
        read_torch_file(tmp_path / "w.bin")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingPackage, match=r"w\.bin .*pip install torch.*safetensors"):
        read_torch_file(tmp_path / "w.bin")
