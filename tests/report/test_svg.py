"""Inline SVG: the page's colours, text as text, escaped names, and equal bytes for equal input."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from mtl_nlp.report.svg import COLOURS, axes_of, drawing, shortened, to_svg


def draw(name: str, label: str = "a") -> str:
    with drawing(name):
        figure, axes = axes_of(300, 200)
        axes.plot([0, 1], [-1.5, 1], color=COLOURS[1], marker="o")
        axes.set_title(label)
        return str(to_svg(figure, name, f"title {label}", "described"))


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="http://www.w3.org/1999/xlink" ', 1))


def test_equal_input_gives_equal_bytes_and_ids_differ_between_plots():
    assert draw("one") == draw("one")
    ids = [set(re.findall(r' id="([^"]+)"', draw(name))) for name in ("one", "two")]
    assert ids[0] and not ids[0] & ids[1]


def test_every_reference_has_its_id():
    svg = draw("one")
    ids = set(re.findall(r' id="([^"]+)"', svg))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', svg)) <= ids


def test_the_colours_are_those_of_the_page_and_the_text_is_selectable():
    svg = draw("one", "A title")
    assert "var(--c1)" in svg
    assert "currentColor" in svg
    assert not re.search(r"#0[1-4]0[1-4]", svg)
    assert "A title</text>" in svg
    assert "DejaVu" not in svg
    assert "<style" not in svg


def test_names_are_escaped_and_not_read_as_formulas():
    svg = draw("one", "<script>$x_{ & 東京 😀 #010101")
    assert "<script" not in svg
    texts = [text.text for text in parsed(svg).iter("text")]
    assert "<script>$x_{ & 東京 😀 #010101" in texts
    assert parsed(svg).find("title").text == "title <script>$x_{ & 東京 😀 #010101"


def test_numbers_have_a_minus_and_few_digits():
    svg = draw("one")
    assert "−1.5</text>" in svg
    assert not re.search(r"\d\.\d{3,}", re.sub(r">[^<]*<", "><", svg))


def test_long_names_are_shortened():
    assert shortened(["a" * 30, "b"], 10) == ["a" * 9 + "…", "b"]
