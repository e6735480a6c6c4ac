"""Chromium without a window, for tests of pages; each one starts with an empty profile."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

#: When the first row of the table of tasks was there, in milliseconds since the address was entered.
WATCH_FOR_SUMMARY = """
new MutationObserver((_, observer) => {
  if (!document.querySelector('#tasks tbody tr')) return;
  window.summaryShown = performance.now();
  observer.disconnect();
}).observe(document, { childList: true, subtree: true });
"""


@contextmanager
def chromium(width: int = 1280, height: int = 900) -> Iterator[webdriver.Chrome]:
    """A browser, with what its pages log and ask the network for."""
    assert CHROMIUM is not None
    assert DRIVER is not None
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        for switch in (
            *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"),
            *("disable-component-update", "disable-sync", "disable-dev-shm-usage"),
            *(f"user-data-dir={profile}", f"window-size={width},{height}"),
        ):
            options.add_argument(f"--{switch}")
        browser = webdriver.Chrome(options=options, service=Service(DRIVER))
        try:
            browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH_FOR_SUMMARY})
            yield browser
        finally:
            browser.quit()
