"""Read PyTorch's `.pth` and `.bin` weight files without PyTorch and without ever running code from them.

Such a file is a pickle, a small program that may call any function it names. Here it can name the handful of things
weight files consist of, listed in `_ALLOWED`; whatever else it names is refused. Both of PyTorch's formats are read:
the zip archive (since 1.6) and the sequence of pickles before it.
"""

from __future__ import annotations

import collections
import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from .errors import UserError, plainly
from .files import hindrance

_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of the old format
_PROTOCOL = 1001

# Storage class -> element type. bfloat16 is unknown to NumPy: its bits are the upper half of a float32's.
_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}


class _Storage(NamedTuple):
    """A run of numbers, by the name under which its bytes lie in the file."""

    kind: str
    key: str
    numel: int


class _View(NamedTuple):
    """A tensor: a strided window on a storage, resolved and checked once the bytes are there."""

    storage: Any
    offset: Any
    size: Any
    stride: Any


# What a pickle can lay hands on has no attributes, so that its BUILD instruction can change nothing about it.


class _StorageType(str):
    """Stands for a class such as torch.FloatStorage; cannot be called."""

    __slots__ = ()


class _Rebuild:
    """Stands for torch._utils._rebuild_tensor_v2."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _View:
        return _View(storage, offset, size, stride)


class _First:
    """Stands for functions that wrap the tensor given first, such as torch._utils._rebuild_parameter."""

    __slots__ = ()

    def __call__(self, first: Any, *_: Any) -> Any:
        return first


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _Rebuild(),
    ("torch._utils", "_rebuild_tensor"): _Rebuild(),
    ("torch._utils", "_rebuild_parameter"): _First(),
    ("torch", "Size"): tuple,
    **{("torch", kind): _StorageType(kind) for kind in _STORAGES},
}


class _Refused(Exception):
    """A pickle names something that is not allowed, or is not built as a weight file is."""


class _Unpickler(pickle.Unpickler):
    """The standard unpickler, with the names it may look up cut down to `_ALLOWED`."""

    def __init__(self, file: IO[bytes]):
        super().__init__(file)
        self.kinds: dict[str, str] = {}  # key -> kind of every storage referred to

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _Refused(f"it wants to use {module}.{name}")
        return _ALLOWED[module, name]

    def persistent_load(self, identity: Any) -> _Storage:
        match identity:
            # The old format has a sixth entry, for windows on other storages; nothing has written one since 2017.
            case ("storage", _StorageType() as kind, str(key), _, int(numel)) | (
                "storage",
                _StorageType() as kind,
                str(key),
                _,
                int(numel),
                None,
            ):
                self.kinds[key] = str(kind)
                return _Storage(str(kind), key, numel)
        raise _Refused("it refers to a storage in an unknown way")


def read_torch_file(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a weight file written by `torch.save`.

    Args:
        path: A state dict, or a dict that holds one as "state_dict", "model" or "params".

    Returns:
        Name -> array; bfloat16 becomes float32. Entries that are no tensors are left out.

    Raises:
        UserError: if the file is damaged, holds no state dict, or names anything but tensors.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            content, load = _read_zip(file) if zipfile.is_zipfile(file) else _read_legacy(file)
            return _tensors(content, load)
    except _Refused as error:
        raise UserError(
            f"{path} is not a plain weight file and was not opened further: {error}; convert it to safetensors where "
            "you trust it"
        ) from error
    except _DAMAGE as error:
        if hindered := hindrance(path):
            raise UserError(hindered) from None
        raise UserError(f"{path} cannot be read as a PyTorch weight file ({plainly(error)}); get it again") from error


# What the unpickler and the zip reader raise on bytes that are not what they claim to be.
_DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    NotImplementedError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)


def _read_zip(file: IO[bytes]) -> tuple[Any, Callable[[_Storage], bytes]]:
    """The object of a zip archive, and a function that gives the bytes of its storages."""
    archive = zipfile.ZipFile(file)
    names = archive.namelist()
    programs = [name for name in names if name.split("/")[1:] == ["data.pkl"]]
    if len(programs) != 1:
        raise _Refused("it is a zip file without data.pkl")
    root = programs[0].removesuffix("data.pkl")
    if root + "constants.pkl" in names:
        raise _Refused("it is a TorchScript archive, which holds code")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
        raise _Refused("it is compressed, which torch.save never does")  # and could unpack to any size
    if root + "byteorder" in names and archive.read(root + "byteorder") != b"little":
        raise _Refused("its numbers are big-endian")
    content = _Unpickler(io.BytesIO(archive.read(programs[0]))).load()
    return content, lambda storage: archive.read(f"{root}data/{storage.key}")


def _read_legacy(file: IO[bytes]) -> tuple[Any, Callable[[_Storage], bytes]]:
    """The object of the old format: five pickles, then every storage as its length and its bytes."""
    file.seek(0)
    if _Unpickler(file).load() != _MAGIC or _Unpickler(file).load() != _PROTOCOL:
        raise _Refused("it does not begin as torch.save begins a file")
    system = _Unpickler(file).load()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise _Refused("its numbers are big-endian")
    unpickler = _Unpickler(file)
    content = unpickler.load()
    data = {}
    for key in _Unpickler(file).load():
        count = int.from_bytes(_exactly(file, 8), "little", signed=True)
        if key not in unpickler.kinds or count < 0:
            raise _Refused("its storages do not match its tensors")
        data[key] = _exactly(file, count * np.dtype(_STORAGES[unpickler.kinds[key]]).itemsize)
    return content, lambda storage: data[storage.key]


def _exactly(file: IO[bytes], size: int) -> bytes:
    """The next `size` bytes; a file that ends before is refused."""
    data = file.read(size)
    if len(data) < size:
        raise EOFError(f"{size} bytes were announced, {len(data)} are left")
    return data


def _state_dict(content: Any) -> Mapping[Any, Any]:
    """The mapping with the tensors: the object itself, or the one it holds under a usual name."""
    for _ in range(2):
        if isinstance(content, Mapping):
            if any(isinstance(value, _View) for value in content.values()):
                return content
            content = next((content[key] for key in ("state_dict", "model", "params") if key in content), None)
    raise _Refused("it holds no state dict, name -> tensor")


def _tensors(content: Any, load: Callable[[_Storage], bytes]) -> dict[str, np.ndarray]:
    return {str(name): _array(view, load) for name, view in _state_dict(content).items() if isinstance(view, _View)}


def _array(view: _View, load: Callable[[_Storage], bytes]) -> np.ndarray:
    """The tensor's numbers, after checking that its window lies within its storage."""
    storage, offset, size, stride = view
    numbers = (offset, *size, *stride)
    if not isinstance(storage, _Storage) or len(size) != len(stride) or not all(type(v) is int for v in numbers):
        raise _Refused("a tensor is described in an unknown way")
    flat = np.frombuffer(load(storage), _STORAGES[storage.kind])
    elements = int(np.prod(size, dtype=object)) if size else 1
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min(numbers) < 0 or elements > len(flat) or (elements and last >= len(flat)):
        raise _Refused("a tensor reaches beyond its storage")
    if not elements:
        return np.empty(size, flat.dtype)
    view_bytes = tuple(step * flat.itemsize for step in stride)
    array = np.lib.stride_tricks.as_strided(flat[offset:], size, view_bytes, writeable=False).copy()
    if storage.kind == "BFloat16Storage":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array
