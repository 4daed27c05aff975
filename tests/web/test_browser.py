"""The web page in a real browser: ``segearth demo`` is started as a user starts it, and clicked through.

With ``SEGEARTH_SCREENSHOTS=docs/images`` the pictures of ``docs/web.md`` are made anew.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from web_fakes import geotiff_bytes

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--window-size=1280,1380")  # fmt: skip
PATIENCE = 90  # seconds, on a busy machine
KILOBYTES = 300  # of a screenshot


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page, over the packaged model."""
    for package in ("gradio", "selenium"):
        pytest.importorskip(package)
    if not CHROMIUM or not DRIVER:
        pytest.skip("no Chromium and chromedriver here (Debian: apt-get install chromium chromium-driver)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "segearth.cli", "demo", "--port", str(port), "--model", "segearth_tiny",
               "--device", "cpu", "--max-megabytes", "2"]  # fmt: skip
    log = tmp_path_factory.mktemp("demo") / "log.txt"
    place = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(log.parent)}
    with (
        log.open("w") as output,
        subprocess.Popen(command, cwd=log.parent, env=place, stdout=output, stderr=output) as run,
    ):
        try:
            _wait(lambda: run.poll() is not None or _answers(f"http://127.0.0.1:{port}/"), log)
            assert run.poll() is None, log.read_text()
            yield f"http://127.0.0.1:{port}/"
        finally:
            run.terminate()


def _answers(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as reply:
        return bool(reply.status == 200)
    return False


def _wait(done: Callable[[], Any], what: object) -> Any:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with contextlib.suppress(Exception):  # an element that was replaced while it was looked at
            if result := done():
                return result
        time.sleep(0.1)
    pytest.fail(f"waited {PATIENCE} seconds: {what.read_text() if isinstance(what, Path) else what}")


class Page:
    """What a user sees and does."""

    def __init__(self, driver: Any, downloads: Path) -> None:
        self.driver, self.downloads = driver, downloads

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        return str(self.find(selector).text)

    def picture(self) -> str:
        """Address of the picture that is shown; it changes with the picture."""
        return str(self.find("#overlay img").get_attribute("src"))

    def pixels(self) -> np.ndarray:
        with urllib.request.urlopen(self.picture(), timeout=30) as reply:
            return np.asarray(Image.open(io.BytesIO(reply.read())).convert("RGB")).astype(int)

    def click(self, selector: str) -> None:
        self.driver.execute_script("arguments[0].click()", self.find(selector))

    def pick(self, number: int) -> None:
        self.click(f"#examples .gallery-item:nth-child({number}) button")
        _wait(lambda: self.picture() and not self.text("#answer"), "the example")

    def ask(self, question: str) -> str:
        """Asks, and waits for the answer's words."""
        field = self.find("#question textarea, #question input")
        field.clear()
        field.send_keys(question)
        self.click("#ask")
        _wait(lambda: self.text("#answer").startswith(question), f"the answer to {question!r}")
        return self.text("#answer")

    def download(self, selector: str, ending: str) -> Path:
        """Takes a file away; until it is whole it has another name."""
        self.click(selector)
        (path,) = _wait(lambda: list(self.downloads.glob(f"[!.]*{ending}")), selector)
        return Path(path)

    def screenshot(self, name: str) -> None:
        if not (folder := os.environ.get("SEGEARTH_SCREENSHOTS")):
            return
        time.sleep(1)  # until what fades in is there
        image = Image.open(io.BytesIO(self.driver.get_screenshot_as_png())).convert("RGB")
        path = ROOT / folder / f"{name}.png"
        image.quantize(160, dither=Image.Dither.NONE).save(path, optimize=True)
        assert path.stat().st_size < KILOBYTES * 1000


@pytest.fixture
def page(address: str, tmp_path: Path) -> Iterator[Page]:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    downloads = tmp_path / "downloads"
    downloads.mkdir()
    options = Options()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(flag)
    several = "profile.default_content_setting_values.automatic_downloads"  # else it asks at the second
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads), several: 1})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        driver.set_page_load_timeout(PATIENCE)
        driver.get_log("performance")  # of the browser's own first page
        driver.get(address)
        page = Page(driver, downloads)
        _wait(lambda: page.find("#examples img"), "the examples")
        yield page
    finally:
        driver.quit()


def test_an_example_is_asked_twice_and_its_mask_taken_away(page: Page, address: str) -> None:
    page.pick(1)
    bare = page.picture()
    assert "OpenAerialMap" in page.text("#picture_line") and "512 × 512" in page.text("#picture_line")

    said = page.ask("the buildings")
    assert "There, in" in said and "IoU" in said
    first = _wait(lambda: page.picture() != bare and page.picture(), "the overlay")
    tinted = page.pixels()
    assert "box in pixels" in page.text("#regions") and len(page.text("#regions").splitlines()) > 10
    page.screenshot("demo_answer")

    page.click("#in_words input")
    assert "Not there" in page.ask("the ships")
    assert "In the model's words" in page.text("#answer")
    _wait(lambda: page.picture() != first, "the second overlay")
    assert "the buildings (" in page.text("#history") and "the ships (not there)" in page.text("#history")
    assert not page.driver.find_elements("css selector", "#regions")

    page.click("#history label:first-child input")  # back to the first answer
    _wait(lambda: page.text("#answer").startswith("the buildings"), "the first answer")
    _wait(lambda: np.array_equal(page.pixels(), tinted), "the first overlay")
    field = page.find("#opacity input[type=number]")
    field.clear()
    field.send_keys("0.9\n")
    _wait(lambda: not np.array_equal(page.pixels(), tinted), "another opacity")
    stronger = page.pixels()

    mask = np.asarray(Image.open(page.download("#get_png", ".png")))
    assert mask.shape == (512, 512) and set(np.unique(mask)) == {0, 255}
    assert np.abs(stronger - tinted).sum(-1)[mask == 255].mean() > 50  # the tint changed, and only there
    outside = np.abs(stronger - tinted).sum(-1)[mask == 0]
    assert outside.mean() < 1
    found = json.loads(page.download("#get_geojson", ".geojson").read_text())
    assert found["answers"][0]["question"] == "the buildings" and found["features"]

    messages = [json.loads(entry["message"])["message"] for entry in page.driver.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    elsewhere = {url for url in asked if not url.startswith((address, "data:", "blob:", "chrome:"))}
    assert address in asked and not elsewhere  # fonts, scripts, telemetry


def test_a_geotiff_of_one_s_own(page: Page, tmp_path: Path) -> None:
    rasterio = pytest.importorskip("rasterio")
    pytest.importorskip("geopandas")
    scene = ROOT / "shared" / "data" / "geotiff" / "banepa_oam_a.tif"
    if scene.is_file():  # not everywhere; its picture is nicer
        content = scene.read_bytes()
    else:
        content = geotiff_bytes(200, (256, 192))
    own, text = tmp_path / "scene.tif", tmp_path / "text.png"
    own.write_bytes(content)
    page.find("#upload input[type=file]").send_keys(str(own))
    _wait(lambda: "EPSG:" in page.text("#picture_line"), "the upload")
    page.ask("the buildings")
    page.screenshot("demo_geotiff")
    with rasterio.open(page.download("#get_geotiff", ".tif")) as mask, rasterio.open(own) as given:
        assert (mask.crs, mask.transform, mask.shape) == (given.crs, given.transform, given.shape)

    text.write_text("no picture")
    page.driver.refresh()
    _wait(lambda: page.find("#examples img"), "the page again")
    page.find("#upload input[type=file]").send_keys(str(text))
    _wait(lambda: "no picture of a known kind" in page.text("body"), "the error")
