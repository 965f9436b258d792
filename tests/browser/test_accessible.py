"""The page without a mouse, without sight of it, and with weak eyes: names, roles, keys, contrast."""

from itertools import pairwise
from pathlib import Path

import pytest
import sweep_records
from selenium.webdriver import Keys
from window import DESKTOP, PHONE, Browser

from tuning.analysis.results import ranked, read_results
from tuning.dashboard import main

# Controls without a name that a screen reader could read out.
NAMELESS = """
return [...document.querySelectorAll("input, select, button, [role=img], [role=group], img")]
  .filter(each => each.checkVisibility() && !each.closest(".main-svg"))
  .filter(each => !(each.getAttribute("aria-label") || each.getAttribute("alt") || each.textContent.trim() && each.matches("button")
    || each.labels?.[0]?.textContent.trim()))
  .map(each => each.outerHTML.slice(0, 120));
"""
# Texts whose contrast to what is behind them is less than WCAG's AA asks: 4.5, of large ones 3.
FAINT = """
const parse = text => { const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number); return [r, g, b, a]; };
const light = ([r, g, b]) => [r, g, b].map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const behind = element => {
  for (let each = element; each; each = each.parentElement) {
    const colour = parse(getComputedStyle(each).backgroundColor);
    if (colour[3] === 1) return colour;
  }
  return [255, 255, 255, 1];
};
const faint = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
  if (!own || !element.checkVisibility() || element.closest("script, style, option") || element.disabled) continue;
  // Texts on bars are on the bars' colours.
  if (element.closest(".bartext")) continue;
  const style = getComputedStyle(element);
  const text = element.closest("svg") ? style.fill : style.color;
  const [one, other] = [light(parse(text)), light(behind(element))].sort((a, b) => b - a);
  const ratio = (one + 0.05) / (other + 0.05), size = parseFloat(style.fontSize);
  const isLarge = size >= 24 || size >= 18.66 && Number(style.fontWeight) >= 700;
  if (ratio < (isLarge ? 3 : 4.5)) faint.push(`${ratio.toFixed(2)} ${element.textContent.trim().slice(0, 40)}`);
}
return faint;
"""
# Buttons, selects and the like that are smaller than WCAG's AA asks: 24 pixels. A box is ticked by its label, too.
SMALL = """
return [...document.querySelectorAll("button, select, summary, input:not([type=checkbox]):not([type=range])")]
  .filter(each => each.checkVisibility() && !each.matches(".skip"))
  .filter(each => Math.min(each.getBoundingClientRect().width, each.getBoundingClientRect().height) < 24)
  .map(each => each.outerHTML.slice(0, 120));
"""
HEADINGS = "return [...document.querySelectorAll('h1, h2, h3')].filter(each => each.checkVisibility()).map(each => Number(each.tagName[1]))"


@pytest.fixture(scope="module")
def address(pages: Path) -> str:
    uri = sweep_records.sweep(pages / "accessible", 12, is_timed=True)
    for trial in ranked(read_results(uri).trials)[:2]:
        sweep_records.preview(uri, trial.number)
    assert main([uri, "--out", str(pages / "accessible.html")]) == 0
    return f"file://{pages}/accessible.html#price=2"


@pytest.mark.parametrize(("width", "theme"), [pytest.param(DESKTOP, "light", marks=pytest.mark.slow), (PHONE, "dark")])
def test_everything_has_a_name_and_enough_contrast(browser: Browser, address: str, width: int, theme: str) -> None:
    browser.open(address, width, theme)
    browser.js("document.querySelector('.ranking tbody button').click()")
    assert browser.js(NAMELESS) == []
    assert browser.js(SMALL) == []
    assert browser.js(FAINT) == []
    levels = browser.js(HEADINGS)
    assert levels[0] == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert browser.count("html[lang]") == browser.count("main") == browser.count("header") == 1
    assert browser.js("return document.querySelectorAll('[role=img]:not([aria-label*=\" \"])').length") == 0


def test_the_keyboard_is_enough(browser: Browser, address: str) -> None:
    browser.open(address)
    focused = browser.driver.switch_to.active_element
    focused.send_keys(Keys.TAB)
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert browser.js("return document.activeElement.id") == "ranking"
    for _ in range(40):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        if browser.js("return document.activeElement.hasAttribute('aria-pressed')"):
            break
    row = browser.js("return document.activeElement.closest('tr').dataset.trial")
    browser.driver.switch_to.active_element.send_keys(Keys.SPACE)
    assert browser.js("return location.hash").startswith(f"#trials={row}&")
    # The focus stays where it was, so that the next key does not begin at the top of the page.
    assert browser.js("return document.activeElement.closest('tr')?.dataset.trial") == row
    outline = browser.js("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
