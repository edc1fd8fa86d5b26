"""Images of a run: the grid of its images, the denoising strip, the plot of its schedule. All written atomically."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .files import atomic_path
from .line_plot import line_plot, titled
from .pixels import to_uint8

GAP = 2  # pixels between the cells of a grid
LONGEST_STRIP = 12  # columns of a denoising strip
LINE, MARGIN = 14, 30  # pixels: height of a line of a label, least width of the labels of rows


def save_image(path: str | Path, pixels: np.ndarray, text: Mapping[str, str] | None = None) -> None:
    """Write (H, W, C) uint8 pixels, C 1, 3 or 4, as a PNG file, with texts that travel in it."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, value)
    with atomic_path(path) as temporary:
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(temporary, pnginfo=info)


def grid(images: np.ndarray, columns: int | None = None, cell: int = 96) -> np.ndarray:
    """Images side by side on white.

    Args:
        images: (N, H, W, C) uint8.
        columns: Images per row; None: about as many as rows.
        cell: Smaller images are enlarged to about this side, in pixels, by a whole factor and without smoothing.

    Returns:
        (H', W', C) uint8.
    """
    N, H, W, C = images.shape
    columns = columns or int(np.ceil(np.sqrt(N)))
    rows = -(-N // columns)  # rounded up
    scale = max(1, round(cell / max(H, W)))
    h, w = H * scale, W * scale
    sheet = np.full((rows * (h + GAP) + GAP, columns * (w + GAP) + GAP, C), 255, np.uint8)

    for i, image in enumerate(images):
        top, left = GAP + i // columns * (h + GAP), GAP + i % columns * (w + GAP)
        sheet[top : top + h, left : left + w] = image.repeat(scale, axis=0).repeat(scale, axis=1)
    return sheet


def save_picture_grid(
    path: str | Path,
    images: np.ndarray,
    columns: int | None = None,
    *,
    numbered: bool = False,
    text: Mapping[str, str] | None = None,
) -> None:
    """Write (N, H, W, C) images, uint8 or float in [-1, 1], as one PNG file; see `grid`.

    Args:
        path: PNG file.
        images: The images, in rows.
        columns: Images per row; None: about as many as rows.
        numbered: Whether each row begins with the number of its first image.
        text: See `save_image`.
    """
    pixels = images if images.dtype == np.uint8 else to_uint8(images)
    sheet = grid(pixels, columns)
    if numbered:
        columns = columns or int(np.ceil(np.sqrt(len(pixels))))
        sheet = labelled(sheet, rows=[f"#{first}" for first in range(0, len(pixels), columns)])
    save_image(path, sheet, text)


def denoising_strip(strip: np.ndarray, labels: Sequence[str] = ()) -> np.ndarray:
    """One row per image, one column per step, from the first clean prediction to the last.

    Args:
        strip: (steps, K, H, W, C) uint8; at most `LONGEST_STRIP` evenly spaced steps are shown.
        labels: What stands above each step, some short lines; () for nothing, else one for every step.

    Returns:
        (H', W', C) uint8.
    """
    steps, K = strip.shape[:2]
    shown = np.unique(np.linspace(0, steps - 1, min(steps, LONGEST_STRIP)).round().astype(int))
    by_image = strip[shown].swapaxes(0, 1)  # (K, shown, H, W, C)
    sheet = grid(by_image.reshape(K * len(shown), *strip.shape[2:]), columns=len(shown), cell=64)
    if not labels:
        return sheet
    return labelled(sheet, [f"#{k}" for k in range(K)], [labels[step] for step in shown])


def labelled(
    sheet: np.ndarray, rows: Sequence[str], columns: Sequence[str] = (), bold: Sequence[int] = ()
) -> np.ndarray:
    """A grid with a label left of every row, and one above every column.

    Args:
        sheet: (H, W, C) uint8, of rows of one height and columns of one width.
        rows: A label for every row, perhaps of several lines.
        columns: A label for every column, perhaps of several lines; () for none.
        bold: Rows that a bar marks.

    Returns:
        (H', W', C) uint8.
    """
    from PIL import Image, ImageDraw

    H, W, C = sheet.shape
    measure = ImageDraw.Draw(Image.new("L", (1, 1)))
    left = max(MARGIN, *(int(measure.multiline_textbbox((0, 0), label)[2]) + 4 * GAP for label in rows))
    top = LINE * max((1 + label.count("\n") for label in columns), default=0)
    sheet_with_margins = np.full((top + H, left + W, C), 255, np.uint8)
    sheet_with_margins[top:, left:] = sheet

    text = Image.new("L", (left + W, top + H), 255)
    draw = ImageDraw.Draw(text)
    height = (H - GAP) // len(rows)
    for i, label in enumerate(rows):
        draw.multiline_text((2 * GAP, top + GAP + i * height), label, fill=0, spacing=1)
        if i in bold:
            draw.rectangle((left - 2 * GAP, top + GAP + i * height, left - GAP, top + (i + 1) * height - 1), fill=0)
    for i, label in enumerate(columns):
        draw.multiline_text((left + GAP + i * (W - GAP) // len(columns), 0), label, fill=0, spacing=1)

    colours = sheet_with_margins[..., :3]  # not alpha, which would make the labels transparent
    np.minimum(colours, np.array(text)[..., None], out=colours)
    return sheet_with_margins


def save_schedule_plot(
    path: str | Path, timesteps: np.ndarray, log_snr: np.ndarray, title: str, running: np.ndarray
) -> None:
    """Plot the timesteps at which a run evaluated the network, and how many images were left if some stopped early.

    Args:
        path: PNG file.
        timesteps: (N,) timesteps in the order in which they were visited.
        log_snr: (N,) log(alpha / sigma) at them.
        title: Heading.
        running: (N,) number of images evaluated at each step.
    """
    panels = [
        line_plot(timesteps, "step", "timestep t"),
        line_plot(log_snr, "step", "log-SNR, log(alpha / sigma)"),
    ]
    if running.min() < running.max():
        panels.append(line_plot(running, "step", "images evaluated", from_zero=True))
        if running[running > 0].min() < running.max():  # 0: what is stored takes no evaluation
            title += "\ntimestep and log-SNR of the images that were longest on the schedule"
    save_image(path, titled(np.concatenate(panels, axis=1), title))
