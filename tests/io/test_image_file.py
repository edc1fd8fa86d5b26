"""The one reader of images: what is upright, opaque, of 8 bits and of the size wanted, whatever the file held."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adaptive_diffusion.io import image_file
from adaptive_diffusion.io.files import home_path
from adaptive_diffusion.io.image_file import read_image, read_picture
from adaptive_diffusion.io.pixels import prepare, prepare_all

RNG = np.random.default_rng(0)


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """The bytes of a file with one kind of damage: an end cut off, bits flipped, bytes lost, added or overwritten."""
    damaged, place = bytearray(content), int(rng.integers(0, len(content)))
    match rng.integers(0, 5):
        case 0:
            del damaged[place:]
        case 1:
            damaged[place] ^= 1 << int(rng.integers(0, 8))
        case 2:
            del damaged[place : place + int(rng.integers(1, 40))]
        case 3:
            damaged[place:place] = rng.bytes(int(rng.integers(1, 40)))
        case _:
            damaged[place % 100 : place % 100 + 4] = b"\xff\xff\xff\x7f"
    return bytes(damaged)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_turned_upright(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((40, 40), np.uint8)
    upright[:20, :20], upright[:20, 20:], upright[20:, :20] = 250, 170, 90  # every corner differs
    undo = {  # how a camera that is held otherwise stores it (EXIF 2.3, tag 274)
        1: upright,
        2: np.fliplr(upright),
        3: np.rot90(upright, 2),
        4: np.flipud(upright),
        5: upright.T,
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).T,
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(np.ascontiguousarray(undo[orientation])).save(tmp_path / "a.png", exif=exif)
    found = read_image(tmp_path / "a.png", (2, 2), channels=1)[..., 0]
    np.testing.assert_allclose(found, [[250, 170], [90, 0]], atol=30)  # bicubic weights reach over the edges


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("side", [12, 5])
def test_transparent_pixels_become_white_whatever_hides_there(tmp_path: Path, mode: str, side: int) -> None:
    found = []
    for hidden in (0, 200):
        pixels = np.full((12, 12, 4), (hidden, hidden, hidden, 0), np.uint8)
        pixels[3:9, 3:9] = (40, 40, 40, 255)
        if mode == "P":
            image = Image.fromarray((pixels[..., 3] > 0).astype(np.uint8)).convert("P")
            image.putpalette([hidden] * 3 + [40] * 3)
            image.save(tmp_path / "a.png", transparency=0)
        else:
            Image.fromarray(pixels).convert(mode).save(tmp_path / "a.png")
        found.append(read_image(tmp_path / "a.png", (side, side)))
    np.testing.assert_array_equal(found[0], found[1])
    assert found[0][0, 0].tolist() == [255, 255, 255]
    assert found[0][side // 2, side // 2].max() < 60


def test_half_transparent_pixels_are_mixed_with_white() -> None:
    image = Image.new("RGBA", (4, 4), (100, 0, 0, 51))  # a fifth of 100, four fifths of 255
    assert prepare(image, (4, 4))[0, 0].tolist() == [224, 204, 204]


def test_an_alpha_channel_that_is_wanted_is_kept() -> None:
    pixels = RNG.integers(1, 256, (6, 6, 4), dtype=np.uint8)
    np.testing.assert_array_equal(prepare(Image.fromarray(pixels), (6, 6), 4), pixels)
    assert prepare(Image.new("RGB", (6, 6), (1, 2, 3)), (6, 6), 4)[0, 0].tolist() == [1, 2, 3, 255]
    assert prepare(Image.new("RGBA", (6, 6), (1, 2, 3, 0)), (6, 6), 4)[0, 0].tolist() == [255, 255, 255, 0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 257, 32896, 65535]], np.uint16), [0, 1, 128, 255]),
        (np.array([[0, 100, 200, 255]], np.uint16), [0, 0, 1, 1]),  # 16 bits stay 16 bits in a dark image
        (np.array([[0, 100, 200, 255]], np.int32), [0, 100, 200, 255]),
        (np.array([[0, 257, 32896, 65535]], np.int32), [0, 1, 128, 255]),
        (np.array([[0, 2**30, 2**31 - 1, 0]], np.int32), [0, 128, 255, 0]),
        (np.array([[0, 0.25, 0.5, 1]], np.float32), [0, 64, 128, 255]),
        (np.array([[-1, -0.5, 0, 1]], np.float32), [0, 64, 128, 255]),
        (np.array([[-0.0004, 0.25, 0.5, 1.0004]], np.float32), [0, 64, 128, 255]),  # rounding errors
        (np.array([[0, 63.6, 200, 255]], np.float32), [0, 64, 200, 255]),
        (np.array([[0, 257, 32896, 65535]], np.float32), [0, 1, 128, 255]),
    ],
    ids=lambda v: f"{v.dtype} to {v.max():g}" if isinstance(v, np.ndarray) else "",
)
def test_more_than_eight_bits_are_scaled_from_their_range(
    tmp_path: Path, values: np.ndarray, expected: list[int]
) -> None:
    Image.fromarray(values).save(tmp_path / "a.tiff")
    found = read_image(tmp_path / "a.tiff", (1, 4))
    np.testing.assert_array_equal(found, np.repeat(np.array(expected)[None, :, None], 3, axis=-1))


def test_a_dark_pgm_file_of_16_bits_stays_dark(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 65535\n" + np.array([0, 257], ">u2").tobytes())
    assert read_image(tmp_path / "a.pgm", (1, 2), 1).ravel().tolist() == [0, 1]


@pytest.mark.parametrize("values", [[0, 1.5], [-3, 1], [-0.5, 40], [0, np.nan], [0, np.inf], [0, 1e9]])
def test_floats_of_no_usual_range_are_refused_not_clipped(tmp_path: Path, values: list[float]) -> None:
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match="none of the ranges"):
        read_image(tmp_path / "a.tiff", (1, 2))


@pytest.mark.parametrize(
    ("mode", "suffix", "colour", "expected"),
    [
        ("CMYK", ".jpg", (0, 255, 255, 0), [255, 0, 0]),
        ("CMYK", ".tiff", (255, 0, 255, 0), [0, 255, 0]),
        ("1", ".png", 1, [255, 255, 255]),
        ("L", ".webp", 90, [90, 90, 90]),
        ("YCbCr", ".jpg", (76, 84, 255), [255, 0, 0]),
    ],
)
def test_other_colours_become_rgb(tmp_path: Path, mode: str, suffix: str, colour: object, expected: list[int]) -> None:
    Image.new(mode, (16, 16), colour).save(tmp_path / f"a{suffix}")  # type: ignore[arg-type]
    np.testing.assert_allclose(read_image(tmp_path / f"a{suffix}", (8, 8))[4, 4], expected, atol=6)


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".tiff", ".png"])
def test_the_first_image_of_several_is_taken(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((200, 0, 0), (0, 200, 0), (0, 0, 200))]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    np.testing.assert_allclose(read_image(tmp_path / f"a{suffix}", (8, 8))[4, 4], [200, 0, 0], atol=8)


@pytest.mark.parametrize("size", [(8, 8), (6, 15), (30, 4), (1, 1)])
def test_the_middle_is_cut_out_and_nothing_around_it_shows(size: tuple[int, int]) -> None:
    height, width = size
    pixels = np.zeros((5 * max(size), 5 * max(size), 3), np.uint8)
    rows, columns = ((len(pixels) - s * len(pixels) // max(size)) // 2 for s in size)
    pixels[rows : len(pixels) - rows, columns : len(pixels) - columns] = 255
    assert prepare(Image.fromarray(pixels), size).min() == 255
    assert prepare(Image.fromarray(pixels), size).shape == (height, width, 3)


def test_images_of_the_size_wanted_stay_as_they_are() -> None:
    images = RNG.integers(0, 256, (3, 7, 11, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.stack([prepare(Image.fromarray(i), (7, 11)) for i in images]), images)
    assert prepare_all(images, (7, 11)) is images


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("size", [(4, 4), (5, 9), (14, 23)])
def test_images_from_a_file_and_from_an_array_are_the_same(
    tmp_path: Path, size: tuple[int, int], channels: int
) -> None:
    images = RNG.integers(0, 256, (2, 14, 23, channels), dtype=np.uint8)
    images[:, :7, :, 3:] = 0  # hidden pixels, of colours that nobody chose
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    from_files = np.stack([read_image(tmp_path / f"{i}.png", size, channels) for i in range(2)])
    np.testing.assert_array_equal(from_files, prepare_all(images, size, channels))


def test_the_content_decides_not_the_suffix_and_nothing_runs_another_program(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (0, 0, 90)).save(tmp_path / "a.jpg", format="PNG")
    assert read_image(tmp_path / "a.jpg", (8, 8))[0, 0, 2] == 90
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png", format="EPS")  # Ghostscript would run what is in it
    with pytest.raises(ValueError, match="unknown format"):
        read_image(tmp_path / "b.png", (8, 8))


def test_images_that_would_fill_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_file, "MAX_PIXELS", 100)
    Image.new("1", (10, 10)).save(tmp_path / "small.png")
    assert read_image(tmp_path / "small.png", (2, 2)).shape == (2, 2, 3)
    Image.new("1", (10, 11)).save(tmp_path / "large.png")
    with pytest.raises(ValueError, match=r"large\.png .*more than 100 pixels"):
        read_image(tmp_path / "large.png", (2, 2))


def test_damaged_files_are_read_or_refused_in_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    colours = Image.fromarray(RNG.integers(0, 256, (20, 24, 4), dtype=np.uint8))
    exif, rng, sentences = Image.Exif(), np.random.default_rng(5), []
    exif[274] = 6
    originals = []
    kinds = [
        ("PNG", "RGBA"),
        ("PNG", "P"),
        ("JPEG", "RGB"),
        ("GIF", "P"),
        ("TIFF", "CMYK"),
        ("TIFF", "F"),
        ("WEBP", "RGB"),
    ]
    for kind, mode in kinds:
        file = io.BytesIO()
        image = colours if mode == "RGBA" else colours.convert("RGB" if mode != "F" else "L").convert(mode)
        image.save(file, kind, **({} if kind == "GIF" else {"exif": exif}))
        originals.append(file.getvalue())
    for trial in range(280):
        (tmp_path / "a.png").write_bytes(mutated(originals[trial % len(originals)], rng))
        try:
            assert read_image(tmp_path / "a.png", (5, 5)).shape == (5, 5, 3)
        except ValueError as error:
            sentences.append(str(error))
    assert 50 < len(sentences) < 250
    assert all(str(tmp_path / "a.png") in sentence and "\n" not in sentence for sentence in sentences)
    capfd.readouterr()  # libtiff writes to stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing.png", "does not exist"),
        ("folder", "is a folder"),
        ("x" * 400, "too long"),
        ("/dev/null", "is no file"),
    ],
)
def test_what_cannot_be_opened_is_called_what_it_is(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=message):
        read_image(tmp_path / name, (8, 8))


def test_a_name_that_begins_with_a_tilde_is_a_file_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.new("L", (8, 8)).save("~nobody-has-this-name.png")
    assert read_picture("~nobody-has-this-name.png", (8, 8)).shape == (8, 8, 3)
    assert home_path("~/a.png") == tmp_path / "a.png"


def test_a_missing_permission_is_called_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may read everything
    with pytest.raises(ValueError, match="permission denied"):
        read_image(tmp_path / "a.png", (8, 8))


@pytest.mark.parametrize(("width", "height", "enlarged"), [(20, 40, True), (40, 20, True), (32, 32, False)])
def test_a_start_that_is_enlarged_is_warned_of(
    width: int, height: int, enlarged: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("RGB", (width, height)).save(tmp_path / "a.png")
    read_picture(tmp_path / "a.png", (32, 32))
    assert (f"a.png is enlarged from {width}x{height} to 32x32 pixels" in caplog.text) == enlarged
