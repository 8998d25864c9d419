"""A folder to push as a Hub Space: the page of `mtl_nlp.demo` with a model, needing nothing of this package."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

import yaml

from mtl_nlp.hub import repository_files

_APP = '''"""The page of this Space."""

from pathlib import Path

from page import build_page
from transformers import pipeline

# The code that this trusts is in the model's folder here.
answer = pipeline("multitask", model=str(Path(__file__).parent / "model"), trust_remote_code=True)
build_page(answer, {title!r}).launch()
'''


def write_space(model: Path, folder: Path, title: str) -> None:
    """Write a Gradio Space: app, requirements, the model with its code, and the page.

    Args:
        model: a trained model's folder.
        folder: where to write.
        title: the page's heading.
    """
    (folder / "model").mkdir(parents=True, exist_ok=True)
    for name, content in repository_files(model, title, with_code=True).items():
        if isinstance(content, Path):
            shutil.copyfile(content, folder / "model" / name)
        else:
            (folder / "model" / name).write_bytes(content)
    shutil.copyfile(Path(__file__).with_name("demo.py"), folder / "page.py")
    (folder / "app.py").write_text(_APP.format(title=title), encoding="utf-8")
    (folder / "requirements.txt").write_text(f"torch\ntransformers=={version('transformers')}\n", encoding="utf-8")
    header = {"title": title, "sdk": "gradio", "sdk_version": version("gradio"), "app_file": "app.py"}
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n", encoding="utf-8")
