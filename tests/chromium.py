"""A headless Chromium for the tests of pages, and the contents of a page."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

_PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_DRIVER = shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(_PROGRAM is None or _DRIVER is None, reason="Chromium or chromedriver is missing.")
LAPTOP = (1366, 768)

_MARKED = """
const text = document.querySelector(arguments[0] + ' .marks').cloneNode(true);
const marks = [...text.querySelectorAll('mark')].map(mark => {
  const label = mark.removeChild(mark.querySelector('b'));
  return [mark.textContent, label.textContent];
});
return [text.textContent, marks];
"""
_BARS = """
return [...document.querySelectorAll(arguments[0] + ' dl')].map(
  row => [row.querySelector('dt').textContent, row.querySelector('dd').textContent,
          row.parentElement.querySelector('.bar').getBoundingClientRect().width]);
"""


class Marked(NamedTuple):
    """A text on the page, and its marks as [words, label]."""

    text: str
    marks: list[list[str]]


class Page:
    """The page in the browser, as a user operates and sees it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str) -> None:
        """Open the page and wait for its first answer."""
        self.driver.get_log("performance")
        self.driver.get(url)
        eventually(lambda: len(self.driver.find_elements(By.CSS_SELECTOR, "#answer, #task-0 .marks")), 2)

    def enter(self, text: str) -> None:
        """Replace the text in the textbox, as pasting does."""
        self.textbox.click()
        self.textbox.send_keys(Keys.CONTROL, "a", Keys.NULL, Keys.BACKSPACE)
        if text:  # send_keys does not support emoji
            self.driver.execute_cdp_cmd("Input.insertText", {"text": text})

    def ask(self, text: str) -> None:
        """Enter a text and click the button."""
        self.enter(text)
        self.find("#answer").click()

    @property
    def textbox(self) -> Any:
        """The element in which the text is typed."""
        return self.find("#text textarea")

    def find(self, selector: str) -> Any:
        """Return the first element that matches a CSS selector."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def marked(self, task: int) -> Marked:
        """Return the text of a task with its marks."""
        return Marked(*self.driver.execute_script(_MARKED, f"#task-{task}"))

    def bars(self, task: int) -> list[tuple[str, str, float]]:
        """Return the classes of a task from top to bottom: label, percentage, width of the bar in pixels."""
        return [tuple(row) for row in self.driver.execute_script(_BARS, f"#task-{task}")]

    def show(self, width: int, height: int, scheme: str = "light") -> None:
        """Set the size of the screen in pixels, and the user's choice of light or dark."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def messages(self) -> list[str]:
        """Return the messages on the browser's console since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> set[str]:
        """Return the hosts to which the browser has sent requests since the page was opened."""
        messages = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        sent = (message["params"] for message in messages if message["method"] == "Network.requestWillBeSent")
        return {urlsplit(params["request"]["url"]).netloc for params in sent}


@contextlib.contextmanager
def chromium() -> Iterator[Page]:
    """Start a browser with the screen of a laptop."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(_PROGRAM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(_DRIVER))
    page = Page(driver)
    page.show(*LAPTOP)
    try:
        yield page
    finally:
        driver.quit()


def eventually(read: Callable[[], Any], expected: Any, timeout: float = 30.0) -> None:
    """Wait until `read` returns the expected value."""
    until = time.monotonic() + timeout
    while (found := read()) != expected and time.monotonic() < until:
        time.sleep(0.05)
    assert found == expected


def page_url(printed: Path, timeout: float = 60.0) -> str:
    """Wait for the address that a server prints to a file when it starts to serve."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        for word in printed.read_text(encoding="utf-8").split() if printed.exists() else ():
            if word.startswith("http://"):
                return word
        time.sleep(0.05)
    raise TimeoutError(f"The server printed no address: {printed.read_text(encoding='utf-8')}")
