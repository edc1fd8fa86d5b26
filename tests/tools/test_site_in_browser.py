"""Pages of the built site in a real browser. Needs `mkdocs build`, Selenium, axe, Chromium and its driver."""

from __future__ import annotations

import shutil

import pytest
from tiny import ROOT

selenium = pytest.importorskip("selenium.webdriver")
axe = pytest.importorskip("axe_core_python.selenium")

SITE = ROOT / "outputs" / "site"
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PAGES = ("faq", "guide/agents", "evidence/real_images")
OF_THE_THEME = {"landmark-unique"}  # each button that copies a block stands in a landmark without a name

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="there is no Chromium with a driver"),
    pytest.mark.skipif(not SITE.is_dir(), reason="the site is not built"),
]


@pytest.fixture(scope="module")
def browser():
    options = selenium.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=400,1000"):
        options.add_argument(f"--{argument}")
    driver = selenium.Chrome(options=options, service=selenium.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.mark.parametrize("page", PAGES)
def test_nothing_keeps_anybody_from_reading_the_site(browser, page):
    browser.get((SITE / page / "index.html").as_uri())
    found = axe.Axe().run(browser)["violations"]
    faults = {each["id"]: each["nodes"][0]["html"] for each in found if each["id"] not in OF_THE_THEME}
    assert faults == {}
