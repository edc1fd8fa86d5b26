"""The page in a real browser, from opening it to an image. Needs Gradio, Selenium, Chromium and its driver."""

from __future__ import annotations

import logging
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny import tiny_checkpoint

pytest.importorskip("gradio")
pytest.importorskip("selenium.webdriver")

from adaptive_diffusion.web import app, drawing, jobs, tuning
from adaptive_diffusion.web.sessions import settings_in
from adaptive_diffusion.web.worker import Worker
from tools.browser import CHROMIUM, DRIVER, Page

PASSWORD = "a long password"
STEPS = "number input for Steps"
SERIOUS = ("serious", "critical")  # faults, in the words of axe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="there is no Chromium with a driver"),
]


@pytest.fixture(scope="module")
def offers(tmp_path_factory):
    folder, log = tmp_path_factory.mktemp("page"), logging.getLogger("adaptive_diffusion")
    before = log.level
    app.prepare_process()
    # the tiny model is offered first, so that an open page draws at once
    offers = app.offered([str(tiny_checkpoint(folder))], (f"paths.outputs={folder}/outputs", "tracking=none"))
    yield replace(offers, models=offers.models[::-1])
    log.setLevel(before)  # other tests follow


@pytest.fixture(scope="module")
def address(offers):
    worker = Worker()
    with app.served(offers, worker, port=0) as where:
        yield where
    worker.close()


@pytest.fixture(scope="module")
def desk(address):
    page = Page(address, width=1280)
    yield page
    page.close()


@pytest.fixture(scope="module")
def phone(address):
    page = Page(address, width=390)
    yield page
    page.close()


def get(address: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(address, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def begin(page: Page, steps: int, runs: Any, number: int) -> None:
    """Begin to draw, and wait until the run of a number has begun."""
    page.type(STEPS, str(steps))
    page.find("#draw").click()
    page.wait(lambda: len(runs.begun) == number)


@pytest.fixture
def slow(monkeypatch):
    """Each step takes 0.1 s more; what begins and how it ends is noted."""
    begun: list[int] = []
    ended: list[str] = []
    watch, draw = jobs.Teller.progress, jobs.draw

    def noted(*given: Any) -> jobs.Drawn:
        begun.append(len(begun))
        try:
            return draw(*given)
        except BaseException as error:
            ended.append(type(error).__name__)
            raise

    monkeypatch.setattr(jobs.Teller, "progress", lambda *given: time.sleep(0.1) or watch(*given))
    monkeypatch.setattr(drawing, "draw", noted)
    return SimpleNamespace(begun=begun, ended=ended)


@pytest.mark.parametrize(("name", "width"), [("desk", 1280), ("phone", 390)])
def test_from_opening_to_an_image(request, name, width):
    page = request.getfixturevalue(name)
    status, content = get(page.draw())
    assert status == 200
    assert content.startswith(b"\x89PNG")
    assert "scheduler=adaptive" in page.driver.execute_script(
        "return [...document.querySelectorAll('textarea')].map(t => t.value).join('\\n')"
    )
    assert page.driver.execute_script("return document.documentElement.scrollWidth") <= width


def test_every_control_has_a_name_for_those_who_do_not_see_it(desk):
    unnamed = desk.driver.execute_script("""
        return [...document.querySelectorAll('input, textarea, button, select')].filter(e => e.offsetParent
            && !(e.labels && e.labels.length) && !e.ariaLabel && !e.title && !e.innerText.trim()
            && !e.getAttribute('aria-labelledby') && !e.querySelector('img[alt]:not([alt=""])'))
            .map(e => e.outerHTML.slice(0, 200))""")
    assert unnamed == []


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_nothing_keeps_anybody_from_using_the_page(address, colours):
    axe = pytest.importorskip("axe_core_python.selenium").Axe()
    page = Page(address)
    try:
        scheme = {"name": "prefers-color-scheme", "value": colours}
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        page.driver.get(f"{address}?__theme={colours}")
        page.wait(lambda: page.find("#draw"))
        page.draw()
        for tab in [each.text for each in page.all("button[role=tab]")]:
            page.open(tab)
            page.wait(lambda tab=tab: page.text("button[role=tab][aria-selected=true]") == tab)
            faults = axe.run(page.driver)["violations"]
            serious = [(each["id"], each["nodes"][0]["html"]) for each in faults if each["impact"] in SERIOUS]
            assert (tab, serious) == (tab, [])
    finally:
        page.close()


def test_another_domain_brings_its_labels_and_another_model_its_domains(desk):
    desk.choose("Label", "forest")
    for label, option in (("Domain", "portraits"), ("Model", "shipped")):
        desk.choose(label, option)
        desk.wait(lambda: desk.find("input[aria-label='Label']").get_attribute("value") == "mixed")
        desk.wait(lambda: "passes an image" in desk.text("#cost"))
        assert [each.text for each in desk.all(".toast-body")] == []
    assert desk.find("input[aria-label='Domain']").get_attribute("value") == "landscapes"
    desk.reload()


def test_a_wrong_value_is_one_sentence(desk):
    desk.type("Weight", "much")
    desk.find("#draw").click()
    desk.wait(lambda: "weight must be a number" in desk.text("#cost"))
    assert "weight must be a number" in desk.toast()
    assert "Traceback" not in desk.driver.page_source
    assert not any(
        each.is_displayed() for each in desk.all("[data-testid=status-tracker] .error")
    )  # over the last status
    desk.type("Weight", "")
    desk.type("Seed", "1.5")
    desk.find("#draw").click()
    assert "seed must be a whole number" in desk.toast()
    desk.type("Seed", "0")


def test_an_empty_number_of_a_slider_brings_no_error(desk):
    desk.open("How few passes?")
    field = desk.find("input[aria-label='number input for Passes per image']")
    field.send_keys("\ue009a\ue000\ue017")  # Control+A, Delete
    desk.wait(lambda: desk.text("#afford") == "Give a number of passes.")
    field.send_keys("30", "\ue004")
    desk.wait(lambda: "which takes" in desk.text("#afford"))
    assert [each.text for each in desk.all(".toast-body")] == []
    desk.open("Draw")


def test_every_tab_does_what_it_says(desk, offers):
    desk.reload()
    desk.type(STEPS, "3")
    desk.open("Schedule")
    desk.wait(lambda: desk.text("#scheduled").startswith("3 steps"))

    desk.open("Compare")
    desk.type("number input for Steps on the right", "2")
    desk.find("#compare").click()
    desk.wait(lambda: "Right: ddim, 2 steps" in desk.text("#compared"))

    desk.open("Sheet")
    desk.find("#sheet").click()
    desk.wait(lambda: desk.text("#sheet-drawn") == "8 images drawn.")

    desk.open("Calibrate")
    desk.type("number input for Steps to calibrate", "2")
    desk.wait(lambda: "in 2 steps: " in desk.text("#calibration-cost"))
    desk.find("#calibrate").click()
    desk.wait(lambda: "calibrated for landscapes" in desk.text("#calibrated"))

    desk.open("Tune")
    desk.find("#tune").click()
    desk.wait(lambda: desk.text("#tuned").startswith(("Preparing", "Searching")))
    desk.find("#cancel-tune").click()
    desk.wait(lambda: desk.text("#tuned").startswith("Cancelled ("))

    desk.open("How few passes?")
    desk.find("#use-measured").click()
    desk.wait(lambda: desk.text("#cost").startswith("6 steps, 7 passes"))

    desk.open("History")
    desk.wait(lambda: [desk.text("#runs").count(group) for group in ("compare 1,", "sheet 1,")] == [2, 8])
    folder = Path(next(each for each in offers.common if each.startswith("paths.outputs=")).partition("=")[2])
    drawn = min((folder / "sample").rglob("0000.png"), key=lambda path: path.stat().st_mtime)
    desk.find("#given input[type=file]").send_keys(str(drawn))
    steps = next(each for each in settings_in(drawn) if each.startswith("num_steps=")).partition("=")[2]
    desk.wait(lambda: desk.find(f"input[aria-label='{STEPS}']").get_attribute("value") == steps)
    assert [each.text for each in desk.all(".toast-body")] == []
    desk.reload()


def test_on_a_phone_the_further_controls_are_folded_in(phone, desk):
    phone.reload()
    assert desk.find("#further input").is_displayed()
    phone.wait(lambda: not any(each.is_displayed() for each in phone.all("#further input")))
    assert phone.driver.execute_script("return document.querySelector('#draw').getBoundingClientRect().top") < 800


def test_users_see_their_own_images_also_on_a_page_that_is_loaded_anew(desk, phone):
    phone.reload()
    source = desk.draw()
    phone.draw()
    phone.open("History")
    phone.wait(lambda: phone.all("#runs button img"))
    assert source not in phone.driver.page_source
    phone.find("#runs button").click()
    shown = [each for each in phone.all("textarea") if each.is_displayed()]
    phone.wait(lambda: any("scheduler=" in str(each.get_property("value")) for each in shown))
    phone.open("Draw")
    desk.reload()
    desk.wait(lambda: "passes an image" in desk.text("#cost"))
    desk.open("History")
    desk.wait(lambda: source in [each.get_attribute("src") for each in desk.all("#runs button img")])
    assert get(source)[0] == 200
    desk.open("Draw")


def test_enter_in_the_prompt_presses_the_button_of_the_tab(desk):
    before = desk.pictures()
    desk.find("textarea[placeholder]").send_keys("a forest", "\ue007")
    desk.wait(lambda: "passes an image" in desk.text("#status") and desk.pictures() - before)
    desk.open("Schedule")
    desk.type("Prompt", "")
    desk.type(STEPS, "7")
    desk.find("textarea[placeholder]").send_keys("\ue007")
    desk.wait(lambda: desk.text("#scheduled").startswith("7 steps"))
    desk.open("Draw")


def test_the_cost_of_a_tuning_goes_with_the_controls_that_it_was_said_of(desk):
    desk.open("Tune")
    desk.wait(lambda: "20 episodes" in desk.text("#tuning-cost"))
    desk.type(STEPS, "4")
    desk.wait(lambda: desk.text("#tuning-cost") == "")
    desk.open("Draw")


def test_a_control_that_is_left_by_opening_the_tab_does_not_take_the_cost_away(desk, monkeypatch):
    told = tuning.cost_of
    monkeypatch.setattr(tuning, "cost_of", lambda settings: time.sleep(3) or told(settings))  # a model that takes long
    desk.type(STEPS, "5")
    desk.open("Tune")
    desk.wait(lambda: "at most 5 steps, 20 episodes" in desk.text("#tuning-cost"))
    desk.open("Draw")


def test_cancel_and_a_reload_end_a_run(desk, slow):
    begin(desk, 100, slow, 1)
    desk.wait(lambda: " of " in desk.text("#status"))
    desk.find("#cancel-draw").click()
    desk.wait(lambda: "Cancelled (" in desk.text("#status"))
    assert [each.text for each in desk.all(".toast-body")] == []

    begin(desk, 100, slow, 2)
    desk.reload()
    desk.wait(lambda: slow.ended == ["Cancelled", "Cancelled"])
    desk.type(STEPS, "3")
    desk.draw()
    desk.wait(lambda: desk.text("#cost").startswith("3 steps"))


def test_a_click_that_waits_behind_another_page_can_be_cancelled(desk, phone, slow):
    begin(desk, 100, slow, 1)
    phone.find("#draw").click()
    phone.wait(lambda: phone.text("#status") == "Waiting for 1 other run.")
    phone.find("#cancel-draw").click()
    phone.wait(lambda: "Cancelled (waiting for 1 other run)" in phone.text("#status"))
    assert slow.ended == []
    desk.find("#cancel-draw").click()
    desk.wait(lambda: slow.ended == ["Cancelled"])
    assert len(slow.begun) == 1


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
