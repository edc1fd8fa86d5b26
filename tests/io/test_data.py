"""Images in, batches out: sizes, labels, order, and what happens to files that are no images."""

import logging
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from adaptive_diffusion.errors import Unusable
from adaptive_diffusion.io.pictures import PictureSet, load_pictures
from adaptive_diffusion.io.pixels import resize, to_float, to_pil, to_uint8


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
    (tmp_path / "bad.png").write_bytes(b"not an image")
    whole = tmp_path / "good.png"
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:60])
    with caplog.at_level(logging.INFO):
        assert len(load_pictures(tmp_path, 16)) == 1
    assert "bad.png" in caplog.text
    assert "cut.png" in caplog.text
    assert f"read 1 image from {tmp_path}" in caplog.text


def test_images_that_are_enlarged_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sizes = [(4, 9), (8, 8), (16, 6), (20, 20)]  # (width, height)
    for i, size in enumerate(sizes):
        Image.new("RGB", size).save(tmp_path / f"{i}.png")
    np.save(tmp_path / "few.npy", np.zeros((3, 6, 20, 3), np.uint8))
    load_pictures(tmp_path, 8)
    load_pictures(tmp_path / "few.npy", 8)
    load_pictures(tmp_path / "few.npy", 6)
    assert [r.message for r in caplog.records if " enlarged to " in r.message] == [
        f"2 images of 4 in {tmp_path} enlarged to 8x8 pixels, the smallest from 4x9",
        f"3 images of 3 in {tmp_path / 'few.npy'} enlarged to 8x8 pixels, the smallest from 20x6",
    ]


@pytest.mark.parametrize("content", [{}, {"notes.txt": b"hello"}, {"bad.png": b"hello"}])
def test_a_folder_without_pictures_is_refused(tmp_path: Path, content: dict[str, bytes]) -> None:
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match="no readable images in"):
        load_pictures(tmp_path, 16)


def test_a_missing_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no images at"):
        load_pictures(tmp_path / "nowhere", 16)


def test_whatever_pillow_raises_is_a_skipped_picture(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[content.index(b"IDAT")] = ord("\n")  # a name that no chunk may have: Pillow raises SyntaxError
    (tmp_path / "b.png").write_bytes(content)
    (tmp_path / "c.png").symlink_to(tmp_path / "gone.png")
    assert len(load_pictures(tmp_path, 8)) == 1
    assert "b.png" in caplog.text


def test_every_suffix_that_pillow_reads_counts_and_the_others_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.JPE", "b.jp2", "c.tga", "d.ppm", "e.Webp"):
        kind = {"JPE": "JPEG", "jp2": "JPEG2000", "tga": "TGA", "ppm": "PPM", "Webp": "WEBP"}[name.split(".")[1]]
        Image.new("RGB", (8, 8)).save(tmp_path / name, format=kind)
    for name in ("notes.txt", "more.TXT", "raw.cr2", "README"):
        (tmp_path / name).write_text("no image")
    assert len(load_pictures(tmp_path, 8)) == 5
    assert [r.message for r in caplog.records] == [
        f"left out of {tmp_path}: 4 files of kinds that are not read (1 .cr2, 2 .txt, 1 without suffix)"
    ]


def test_what_programs_leave_behind_is_no_label(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hidden = [".git/a.png", "birds/.cache/a.png", "__MACOSX/birds/a.png", "birds/._b.png", "@eaDir/a.jpg"]
    for name in ["birds/b.png", *hidden]:
        picture(tmp_path / name)
    for name in ("Thumbs.db", "birds/.DS_Store", "desktop.ini"):
        (tmp_path / name).write_bytes(b"")
    pictures = load_pictures(tmp_path, 8)
    assert (len(pictures), pictures.label_names, caplog.text) == (1, ("birds",), "")


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    picture(tmp_path / "set" / "owl" / "a.png", colour="white")
    picture(tmp_path / "elsewhere" / "deep" / "b.png", colour="black")
    (tmp_path / "set" / "lark").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "alias").symlink_to(tmp_path / "set" / "owl")  # comes before owl by name
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "set")
    (tmp_path / "linked set").symlink_to(tmp_path / "set")
    for folder in (tmp_path / "set", tmp_path / "linked set"):
        pictures = load_pictures(folder, 8)
        assert pictures.label_names == ("lark", "owl")
        assert pictures.images[:, 0, 0, 0].tolist() == [0, 255]


def test_a_folder_that_may_not_be_read_is_called_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may read everything
    with pytest.raises(ValueError, match=r"no images at .*permission denied"):
        load_pictures(tmp_path, 8)


def test_a_data_set_that_is_a_picture_is_refused_as_one(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match="is no folder"):
        load_pictures(tmp_path / "a.png", 8)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_have_the_channels_wanted(tmp_path: Path, channels: int) -> None:
    picture(tmp_path / "a.png", mode="RGBA", colour=(10, 20, 30, 255))
    picture(tmp_path / "b.png", mode="L", colour=77)
    images = load_pictures(tmp_path, (6, 4), channels).images
    assert images.shape == (2, 6, 4, channels)
    assert images[0, 0, 0].tolist() == {1: [18], 3: [10, 20, 30], 4: [10, 20, 30, 255]}[channels]  # ITU-R 601-2
    np.savez(tmp_path / "grey.npz", images=np.full((2, 6, 4, 1), 77, np.uint8))
    assert np.array_equal(load_pictures(tmp_path / "grey.npz", (6, 4), channels).images, images[[1, 1]])


def test_other_numbers_of_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="channels, got"):
        load_pictures(tmp_path, 8, channels=2)


def labelled(**counts: int) -> PictureSet:
    """As many images of each label, sorted by label; "none": without a label. Image i has the grey level i."""
    names = tuple(name for name in counts if name != "none")
    labels = np.concatenate([np.full(n, names.index(k) if k != "none" else -1) for k, n in counts.items()])
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None].repeat(3, axis=-1)
    return PictureSet(images, labels, names)


@pytest.mark.parametrize(
    ("counts", "fraction", "held_of_each"),
    [
        ({"ant": 50, "yak": 50}, 0.1, [5, 5]),
        ({"ant": 90, "bee": 1, "yak": 9}, 0.1, [9, 0, 1]),
        ({"ant": 2, "none": 30}, 0.5, [1, 15]),
        ({"none": 8}, 0.1, [1]),
        ({"ant": 1, "yak": 1}, 0.5, [0, 0]),
        ({"ant": 10, "yak": 4}, 0.99, [9, 3]),
        ({"ant": 10}, 0.0, [0]),
    ],
)
def test_of_each_label_its_share_is_kept_back_and_some_is_trained_on(
    counts: dict[str, int], fraction: float, held_of_each: list[int]
) -> None:
    pictures = labelled(**counts)
    train, held = pictures.split(fraction, seed=4)
    ids = [pictures.label_names.index(k) if k != "none" else -1 for k in counts]
    np.testing.assert_allclose([(held.labels == i).sum() for i in ids], held_of_each, atol=1)
    assert len(held) == min(round(len(pictures) * fraction), len(pictures) - len(counts))
    assert set(train.labels) == set(pictures.labels)
    everything = np.concatenate([train.images, held.images]).reshape(-1, 3)[:, 0]
    assert sorted(everything.tolist()) == list(range(len(pictures)))


def test_many_small_labels_keep_some_back_together() -> None:
    train, held = labelled(**{f"kind {i}": 3 for i in range(20)}).split(0.1)
    assert (len(train), len(held), len(set(held.labels))) == (54, 6, 6)


def test_the_held_back_part_depends_on_the_seed_alone() -> None:
    pictures = labelled(ant=40, yak=40)
    first, again, other = (pictures.split(0.25, seed=seed)[1].images for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_first_pictures_kept_back_are_of_all_labels() -> None:
    _, held = labelled(ant=60, bee=60, yak=60).split(0.5)
    assert set(held.labels[:12]) == {0, 1, 2}


def test_labels_with_a_single_picture_are_named(caplog: pytest.LogCaptureFixture) -> None:
    train, _ = labelled(ant=30, bee=1).split(0.2)
    assert 1 in train.labels
    assert "bee" in caplog.text
    assert "ant" not in caplog.text


def test_the_old_rule_keeps_back_the_last_block_and_says_what_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    pictures = labelled(ant=18, yak=2)
    train, held = pictures.split(0.1, "tail")
    assert np.array_equal(train.images, pictures.images[:18])
    assert np.array_equal(held.images, pictures.images[18:])
    assert "no training images: 1 (yak)" in caplog.text
    recipe = {"validation_fraction": 0.1, "seed": 0}
    assert np.array_equal(pictures.split_as_trained(recipe)[1].images, held.images)  # files of 0.1.0 name no rule
    assert len(set(pictures.split_as_trained({**recipe, "split": "per_label"})[1].labels)) > 0


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((1.0,), ValueError, "must lie in"),
        ((0.1, "head"), ValueError, "per_label, tail"),
        ((0.9999, "tail"), Unusable, "none to"),
    ],
)
def test_splits_that_cannot_be_are_refused(arguments: tuple, kind: type[ValueError], message: str) -> None:
    with pytest.raises(kind, match=message):
        labelled(ant=5).split(*arguments)


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
    with pytest.raises(ValueError, match=message):
        load_pictures(tmp_path / "a.npz", 8)


def test_pickled_arrays_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"code": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot be read"):
        load_pictures(tmp_path / "a.npy", 8)


def test_eight_bits_survive_the_way_to_float_and_back() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    assert to_float(every).min() == -1
    assert to_float(every).max() == 1
    assert np.array_equal(to_uint8(to_float(every)), every)
    assert to_uint8(np.array([-3.0, 3.0])).tolist() == [0, 255]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
def test_drawn_images_become_images_of_pillow(channels, mode):
    drawn = np.linspace(-1, 1, 2 * 3 * 4 * channels, dtype=np.float32).reshape(2, 3, 4, channels)
    images = to_pil(mx.array(drawn))
    assert [(image.size, image.mode) for image in images] == [((4, 3), mode)] * 2
    assert np.array_equal(np.asarray(images[1]).reshape(3, 4, channels), to_uint8(drawn)[1])


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (np.zeros((32, 32, 3)), r"\(N, H, W, C\) with 1, 3 or 4 channels, got the shape \(32, 32, 3\)"),
        (np.zeros((2, 3, 32, 32)), r"got the shape \(2, 3, 32, 32\)"),
        (np.full((1, 2, 2, 3), np.nan), "must be finite"),
        (np.zeros((1, 2, 2, 3), int), "uint8, or floats .* got int64"),
    ],
)
def test_what_are_no_images_becomes_none_of_pillow(images, sentence):
    with pytest.raises(ValueError, match=sentence):
        to_pil(images)


def test_images_of_8_bits_become_those_of_pillow_as_they_are():
    assert np.asarray(to_pil([np.full((2, 2, 3), 200, np.uint8)])[0]).tolist() == [[[200] * 3] * 2] * 2
    assert np.asarray(to_pil(mx.ones((1, 2, 2, 3), mx.uint8))[0]).max() == 1


def test_downscaling_averages_instead_of_picking_pixels() -> None:
    stripes = np.tile(np.array([-1.0, 1.0], np.float32), 32).reshape(1, 1, 64, 1).repeat(64, axis=1)
    assert np.abs(resize(stripes, (8, 8))[:, 2:-2, 2:-2]).max() < 0.05
