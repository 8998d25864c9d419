"""The page: its content as a file, and as a browser shows it."""

from __future__ import annotations

import functools
import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from chromium import Page, chromium, needs_chromium
from comparison_folder import METRICS, TASKS, change, many_tasks, write_comparison, write_run
from insight_folder import write_insight

from mtl_nlp.errors import DataError, ModelError
from mtl_nlp.report.page import LARGEST, report_page, write_report

PAGES = ["three", "lone", "insight", pytest.param("sixty", marks=pytest.mark.slow)]

_CONTRASTS = """
document.querySelectorAll('details').forEach(details => details.open = true);
const channels = text => (text.match(/[\\d.]+/g) || []).map(Number);
const luminance = color => {
  const [r, g, b] = color.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
};
const backdrop = element => {
  const layers = [];
  for (let e = element; e; e = e.parentElement) layers.push(channels(getComputedStyle(e).backgroundColor));
  let color = [255, 255, 255];
  for (const [r, g, b, a = 1] of layers.reverse()) color = [r, g, b].map((v, i) => v * a + color[i] * (1 - a));
  return color;
};
const found = [];
for (const element of document.querySelectorAll('body *')) {
  const text = [...element.childNodes].filter(n => n.nodeType === 3).map(n => n.textContent.trim()).join('');
  if (!text || ['title', 'desc'].includes(element.tagName) || element.closest('.hidden')) continue;
  const style = getComputedStyle(element);
  const front = channels(element.closest('svg') ? style.fill : style.color).slice(0, 3);
  const pair = [luminance(front), luminance(backdrop(element))].sort((a, b) => a - b);
  const ratio = (pair[1] + .05) / (pair[0] + .05);
  if (ratio < 4.5) found.push([text.slice(0, 40), element.tagName, ratio]);
}
return found;
"""
_HEADINGS = "return [...document.querySelectorAll('h1, h2, h3, h4')].map(h => Number(h.tagName[1]))"
_WIDTHS = "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"


class _Wellformed(HTMLParser):
    """Collects the tags that are not closed in order, and the ids."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with chromium() as page:
        yield page


@pytest.fixture(scope="module")
def pages(comparison: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the page of a comparison (`three`), of a run (`lone`), of a run with an inspection and measured conflict
    (`insight`), or of a comparison of 60 tasks (`sixty`)."""
    folder = tmp_path_factory.mktemp("pages")

    @functools.cache
    def page(name: str) -> Path:
        if name == "sixty":
            options = {"seeds": (1, 2), "sides": ("hard",), "texts": 20}
            return write_report(write_comparison(folder / name, many_tasks(60), **options))
        if name == "insight":
            metrics = [METRICS[task.type] for task in TASKS]
            return write_report(write_insight(write_run(folder / name), [task.name for task in TASKS], metrics))
        return write_report(Path(shutil.copytree({"three": comparison, "lone": run}[name], folder / name)))

    return page


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_small_closed_and_has_unique_ids(pages, name):
    text = pages(name).read_text(encoding="utf-8")
    assert len(text.encode()) < LARGEST
    parser = _Wellformed()
    parser.feed(text)
    assert (parser.open, parser.wrong) == ([], [])
    assert len(set(parser.ids)) == len(parser.ids)
    assert not re.search(r"<script|https?://(?!www\.w3\.org)|javascript:|@import|<link|<img", text)


def test_equal_files_give_an_equal_page(comparison):
    assert report_page(comparison) == report_page(comparison)


def test_losses_come_before_gains_and_the_advice_follows(pages):
    text = pages("three").read_text(encoding="utf-8")
    order = ["ner lost 1.7 points", "genre gained 1.2 points", "Read this with care", "What to try next"]
    order += ["4000 of 12544 training rows drawn", "encoder passes per text", "Training loss"]
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert "an equal share" in text or "adapter of its own" in text


def test_names_and_texts_are_escaped(pages):
    text = pages("three").read_text(encoding="utf-8")
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "&lt;b&gt;train&lt;/b&gt;" in text


def test_a_page_without_examples_has_no_texts_and_no_local_paths(tmp_path):
    folder = write_comparison(tmp_path / "c", seeds=(1,))
    change(folder, notes=["data of /home/ada/data/x.jsonl"], differs=["single: /home/ada/a.yaml"])
    sides = json.loads((folder / "comparison.json").read_text())["sides"]
    change(folder, sides={name: {**side, "title": f"/home/ada/runs/{name}"} for name, side in sides.items()})
    with_texts, without = report_page(folder), report_page(folder, examples=False)
    assert "Lovelace" in with_texts
    assert "Lovelace" not in without
    assert "/home/ada" not in without
    assert str(tmp_path) not in without
    assert "without texts of the datasets" in without


def test_a_run_says_that_nothing_is_known_about_sharing(pages):
    text = pages("lone").read_text(encoding="utf-8")
    assert "Nothing is known yet about the effect of sharing" in text
    assert "mtl-nlp compare RECIPE --seeds 3" in text
    assert "Expected calibration error" in text


@pytest.mark.parametrize("options", [{"seeds": (1,)}, {"cost": False}, {"runs": False}, {"texts": 1}])
def test_incomplete_comparisons_give_a_page(tmp_path, options):
    text = report_page(write_comparison(tmp_path / "c", sides=("hard",), **{"seeds": (1, 2), **options}))
    assert "Did sharing help?" in text
    assert "nan" not in re.sub(r"<[^>]+>", "", text).lower().split()


def test_a_long_recipe_is_shortened(tmp_path):
    folder = write_comparison(tmp_path / "c", runs=False, sides=("hard",))
    text = report_page(change(folder, provenance={"recipes": {"hard": "labels: x\n" * 300_000}}))
    assert len(text.encode()) < LARGEST


def test_an_empty_run_gives_a_page(tmp_path):
    (tmp_path / "results.json").write_text("{}")
    assert "The run has no recipe." in report_page(tmp_path)


@pytest.mark.slow
def test_the_page_stays_small_whatever_the_number_of_labels(tmp_path):
    labels = [f"label {number} {'x' * 300}" for number in range(120)]
    folder = write_comparison(tmp_path / "c", many_tasks(30, labels), seeds=(1,), sides=("hard",), texts=150)
    text = report_page(folder)
    assert len(text.encode()) < LARGEST
    assert "so that the page stays below 2 MB" in text


def test_a_link_and_a_folder_without_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="has neither"):
        write_report(tmp_path)
    folder = write_run(tmp_path / "r")
    (folder / "report.html").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="is a symbolic link"):
        write_report(folder)


def test_the_report_replaces_an_older_one(tmp_path):
    folder = write_run(tmp_path / "r")
    (folder / "report.html").write_text("old")
    assert write_report(folder) == folder / "report.html"
    assert (folder / "report.html").read_text(encoding="utf-8") != "old"
    assert json.loads((folder / "results.json").read_text())["split"] == "test"


@needs_chromium
@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1440, "dark")])
def test_a_browser_shows_the_page_without_errors_requests_and_sideways_scrolling(browser, pages, name, width, scheme):
    browser.show(width, 900, scheme)
    browser.driver.get_log("performance")
    browser.messages()
    browser.driver.get(pages(name).as_uri())
    assert browser.messages() == []
    assert browser.requests() == {""}  # the file itself
    assert browser.driver.title.endswith(name)
    scrolled, visible = browser.driver.execute_script(_WIDTHS)
    assert scrolled <= visible
    assert browser.driver.execute_script(_CONTRASTS) == []
    scrolled, visible = browser.driver.execute_script(_WIDTHS)  # with all parts open
    assert scrolled <= visible


@needs_chromium
@pytest.mark.parametrize("name", ["three", "lone", "insight"])
def test_headings_are_in_order_plots_have_titles_and_labels_do_not_run(browser, pages, name):
    browser.driver.get(pages(name).as_uri())
    levels = browser.driver.execute_script(_HEADINGS)
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in itertools.pairwise(levels))
    plots = browser.driver.execute_script(
        "return [...document.querySelectorAll('svg')].map(s => [s.getAttribute('role'),"
        "s.getAttribute('aria-labelledby').split(' ').every(id => document.getElementById(id).textContent)])"
    )
    assert plots
    assert {tuple(plot) for plot in plots} == {("img", True)}
    tables = browser.driver.execute_script(
        "return [...document.querySelectorAll('figure')].every(f => f.querySelector('svg') && f.querySelector('table'))"
    )
    assert tables
    assert browser.driver.execute_script("return document.querySelectorAll('script').length") == 0


@needs_chromium
def test_the_first_key_reaches_the_link_to_the_content_and_folds_open_by_key(browser, pages):
    from selenium.webdriver.common.keys import Keys

    browser.driver.get(pages("three").as_uri())
    focused = browser.driver.switch_to.active_element
    focused.send_keys(Keys.TAB)
    assert browser.driver.switch_to.active_element.text == "Skip to the content"
    fold = browser.driver.find_element("css selector", "#differences details.fold > summary")
    fold.send_keys(Keys.ENTER)
    assert browser.driver.execute_script("return arguments[0].parentElement.open", fold)
