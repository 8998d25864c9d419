"""Code that a recipe runs: the modules of `imports`, and the functions of a dataset's `filter` and `map`.

A module is imported only while a recipe is loaded with `allow_code`, so nothing in the recipe of a model's folder runs
before its reader has agreed. Imports no torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from mtl_nlp.errors import RecipeError
from mtl_nlp.messages import did_you_mean, one_line

FUNCTIONS = ("filter", "map")
"""The keys of a dataset that name a function."""

_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")

_FUNCTION = re.compile(r"(?P<module>[^\n]+):(?P<function>[A-Za-z_]\w*)")

_ERRORS_OF_IMPORTS = (
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


class _Imported(NamedTuple):
    module: ModuleType
    sha256: str


_IMPORTED: dict[str, _Imported] = {}
"""The imported modules, by the name or path in a recipe."""


def module_and_function(text: str) -> tuple[str, str]:
    """Return the parts of a text such as `my_module:keep` or `code/my_module.py:keep`.

    Raises:
        ValueError: if the text has a different form.
    """
    match = _FUNCTION.fullmatch(text)
    if match is None:
        raise ValueError(f"should name a function as `module:function`. Found {text!r:.80}")
    return match["module"], match["function"]


def uses_code(data: Mapping[str, Any]) -> bool:
    """Return whether a recipe, given as plain data, runs code."""
    return any(True for _ in _modules_in(data))


def located(module: str, folder: Path) -> str:
    """Return the absolute path of a module's file if the file is beside a recipe, else the name of the module.

    Args:
        module: a name such as `my_module` or `my_package.heads`, or a path that ends with `.py`.
        folder: the folder of the recipe.
    """
    if module.endswith(".py"):
        return str((folder / module).resolve())
    path = folder.joinpath(*module.split("."))
    found = [each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()]
    return str(found[0].resolve()) if found else module


def located_function(text: str, folder: Path) -> str:
    """Return a text such as `my_module:keep` with the module's path if the module is beside a recipe."""
    module, function = module_and_function(text)
    return f"{located(module, folder)}:{function}"


def import_code(data: Mapping[str, Any], folder: Path, *, allow_code: bool) -> dict[str, str]:
    """Import the modules of a recipe, if the user allows it.

    A module is imported once per process, and again after its source or that of a neighbour in the recipe has changed.
    The folder of a module that is not installed becomes the last entry of `sys.path`, so that the module can import its
    neighbours.

    Args:
        data: the recipe as plain data, with its variables expanded. Values of a wrong form are ignored here.
        folder: the folder of the recipe, in which modules are found first.
        allow_code: whether the user has allowed the recipe to run code.

    Returns:
        The SHA-256 of the source of each module, by the name of the module. For a package it covers all its files.

    Raises:
        RecipeError: if the recipe runs code and the user has not allowed it, a module cannot be imported, or a module
            does not have the function that a dataset names.
    """
    hashes, places = {}, dict[str, str]()
    before = {place: imported.sha256 for place, imported in _IMPORTED.items()}
    for where, module, function in _modules_in(data):
        if not allow_code:
            raise RecipeError(
                f"{where}: the recipe runs the Python code of {module!r:.80}. If you trust this code, allow it: "
                f"--allow-code on the command line, allow_code=True in Python."
            )
        place = located(module, folder)
        imported = _import(where, place)
        places.setdefault(place, where)
        hashes[imported.module.__name__] = imported.sha256
        if function is not None:
            _function_in(imported.module, where, function)
    _import_users_again(places, before)
    return hashes


def _import_users_again(places: Mapping[str, str], before: Mapping[str, str]) -> None:
    """Import the unchanged modules beside a recipe again if one of them has changed, since they may use its old names.

    Args:
        places: the path or name of each module of the recipe -> the key in the recipe.
        before: the path or name of each module that was imported before -> the SHA-256 of its source at that time.
    """
    own = [place for place in places if place.endswith(".py") and place in before]
    same = [place for place in own if _IMPORTED[place].sha256 == before[place]]
    order = list(sys.modules)  # a module that another imports comes after it
    for place in sorted(same, key=lambda place: -order.index(_IMPORTED[place].module.__name__)):
        if len(same) < len(own):
            _import(places[place], place, again=True)


def import_module(module: str) -> None:
    """Import a module that the user names, such as one whose heads a saved model has.

    Args:
        module: a name of a module in the current folder or on `sys.path`, or a path that ends with `.py`.

    Raises:
        RecipeError: if the module cannot be imported.
    """
    _import("--import", located(module, Path()))


def function_of(text: str, where: str) -> Callable[..., Any]:
    """Return a function of a loaded recipe.

    Args:
        text: the module and the function, as the loaded recipe names them.
        where: the path of the key in the recipe, for messages.

    Raises:
        RecipeError: if the recipe was not loaded with `allow_code`, or the module has no such function.
    """
    module, function = module_and_function(text)
    if module not in _IMPORTED:
        raise RecipeError(f"{where}: the code of {module!r:.80} was not allowed. Load the recipe with allow_code=True.")
    return _function_in(_IMPORTED[module].module, where, function)


def source_hash() -> str:
    """Return the SHA-256 of the sources of all modules that recipes have imported in this process.

    A function may call the other modules of its recipe.
    """
    sources = sorted((imported.module.__name__, imported.sha256) for imported in _IMPORTED.values())
    return hashlib.sha256(repr(sources).encode()).hexdigest()


def _modules_in(data: Mapping[str, Any]) -> Iterator[tuple[str, str, str | None]]:
    """Yield the key, the module and the function, or None, of all code in a recipe."""
    imports, datasets = data.get("imports"), data.get("datasets")
    for module in imports if isinstance(imports, list) else ():
        if isinstance(module, str):
            yield "imports", module, None
    for name, dataset in datasets.items() if isinstance(datasets, dict) else ():
        for key in FUNCTIONS:
            text = dataset.get(key) if isinstance(dataset, dict) else None
            if isinstance(text, str) and _FUNCTION.fullmatch(text):
                yield f"datasets.{name}.{key}", *module_and_function(text)


def _function_in(module: ModuleType, where: str, name: str) -> Callable[..., Any]:
    functions = {key: value for key, value in vars(module).items() if callable(value) and not key.startswith("__")}
    if name not in functions:
        raise RecipeError(
            f"{where}: the module {module.__name__} has no function {name!r}. {did_you_mean(name, functions)}"
        )
    return functions[name]


def _import(where: str, place: str, *, again: bool = False) -> _Imported:
    """Import a module by its absolute path or its name."""
    is_path = place.endswith(".py")
    name, root = _name_and_root(Path(place)) if is_path else (place, None)
    if _NAME.fullmatch(name) is None or (is_path and not Path(place).is_file()):
        raise RecipeError(f"{where}: there is no module {place!r:.200}.")
    present = sys.modules.get(name)
    if is_path and present is not None and _file_of(present) != Path(place):
        raise RecipeError(
            f"{where}: the name of the module {place} is already taken by {_file_of(present) or 'Python'}. Rename the "
            f"file."
        )
    importlib.invalidate_caches()
    try:
        with _first_on_path(root):
            module = importlib.import_module(name)
            sha256 = _hash_of(_file_of(module))
            known = _IMPORTED.get(place)
            if known is not None and (again or known.sha256 != sha256):
                module = importlib.reload(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise RecipeError(f"{where}: there is no module {name!r} beside the recipe or on Python's path.") from error
        raise RecipeError(f"{where}: the module {name} cannot be imported: {one_line(error)}.") from error
    except _ERRORS_OF_IMPORTS as error:
        kind = type(error).__name__
        raise RecipeError(f"{where}: the module {name} cannot be imported: {kind}: {one_line(error)}") from error
    _IMPORTED[place] = _Imported(module, sha256)
    return _IMPORTED[place]


def _name_and_root(path: Path) -> tuple[str, Path]:
    """Return the full name of a module, and the folder in which Python finds the module or its package."""
    parts = [] if path.name == "__init__.py" else [path.stem]
    root = path.parent
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    return ".".join(parts), root


@contextlib.contextmanager
def _first_on_path(root: Path | None) -> Iterator[None]:
    """Put a folder first on `sys.path` in this context, as Python does for a script, and last after this context."""
    if root is None:
        yield
        return
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))
        if str(root) not in sys.path:
            sys.path.append(str(root))


def _file_of(module: ModuleType) -> Path | None:
    file = vars(module).get("__file__")
    return None if file is None else Path(file).resolve()


def _hash_of(file: Path | None) -> str:
    """Return the SHA-256 of a module's file, or of all files of a package; of nothing for a module without a file."""
    if file is None:
        return hashlib.sha256().hexdigest()
    if file.name != "__init__.py":
        return hashlib.sha256(file.read_bytes()).hexdigest()
    digest = hashlib.sha256()
    for path in sorted(file.parent.rglob("*.py")):
        digest.update(path.relative_to(file.parent).as_posix().encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
