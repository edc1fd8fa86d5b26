"""The page in a real browser, from opening it to an image. Needs Gradio, Selenium, Chromium and its driver."""

from __future__ import annotations

import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from tiny import tiny_checkpoint

pytest.importorskip("gradio")
selenium = pytest.importorskip("selenium.webdriver")
WebDriverException = pytest.importorskip("selenium.common.exceptions").WebDriverException

from adaptive_diffusion.web import app, drawing, jobs  # noqa: E402
from adaptive_diffusion.web.jobs import Worker  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PASSWORD = "a long password"
PATIENCE = 120  # seconds, on a busy machine

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="there is no Chromium with a driver"),
]


@pytest.fixture(scope="module")
def offers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    app._prepare_process()
    # the tiny model is offered first, so that an open page draws at once
    offers = app.offered([str(tiny_checkpoint(folder))], (f"paths.outputs={folder}/outputs", "tracking=none"))
    return app.Offers(offers.models[::-1], offers.schedulers, offers.guidance, offers.common)


@pytest.fixture(scope="module")
def address(offers):
    worker = Worker()
    with app.served(offers, worker, port=0) as where:
        yield where
    worker.close()


class Page:
    """An open page."""

    def __init__(self, address: str, width: int = 1280, height: int = 1000):
        options = selenium.ChromeOptions()
        options.binary_location = CHROMIUM
        for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
            options.add_argument(f"--{argument}")
        self.driver = selenium.Chrome(options=options, service=selenium.ChromeService(DRIVER))
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        self.driver.get(address)
        self.wait(lambda: self.find("#draw"))

    def wait(self, what: Callable[[], Any]) -> Any:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                if found := what():
                    return found
            except WebDriverException:
                pass
            time.sleep(0.1)
        raise AssertionError(f"nothing came within {PATIENCE} s; the page says: {self.text('body')[:2000]}")

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        return str(self.find(selector).text)

    def type(self, label: str, text: str) -> None:
        """Put a text into the field with a label, and leave it."""
        below = f"//label[.//span[normalize-space()='{label}']]//*[self::input or self::textarea]"
        field = self.driver.find_element("xpath", f"//*[@aria-label='{label}'] | {below}")
        field.clear()
        field.send_keys(text, "\ue004")  # tab

    def draw(self) -> str:
        """Draw, and wait for the address of the final picture."""
        self.find("#draw").click()
        self.wait(lambda: "passes an image" in self.text("#status"))
        return self.picture()

    def picture(self) -> str:
        return str(self.wait(lambda: self.find("#picture img").get_attribute("src")))

    def close(self) -> None:
        self.driver.quit()


@pytest.fixture(scope="module")
def open_page(address):
    pages: list[Page] = []

    def opened(**size: int) -> Page:
        pages.append(Page(address, **size))
        return pages[-1]

    yield opened
    for page in pages:
        page.close()


def get(address: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_from_opening_to_an_image_a_mistake_and_a_reload(open_page, address, offers):
    page = open_page()
    source = page.draw()
    status, content = get(source)
    assert status == 200
    assert content.startswith(b"\x89PNG")
    assert "scheduler=adaptive" in page.driver.execute_script(
        "return [...document.querySelectorAll('textarea')].map(t => t.value).join('\\n')"
    )

    # every control has a name for those who do not see it
    unnamed = page.driver.execute_script("""
        return [...document.querySelectorAll('input, textarea, button, select')].filter(e => e.offsetParent
            && !(e.labels && e.labels.length) && !e.ariaLabel && !e.title && !e.innerText.trim()
            && !e.getAttribute('aria-labelledby') && !e.querySelector('img[alt]:not([alt=""])'))
            .map(e => e.outerHTML.slice(0, 200))""")
    assert unnamed == []

    # a wrong value is one sentence, and nothing of the program
    page.type("Weight", "much")
    page.find("#draw").click()
    told = page.wait(lambda: page.text(".toast-wrap"))
    assert "weight must be a number" in told
    assert "Traceback" not in page.driver.page_source
    page.type("Weight", "")

    # another user sees neither image nor history; closing the first page deletes its files
    other = open_page()
    assert source not in other.driver.page_source
    other.draw()
    page.driver.refresh()
    page.wait(lambda: page.find("#draw"))
    page.wait(lambda: get(source)[0] in (403, 404))
    page.draw()


def test_cancel_and_a_reload_in_mid_run(open_page, monkeypatch):
    watch = jobs.Watch.__call__
    monkeypatch.setattr(jobs.Watch, "__call__", lambda *given: time.sleep(0.1) or watch(*given))  # 10 s a run
    begun: list[int] = []
    ended: list[str] = []
    draw = jobs.draw

    def noted(*given: Any) -> jobs.Drawn:
        begun.append(len(begun))
        try:
            return draw(*given)
        except BaseException as error:
            ended.append(type(error).__name__)
            raise

    monkeypatch.setattr(drawing, "draw", noted)
    page = open_page()
    page.type("number input for Steps", "100")
    page.find("#draw").click()
    page.wait(lambda: " of " in page.text("#status"))
    page.find("#cancel-draw").click()
    assert "Cancelled" in page.wait(lambda: page.text(".toast-wrap"))

    page.find("#draw").click()
    page.wait(lambda: len(begun) == 2)
    page.driver.refresh()
    page.wait(lambda: page.find("#draw"))
    page.type("number input for Steps", "4")
    page.draw()
    assert ended == ["Cancelled", "Cancelled"]

    # a click that waits behind the run of another page
    other = open_page()
    page.type("number input for Steps", "100")
    page.find("#draw").click()
    page.wait(lambda: len(begun) == 4)
    other.find("#draw").click()
    time.sleep(1)
    other.find("#cancel-draw").click()
    time.sleep(1)
    assert len(begun) == 4
    page.find("#cancel-draw").click()
    assert "Cancelled" in other.wait(lambda: other.text(".toast-wrap"))
    assert ended == ["Cancelled"] * 4


def test_nothing_of_the_machine_can_be_read(address, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    for path in ("/etc/passwd", str(tmp_path / "secret.txt"), "pyproject.toml", "outputs", "http://127.0.0.1:1/"):
        status, content = get(f"{address}gradio_api/file={path}")
        assert status in (403, 404), path
        assert b"secret" not in content.replace(b"secret.txt", b"")


def test_a_password_is_asked_for(offers):
    worker = Worker()
    with app.served(offers, worker, port=0, password=PASSWORD) as where:
        assert get(f"{where}config")[0] == 401
        form = f"username=anna&password={PASSWORD}".replace(" ", "%20").encode()
        wrong = urllib.request.Request(f"{where}login", data=form + b"x")
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(wrong, timeout=60)
        with urllib.request.urlopen(urllib.request.Request(f"{where}login", data=form), timeout=60) as answer:
            assert answer.status == 200
    worker.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits(open_page, width):
    page = open_page(width=width)
    assert page.driver.execute_script("return document.documentElement.scrollWidth") <= width
