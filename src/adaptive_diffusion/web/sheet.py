"""The sheet of the page: images of several runs in rows and columns, with labels, and what each cost below it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..io import figures
from .jobs import Drawn

CELL = 128  # pixels of an image


def read(drawn: Drawn) -> np.ndarray:
    """(N, H, W, C) uint8 images of a run."""
    from PIL import Image

    return np.stack([np.atleast_3d(np.array(Image.open(path))) for path in drawn.images])


def labelled_sheet(
    images: Sequence[np.ndarray | None], rows: Sequence[str], columns: Sequence[str]
) -> np.ndarray | None:
    """Images in rows and columns with labels, as far as they are drawn; None while there is none.

    Args:
        images: (H, W, C) uint8 of one size, row by row; None for one that could not be drawn.
        rows: A label for every row.
        columns: A label for every column.
    """
    known = next((image for image in images if image is not None), None)
    if known is None:
        return None
    blank = np.full_like(known, 235)
    cells = [blank if image is None else image for image in images]
    cells += [blank] * (len(rows) * len(columns) - len(cells))
    return figures.labelled(figures.grid(np.stack(cells), len(columns), CELL), rows, columns)


def captioned(image: np.ndarray, caption: str) -> np.ndarray:
    """An (H, W, C) uint8 image, enlarged to about `CELL`, with a line of text below it."""
    from PIL import Image, ImageDraw

    whole = figures.grid(image[None], 1, CELL)
    line = Image.new("L", (whole.shape[1], figures.LINE), 255)
    ImageDraw.Draw(line).text((figures.GAP, 0), caption, fill=0)
    return np.concatenate([whole, np.repeat(np.array(line)[..., None], whole.shape[2], axis=2)])
