"""A page to try a multitask model on: type a text, see all answers together (extra `demo`).

It imports nothing of this package, so that it goes into a Space as it is.
"""

from __future__ import annotations

from typing import Any

import gradio
from transformers import Pipeline

EXAMPLES = (
    "Maria Jensen took the night train from Oslo to Bergen.",
    "I can't log in since yesterday, please help!",
)


def build_page(answer: Pipeline, title: str) -> gradio.Blocks:
    """The page: words coloured by label, spans highlighted, classes as bars, numbers as they are.

    Args:
        answer: a multitask pipeline.
        title: the page's heading.
    """
    tasks = list(answer.model.tasks.values())

    def run(text: str) -> list[Any]:
        # All classes, for the bars; multi-label tasks too.
        answers = answer(text, top_k=None)
        return [_shown(task, answers[task.name], text) for task in tasks]

    with gradio.Blocks(title=title) as page:
        gradio.Markdown("# " + title)
        text = gradio.Textbox(EXAMPLES[0], label="Text", lines=3, elem_id="text")
        button = gradio.Button("Answer", variant="primary", elem_id="answer")
        outputs = [_component(task, f"task-{number}") for number, task in enumerate(tasks)]
        gradio.Examples([[example] for example in EXAMPLES], inputs=[text])
        button.click(run, inputs=[text], outputs=outputs, api_name="answer")
    return page


def _component(task: Any, element: str) -> Any:
    if task.level == "token":
        return gradio.HighlightedText(
            label=task.name, show_legend=False, combine_adjacent=False, show_inline_category=True, elem_id=element
        )
    if task.has_label_space:
        return gradio.Label(label=task.name, elem_id=element)
    return gradio.Number(label=task.name, interactive=False, elem_id=element)


def _shown(task: Any, entries: list[dict[str, Any]], text: str) -> Any:
    if task.level == "token":
        label = "label" if task.scheme is None else "entity_group"
        marks = [{"entity": entry[label], "start": entry["start"], "end": entry["end"]} for entry in entries]
        return {"text": text, "entities": marks}
    if task.has_label_space:
        return {entry["label"]: entry["score"] for entry in entries}
    return entries[0]["score"]
