"""The page in a browser, from the view of a user, and the command that serves the page."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from chromium import Keys, Page, chromium, eventually, needs_chromium, page_url
from interpreter import Interpreter, Running
from toys import build_tokenizer, lively_model
from transformers import Pipeline, pipeline

from mtl_nlp import MultiLabelClassification, Regression, TextClassification, TokenClassification
from mtl_nlp.cli.main import main
from mtl_nlp.serving.page import EXAMPLES, MAX_CHARACTERS, SHOWN_CLASSES, format_answer

RUNS = "<img src=x onerror=window.ran=1>"
"""Markup that sets `window.ran` if the page shows it as anything but text."""
TASKS = [
    TokenClassification(name="pos", labels=["NOUN", "<b>VERB</b>", RUNS, '"ADJ" 😀 ${window.ran=1}']),
    TokenClassification(name=f"ner {RUNS}", labels=["O", "B-PER", "I-PER", f"B-{RUNS}", f"I-{RUNS}"], scheme="iob2"),
    TextClassification(name="</script><script>window.ran=1</script>", labels=["news", f"sport & {RUNS}", "travel"]),
    TextClassification(name="intent", labels=[f"intent {number}" for number in range(SHOWN_CLASSES + 2)]),
    MultiLabelClassification(name="tags", labels=["urgent", "angry"]),
    Regression(name="score"),
]
POS, NER, TOPIC, INTENT, TAGS, SCORE = range(len(TASKS))
TITLE = f"A title & {RUNS}"
BROKEN = "unreadable"
PROGRAM = f"""
import sys
from mtl_nlp.cli.main import main
from mtl_nlp.modeling import pipeline_multitask

split_words = pipeline_multitask.split_words

def fail_or_split(text, whole=()):
    if {BROKEN!r} in text:
        raise IndexError("index out of range in self")
    return split_words(text, whole)

pipeline_multitask.split_words = fail_or_split
sys.exit(main())
"""
"""The command line, with a pipeline that fails on texts with the word `BROKEN`."""
SENTENCE = "Ada Lovelace can't live in Paris, near the river bank."
TEXTS = [
    SENTENCE,
    f"{RUNS}<script>window.ran=1</script> </div></mark>&lt;b&gt; &amp;",
    "${window.ran=1} {{value}} {{{value}}} ` \\ </textarea>",
    "ünïcode 😀 👩‍👩‍👧 עולם cafe\u0301\ttab",
    "two\n\n  lines\n",
    "  ",
    "",
]


class Served(NamedTuple):
    """A page, the program that serves it, and the socket that receives its requests to the internet."""

    url: str
    program: Running
    internet: socket.socket


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / TITLE
    tokenizer = build_tokenizer("wordpiece")
    lively_model(TASKS, vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def answer(folder: Path) -> Pipeline:
    return pipeline("multitask", model=str(folder), device="cpu")


@contextlib.contextmanager
def serving(online: Interpreter, folder: Path) -> Iterator[Served]:
    """Run `mtl-nlp demo` on a machine that reaches the internet through a proxy."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.setblocking(False)
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), address)
        program = online.start(PROGRAM, "demo", str(folder), CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1", **proxies)
        try:
            yield Served(page_url(program.folder / "stdout"), program, proxy)
        finally:
            interrupt(program)
            program.wait(timeout=20)


def interrupt(program: Running) -> None:
    """Press Ctrl-C if the server is still running."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(int((program.folder / "pid").read_text()), signal.SIGINT)


@pytest.fixture(scope="module")
def served(online: Interpreter, folder: Path) -> Iterator[Served]:
    with serving(online, folder) as served:
        yield served


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with chromium() as page:
        yield page


@pytest.fixture
def page(browser: Page, served: Served) -> Page:
    browser.open(served.url)
    return browser


def marks_of(entries: list[dict[str, Any]], text: str, label: str) -> list[list[str]]:
    return [[text[entry["start"] : entry["end"]], entry[label]] for entry in entries]


# Rendering of answers


def test_words_are_marked_with_labels_and_the_text_between_them_is_kept():
    task = TokenClassification(name="pos", labels=["A", "B"])
    entries = [{"label": "B", "start": 1, "end": 3}, {"label": "A", "start": 3, "end": 4}]
    assert format_answer(task, entries, " abc d") == (
        '<div class="marks"> <mark style="--hue:180">ab<b>B</b></mark><mark style="--hue:0">c<b>A</b></mark> d</div>'
    )


def test_spans_are_marked_with_labels_in_separate_colours():
    task = TokenClassification(name="ner", labels=["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], scheme="iob2")
    entries = [{"entity_group": name, "start": n, "end": n + 1} for n, name in enumerate(["LOC", "PER", "LOC"])]
    hues = [part.split('"')[0] for part in format_answer(task, entries, "abc").split("--hue:")[1:]]
    assert hues == ["180", "0", "180"]


def test_every_label_has_a_different_colour():
    labels = [f"label {number}" for number in range(40)]
    entries = [{"label": label, "start": n, "end": n + 1} for n, label in enumerate(labels)]
    html = format_answer(TokenClassification(name="pos", labels=labels), entries, "x" * 40)
    assert len({part.split('"')[0] for part in html.split("--hue:")[1:]}) == 40


def test_text_and_labels_cannot_become_markup():
    task = TokenClassification(name="pos", labels=[RUNS, "'\"&<b>"])
    text = "<i>&amp;'\"</i>"
    entries = [{"label": label, "start": n, "end": n + 1} for n, label in enumerate(task.labels)]
    html = format_answer(task, entries, text)
    for markup in (
        '<div class="marks">',
        "</div>",
        "</mark>",
        "<b>",
        "</b>",
        *(f'<mark style="--hue:{h}">' for h in (0, 180)),
    ):
        html = html.replace(markup, "")
    assert not set(html) & set("<>\"'")
    assert unescape(html) == f"<{RUNS}i'\"&<b>>&amp;'\"</i>"


def test_classes_are_shown_with_probabilities_and_numbers_unchanged():
    entries = [{"label": "news", "score": 0.7}, {"label": "sport", "score": 0.3}]
    assert format_answer(TASKS[TOPIC], entries, "") == {"news": 0.7, "sport": 0.3}
    assert format_answer(TASKS[TAGS], entries, "") == {"news": 0.7, "sport": 0.3}
    assert format_answer(TASKS[SCORE], [{"label": "score", "score": -1.5}], "") == -1.5


# The page in a browser


@needs_chromium
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_all_tasks_answer_the_typed_text_after_a_click(page, answer, text):
    page.ask(text)
    expected = answer(text, top_k=None)
    words, spans, topic, intent, tags, score = expected.values()
    eventually(lambda: page.marked(POS), (text, marks_of(words, text, "label")))
    eventually(lambda: page.marked(NER), (text, marks_of(spans, text, "entity_group")))
    for number, entries in ((TOPIC, topic), (INTENT, intent[:SHOWN_CLASSES]), (TAGS, tags)):
        rows = [(entry["label"], f"{entry['score']:.0%}") for entry in entries]
        eventually(lambda n=number: [row[:2] for row in page.bars(n)], rows)
    shown_score = page.find(f"#task-{SCORE} input").get_attribute("value")
    assert float(shown_score) == pytest.approx(score[0]["score"], abs=1e-4)
    assert page.driver.execute_script("return window.ran") is None


@needs_chromium
def test_the_page_opens_with_an_example_answered(page, answer):
    words = answer(EXAMPLES[0])["pos"]
    eventually(lambda: page.marked(POS), (EXAMPLES[0], marks_of(words, EXAMPLES[0], "label")))


@needs_chromium
def test_shift_enter_submits_and_enter_starts_a_new_line(page):
    page.enter("Ada lives")
    page.textbox.send_keys(Keys.ENTER, "in Paris", Keys.SHIFT, Keys.ENTER)
    eventually(lambda: page.marked(POS).text, "Ada lives\nin Paris")


@needs_chromium
def test_an_example_can_be_picked(page):
    page.find("button.gallery-item:last-of-type").click()
    eventually(lambda: page.textbox.get_attribute("value"), EXAMPLES[-1])
    page.find("#answer").click()
    eventually(lambda: page.marked(POS).text, EXAMPLES[-1])


@needs_chromium
def test_title_and_task_names_are_shown_unchanged(page):
    assert page.driver.title == page.find("h1").text == TITLE
    for number, task in enumerate(TASKS):
        expected = f"intent ({SHOWN_CLASSES} most probable of 12 classes)" if number == INTENT else task.name
        assert expected in page.find(f"#task-{number}").text
    assert page.driver.execute_script("return window.ran") is None


@needs_chromium
def test_bars_are_proportional_to_probabilities_and_only_single_label_tasks_name_one_answer(page, answer):
    page.ask(SENTENCE)
    eventually(lambda: page.marked(POS).text, SENTENCE)
    for number in (TOPIC, INTENT, TAGS):
        scores = [entry["score"] for entry in answer(SENTENCE, top_k=None)[TASKS[number].name]][:SHOWN_CLASSES]
        eventually(lambda n=number, s=scores: [row[1] for row in page.bars(n)], [f"{score:.0%}" for score in scores])
        widths = [width for *_, width in page.bars(number)]
        assert [width / widths[0] for width in widths] == pytest.approx([s / scores[0] for s in scores], abs=0.03)
    assert page.find(f"#task-{TOPIC} h2").text == page.bars(TOPIC)[0][0]
    assert not page.driver.find_elements("css selector", f"#task-{TAGS} h2")


@needs_chromium
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_and_labels_are_readable_in_every_colour(browser, served, theme):
    browser.open(f"{served.url}?__theme={theme}")
    pairs = browser.driver.execute_script(
        """
        const mark = document.querySelector('.marks mark');
        const found = [];
        for (let hue = 0; hue < 360; hue += 5) {
          mark.style.setProperty('--hue', hue);
          for (const element of [mark, mark.querySelector('b')]) {
            const style = getComputedStyle(element);
            found.push([style.color, style.backgroundColor]);
          }
        }
        return found;
        """
    )
    assert len(set(map(tuple, pairs))) == 144
    assert min(contrast(*pair) for pair in pairs) > 4.5, "WCAG's bound for texts"


def contrast(*colours: str) -> float:
    """Return the contrast of two colours such as `rgb(1, 2, 3)`, as defined by WCAG."""
    luminances = []
    for colour in colours:
        values = [int(value) / 255 for value in re.fullmatch(r"rgb\((\d+), (\d+), (\d+)\)", colour).groups()]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
        luminances.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(luminances) + 0.05) / (min(luminances) + 0.05)


@needs_chromium
def test_a_text_of_100_000_characters_is_answered(page):
    text = f"{SENTENCE} " * (100_000 // (len(SENTENCE) + 1) + 1)
    text = text[:100_000]
    page.ask(text)
    eventually(lambda: page.marked(POS).text == text, True)
    assert len(page.marked(POS).marks) > 20_000
    assert page.marked(NER).text == text


@needs_chromium
def test_failure_is_shown_and_the_next_text_is_answered(page):
    page.ask(f"This is {BROKEN}.")
    eventually(lambda: "index out of range in self" in page.find("body").text, True)
    page.ask(SENTENCE)
    eventually(lambda: page.marked(POS).text, SENTENCE)


@needs_chromium
def test_texts_are_neither_sent_elsewhere_nor_stored_in_the_browser(page, served):
    page.ask("a private text")
    eventually(lambda: page.marked(POS).text, "a private text")
    assert page.requests() == {served.url.split("/")[2]}
    with pytest.raises(BlockingIOError):
        served.internet.accept()
    stored = page.driver.execute_async_script(
        """
        const done = arguments[0];
        indexedDB.databases().then(found => done([found.length, localStorage.length, sessionStorage.length]));
        """
    )
    assert stored == [0, 0, 0]


# Texts that a program sends without the page


def posted(url: str, data: str | None) -> tuple[str, Any]:
    """Send a text to a page, and return the kind and content of the reply."""
    opener = build_opener(ProxyHandler({}))
    request = Request(f"{url}/gradio_api/call/answer", json.dumps({"data": [data]}).encode())
    request.add_header("Content-Type", "application/json")
    with opener.open(request, timeout=60) as reply:
        event = json.load(reply)["event_id"]
    with opener.open(f"{url}/gradio_api/call/answer/{event}", timeout=60) as reply:
        kind, content = reply.read().decode().strip().split("\n")[-2:]
    return kind.removeprefix("event: "), json.loads(content.removeprefix("data: "))


def test_text_above_the_limit_is_refused_and_the_next_text_is_answered(served):
    url = served.url.rstrip("/")
    kind, content = posted(url, "a" * (MAX_CHARACTERS + 1))
    assert kind == "error"
    message = "A text on this page should have at most 100,000 characters. Found 100,001. Shorten the text."
    assert content["error"] == message
    for text in ("a" * MAX_CHARACTERS, SENTENCE, None):
        kind, content = posted(url, text)
        assert kind == "complete"
        assert len(content) == len(TASKS)


# The command


@needs_chromium
def test_ctrl_c_ends_the_server_although_the_page_is_open(online, folder, browser):
    with serving(online, folder) as served:
        browser.open(served.url)
        interrupt(served.program)
        finished = served.program.wait(timeout=20)
    assert (finished.status, finished.stderr) == (130, "")


@pytest.mark.parametrize("port", ["taken", "65536"])
def test_unusable_address_is_reported_in_one_line(folder, capsys, port):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1]) if port == "taken" else port
        assert main(["demo", str(folder), "--port", port]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mtl-nlp: error: the page cannot be served on 127.0.0.1:{port}: ")


def test_unknown_host_is_reported_in_one_line(folder, capsys):
    assert main(["demo", str(folder), "--host", "256.0.0.1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mtl-nlp: error: the page cannot be served on 256.0.0.1: ")


def test_folder_without_a_model_is_refused_in_one_line(tmp_path, capsys):
    assert main(["demo", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mtl-nlp: error: {tmp_path} cannot be loaded: ")
