"""A page in a headless browser's window."""

import io
import time
from collections.abc import Callable
from typing import Any

from PIL import Image
from selenium import webdriver
from selenium.webdriver import ActionChains

PHONE, DESKTOP, HEIGHT = 390, 1440, 900
# Elements that reach out of the window, but for those that scroll inside their own box.
TOO_WIDE = """
return [...document.querySelectorAll("body *")]
  .filter(element => !element.closest(".scroll") || element.matches(".scroll"))
  .filter(element => element.getBoundingClientRect().right > innerWidth + 1)
  .map(element => element.outerHTML.slice(0, 100));
"""


class Browser:
    """A page in a window of a width, and what came of it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, address: str, width: int = DESKTOP, theme: str = "light") -> None:
        self.resize(width)
        media = [{"name": "prefers-color-scheme", "value": theme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        self.driver.get_log("browser")
        self.driver.get(address)
        if address == "about:blank":
            return
        # The script draws the charts after the page is loaded; until then the page is not as long as it will be.
        until(lambda: self.count("html[data-ready]") == 1 and self.count("[id^=chart-]:not([data-drawn])") == 0)

    def resize(self, width: int) -> None:
        metrics = {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": width == PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def js(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def count(self, selector: str) -> int:
        return int(self.js("return document.querySelectorAll(arguments[0]).length", selector))

    def type(self, selector: str, text: str) -> None:
        """Replace what stands in an input."""
        put = "const i = document.querySelector(arguments[0]); i.value = arguments[1]; i.dispatchEvent(new Event('input'))"
        self.js(put, selector, text)

    def drag(self, selector: str, start: tuple[int, int], end: tuple[int, int]) -> None:
        """With the mouse from one place of an element to another, each from its middle, in steps."""
        element = self.driver.find_element("css selector", selector)
        self.js("arguments[0].scrollIntoView({block: 'center'})", element)
        chain = ActionChains(self.driver).move_to_element_with_offset(element, *start).click_and_hold()
        step = (end[0] - start[0]) // 4, (end[1] - start[1]) // 4
        for _ in range(4):
            chain = chain.move_by_offset(*step)
        chain.release().perform()

    def too_wide(self) -> list[str]:
        """What is wider than the window."""
        return list(self.js(TOO_WIDE))

    def coloured(self, selector: str) -> int:
        """Pixels of an element that are neither grey nor nearly so."""
        picture = self.driver.find_element("css selector", selector).screenshot_as_png
        saturation = Image.open(io.BytesIO(picture)).convert("HSV").getchannel("S")
        return sum(saturation.histogram()[80:])

    def complaints(self) -> list[str]:
        """All that the console was told since the page was opened, but for the driver of the graphics card."""
        messages = [entry["message"] for entry in self.driver.get_log("browser")]
        return [message for message in messages if "GL Driver Message" not in message]


def until(true: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.05)
