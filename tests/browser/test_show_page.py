"""The page of `nla_cyclegan show` in a browser: a photo is painted, looked into, and painted again by another checkpoint."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from window import DESKTOP, PHONE, Browser, until

from nla_cyclegan import Generator, GeneratorConfig
from nla_cyclegan.show.serve import Server
from nla_cyclegan.show.translator import Translator
from nla_cyclegan.weights.generators import save_generator


@pytest.fixture(scope="module")
def address(pages: Path) -> Iterator[str]:
    folder = pages / "shown"
    config = GeneratorConfig(base_channels=4, num_blocks=2, nonlocal_blocks=(0, 1), nonlocal_gain=0.5, output="masked")
    for images in (1000, 20_000):
        (folder / f"checkpoint_{images}").mkdir(parents=True)
        for seed, name in enumerate(("generator_ab", "generator_ba")):
            torch.manual_seed(images + seed)
            save_generator(Generator(config), folder / f"checkpoint_{images}" / f"{name}.safetensors")
    y, x = np.mgrid[0:96, 0:144]
    Image.fromarray(np.stack([x + y, 2 * y, 255 - x], axis=-1).astype(np.uint8)).save(pages / "photo.png")
    (pages / "text.png").write_text("no image")
    server = Server(Translator(str(folder), 128, torch.device("cpu")), 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def upload(browser: Browser, file: Path) -> None:
    browser.driver.find_element("css selector", "#file").send_keys(str(file))
    until(lambda: bool(browser.js("return document.getElementById('busy').hidden")))


def source(browser: Browser, name: str) -> str:
    return str(browser.js("return document.getElementById(arguments[0]).src", name))


def fits(browser: Browser, width: int) -> bool:
    browser.resize(width)
    return browser.js("return document.documentElement.scrollWidth") <= width and browser.too_wide() == []


def test_a_photo_is_painted(browser: Browser, address: str, pages: Path) -> None:
    browser.open(address)
    assert fits(browser, PHONE)
    assert fits(browser, DESKTOP)
    assert browser.js("return getComputedStyle(document.getElementById('pictures')).display") == "none"
    upload(browser, pages / "photo.png")
    until(lambda: browser.js("return document.getElementById('mask').naturalWidth") > 0)
    shown = "return [...document.querySelectorAll('#pictures figure')].map(figure => figure.offsetHeight > 0)"
    assert browser.js(shown) == [True, True, True, True]

    browser.driver.find_element("css selector", "#image").click()
    until(lambda: browser.count("#maps img") == 2)
    assert fits(browser, PHONE)
    assert fits(browser, DESKTOP)
    first, map_before = source(browser, "translated"), source_of_map(browser)
    move = "const s = document.getElementById('slider'); s.value = 0; s.oninput(); s.onchange()"
    browser.js(move)
    until(lambda: source(browser, "translated") != first and source_of_map(browser) != map_before)
    assert browser.js("return document.getElementById('images').textContent") == "at 1,000 images"

    browser.js("document.querySelector('#directions button[value=A2B]').click()")
    until(lambda: "A to B" in str(browser.js("return document.getElementById('there').textContent")))
    upload(browser, pages / "text.png")
    until(lambda: "not a readable image" in str(browser.js("return document.getElementById('error').textContent")))
    upload(browser, pages / "photo.png")
    until(lambda: bool(browser.js("return document.getElementById('error').hidden")))
    assert browser.js("return document.getElementById('attention').hidden")
    # What the browser says of an answer that is an error.
    assert [line for line in browser.complaints() if "400 (Bad Request)" not in line] == []


def source_of_map(browser: Browser) -> str:
    return str(browser.js("return document.querySelector('#maps img').src"))


def test_a_photo_is_dropped(browser: Browser, address: str) -> None:
    browser.open(address)
    browser.js(
        """
        const canvas = document.createElement("canvas");
        canvas.toBlob((blob) => {
          const data = new DataTransfer();
          data.items.add(new File([blob], "photo.png"));
          document.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        });
        """
    )
    until(lambda: source(browser, "translated").startswith("data:image/png"))
    assert browser.complaints() == []
