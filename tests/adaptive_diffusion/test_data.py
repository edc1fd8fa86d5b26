"""Pictures in, batches out: sizes, labels, order, and what happens to files that are no pictures."""

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adaptive_diffusion.data import BatchOrder, load_pictures, resize, to_float, to_uint8
from adaptive_diffusion.errors import UserError


def picture(path: Path, size: tuple[int, int] = (40, 30), mode: str = "RGB", colour: object = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


def test_a_folder_becomes_square_rgb_pictures_labelled_by_sub_folder(tmp_path: Path) -> None:
    picture(tmp_path / "cat" / "a.png", colour=(255, 0, 0))
    picture(tmp_path / "dog" / "b.jpg", (16, 99), colour=(0, 0, 255))
    picture(tmp_path / "c.png", mode="L", colour=128)
    pictures = load_pictures(tmp_path, 16)
    assert pictures.images.shape == (3, 16, 16, 3)
    assert pictures.images.dtype == np.uint8
    assert pictures.label_names == ("cat", "dog")
    assert pictures.labels.tolist() == [-1, 0, 1]  # c.png, cat/a.png, dog/b.jpg
    assert pictures.images[0].mean() == 128
    assert pictures.images[1, 8, 8].tolist() == [255, 0, 0]


def test_unreadable_files_are_named_and_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    whole = tmp_path / "good.png"
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:60])
    with caplog.at_level(logging.WARNING):
        assert len(load_pictures(tmp_path, 16)) == 1
    assert "bad.png" in caplog.text
    assert "cut.png" in caplog.text


@pytest.mark.parametrize("content", [{}, {"notes.txt": b"hello"}, {"bad.png": b"hello"}])
def test_a_folder_without_pictures_is_refused(tmp_path: Path, content: dict[str, bytes]) -> None:
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match="no readable pictures in"):
        load_pictures(tmp_path, 16)


def test_a_missing_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no pictures at"):
        load_pictures(tmp_path / "nowhere", 16)


def test_arrays_keep_their_labels_and_are_cropped_and_resized(tmp_path: Path) -> None:
    images = np.zeros((4, 20, 10, 3), np.uint8)
    images[:, 5:15] = 255  # the central square is white
    np.savez(tmp_path / "a.npz", images=images, labels=[0, 1, 1, 0], label_names=["x", "y"])
    pictures = load_pictures(tmp_path / "a.npz", 5)
    assert pictures.images.shape == (4, 5, 5, 3)
    assert pictures.images.min() == 255
    assert pictures.label_names == ("x", "y")
    assert pictures.labels.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": np.zeros((2, 8, 8, 3), np.uint8)}, "no array 'images'"),
        ({"images": np.zeros((2, 8, 8, 3), np.float32)}, "float32"),
        ({"images": np.zeros((2, 8, 8), np.uint8)}, r"\(2, 8, 8\)"),
        ({"images": np.zeros((0, 8, 8, 3), np.uint8)}, "N > 0"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": [0, 5], "label_names": ["a"]}, "values 0 to 5"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": [0]}, r"shape \(1,\)"),
    ],
)
def test_arrays_of_another_form_are_refused(tmp_path: Path, arrays: dict, message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=message):
        load_pictures(tmp_path / "a.npz", 8)


def test_pickled_arrays_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"code": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="cannot be read as a NumPy array file"):
        load_pictures(tmp_path / "a.npy", 8)


def test_eight_bits_survive_the_way_to_float_and_back() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    assert to_float(every).min() == -1
    assert to_float(every).max() == 1
    assert np.array_equal(to_uint8(to_float(every)), every)
    assert to_uint8(np.array([-3.0, 3.0])).tolist() == [0, 255]


def test_downscaling_averages_instead_of_picking_pixels() -> None:
    stripes = np.tile(np.array([-1.0, 1.0], np.float32), 32).reshape(1, 1, 64, 1).repeat(64, axis=1)
    assert np.abs(resize(stripes, (8, 8))[:, 2:-2, 2:-2]).max() < 0.05


def test_an_epoch_shows_every_picture_once_and_groups_equally_often() -> None:
    order = BatchOrder([6, 3], batch_size=4, seed=0)
    groups, rows, _ = (np.concatenate(parts) for parts in zip(*(order(step) for step in range(6)), strict=True))
    assert (groups == 0).sum() == (groups == 1).sum() == 12
    for epoch in range(2):
        assert sorted(rows[groups == 0][6 * epoch : 6 * epoch + 6]) == list(range(6))
    assert sorted(rows[groups == 1][:3]) == list(range(3))


def test_the_order_is_a_function_of_seed_and_step_alone() -> None:
    straight, jumping = BatchOrder([50, 7], 8, seed=3), BatchOrder([50, 7], 8, seed=3)
    batches = [straight(step) for step in range(30)]
    for step in (29, 3, 17):
        for a, b in zip(batches[step], jumping(step), strict=True):
            assert np.array_equal(a, b)
    other = BatchOrder([50, 7], 8, seed=4)
    assert not all(np.array_equal(other(step)[1], batches[step][1]) for step in range(5))
