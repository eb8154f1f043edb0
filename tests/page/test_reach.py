"""For everybody: by keyboard alone, by screen reader, in the dark, on a phone."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.e2e.conftest import Service
from tests.page.conftest import Watch, address, open_job, shoot, until

Job = dict[str, Any]

# Every text against what lies behind it: WCAG 2.2, 1.4.3. [[ratio, text], ...] of what is too faint.
FAINT = """() => {
  const parse = (color) => (color.match(/[\\d.]+/g) ?? []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(node).backgroundColor);
      if (a > 0.65) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const faint = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].filter((n) => n.nodeType === 3).map((n) => n.textContent.trim()).join(' ').trim();
    if (!own || !node.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
    if (node.closest(':disabled, .visually-hidden, .skip, option, noscript')) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) faint.push([ratio.toFixed(2), own.slice(0, 40)]);
  }
  return faint;
}"""
WIDER = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in(
    scheme: str, open_context: Callable[..., BrowserContext], service: Service, job: Job, watch: Watch
) -> None:
    page = open_context(color_scheme=scheme).new_page()
    watch.listen(page)
    page.goto(service.url)
    page.get_by_text("Options").click()
    expect(page.locator("#jobs .job").first).to_be_visible()
    assert page.evaluate(FAINT) == []
    shoot(page, f"home-{scheme}", full_page=True)
    open_job(page, service, job)
    expect(page.locator(".legend li").first).to_be_visible()
    page.get_by_text("Details").click()
    assert page.evaluate(FAINT) == []
    shoot(page, f"result-{scheme}")
    watch.check()


def test_the_theme_is_chosen_by_a_button_and_kept(page: Page) -> None:
    ground = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    theme = page.get_by_role("button", name="Theme")
    theme.click()
    theme.click()
    assert page.evaluate(ground) != light
    page.reload()
    expect(theme).to_have_text("Dark")
    assert page.evaluate(ground) != light


def test_a_phone_shows_everything_without_scrolling_sideways(
    open_context: Callable[..., BrowserContext], service: Service, job: Job, second_job: Job, watch: Watch
) -> None:
    page = open_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True).new_page()
    watch.listen(page)
    page.goto(service.url)
    page.get_by_text("Options").click()
    expect(page.locator("#jobs .job").first).to_be_visible()
    assert page.evaluate(WIDER) <= 0
    shoot(page, "home-phone", full_page=True)
    open_job(page, service, job)
    page.get_by_text("Details").click()
    assert page.evaluate(WIDER) <= 0
    shoot(page, "result-phone", full_page=True)
    page.get_by_label("Compare with").select_option(second_job["id"])
    expect(page.locator(".pane")).to_have_count(2)
    assert page.evaluate(WIDER) <= 0
    watch.check()


def test_everything_that_acts_has_a_name_and_a_role(page: Page, service: Service, job: Job) -> None:
    page.get_by_text("Options").click()
    expect(page.locator("#jobs .job").first).to_be_visible()
    snapshots = [page.locator("body").aria_snapshot()]
    open_job(page, service, job)
    snapshots.append(page.locator("body").aria_snapshot())
    acting = r"button|link|checkbox|radio|slider|combobox|textbox|spinbutton|progressbar|application"
    for snapshot in snapshots:
        nameless = [line for line in snapshot.splitlines() if re.match(rf'\s*- (?:{acting})(?! ")(?!s)\b', line)]
        assert not nameless
        assert "heading" in snapshot and "main" in snapshot and "banner" in snapshot
    assert 'slider "Mask opacity"' in snapshots[1]
    assert 'region "Classes"' in snapshots[1]


def focused(page: Page) -> str:
    """The name of what has the focus, as far as a test needs it."""
    name: str = page.evaluate("""() => {
      const at = document.activeElement;
      return at.getAttribute('aria-label') ?? at.labels?.[0]?.textContent ?? at.textContent;
    }""")
    return name.strip()


RING = """() => {
  const at = document.activeElement;
  const shown = (node) => node && getComputedStyle(node).outlineStyle !== 'none' && getComputedStyle(node).outlineWidth !== '0px';
  return at === document.body || [at, at.nextElementSibling, at.closest('label')].some(shown);
}"""  # noqa: E501


def tab_to(page: Page, name: str, most: int = 60) -> None:
    """Every stop on the way is to be seen: it, or the label that stands for it, has a ring."""
    for _ in range(most):
        page.keyboard.press("Tab")
        assert page.evaluate(RING), f"the focus on {focused(page)!r} is not to be seen"
        if name in focused(page):
            return
    raise AssertionError(f"Tab does not lead to {name!r}")


def test_from_start_to_result_by_keyboard_alone(page: Page, service: Service, job: Job) -> None:
    expect(page.locator("#jobs .job").first).to_be_visible()
    before = page.locator("#jobs .job").count()
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the content"
    page.keyboard.press("Enter")
    tab_to(page, "or one that is already here")
    page.keyboard.type("tile 2")
    page.keyboard.press("Tab")
    for _ in range(8):
        if "threshold" not in focused(page):
            page.keyboard.press("ArrowDown")
    assert page.get_by_role("radio", name="threshold").is_checked()
    tab_to(page, "Segment")
    page.keyboard.press("Enter")
    until(lambda: page.locator("#jobs .job").count() == before + 1, "no job was submitted")
    newest = page.locator("#jobs .job").first
    expect(newest.locator(".chip")).to_have_text("Done", timeout=30_000)
    newest.get_by_role("link").first.focus()
    page.keyboard.press("Enter")
    page.locator(".scale-bar").wait_for(state="visible")
    page.keyboard.press("v")
    assert focused(page).startswith("Image and mask")
    expect(page.locator(".crosshair")).to_be_visible()
    before_keys = address(page)
    page.keyboard.press("+")
    page.keyboard.press("ArrowLeft")
    until(lambda: address(page) != before_keys and "z=" in address(page), "the keys do not move the image")
    expect(page.locator("#probe")).to_contain_text(re.compile("dark|bright|no data"))
    page.keyboard.press("[")
    expect(page.get_by_label("Mask opacity")).to_have_value("40")
    page.keyboard.press("m")
    expect(page.get_by_label("Mask opacity")).to_have_value("0")
    page.keyboard.press("2")
    expect(page.get_by_role("checkbox", name="bright")).not_to_be_checked()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    shoot(page, "shortcuts")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(page.get_by_role("heading", name="New segmentation")).to_be_visible()


def test_progress_is_told_to_those_who_listen(page: Page, service: Service, job: Job) -> None:
    said = page.locator("#said")
    assert said.get_attribute("aria-live") == "polite"
    page.get_by_label("or one that is already here").select_option(job["image_id"])
    page.get_by_role("radio", name="threshold").check()
    page.get_by_role("button", name="Segment", exact=True).click()
    expect(said).to_contain_text("Done", timeout=30_000)


def test_single_keys_can_be_turned_off(page: Page, service: Service, job: Job) -> None:
    page.get_by_role("button", name="Keyboard shortcuts").click()
    page.get_by_role("checkbox", name="Single-key shortcuts").uncheck()
    page.get_by_role("button", name="Close").click()
    open_job(page, service, job)
    page.keyboard.press("m")
    expect(page.get_by_label("Mask opacity")).to_have_value("50")


def test_less_motion_where_that_is_asked_for(
    open_context: Callable[..., BrowserContext], service: Service, job: Job
) -> None:
    page = open_context(reduced_motion="reduce").new_page()
    open_job(page, service, job, x=600, y=600, z=1)
    page.get_by_role("application").press("ArrowRight")
    moved = page.evaluate("""() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() =>
        done([...document.getAnimations()].length))))""")
    assert moved == 0
