"""A web page to try a multitask model on, which shows the answers of all tasks for one text (extra `demo`).

This module imports nothing of mtl_nlp, so that a Hub Space can hold a copy of it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any
from urllib.request import getproxies

import gradio
from transformers import Pipeline

EXAMPLES = (
    "Maria Jensen took the night train from Oslo to Bergen.",
    "I can't log in since yesterday, please help!",
)

SHOWN_CLASSES = 10
"""The number of classes that the page shows of a task with more classes."""

MAX_CHARACTERS = 100_000
"""The number of characters that a text on the page can have."""

_MAX_WAITING = 100
"""The number of texts of all users that wait for an answer. The page refuses further texts until one is answered."""

_STYLE = """
.marks {
  line-height: 2; margin-top: 1.2rem; max-height: 15rem; overflow-y: auto;
  overflow-wrap: anywhere; white-space: pre-wrap
}
.marks mark {
  background: hsl(var(--hue) 80% 90%); color: #111; display: inline-block; line-height: 1.4; max-width: 100%;
  padding: .1em .35em; border-radius: .3em
}
.marks mark b {
  background: hsl(var(--hue) 75% 26%); color: #fff; font-size: .72em; margin-left: .4em; padding: .15em .4em;
  border-radius: .3em; user-select: none
}
"""


def launch_page(
    answer: Pipeline, title: str, *, host: str | None = None, port: int | None = None, in_browser: bool = False
) -> None:
    """Serve the page until Ctrl-C. The texts that users type stay on this machine and are not stored.

    Args:
        answer: a multitask pipeline.
        title: the page's heading.
        host: the address to serve on; by default that of gradio's environment variables, or else 127.0.0.1.
        port: the port to serve on; by default the first free port from 7860.
        in_browser: whether to open the page in a browser.

    Raises:
        OSError: if the page cannot be served on the address or port.
        OverflowError: if the port is above 65535.
    """
    if host is not None:
        with socket.socket() as trial:  # socket.create_server leaves a socket open if the port is out of range
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind((host, port or 0))
    # gradio sends a request to its own server to check that it runs. A proxy must not answer this request.
    os.environ["no_proxy"] = ",".join(filter(None, [getproxies().get("no"), "localhost", "127.0.0.1", host]))
    # gradio's own fonts lack glyphs, so that some letters of a label would appear in a different font.
    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    page = build_page(answer, title)
    _, url, _ = page.launch(
        server_name=host,
        server_port=port,
        inbrowser=in_browser,
        theme=theme,
        css=_STYLE,
        show_error=True,
        run_history=False,
        footer_links=[],
        quiet=True,
        prevent_thread_lock=True,
        share=False,
    )
    print(f"The page is at {url} until you press Ctrl-C.", flush=True)
    page.block_thread()


def build_page(answer: Pipeline, title: str) -> gradio.Blocks:
    """Build the page: words coloured by label, highlighted spans, classes as bars, and numbers.

    Args:
        answer: a multitask pipeline.
        title: the page's heading.
    """
    tasks = list(answer.model.tasks.values())

    def is_marked(task: Any) -> bool:
        return task.kind.display == "marks"

    def run(text: str | None) -> list[Any]:
        text = text or ""
        # The browser does not allow longer texts, but a program can send a text without the page.
        if len(text) > MAX_CHARACTERS:
            raise gradio.Error(
                f"A text on this page should have at most {MAX_CHARACTERS:,} characters. Found {len(text):,}. "
                f"Shorten the text.",
                print_exception=False,
            )
        answers = answer(text, top_k=None, tasks=[task.name for task in tasks])
        return [format_answer(task, answers[task.name], text) for task in tasks]

    with gradio.Blocks(title=title, analytics_enabled=False) as page:
        gradio.HTML(f"<h1>{escape(title)}</h1>")
        with gradio.Row():
            with gradio.Column(scale=3, min_width=480):
                text = gradio.Textbox(
                    EXAMPLES[0],
                    label="Text",
                    placeholder="Press Shift+Enter",
                    lines=2,
                    max_lines=8,
                    max_length=MAX_CHARACTERS,
                    elem_id="text",
                )
                button = gradio.Button("Answer", variant="primary", elem_id="answer")
                outputs = {n: _component(task, n) for n, task in enumerate(tasks) if is_marked(task)}
            with gradio.Column(scale=2, min_width=320, visible=len(outputs) < len(tasks)):
                outputs |= {n: _component(task, n) for n, task in enumerate(tasks) if not is_marked(task)}
        gradio.Examples([[example] for example in EXAMPLES], inputs=[text])
        gradio.on(
            [page.load, button.click, text.submit],
            run,
            inputs=[text],
            outputs=[outputs[number] for number in range(len(tasks))],
            api_name="answer",
            concurrency_limit=1,  # one text at a time takes all cores
        )
    return page.queue(max_size=_MAX_WAITING)


def format_answer(task: Any, entries: list[dict[str, Any]], text: str) -> Any:
    """Return a task's answer in the form that its component takes.

    Args:
        task: the task.
        entries: the pipeline's answer for the task.
        text: the text that was answered.

    Returns:
        HTML for words and spans, a dict from label to score for classes, or a number for regression.
    """
    kind = task.kind
    if kind.display == "marks":
        names = kind.mark_names
        hues = {name: 360 * number // len(names) for number, name in enumerate(names)}
        return _marked(text, ((entry["start"], entry["end"], kind.shown(entry)) for entry in entries), hues)
    if kind.display == "number":
        return entries[0]["score"]
    return {entry["label"]: entry["score"] for entry in entries}


def _component(task: Any, number: int) -> Any:
    element = f"task-{number}"
    if task.kind.display == "marks":
        return gradio.HTML(label=task.name, show_label=True, container=True, elem_id=element)
    if task.kind.display == "number":
        return gradio.Number(label=task.name, precision=4, interactive=False, elem_id=element)
    count = len(task.labels)
    label = task.name if count <= SHOWN_CLASSES else f"{task.name} ({SHOWN_CLASSES} most probable of {count} classes)"
    return gradio.Label(
        label=label,
        num_top_classes=SHOWN_CLASSES,
        # No single label is the answer where several labels may apply at once.
        show_heading=task.kind.display == "class",
        elem_id=element,
    )


def _marked(text: str, marks: Iterable[tuple[int, int, str]], hues: Mapping[str, int]) -> str:
    """Return the HTML of a text with marked ranges (start, end, label); text and labels are escaped.

    Args:
        text: the text.
        marks: the ranges in order.
        hues: the colour of each label, in degrees on the colour wheel; an unknown label is red.
    """
    parts, position = [], 0
    for start, end, label in marks:
        parts.append(escape(text[position:start]))
        parts.append(f'<mark style="--hue:{hues.get(label, 0)}">{escape(text[start:end])}<b>{escape(label)}</b></mark>')
        position = end
    return f'<div class="marks">{"".join(parts)}{escape(text[position:])}</div>'
