"""Array files from anywhere: whole, or refused in one sentence; nothing is unpickled and nothing fills the memory."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from test_image_file import mutated

from adaptive_diffusion.io import archive
from adaptive_diffusion.io.array_file import UNNAMED, array_names, read_arrays
from adaptive_diffusion.io.pictures import load_pictures

IMAGES = np.random.default_rng(1).integers(0, 256, (7, 6, 6, 3), dtype=np.uint8)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    np.savez_compressed(tmp_path / "a.npz", images=IMAGES, labels=np.arange(7) % 2, label_names=np.array(["x", "y"]))
    return tmp_path / "a.npz"


def test_arrays_come_back_by_name(file: Path) -> None:
    assert sorted(array_names(file)) == sorted(read_arrays(file)) == ["images", "label_names", "labels"]
    np.testing.assert_array_equal(read_arrays(file)["images"], IMAGES)
    np.save(file.with_suffix(".npy"), IMAGES)
    np.testing.assert_array_equal(read_arrays(file.with_suffix(".npy"))[UNNAMED], IMAGES)
    assert array_names(file.with_suffix(".npy")) == []


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_no_damage_passes(tmp_path: Path, save: object) -> None:
    rng, sentences = np.random.default_rng(3), []
    save(tmp_path / "a.npz", images=IMAGES, labels=np.zeros(7, int), label_names=np.array(["x"]))  # type: ignore[operator]
    whole = (tmp_path / "a.npz").read_bytes()
    for _ in range(200):
        (tmp_path / "a.npz").write_bytes(mutated(whole, rng))
        try:
            np.testing.assert_array_equal(load_pictures(tmp_path / "a.npz", 6).images, IMAGES)
        except ValueError as error:
            sentences.append(str(error))
    assert len(sentences) > 100
    assert all(str(tmp_path / "a.npz") in sentence and "\n" not in sentence for sentence in sentences)


def test_an_array_shorter_than_its_member_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", IMAGES)
    content = (tmp_path / "images.npy").read_bytes().replace(b"(7, 6", b"(5, 6")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", content)
    with pytest.raises(ValueError, match="truncated, damaged"):
        read_arrays(tmp_path / "a.npz")


def test_python_objects_and_other_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", images=np.array([{"a": 1}, None], dtype=object))
    (tmp_path / "text.npz").write_text("images")
    with zipfile.ZipFile(tmp_path / "other.npz", "w") as archive:
        archive.writestr("images.npy", "no array")
    for name in ("objects", "text", "other"):
        with pytest.raises(ValueError, match=f"{name}.npz cannot be read"):
            read_arrays(tmp_path / f"{name}.npz")


def test_an_encrypted_file_is_called_encrypted(file: Path) -> None:
    content = bytearray(file.read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # bit 0 of the flags (APPNOTE 4.4.4)
        start = content.find(header)
        while start >= 0:
            content[start + flags] |= 1
            start = content.find(header, start + 1)
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz .*encrypted"):
        read_arrays(file)


def test_what_would_fill_the_memory_is_refused_by_the_sizes_it_declares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "MAX_UNPACKED", 1_000_000)
    blank = np.zeros((400, 32, 32, 3), np.uint8)  # 1.2 MB
    np.savez(tmp_path / "plain.npz", images=blank)
    assert len(read_arrays(tmp_path / "plain.npz")["images"]) == 400
    np.savez_compressed(tmp_path / "bomb.npz", images=blank)
    with pytest.raises(ValueError, match="would unpack to 1228928"):
        read_arrays(tmp_path / "bomb.npz")


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (np.array(["x"] * 7), ["x"], "labels.*<U1"),
        (np.zeros((7, 1), int), ["x"], r"shape \(7, 1\)"),
        (np.float64(0), ["x"], r"shape \(\)"),
        (np.array([], int), ["x"], r"shape \(0,\)"),
        (np.linspace(0, 1, 7), ["x", "y"], "float64"),
        (np.zeros(7, [("a", int)]), ["x"], "labels"),
        (np.full(7, -2), ["x"], "values -2 to -2"),
        (np.zeros(7, int), np.array([], str), "the 0 'label_names'.*values 0 to 0"),
        (np.zeros(7, int), [1, 2], "label_names.*int"),
        (np.zeros(7, int), [["x"]], r"label_names.*\(1, 1\)"),
        (np.zeros(7, int), ["x", "x"], "different texts"),
        (np.zeros(7, int), [""], "none of them empty"),
    ],
)
def test_labels_of_another_kind_are_refused(tmp_path: Path, labels: np.ndarray, names: list, message: str) -> None:
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=labels, label_names=np.array(names))
    with pytest.raises(ValueError, match=rf"a\.npz.*{message}"):
        load_pictures(tmp_path / "a.npz", 6)
