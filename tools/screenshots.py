"""`python -m tools.screenshots`: the pictures of `adaptive-diffusion app` in the guide, taken in Chromium."""

from __future__ import annotations

import argparse
import io
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from adaptive_diffusion.cli.entry import ROOT
from adaptive_diffusion.errors import UserError
from adaptive_diffusion.io.files import atomic_path
from adaptive_diffusion.leaving import run_program
from adaptive_diffusion.web import app
from adaptive_diffusion.web.worker import Worker
from tools.browser import CHROMIUM, DRIVER, Page
from tools.tables import PROJECT

DESK, PHONE = 1280, 390  # pixels


def main(argv: list[str]) -> None:
    """Serve the page from a folder of its own, and take every picture."""
    argparse.ArgumentParser(prog="python -m tools.screenshots", description=__doc__).parse_args(argv)
    if not (CHROMIUM and DRIVER):
        raise UserError("pictures of the page need chromium and chromedriver")

    with served() as address:
        page = Page(address, DESK)
        draw_found(page)
        save(page, "app_draw.jpg")
        page.open("How few passes?")
        save(page, "app_passes.jpg")

        page.reload()
        page.open("Sheet")
        page.find("#sheet").click()
        page.wait(lambda: page.text("#sheet-drawn") == "8 images drawn.")
        save(page, "app_sheet.jpg")
        page.close()

        page = Page(address, PHONE)
        draw_found(page)
        save(page, "app_phone.jpg")
        page.close()


@contextmanager
def served() -> Iterator[str]:
    """The address of the page with the shipped model, whose runs are recorded nowhere."""
    worker = Worker()
    try:
        with tempfile.TemporaryDirectory() as folder:
            os.environ[ROOT] = folder  # so that no command in a picture names it
            app.prepare_process()
            common = ("tracking=none",)
            with app.served(worker.do(lambda: app.offered([], common)), worker, port=0) as address:
                yield address
    finally:
        worker.close()


def draw_found(page: Page) -> None:
    """Draw with what the dial finds for 7 passes."""
    page.wait(lambda: "passes an image" in page.text("#cost"))
    page.open("How few passes?")
    page.wait(lambda: "7 passes" in page.text("#afford"))
    page.find("#use-measured").click()
    page.wait(lambda: "7 passes" in page.text("#cost"))
    page.open("Draw")
    page.draw()
    page.draw()  # the first one takes longer, as the network is prepared for this number of images


def save(page: Page, name: str) -> None:
    """Write the whole page as a picture of the guide."""
    time.sleep(1)  # for what still moves
    page.resize(page.driver.execute_script("return document.querySelector('.gradio-container').scrollHeight"))
    time.sleep(1)
    image = Image.open(io.BytesIO(page.driver.get_screenshot_as_png())).convert("RGB")
    with atomic_path(PROJECT / "docs" / name) as path:
        image.save(Path(path), "JPEG", quality=80, optimize=True)
    page.resize(1000)


if __name__ == "__main__":
    run_program(main)
