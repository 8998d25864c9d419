"""The functions `map` and `filter` of a dataset."""

from __future__ import annotations

import pytest
from small_datasets import TEXT, rows_of, write

from mtl_nlp.data.loading import load_splits
from mtl_nlp.data.own_functions import _fingerprint
from mtl_nlp.errors import DataError, RecipeError
from mtl_nlp.recipe.schema import Recipe

CODE = """
def repair(row):
    return {"text": row["text"].strip(), "topic": row["topic"].lower()}

def is_long(row):
    return len(row["text"]) > LEAST

def nothing(row):
    return None

LEAST = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch, request):
    """Return (name of a module, a function that loads the dataset with some keys)."""
    name = f"code_of_{request.node.name.split('[')[0]}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    rows = [{"text": f" {'x' * number} ", "topic": "News" if number % 2 else "SPORT"} for number in range(10)]
    write(tmp_path / "train.jsonl", *rows)
    write(tmp_path / "test.jsonl", *rows[:6])

    def load(imports=(), **keys):
        data = {
            "imports": [*imports],
            "encoder": "e",
            "output_dir": "o",
            "tasks": {"topic": {"type": "text-classification"}},
            "datasets": {
                "d": {
                    "path": "json",
                    "data_files": {"train": "train.jsonl", "test": "test.jsonl"},
                    "inputs": TEXT,
                    "labels": {"topic": "topic"},
                    **{key: f"{name}:{value}" if key in {"map", "filter"} else value for key, value in keys.items()},
                }
            },
        }
        recipe = Recipe.from_dict(data, tmp_path, allow_code=True)
        return load_splits("d", recipe.datasets["d"], {"topic": recipe.task("topic")})

    return name, load


def texts(rows):
    return [row["text"] for row in rows]


def test_map_changes_every_row_before_filter_chooses_rows_and_rows_are_drawn(own):
    _, load = own
    loaded = load(map="repair", filter="is_long")
    assert texts(rows_of(loaded)) == ["x" * number for number in range(4, 10)]
    assert texts(rows_of(loaded, "test")) == ["xxxx", "xxxxx"]
    assert {row["label:topic"] for row in rows_of(loaded)} == {"news", "sport"}
    assert texts(rows_of(load(filter="is_long")))[0] == " xx "  # without map, the blanks count
    cut = load(map="repair", filter="is_long", validation_size=2, max_rows={"train": 3})
    assert [len(rows_of(cut, split)) for split in ("train", "validation", "test")] == [3, 2, 2]
    assert cut.drawn_from == {"train": 4}


def test_a_change_of_the_source_changes_rows_that_the_caches_hold(own, tmp_path):
    name, load = own
    assert len(rows_of(load(map="repair", filter="is_long"))) == 6
    (tmp_path / f"{name}.py").write_text(CODE.replace("LEAST = 3", "LEAST = 8  # longer"))
    assert texts(rows_of(load(map="repair", filter="is_long", splits={"test": "train"}))) == ["x" * 9]


def test_a_change_of_any_module_that_the_recipe_names_changes_the_key_of_the_caches(own, tmp_path):
    _, load = own
    keys = []
    for source in ("LEAST = 3", "LEAST = 3", "LEAST = 8"):
        (tmp_path / "limits_of_rows.py").write_text(source)
        load(imports=["limits_of_rows"], filter="is_long")
        keys.append(_fingerprint(None, "my_module:is_long"))
    assert keys[0] == keys[1] != keys[2]


def test_a_stream_is_changed_and_filtered_while_it_is_read(own):
    _, load = own
    loaded = load(map="repair", filter="is_long", streaming=True)
    assert loaded.num_rows == 6
    assert texts(loaded.stream) == ["x" * number for number in range(4, 10)]
    assert texts(rows_of(loaded, "test")) == ["xxxx", "xxxxx"]


def test_wrong_results_are_refused_in_one_line(own):
    _, load = own
    with pytest.raises(DataError, match=r"^datasets\.d\.filter: none of the 10 rows of train is left\.$"):
        load(filter="nothing")
    with pytest.raises(
        DataError, match=r"^datasets\.d\.map: the function should return a dict of columns\. Found None"
    ):
        load(map="nothing")
    with pytest.raises(
        RecipeError, match=r"^datasets\.d\.filter: the module .* has no function 'is_lon'\. Did you mean"
    ):
        load(filter="is_lon")
