"""Code that a recipe runs: when it is imported, how it is found, and errors in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from plain_recipes import changed, write

from mtl_nlp.errors import RecipeError
from mtl_nlp.recipe.local_paths import relative_paths
from mtl_nlp.recipe.own_code import function_of, import_code, import_module, located, uses_code
from mtl_nlp.recipe.saved import SavedRecipe
from mtl_nlp.recipe.schema import Recipe


@pytest.fixture(autouse=True)
def _own_modules(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def module(folder: Path, name: str, text: str = "LOADED = []\n\n\ndef keep(row):\n    return True\n") -> None:
    path = folder / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_code_runs_only_when_it_is_allowed(tmp_path):
    module(tmp_path, "evil_module", "raise SystemExit('ran')")
    for data, where in (
        (changed("imports", ["evil_module"]), "imports"),
        (changed("datasets.ewt.filter", "evil_module:keep"), r"datasets\.ewt\.filter"),
        (changed("datasets.ewt.map", "evil_module:keep"), r"datasets\.ewt\.map"),
    ):
        assert uses_code(data)
        path = write(tmp_path, data)
        message = (
            rf"^{where}: the recipe runs the Python code of 'evil_module'\. If you trust this code, allow it: --all"
        )
        for load in (
            lambda path=path: Recipe.load(path),
            lambda data=data: Recipe.from_dict(data, tmp_path),
            lambda data=data: Recipe.from_written(data, tmp_path),
        ):
            with pytest.raises(RecipeError, match=message):
                load()
        assert SavedRecipe.read(path).encoder == "bert-base-cased"  # a recipe in the folder of a model runs nothing
    assert not uses_code(changed("max_length", 8))
    assert Recipe.from_dict(changed("max_length", 8), allow_code=True).own_code == {}
    with pytest.raises(RecipeError, match=r"^here: the code of 'evil_module' was not allowed\. Load the recipe with"):
        function_of("evil_module:keep", "here")


def test_modules_beside_the_recipe_have_absolute_paths_hashes_and_neighbours(tmp_path):
    module(tmp_path, "own_module", "from own_neighbour import keep\n")
    module(tmp_path, "own_neighbour")
    module(tmp_path, "own_package/__init__", "")
    module(tmp_path, "own_package/inner", "from .deep import keep\n")
    module(tmp_path, "own_package/deep")
    data = {
        **changed("datasets.ewt.filter", "own_package.inner:keep"),
        "imports": ["own_module", "own_package", "json"],
    }
    recipe = Recipe.load(write(tmp_path, data), allow_code=True)
    package = tmp_path / "own_package"
    assert recipe.imports == [str(tmp_path / "own_module.py"), str(package / "__init__.py"), "json"]
    assert recipe.datasets["ewt"].filter == f"{package / 'inner.py'}:keep"
    assert list(recipe.own_code) == ["own_module", "own_package", "json", "own_package.inner"]
    assert all(len(sha256) == 64 for sha256 in recipe.own_code.values())
    assert function_of(recipe.datasets["ewt"].filter, "here")({}) is True
    assert sys.path[-1] == str(tmp_path)
    # The written recipe finds the code from any folder, and the published recipe beside itself.
    again = Recipe.from_written(recipe.as_written(), "/", allow_code=True)
    assert (again.imports, again.sha256()) == (recipe.imports, recipe.sha256())
    shared = relative_paths(recipe.model_dump(exclude_defaults=True))
    assert shared["imports"] == ["./own_module.py", "./__init__.py", "json"]
    assert shared["datasets"]["ewt"]["filter"] == "./inner.py:keep"
    assert shared["datasets"]["ewt"]["data_files"]["train"] == ["./ewt/train.jsonl"]


def test_a_change_of_the_source_changes_the_fingerprint_and_runs_the_code_again(tmp_path):
    module(tmp_path, "changing_module", "VALUE = 1\n")
    data = changed("imports", ["changing_module"])
    first = Recipe.from_dict(data, tmp_path, allow_code=True)
    kept = sys.modules["changing_module"]
    assert Recipe.from_dict(data, tmp_path, allow_code=True).sha256() == first.sha256()
    assert sys.modules["changing_module"] is kept and kept.VALUE == 1
    module(tmp_path, "changing_module", "VALUE = 2  # changed\n")
    second = Recipe.from_dict(data, tmp_path, allow_code=True)
    assert sys.modules["changing_module"].VALUE == 2
    assert first.own_code != second.own_code and first.sha256() != second.sha256()


def test_a_module_sees_the_changed_names_of_a_neighbour(tmp_path):
    module(tmp_path, "limits_of_own", "LEAST = 3\n")
    module(tmp_path, "user_of_limits", "from limits_of_own import LEAST\n")
    for imports in (["user_of_limits", "limits_of_own"], ["limits_of_own", "user_of_limits"]):
        for least in (3, 80):
            module(tmp_path, "limits_of_own", f"LEAST = {least}\n")
            Recipe.from_dict(changed("imports", imports), tmp_path, allow_code=True)
            found = sys.modules["user_of_limits"].LEAST
            assert found == least


@pytest.mark.parametrize(
    ("imports", "text", "message"),
    [
        (
            ["no_such_module"],
            "",
            r"imports: there is no module 'no_such_module' beside the recipe or on Python's path\.$",
        ),
        (["../x"], "", r"imports: there is no module '\.\./x'\.$"),
        (["gone.py"], "", r"imports: there is no module '.*gone\.py'\.$"),
        (["broken_module"], "import no_such_thing", r"imports: the module broken_module cannot be imported: No module"),
        (["broken_module"], "def f(:", r"imports: the module broken_module cannot be imported: SyntaxError: invalid"),
        (["broken_module"], "x = 1 / 0", r"imports: the module broken_module cannot be imported: ZeroDivisionError: "),
        ("broken_module", "", r"imports: .*list"),
    ],
)
def test_imports_that_fail_are_one_line(tmp_path, imports, text, message):
    module(tmp_path, "broken_module", text)
    with pytest.raises(RecipeError, match=f"^{message}") as caught:
        Recipe.from_dict(changed("imports", imports), tmp_path, allow_code=True)
    assert "\n" not in str(caught.value)


def test_a_name_that_is_taken_and_a_function_that_is_missing_are_one_line(tmp_path):
    module(tmp_path, "json")
    with pytest.raises(
        RecipeError, match=r"^imports: the name of the module .*json\.py is already taken by .*json.*Ren"
    ):
        import_code({"imports": ["json"]}, tmp_path, allow_code=True)
    module(tmp_path, "two_functions")
    wrong = changed("datasets.ewt.filter", "two_functions:kep")
    message = r"^datasets\.ewt\.filter: the module two_functions has no function 'kep'\. Did you mean 'keep'\?"
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict(wrong, tmp_path, allow_code=True)
    with pytest.raises(
        RecipeError, match=r"^datasets\.ewt\.map: should name a function as `module:function`\. Found 'x'"
    ):
        Recipe.from_dict(changed("datasets.ewt.map", "x"), tmp_path, allow_code=True)


def test_a_module_that_the_user_names_is_imported_from_the_current_folder(tmp_path, monkeypatch):
    module(tmp_path, "named_module")
    monkeypatch.chdir(tmp_path)
    import_module("named_module")
    assert sys.modules["named_module"].LOADED == []
    assert located("named_module", tmp_path) == str(tmp_path / "named_module.py")
    with pytest.raises(RecipeError, match=r"^--import: there is no module 'nameless'"):
        import_module("nameless")
