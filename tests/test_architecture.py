"""Rules for the complete code: the order of rooms, the size of files, public names and documentation."""

from __future__ import annotations

import ast
import graphlib
import importlib
import inspect
import pickle
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtl_nlp import Recipe

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "mtl_nlp"
FILES = sorted(PACKAGE.rglob("*.py"))
FACES = sorted(PACKAGE.rglob("__init__.pyi"))
MODELING = sorted((PACKAGE / "modeling").glob("*_multitask.py"))
KNOW_KINDS = [
    PACKAGE / "modeling" / f"{name}_multitask.py"
    for name in ("label_kinds", "class_kinds", "word_kinds", "text_kinds", "task_base", "tasks", "heads")
]
"""The modules that may ask of which type or kind a task is; all others ask the kind for what they need."""
RECIPES = sorted((REPOSITORY / "recipes").glob("*.yaml"))
ROOMS = [
    {"messages"},
    {"errors"},
    {"modeling"},
    {"registration"},
    {"recipe"},
    {"run_folder"},
    {"data"},
    {"mixture", "balancing"},
    {"evaluation"},
    {"hub"},
    {"training"},
    {"run"},
    {"export"},
    {"serving"},
    {"transfer", "searching"},
    {"report"},
    {"cli"},
]
"""The rooms from below: each may import from itself and from those before it. `_version` is free for all."""


def name_of(file: Path) -> str:
    return str(file.relative_to(REPOSITORY))


def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def imports_of(file: Path) -> Iterator[tuple[int, str]]:
    """Return (level, module) of every import, at the top or inside a function; level 1 is `from .module import …`."""
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(REPOSITORY).with_suffix("").parts)


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def height_of(room: str) -> int:
    return next(number for number, rooms in enumerate(ROOMS) if room in rooms)


@pytest.mark.parametrize("file", [f for f in FILES if f.parent != PACKAGE or not f.stem.startswith("_")], ids=name_of)
def test_imports_go_down_the_rooms(file):
    own = room_of(file)
    for level, module in imports_of(file):
        if level == 0 and module.split(".")[0] == "mtl_nlp" and module != "mtl_nlp._version":
            assert module != "mtl_nlp", "import the module that has it, not the package"
            imported = module.split(".")[1]
            assert imported == own or height_of(imported) < height_of(own), f"{own} imports {imported}"


def test_every_module_has_a_room():
    present = {room_of(file) for file in FILES} - {"__init__", "__main__", "_version"}
    assert present <= set().union(*ROOMS)


def test_modules_have_no_circular_imports():
    arrows = {
        module_of(file): {module for level, module in imports_of(file) if level == 0 and module.startswith("mtl_nlp.")}
        for file in FILES
        if file.stem != "__init__"
    }
    graphlib.TopologicalSorter(arrows).prepare()  # raises CycleError


@pytest.mark.parametrize("file", MODELING, ids=name_of)
def test_modeling_ships_to_the_hub_as_it_is(file):
    siblings = {sibling.stem for sibling in MODELING}
    for level, module in imports_of(file):
        if level == 0:
            assert module.split(".")[0] in {"torch", "transformers", "peft", "numpy", *sys.stdlib_module_names}
        else:
            assert (level, module in siblings) == (1, True), f"from {'.' * level}{module} is not copied to the Hub"
    # transformers finds the files to copy with this expression, which also matches docstrings.
    found = re.findall(r"^\s*from\s+\.(\S+)\s+import", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert set(found) == {module for level, module in imports_of(file) if level}


def test_the_modeling_folder_is_flat_and_named_for_the_hub():
    files = {file for file in FILES if file.is_relative_to(PACKAGE / "modeling")}
    assert files == {*MODELING, PACKAGE / "modeling" / "__init__.py"}


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_files_are_short_and_finished(file):
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400
    assert not re.search(r"\b(TODO|FIXME|XXX|HACK)\b", text)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_no_module_guesses_attributes_or_catches_all_exceptions(file):
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"hasattr", "getattr"}, f"line {node.lineno}"
        if isinstance(node, ast.ExceptHandler):
            caught = {n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)} if node.type else {"BaseException"}
            assert not caught & {"Exception", "BaseException"}, f"line {node.lineno}"


@pytest.mark.parametrize("file", [file for file in FILES if file not in KNOW_KINDS], ids=name_of)
def test_only_kinds_tasks_and_heads_depend_on_the_kind_of_a_task(file):
    classes = {
        node.name for known in KNOW_KINDS[:-1] for node in ast.walk(tree_of(known)) if isinstance(node, ast.ClassDef)
    }
    assert {"LabelKind", "ClassPerWord", "NumberPerText", "Task", "Regression"} <= classes
    for node in ast.walk(tree_of(file)):
        if isinstance(node, ast.Attribute):
            assert node.attr not in {"level", "problem_type"}, f"line {node.lineno}"
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"isinstance", "issubclass"}
        ):
            asked = {name.id for name in ast.walk(node.args[1]) if isinstance(name, ast.Name)}
            # A configuration takes tasks or plain data.
            assert not asked & (classes - {"Task"}), f"line {node.lineno}"


def public_names(face: Path) -> Iterator[tuple[str, str]]:
    """Return (module, name) of every name that the stub of a package makes public."""
    for node in tree_of(face).body:
        assert isinstance(node, ast.ImportFrom) and node.level == 1, "a stub holds `from .module import name as name`"
        for alias in node.names:
            assert alias.asname == alias.name, "without `as` the name is private to type checkers"
            yield node.module, alias.name


@pytest.mark.parametrize(
    ("package", "module", "name"),
    [(module_of(face.parent), *names) for face in FACES for names in public_names(face)],
)
def test_public_names_exist_and_classes_and_functions_have_a_docstring(package, module, name):
    value = getattr(importlib.import_module(package), name)
    assert value is getattr(importlib.import_module(f"{package}.{module}"), name)
    if inspect.isclass(value) or inspect.isroutine(value):
        own = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
        assert own
        assert not own.startswith(f"{name}("), "a dataclass's generated signature is no docstring"
    if inspect.isclass(value):
        assert pickle.loads(pickle.dumps(value)) is value


@pytest.mark.parametrize("face", FACES, ids=name_of)
def test_package_lists_exactly_its_public_names(face):
    package = importlib.import_module(module_of(face.parent))
    names = sorted(name for _, name in public_names(face))
    assert len(set(names)) == len(names)
    assert sorted(package.__all__) == sorted(dir(package)) == names
    found: dict[str, object] = {}
    exec(f"from {package.__name__} import *", found)
    assert set(names) <= found.keys()
    with pytest.raises(AttributeError, match="Recipee"):
        _ = package.Recipee
    with pytest.raises(ImportError, match="Recipee"):
        exec(f"from {package.__name__} import Recipee")


@pytest.mark.parametrize("folder", sorted({file.parent for file in FILES}), ids=name_of)
def test_package_has_a_docstring_and_imports_its_names_on_first_use(folder):
    tree = tree_of(folder / "__init__.py")
    assert ast.get_docstring(tree)
    if folder.name == "cli":  # `cli.main` is a module, so the package cannot have the function of that name
        assert len(tree.body) == 1
    else:
        assert (folder / "__init__.pyi").is_file()
        assert "__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)" in map(
            ast.unparse, tree.body
        )


@pytest.mark.parametrize("file", RECIPES, ids=name_of)
def test_recipes_are_valid_wherever_the_data_is(file, tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_NLP_DATA", str(tmp_path))
    assert Recipe.load(file).tasks


@pytest.mark.parametrize("file", RECIPES, ids=name_of)
def test_recipe_headers_state_needs_launch_override_and_scores(file):
    text = file.read_text(encoding="utf-8")
    header = text[: re.search(r"^[^#]", text, flags=re.MULTILINE).start()]
    assert re.findall(r"^# (\w+):", header, flags=re.MULTILINE) == ["needs", "launch", "override", "reached"]
    launch, override = (
        re.search(rf"^# {word}: *(.*)", header, flags=re.MULTILINE)[1] for word in ("launch", "override")
    )
    assert f"mtl-nlp train recipes/{file.name}" in launch
    assert f"mtl-nlp train recipes/{file.name} --set " in override


@pytest.mark.parametrize("file", [f for f in FILES if not f.stem.startswith("_")], ids=name_of)
def test_every_module_has_its_test_file(file):
    folder = REPOSITORY / "tests" / file.relative_to(PACKAGE).parent
    assert (folder / f"test_{file.stem}.py").is_file()
