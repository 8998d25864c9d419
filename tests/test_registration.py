"""The Auto classes and the pipeline know the multitask model, for any order of imports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from interpreter import Interpreter
from toys import build_model

from mtl_nlp import TextClassification, TokenClassification

CHECK = """
import sys
import transformers
folder, encoder = sys.argv[1:]
model = transformers.AutoModel.from_pretrained(folder)
assert type(model).__module__ == "mtl_nlp.modeling.modeling_multitask"
config = transformers.AutoConfig.from_pretrained(folder)
assert type(config) is type(model.config)
assert type(transformers.AutoModel.from_config(config)) is type(model)
answer = transformers.pipeline("multitask", model=folder)
assert type(answer).__module__ == "mtl_nlp.modeling.pipeline_multitask"
assert set(answer("Ada lives in Paris.")) == {"pos", "topic"}
assert type(transformers.AutoModel.from_pretrained(encoder)) is transformers.BertModel
assert type(config) not in transformers.AutoModelForTokenClassification._model_mapping
import mtl_nlp
assert type(config) is mtl_nlp.MultitaskConfig
assert type(model) is mtl_nlp.MultitaskModel
"""

ORDERS = {
    "mtl_nlp first": "import mtl_nlp; from transformers import pipeline",
    "transformers first": "from transformers import AutoModel, pipeline; import mtl_nlp",
    "AutoConfig alone first": "from transformers import AutoConfig; import mtl_nlp",
    "AutoConfig alone after": "import mtl_nlp; from transformers import AutoConfig",
    "another package that imports the Auto classes": "import mtl_nlp; import peft",
    "a module that the model imports": "from mtl_nlp.modeling.heads_multitask import TaskHead",
    "the pipeline": "from mtl_nlp.modeling.pipeline_multitask import MultitaskPipeline",
}

LIBRARIES = """
import accelerate, huggingface_hub, scipy.optimize, sklearn.metrics, tokenizers, torch._dynamo, torch.distributed.tensor
"""
"""Packages that transformers imports and whose import is slow. No package in the list imports transformers."""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Interpreter]:
    """Yield an interpreter that has imported neither mtl_nlp nor transformers."""
    interpreter = Interpreter(tmp_path_factory.mktemp("fresh"), {}, LIBRARIES)
    yield interpreter
    interpreter.close()


@pytest.fixture(scope="module")
def folder(tokenizers, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the folder of an untrained multitask model."""
    folder = tmp_path_factory.mktemp("model")
    tasks = [TokenClassification(name="pos", labels=["A", "B"]), TextClassification(name="topic", labels=["x", "y"])]
    build_model(tasks).save_pretrained(folder)
    tokenizers["wordpiece"].save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("imports", ORDERS.values(), ids=ORDERS)
def test_model_is_known_for_every_order_of_imports(fresh, folder, encoder_folder, imports):
    untouched = "import sys; assert not sys.modules.keys() & {'mtl_nlp', 'transformers'}\n"
    finished = fresh.run(untouched + imports + CHECK, folder, encoder_folder("bert"))
    assert finished.status == 0, finished.stderr
    assert "already registered" not in finished.stderr


def test_mtl_nlp_imports_neither_torch_nor_transformers():
    program = "import sys, mtl_nlp; print([name for name in ('numpy', 'torch', 'transformers') if name in sys.modules])"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert finished.stdout == "[]\n"


def test_failed_import_is_reported(fresh):
    program = """
import sys
import mtl_nlp
sys.modules["mtl_nlp.modeling.heads_multitask"] = None  # its import raises ModuleNotFoundError
for _ in range(2):
    try:
        import transformers.models.auto.modeling_auto
    except ModuleNotFoundError as error:
        assert error.name == "mtl_nlp.modeling.heads_multitask", error
    else:
        sys.exit("the failure was not reported")
"""
    finished = fresh.run(program)
    assert finished.status == 0, finished.stderr


def test_modules_keep_their_own_loader_and_can_be_reloaded(fresh):
    program = """
import importlib, inspect, sys
import mtl_nlp
from transformers import pipelines
from mtl_nlp.modeling import modeling_multitask
for module in (pipelines, modeling_multitask):
    loader = importlib.machinery.SourceFileLoader
    assert type(module.__loader__) is type(module.__spec__.loader) is loader
    assert inspect.getsource(module) == open(module.__file__, encoding="utf-8").read()
finders = list(sys.meta_path)
importlib.reload(mtl_nlp)
assert sys.meta_path == finders
importlib.reload(pipelines)
assert "multitask" in pipelines.PIPELINE_REGISTRY.get_supported_tasks()
importlib.reload(modeling_multitask)
"""
    finished = fresh.run(program)
    assert finished.status == 0, finished.stderr


def test_two_threads_can_import_from_both_ends_at_once(fresh):
    program = """
import importlib, threading, time
import transformers
from mtl_nlp import registration
registering, importing = threading.Event(), threading.Event()

class Late:
    # Imports a class for its registration when the other thread is already importing a module that the class needs.
    def import_module(self, name):
        if name == "mtl_nlp.modeling.modeling_multitask":
            registering.set()
            importing.wait()
            time.sleep(0.2)
        return importlib.import_module(name)

registration.importlib = Late()
errors = []

def run(function):
    try:
        function()
    except BaseException as error:
        errors.append(error)

def from_transformers():
    from transformers import AutoModel

def from_mtl_nlp():
    registering.wait()
    importing.set()
    from mtl_nlp.modeling.heads_multitask import TaskHead

threads = [threading.Thread(target=run, args=[function]) for function in (from_transformers, from_mtl_nlp)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not errors, errors
from mtl_nlp import MultitaskConfig
from transformers.models.auto.modeling_auto import MODEL_MAPPING
assert MODEL_MAPPING[MultitaskConfig].__name__ == "MultitaskModel"
"""
    finished = fresh.run(program)
    assert finished.status == 0, finished.stderr


def test_objects_reach_a_spawned_process_without_torch(tmp_path: Path):
    program = tmp_path / "program.py"
    program.write_text("""
import multiprocessing, sys
from mtl_nlp import TextClassification

def describe(task):
    return task.name, "torch" in sys.modules

if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply(describe, [TextClassification(name="topic", labels=["x", "y"])]))
""")
    finished = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True)
    assert finished.stdout == "('topic', False)\n"
