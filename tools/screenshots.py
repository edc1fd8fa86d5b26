"""`python -m tools.screenshots`: the guide's images of `adaptive-diffusion app` and of MLflow, taken in Chromium."""

from __future__ import annotations

import argparse
import io
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from PIL import Image

from adaptive_diffusion.cli.entry import ROOT
from adaptive_diffusion.errors import UserError
from adaptive_diffusion.io.files import atomic_path
from adaptive_diffusion.leaving import run_program
from adaptive_diffusion.tracking.ui import PORT
from adaptive_diffusion.web import app
from adaptive_diffusion.web.worker import Worker
from tools.browser import CHROMIUM, DRIVER, PATIENCE, Page
from tools.tables import PROJECT

DESK, PHONE = 1280, 390  # pixels
SWEEP = ("domain=landscapes", "scheduler=ddim,dpm_solver,unipc,adaptive", "num_steps=5,10")
PROGRAM = (sys.executable, "-m", "adaptive_diffusion")


def main(argv: list[str]) -> None:
    """Take every image, or those of one program."""
    parser = argparse.ArgumentParser(prog="python -m tools.screenshots", description=__doc__)
    parser.add_argument("programs", nargs="*", default=["app", "mlflow"], help="app, mlflow; default: both")
    programs = parser.parse_args(argv).programs
    if unknown := set(programs) - {"app", "mlflow"}:
        raise UserError(f"there are images of app and mlflow, not of {', '.join(sorted(unknown))}")
    if not (CHROMIUM and DRIVER):
        raise UserError("images of a page need chromium and chromedriver")

    if "app" in programs:
        photograph_app()
    if "mlflow" in programs:
        photograph_mlflow()


def photograph_app() -> None:
    """Serve the page of the app from a folder of its own, and take its images."""
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


def photograph_mlflow() -> None:
    """Draw a small sweep in a folder of its own, and take an image of how MLflow compares its jobs."""
    with swept() as address:
        page = Page(address, DESK, 1110, ready=".js-plotly-plot")
        page.find("[data-component-id='mlflow.assistant.chat_panel.close']").click()
        page.find("[data-component-id='mlflow_header.toggle_sidebar_button']").click()
        page.find("input[placeholder='Search metric charts']").send_keys("perceptual|passes")
        page.wait(lambda: len(page.all(".js-plotly-plot")) == 2)
        time.sleep(2)  # for what still moves
        image = Image.open(io.BytesIO(page.driver.get_screenshot_as_png())).convert("RGB").quantize(64)
        with atomic_path(PROJECT / "docs" / "guide" / "sweep_mlflow.png") as path:
            image.save(Path(path), "PNG", optimize=True)
        page.close()


@contextmanager
def swept() -> Iterator[str]:
    """The address where MLflow compares the jobs of a sweep, which the sweep says last."""
    with tempfile.TemporaryDirectory() as folder:
        sweep = [*PROGRAM, "sample", "-m", *SWEEP]
        said = subprocess.run(sweep, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout
        pages = subprocess.Popen([*PROGRAM, "ui"], cwd=folder)
        try:
            for _ in range(PATIENCE):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", PORT)) == 0:
                        break
                time.sleep(1)
            yield said.split()[-1]
        finally:
            pages.terminate()
            pages.wait()


@contextmanager
def served() -> Iterator[str]:
    """The address of the page with the shipped model, whose runs are recorded nowhere."""
    with closing(Worker()) as worker, tempfile.TemporaryDirectory() as folder:
        os.environ[ROOT] = folder  # so that no command in a picture names it
        app.prepare_process()
        common = ("tracking=none",)
        with app.served(worker.do(lambda: app.offered([], common)), worker, port=0) as address:
            yield address


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
