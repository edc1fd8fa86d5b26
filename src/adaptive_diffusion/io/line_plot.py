"""A plot of one line, drawn with Pillow: importing Matplotlib takes longer than the shipped model takes to draw."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

WIDTH, HEIGHT = 480, 350  # pixels
LEFT, RIGHT, TOP, BOTTOM = 70, 18, 12, 50  # margins, pixels
FINER = 4  # lines are drawn this many times larger and made smaller, which smooths them
FONT, TITLE = 13, 15  # pixels
MOST_DOTS = 60
INK, FRAME, BARS = "#1f77b4", "#000000", "#d8d8d8"


def line_plot(values: np.ndarray, x_label: str, y_label: str, *, from_zero: bool = False) -> np.ndarray:
    """Values at 1, 2, 3, ...

    Args:
        values: (N,) numbers, N >= 1; infinities are left out, such as the log-SNR of pure noise.
        x_label: Below the plot.
        y_label: Left of it, upright.
        from_zero: Whether the vertical axis begins at 0.

    Returns:
        (HEIGHT, WIDTH, 3) uint8.
    """
    from PIL import Image, ImageDraw

    x_low, x_high = _range(1, len(values))
    finite = values[np.isfinite(values)] if np.isfinite(values).any() else np.zeros(1)
    y_low, y_high = _range(float(finite.min()), float(finite.max()))
    y_low = 0.0 if from_zero else y_low

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = (x - x_low) / (x_high - x_low), (y - y_low) / (y_high - y_low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def fine(*points: tuple[float, float]) -> list[float]:
        return [FINER * number for point in points for number in point]

    # the lines
    image = Image.new("RGB", (WIDTH * FINER, HEIGHT * FINER), "white")
    draw = ImageDraw.Draw(image)
    x_ticks, y_ticks = [x for x in _ticks(x_low, x_high) if x == round(x)], _ticks(y_low, y_high)
    for x in x_ticks:
        draw.line(fine(place(x, y_low), place(x, y_high)), BARS, FINER)
    for y in y_ticks:
        draw.line(fine(place(x_low, y), place(x_high, y)), BARS, FINER)
    draw.rectangle(fine(place(x_low, y_high), place(x_high, y_low)), outline=FRAME, width=FINER)

    points = [place(i, float(y)) for i, y in enumerate(values, 1) if math.isfinite(y)]
    for a, b in itertools.pairwise(points):
        draw.line(fine(a, b), INK, 2 * FINER)
    for x, y in points if len(points) <= MOST_DOTS else ():
        draw.ellipse(fine((x - 3, y - 3), (x + 3, y + 3)), INK)
    image = image.resize((WIDTH, HEIGHT), Image.Resampling.BOX)

    # what is written
    draw, font = ImageDraw.Draw(image), _font(FONT)
    for x in x_ticks:
        draw.text((place(x, y_low)[0], HEIGHT - BOTTOM + 6), f"{x:g}", FRAME, font, "ma")
    for y in y_ticks:
        draw.text((LEFT - 6, place(x_low, y)[1]), f"{y:g}", FRAME, font, "rm")
    draw.text((place((x_low + x_high) / 2, y_low)[0], HEIGHT - 8), x_label, FRAME, font, "md")

    upright = Image.new("RGB", (HEIGHT - TOP - BOTTOM, FONT + 8), "white")
    ImageDraw.Draw(upright).text((upright.width / 2, upright.height / 2), y_label, FRAME, font, "mm")
    image.paste(upright.rotate(90, expand=True), (2, TOP))
    return np.array(image)


def titled(image: np.ndarray, title: str) -> np.ndarray:
    """An image, (H, W, 3) uint8, below a title of one line or several."""
    from PIL import Image, ImageDraw

    top = Image.new("RGB", (image.shape[1], 12 + (TITLE + 4) * (1 + title.count("\n"))), "white")
    draw = ImageDraw.Draw(top)
    for i, line in enumerate(title.split("\n")):
        draw.text((top.width / 2, 8 + i * (TITLE + 4)), line, FRAME, _font(TITLE), "ma")
    return np.concatenate([np.array(top), image])


def _range(low: float, high: float) -> tuple[float, float]:
    """An axis that shows two values with some space around them."""
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers within an axis, at most seven."""
    power = 10.0 ** math.floor(math.log10((high - low) / 6))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (power * factor) <= 6)
    return [step * k for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _font(size: int) -> FreeTypeFont | ImageFont:
    from PIL.ImageFont import load_default

    return load_default(size)
