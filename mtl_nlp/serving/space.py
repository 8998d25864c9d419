"""The folder of a Hub Space: the page of `mtl_nlp.serving.page` and a model, which run without mtl_nlp."""

from __future__ import annotations

import platform
import shutil
from importlib.metadata import version
from pathlib import Path

import yaml
from huggingface_hub import snapshot_download
from huggingface_hub.utils import httpx

from mtl_nlp.errors import ModelError
from mtl_nlp.hub.advice import load_advice
from mtl_nlp.hub.loading import load_model, load_model_tokenizer
from mtl_nlp.hub.repository import repository_files

_APP = '''"""The page of this Space."""

from pathlib import Path

from page import launch_page
from transformers import pipeline

# The trusted code is the code in the folder of the model.
answer = pipeline(model=str(Path(__file__).parent / "model"), trust_remote_code=True)
launch_page(answer, {title!r})
'''


def write_space(model: str, folder: Path, title: str) -> None:
    """Write a Gradio Space: the app, its requirements, the model with its code, and the page.

    Args:
        model: folder or Hub id of a trained model.
        folder: the folder to write.
        title: the page's heading.

    Raises:
        ModelError: if the folder or repository has no usable multitask model.
        OSError: if the folder cannot be written to.
    """
    # Loading checks that the files are complete, before the first file is written.
    config = load_model(model).config
    load_model_tokenizer(model, config)
    files = repository_files(_local_folder(model), title, with_code=True)
    (folder / "model").mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if isinstance(content, Path):
            shutil.copyfile(content, folder / "model" / name)
        else:
            (folder / "model" / name).write_bytes(content)
    shutil.copyfile(Path(__file__).with_name("page.py"), folder / "page.py")
    (folder / "app.py").write_text(_APP.format(title=title), encoding="utf-8")
    requirements = ["torch", f"transformers=={version('transformers')}"]
    if config.adapters:
        requirements.append(f"peft=={version('peft')}")
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
    header = {
        "title": title,
        "sdk": "gradio",
        "sdk_version": version("gradio"),
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "app_file": "app.py",
    }
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n", encoding="utf-8")


def _local_folder(model: str) -> Path:
    if Path(model).is_dir():
        return Path(model)
    try:
        return Path(snapshot_download(model, ignore_patterns="*/*"))  # without the folders of checkpoints
    except (httpx.HTTPError, OSError, ValueError) as error:
        raise ModelError(f"{model} cannot be downloaded: {load_advice(error)}") from error
