"""What the page's modules compute, in the browser that runs them."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page


def call(page: Page, module: str, name: str, *arguments: Any) -> Any:
    script = "async ([module, name, values]) => (await import(`/page/${module}.js`))[name](...values)"
    return page.evaluate(script, [module, name, list(arguments)])


def test_lengths_and_areas_have_the_unit_that_reads_best(page: Page) -> None:
    narrow = "\u202f"
    for value, unit, text in ((0.5, "micrometer", "500 nm"), (200, "micrometer", "200 µm"), (2e3, "micrometer", "2 mm"),
                              (50, "meter", "50 m"), (5000, "meter", "5 km"), (0.2, "meter", "20 cm")):  # fmt: skip
        assert call(page, "figures", "length", value, unit) == text.replace(" ", narrow)
    for value, unit, text in ((7.47, "um^2", "7.47 µm²"), (1483109, "um^2", "1.48 mm²"), (3e8, "um^2", "3 cm²"),
                              (870, "m^2", "870 m²"), (2.5e6, "m^2", "2.5 km²")):  # fmt: skip
        assert call(page, "figures", "area", value, unit) == text.replace(" ", narrow)


def test_a_scale_bar_is_round_no_longer_than_allowed_and_true(page: Page) -> None:
    for pixel_size, unit in ((0.499, "micrometer"), (0.3, "meter"), (None, None)):
        image = {"pixel_size": [pixel_size, pixel_size] if pixel_size else None, "unit": unit}
        for zoom in (0.001, 0.0137, 0.24, 1, 3.7, 16):
            scale = call(page, "scalebar", "scaleOf", zoom, image)
            number = float(scale["text"].replace(",", "").split("\u202f")[0].split(" ")[0])
            assert str(number).replace("0", "").replace(".", "") in ("1", "2", "5")
            assert scale["px"] <= 140.001 and (scale["px"] > 50 or pixel_size is None)
    scale = call(page, "scalebar", "scaleOf", 0.241, {"pixel_size": [0.5, 0.5], "unit": "micrometer"})
    assert scale["text"] == "200\u202fµm"
    assert scale["px"] == pytest.approx(200 / 0.5 * 0.241)


def test_a_view_survives_its_link(page: Page) -> None:
    link = "#job=6f1c&x=1200.5&y=800&z=0.5&o=0.6&hide=1,3&colors=0:ff8800&with=0b0c"
    script = """async link => {
      const { parseView, formatView } = await import('/page/permalink.js');
      return [formatView(parseView(link)), formatView(parseView('#' + '<script>'.repeat(9)))];
    }"""
    there_and_back, nonsense = page.evaluate(script, link)
    assert there_and_back == link
    assert nonsense == "#job=null"
