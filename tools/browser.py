"""The page of `adaptive-diffusion app` in Chromium, by Selenium: for its tests and its pictures."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import WebDriverException

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
PATIENCE = 120  # seconds, on a busy machine
NARROW = 600  # pixels: a window of less is a phone's


class Page:
    """An open page.

    Args:
        address: Of the page.
        width, height: Of the window, in pixels.
        ready: CSS selector of what the page has once it can be used.
    """

    def __init__(self, address: str, width: int = 1280, height: int = 1000, ready: str = "#draw"):
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for argument in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "hide-scrollbars"):
            options.add_argument(f"--{argument}")
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        self.width, self.ready = width, ready
        self.resize(height)
        self.driver.get(address)
        self.wait(lambda: self.find(self.ready))

    def resize(self, height: int) -> None:
        """Give the window a height, in pixels."""
        size = {"width": self.width, "height": height, "deviceScaleFactor": 1, "mobile": self.width < NARROW}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def wait(self, what: Callable[[], Any]) -> Any:
        """What a function returns, once it is true; the page may lack what it looks for meanwhile."""
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
        """The first element that a CSS selector names."""
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        """All elements that a CSS selector names."""
        return list(self.driver.find_elements("css selector", selector))

    def text(self, selector: str) -> str:
        """What the first of them shows."""
        return str(self.find(selector).text)

    def type(self, label: str, text: str) -> None:
        """Put a text into the field with a label, and leave it."""
        below = f"//label[.//span[normalize-space()='{label}']]//*[self::input or self::textarea]"
        field = self.driver.find_element("xpath", f"//*[@aria-label='{label}'] | {below}")
        field.send_keys("\ue009a\ue000\ue017", text, "\ue004")  # Control+A, Delete, text, Tab

    def choose(self, label: str, option: str) -> None:
        """Choose an option of the list with a label."""
        self.find(f"input[aria-label='{label}']").click()
        self.wait(lambda: [each for each in self.all("[role=option]") if option in each.text])[0].click()

    def draw(self) -> str:
        """Draw, and wait for the address of the final picture, which is another than the last one's."""
        before = self.pictures()
        self.find("#draw").click()
        return str(self.wait(lambda: "passes an image" in self.text("#status") and self.pictures() - before).pop())

    def pictures(self) -> set[str]:
        """The address of what is drawn, if anything is."""
        return {str(each.get_attribute("src")) for each in self.all("#picture img")}

    def open(self, tab: str) -> None:
        """Open a tab, out of the menu where there is no room for it."""
        named = f"//button[@role='tab' and normalize-space()='{tab}'] | //*[contains(@class, 'overflow-dropdown')]"
        named += f"/button[normalize-space()='{tab}']"
        for menu in self.all(".overflow-menu > button"):
            if menu.is_displayed():
                menu.click()
        found = self.driver.find_elements("xpath", named)
        next(each for each in found if each.is_displayed()).click()

    def toast(self) -> str:
        """The sentence that the page shows in its corner, which is closed then."""
        told = str(self.wait(lambda: self.text(".toast-wrap")))
        self.find(".toast-close").click()
        return told

    def reload(self) -> None:
        """Load the page anew."""
        self.driver.refresh()
        self.wait(lambda: self.find(self.ready))

    def close(self) -> None:
        """End the browser."""
        self.driver.quit()
