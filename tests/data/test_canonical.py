from __future__ import annotations

import importlib.util
import linecache
import sys
import zlib

import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from datasets.exceptions import DatasetGenerationError
from small_datasets import TEXT, TOKENS, load, rows_of, write

from mtl_nlp.data import canonical
from mtl_nlp.data.canonical import (
    LABEL_PREFIX,
    REPAIRED,
    SLOW_ROWS,
    canonical_rows,
    code_fingerprint,
    outside_code,
    progress_bars_from,
    reading,
)
from mtl_nlp.data.loading import load_splits
from mtl_nlp.errors import DataError
from mtl_nlp.modeling import tasks_multitask
from mtl_nlp.modeling.tasks_multitask import register_task_type, task_from_dict
from mtl_nlp.recipe.schema import Recipe


def test_class_labels_of_parquet_become_names_and_minus_one_is_missing(tmp_path):
    features = Features(
        {
            "tokens": List(Value("string")),
            "upos": List(ClassLabel(names=["VERB", "NOUN"])),
            "topic": ClassLabel(names=["z", "a"]),
        }
    )
    data = {"tokens": [["a", "b"], ["c"]], "upos": [[0, 1], None], "topic": [1, -1]}
    Dataset.from_dict(data, features=features).to_parquet(tmp_path / "a.parquet")
    labels = {"pos": "upos", "topic": "topic"}
    loaded = load(tmp_path, TOKENS, labels, path="parquet", data_files={"train": "a.parquet"})
    assert loaded.splits["train"]["label:pos"][:] == [["VERB", "NOUN"], None]
    assert loaded.splits["train"]["label:topic"][:] == ["a", None]
    assert loaded.class_names == {"pos": ["VERB", "NOUN"], "topic": ["z", "a"]}


def test_words_without_a_label_are_counted_and_a_row_of_such_words_has_no_label(tmp_path):
    features = Features({"tokens": List(Value("string")), "upos": List(ClassLabel(names=["VERB"]))})
    tags = [[0, None], [-100, 0], [-1, None], []]
    Dataset.from_dict({"tokens": [["a", "b"]] * 3 + [[]], "upos": tags}, features=features).to_parquet(
        tmp_path / "a.parquet"
    )
    loaded = load(tmp_path, TOKENS, {"pos": "upos"}, path="parquet", data_files={"train": "a.parquet"})
    assert loaded.splits["train"]["label:pos"][:] == [
        ["VERB", None],
        [None, "VERB"],
        None,
    ]  # without the row that has no words
    assert loaded.splits["train"]["unlabelled_words"][:] == [1, 1, 0]


@pytest.mark.parametrize(
    ("inputs", "labels", "row", "message"),
    [
        (TEXT, {"score": "y"}, {"txt": "a", "y": 1}, r"^d/train: no column 'text' \(for text\)\. Did you mean 'txt'"),
        (TEXT, {"score": "y"}, {"text": "a", "yy": 1}, r"no column 'y' \(for score\)\. Did you mean 'yy'"),
        (TEXT, {"score": "y"}, {"text": 3, "y": 1}, r"row 1: `text` should be a string\. Found 3"),
        (TEXT, {"score": "y"}, {"text": "a", "y": "x"}, r"row 1, column 'y': expected a finite number; found 'x'"),
        (TEXT, {"score": "y"}, {"text": "a", "y": True}, "expected a finite number; found True"),
        (TEXT, {"topic": "y"}, {"text": "a", "y": 1.5}, r"row 1, column 'y': expected a class name .*; found 1\.5"),
        (TEXT, {"topic": "y"}, {"text": "a", "y": ["x"]}, r"expected a class name .*; found \['x'\]"),
        (TEXT, {"tags": "y"}, {"text": "a", "y": "x"}, r"expected a list of class names; found 'x'"),
        (TOKENS, {"pos": "y"}, {"tokens": "a b", "y": ["x"]}, r"row 1: `tokens` should be a list of strings"),
        (TOKENS, {"pos": "y"}, {"tokens": ["a", None], "y": ["x", "x"]}, "`tokens` should be a list of strings"),
        (TOKENS, {"pos": "y"}, {"tokens": ["a", "b"], "y": ["x"]}, r"row 1, column 'y': 2 tokens but 1 labels"),
        (TOKENS, {"pos": "y"}, {"tokens": ["a"], "y": [1]}, r"expected a list of label names, .*; found \[1\]"),
        (TOKENS, {"ner": "y"}, {"tokens": ["a"], "y": ["PER"]}, r"A span tag should be O, or B-.*Found 'PER'"),
    ],
)
def test_invalid_row_is_named_with_its_number(tmp_path, inputs, labels, row, message):
    empty = {column: [] if isinstance(value, list) else value for column, value in row.items()}
    good = {"text": "a", "tokens": []} | {"y": None}
    first = {column: good.get(column, empty[column]) for column in row}
    file = write(tmp_path / "a.jsonl", first, row)
    with pytest.raises(DataError, match=message):
        load(tmp_path, inputs, labels, data_files={"train": file})


@pytest.mark.parametrize("number", [1e39, -3.5e38, 10**39])
def test_target_that_float32_cannot_hold_is_refused(tmp_path, number):
    file = write(tmp_path / "a.jsonl", {"text": "a", "y": 3.4e38}, {"text": "b", "y": number})
    with pytest.raises(DataError) as error:
        load(tmp_path, TEXT, {"score": "y"}, data_files={"train": file})
    assert str(error.value) == (
        f"d/train, row 1, column 'y': expected numbers of at most 3.4e+38, the limit of float32; found {float(number)}."
    )


def test_target_that_is_not_finite_is_refused_and_nan_is_missing(tmp_path):
    columns = {"text": ["a", "b", "c"], "y": [1.0, float("nan"), float("inf")]}
    Dataset.from_dict(columns).to_parquet(tmp_path / "a.parquet")
    options = {"path": "parquet", "data_files": {"train": "a.parquet"}}
    with pytest.raises(DataError, match=r"row 2, column 'y': expected a finite number; found inf"):
        load(tmp_path, TEXT, {"score": "y"}, **options)
    Dataset.from_dict({key: values[:2] for key, values in columns.items()}).to_parquet(tmp_path / "a.parquet")
    assert load(tmp_path, TEXT, {"score": "y"}, **options).splits["train"]["label:score"][:] == [1.0, None]


def test_empty_table_is_refused(tmp_path):
    features = Features({"text": Value("string"), "y": Value("float64")})
    Dataset.from_dict({"text": [], "y": []}, features=features).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"^d/train: the split has no rows|corresponds to no data"):
        load(tmp_path, TEXT, {"score": "y"}, path="parquet", data_files={"train": "a.parquet"})


def test_illegal_span_tags_are_repaired_as_seqeval_reads_them_and_counted(tmp_path):
    tags = [["O", "I-PER", "I-PER", "I-LOC"], ["B-PER", "I-PER", "O", "O"]]
    file = write(tmp_path / "a.jsonl", *({"tokens": list("abcd"), "y": row} for row in tags))
    loaded = load(tmp_path, TOKENS, {"ner": "y"}, data_files={"train": file})
    first, second = rows_of(loaded)
    assert first["label:ner"] == ["O", "B-PER", "I-PER", "B-LOC"]
    assert second["label:ner"] == tags[1]
    assert (first["repaired"], second["repaired"]) == (2, 0)


def test_label_columns_never_collide_with_input_columns(tmp_path):
    data = {
        "encoder": "e",
        "output_dir": "o",
        "tasks": {"text": {"type": "text-classification"}},
        "datasets": {
            "d": {
                "path": "json",
                "data_files": {"train": write(tmp_path / "a.jsonl", {"text": "a", "y": "x"})},
                "inputs": TEXT,
                "labels": {"text": "y"},
            }
        },
    }
    recipe = Recipe.from_dict(data, tmp_path)
    loaded = load_splits("d", recipe.datasets["d"], {"text": recipe.task("text")})
    assert rows_of(loaded) == [{"text": "a", LABEL_PREFIX + "text": "x", "repaired": 0}]


def test_stream_rows_are_checked_lazily_and_equal_loaded_rows():
    tasks = {"ner": task_from_dict({"name": "ner", "type": "token-classification", "scheme": "iob2"})}
    rows = Dataset.from_list([{"w": ["a", "b"], "y": tags} for tags in (["O", "I-PER"], None, ["B-PER", "O"], ["O"])])
    stream = canonical_rows(rows.to_iterable_dataset(), "d", inputs={"tokens": "w"}, labels={"ner": "y"}, tasks=tasks)
    good = canonical_rows(rows.select(range(3)), "d", inputs={"tokens": "w"}, labels={"ner": "y"}, tasks=tasks)
    assert stream.features == good.features
    with pytest.raises(DataError, match=r"^d, row 3, column 'y': 2 tokens but 1 labels"):
        list(stream)
    stream = rows.take(3).to_iterable_dataset()
    stream = canonical_rows(stream, "d", inputs={"tokens": "w"}, labels={"ner": "y"}, tasks=tasks)
    assert list(stream) == good.to_list()


@pytest.mark.parametrize("shown", [True, False])
def test_progress_bars_are_shown_for_many_rows_unless_disabled(shown):
    before = datasets.are_progress_bars_disabled()
    try:
        (datasets.enable_progress_bars if shown else datasets.disable_progress_bars)()
        with pytest.raises(RuntimeError), progress_bars_from(SLOW_ROWS - 1):
            assert datasets.are_progress_bars_disabled()
            raise RuntimeError
        assert datasets.are_progress_bars_disabled() is not shown
        with progress_bars_from(SLOW_ROWS):
            assert datasets.are_progress_bars_disabled() is not shown
    finally:
        (datasets.disable_progress_bars if before else datasets.enable_progress_bars)()


def test_code_fingerprint_changes_only_with_files_that_make_rows_or_windows(tmp_path, monkeypatch):
    for folder in ("data", "modeling", "evaluation"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "module.py").write_text("1")
    monkeypatch.setattr(canonical, "__file__", str(tmp_path / "data" / "canonical.py"))

    def after(folder: str) -> str:
        (tmp_path / folder / "module.py").write_text("2")
        return code_fingerprint.__wrapped__()

    first = code_fingerprint.__wrapped__()
    assert after("evaluation") == first
    assert len({first, after("data"), after("modeling")}) == 3


OUTSIDE = """
from mtl_nlp.modeling.tasks_multitask import Regression
from mtl_nlp.modeling.text_kinds_multitask import NumberPerText

class Halves(NumberPerText):
    def check(self, value):
        return super().check(value) / {divisor}

class HalfRegression(Regression):
    type = "half-regression"

    def make_kind(self):
        return Halves(self.name)
"""


def test_changed_code_of_an_external_task_type_invalidates_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(tasks_multitask, "TASK_TYPES", tasks_multitask.TASK_TYPES.copy())
    rows = Dataset.from_dict({"text": ["a"], "y": [1.0]})

    def labels_with(divisor: int) -> list[float]:
        (tmp_path / "outside.py").write_text(OUTSIDE.format(divisor=divisor))
        spec = importlib.util.spec_from_file_location("outside", tmp_path / "outside.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "outside", module)
        spec.loader.exec_module(module)
        linecache.checkcache()
        tasks = {"score": register_task_type(module.HalfRegression)(name="score")}
        return canonical_rows(rows, "d", inputs=TEXT, labels={"score": "y"}, tasks=tasks)["label:score"][:]

    assert labels_with(2) == [0.5]
    assert labels_with(16) == [0.0625]
    # The fingerprint covers the constants of the class's module, too.
    code = outside_code([sys.modules["outside"].HalfRegression(name="score")])
    assert "import" in code.split("class ")[0]
    assert outside_code([task_from_dict({"name": "score", "type": "regression"})]) == ""


def test_class_label_is_a_number_for_regression_and_minus_one_is_missing():
    features = Features({"text": Value("string"), "y": ClassLabel(names=["bad", "fair", "good"])})
    rows = Dataset.from_dict({"text": ["a", "b", "c"], "y": [2, -1, 0]}, features=features)
    tasks = {"score": task_from_dict({"name": "score", "type": "regression"})}
    canonical_labels = canonical_rows(rows, "d", inputs=TEXT, labels={"score": "y"}, tasks=tasks)["label:score"][:]
    assert canonical_labels == [2.0, None, 0.0]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("gone"), r"^d/train: cannot be read: OSError: gone$"),
        (ValueError("not\nJSON"), r"^d/train: cannot be read: ValueError: not JSON$"),
        (DatasetGenerationError("x" * 999), r"^d/train: cannot be read: DatasetGenerationError: x{300}$"),
        (EOFError("Compressed file ended"), r"^d/train: cannot be read: EOFError: Compressed file ended$"),
        (zlib.error("invalid block type"), r"^d/train: cannot be read: error: invalid block type$"),
        (DataError("row 3 is none"), r"^row 3 is none$"),
    ],
)
def test_unreadable_data_is_one_line_that_names_the_dataset(error, message):
    with pytest.raises(DataError, match=message), reading("d/train"):
        raise error


def test_repaired_tags_of_two_span_tasks_on_one_row_are_counted_together():
    names = ("ner", "chunk")
    tasks = {
        name: task_from_dict({"type": "token-classification", "name": name, "scheme": "iob2", "labels": []})
        for name in names
    }
    rows = {"tokens": [["a", "b", "c"], ["d"]], "ner": [["I-X", "O", "I-Y"], ["O"]], "chunk": [["O", "I-Z", "O"], None]}
    found = canonical_rows(
        Dataset.from_dict(rows), "d", inputs={"tokens": "tokens"}, labels={name: name for name in names}, tasks=tasks
    )
    assert found["label:ner"][:] == [["B-X", "O", "B-Y"], ["O"]]
    assert found["label:chunk"][:] == [["O", "B-Z", "O"], None]
    assert found[REPAIRED][:] == [3, 0]


SPANS = [
    {"text": "Ada Lovelace lives here.", "spans": [{"start": 0, "end": 12, "label": "PERSON"}], "topic": "a"},
    {"text": "In Parisian bars", "spans": [{"start": 3, "end": 8, "label": "LOC"}], "topic": "b"},
    {"text": "Nothing", "spans": [], "topic": None},
    {"text": "Unknown", "spans": None, "topic": "a"},
]


def test_character_spans_of_a_text_become_tags_of_words_that_all_tasks_read(tmp_path):
    file = write(tmp_path / "a.jsonl", *SPANS)
    maps = {"ner": {"PERSON": "PER", "DATE": "TIME"}}
    loaded = load(tmp_path, TEXT, {"ner": "spans", "topic": "topic"}, data_files={"train": file}, label_map=maps)
    rows = loaded.splits["train"]
    assert rows["tokens"][0] == ["Ada", "Lovelace", "lives", "here", "."]
    assert rows["label:ner"][:] == [["B-PER", "I-PER", "O", "O", "O"], ["O"] * 3, ["O"], None]
    assert rows["label:topic"][:] == ["a", "b", None, "a"]
    assert rows["misaligned"][:] == [0, 1, 0, 0]
    assert loaded.notes == ["d: label_map.ner names 'DATE', which no row has"]
    labels = {"ner": {"column": "spans", "alignment_mode": "expand"}}
    wide = load(tmp_path, TEXT, labels, data_files={"train": file}).splits["train"]
    assert (wide["label:ner"][1], wide["moved"][:]) == (["O", "B-LOC", "O"], [0, 1, 0, 0])


def test_tags_of_a_text_and_spans_of_tokens_are_refused_with_the_remedy(tmp_path):
    file = write(tmp_path / "a.jsonl", {"text": "Ada", "tokens": ["Ada"], "tags": ["O"], "spans": [[0, 3, "PER"]]})
    with pytest.raises(DataError, match=r"row 0, column 'tags': expected spans of the form .*; found 'O'"):
        load(tmp_path, TEXT, {"ner": "tags"}, data_files={"train": file})
    with pytest.raises(
        DataError, match=r"row 0, column 'spans': .* give the `scheme` of the tags and the input `text`"
    ):
        load(tmp_path, TOKENS, {"ner": "spans"}, data_files={"train": file})


def test_whole_numbers_with_gaps_in_csv_are_class_numbers(tmp_path):
    file = write(tmp_path / "a.csv", "text,stars,more", "a,,1", "b,1,0", "c,10,1", "d,2,")
    loaded = load(tmp_path, TEXT, {"topic": "stars"}, path="csv", data_files={"train": file})
    assert loaded.splits["train"]["label:topic"][:] == [None, "1", "10", "2"]


def test_sets_of_classes_are_read_from_delimited_texts_and_zero_one_columns(tmp_path):
    rows = [{"text": "a", "y": "b", "toxic": 0, "insult": 1}, {"text": "b", "y": "a|b", "toxic": 1, "insult": 1}]
    file = write(tmp_path / "a.jsonl", *rows)
    with pytest.raises(DataError, match=r"row 0, column 'y': .*found 'b'\. .* give `labels\.tags` a `delimiter`"):
        load(tmp_path, TEXT, {"tags": "y"}, data_files={"train": file})
    cut = load(tmp_path, TEXT, {"tags": {"column": "y", "delimiter": "|"}}, data_files={"train": file})
    assert cut.splits["train"]["label:tags"][:] == [["b"], ["a", "b"]]
    flags = load(tmp_path, TEXT, {"tags": ["toxic", "insult"]}, data_files={"train": file})
    assert flags.splits["train"]["label:tags"][:] == [["insult"], ["insult", "toxic"]]
    assert flags.class_names == {"tags": ["toxic", "insult"]}
    with pytest.raises(DataError, match=r"^d/train: no column 'threat' \(for tags\)"):
        load(tmp_path, TEXT, {"tags": ["toxic", "threat"]}, data_files={"train": file})


@pytest.mark.parametrize("path", ["a.csv", "folder"])
def test_empty_cell_with_a_delimiter_is_a_set_without_names_in_csv_and_counted(tmp_path, path):
    (tmp_path / "folder").mkdir()
    for name in ("a.csv", "folder/a.csv"):
        write(tmp_path / name, "text,y", "a,x|z", "b,", "c,NA")
    loaded = load(tmp_path, TEXT, {"tags": {"column": "y", "delimiter": "|"}}, path=path)
    assert loaded.splits["train"]["label:tags"][:] == [["x", "z"], [], ["NA"]]
    assert loaded.splits["train"]["empty_cells"][:] == [0, 1, 0]


def test_names_are_those_of_class_labels_that_are_numbers(tmp_path):
    features = Features({"text": Value("string"), "y": ClassLabel(names=["1", "0"]), "z": ClassLabel(names=["a", "b"])})
    rows = Dataset.from_dict({"text": ["a", "b"], "y": [0, 1], "z": [0, 1]}, features=features)

    def canonical(column, names, **options):
        tasks = {"t": task_from_dict({"name": "t", "type": "text-classification", "names": names})}
        return canonical_rows(rows, "d", inputs=TEXT, labels={"t": column}, tasks=tasks, **options)["label:t"][:]

    assert canonical("y", ["neg", "pos"]) == ["pos", "neg"]
    assert canonical("y", ["neg", "pos"], label_map={"t": {"neg": "bad"}}) == ["pos", "bad"]
    assert canonical("z", ["b", "a"]) == ["a", "b"]
    with pytest.raises(DataError, match=r"^d, the `names` of the task have no name for the class 1\.$"):
        canonical("y", ["neg"])
    with pytest.raises(DataError, match=r"^d, column 'z': the classes have the names a, b already, so the `names`"):
        canonical("z", ["neg", "pos"])


def test_empty_tag_is_refused_and_empty_tag_of_a_file_with_its_line(tmp_path):
    file = write(tmp_path / "a.jsonl", {"tokens": ["a", "b"], "y": ["N", ""]})
    with pytest.raises(DataError, match=r"^d/train, row 0, column 'y': expected label names that are not empty"):
        load(tmp_path, TOKENS, {"pos": "y"}, data_files={"train": file})
    file = write(tmp_path / "a.conll", "a\tN", "b\t")
    with pytest.raises(DataError, match=r"a\.conll, line 2: the cell in column 'y' is empty"):
        load(tmp_path, TOKENS, {"pos": "y"}, path="conll", columns=["tokens", "y"], data_files={"train": file})


def test_word_without_annotation_in_a_treebank_has_no_label(tmp_path):
    file = write(
        tmp_path / "a.conllu", *(f"{n}\t{w}\t_\t{tag}" + "\t_" * 6 for n, w, tag in [(1, "a", "N"), (2, "b", "_")])
    )
    loaded = load(tmp_path, TOKENS, {"pos": "upos"}, path="conllu", data_files={"train": file})
    assert loaded.splits["train"]["label:pos"][:] == [["N", None]]


def test_integer_tags_need_names(tmp_path):
    file = write(tmp_path / "a.jsonl", {"tokens": ["a", "b"], "y": [1, 0]}, {"tokens": ["a", "b"], "y": [-100, 2]})
    with pytest.raises(DataError, match=r"found \[1, 0\]\. Give the numbers names under `tasks\.pos\.names`"):
        load(tmp_path, TOKENS, {"pos": "y"}, data_files={"train": file})
    data = {
        "encoder": "e",
        "output_dir": "o",
        "tasks": {"ner": {"type": "token-classification", "scheme": "iob2", "names": ["O", "B-PER", "I-PER"]}},
        "datasets": {"d": {"path": "json", "data_files": {"train": file}, "inputs": TOKENS, "labels": {"ner": "y"}}},
    }
    recipe = Recipe.from_dict(data, tmp_path)
    loaded = load_splits("d", recipe.datasets["d"], {"ner": recipe.task("ner")})
    assert loaded.splits["train"]["label:ner"][:] == [["B-PER", "O"], [None, "B-PER"]]
    assert loaded.class_names == {"ner": ["O", "B-PER", "I-PER"]}
    assert loaded.splits["train"]["repaired"][:] == [0, 1]


def test_weights_of_rows_are_numbers_and_one_if_missing(tmp_path):
    rows = [{"text": "a", "y": 1.0, "w": 2}, {"text": "b", "y": 1.0, "w": None}, {"text": "c", "y": 1.0, "w": 0.5}]
    file = write(tmp_path / "a.jsonl", *rows)
    found = load(tmp_path, TEXT, {"score": "y"}, data_files={"train": file}, weight="w")
    assert [row["weight"] for row in rows_of(found)] == [2.0, 1.0, 0.5]
    other = write(tmp_path / "b.jsonl", {"text": "a", "y": 1.0})
    files = {"train": file, "test": other}
    other_rows = rows_of(load(tmp_path, TEXT, {"score": "y"}, data_files=files, weight="w"), "test")
    assert other_rows[0].get("weight", 1.0) == 1.0
    for cut in ({}, {"splits": {"train": "train[:50%]", "test": "train[50%:]"}}, {"streaming": True}):
        with pytest.raises(DataError, match=r"^d/train: no column 'v' \(for weight\)"):
            load(tmp_path, TEXT, {"score": "y"}, data_files={"train": file}, weight="v", **cut)
    shares = {"train": "rows[:50%]", "test": "rows[50%:]"}
    with pytest.raises(DataError, match=r"^d/rows: no column 'v' \(for weight\)"):
        load(tmp_path, TEXT, {"score": "y"}, data_files={"rows": file}, weight="v", splits=shares)


@pytest.mark.parametrize("weight", [-1.0, True, "x", float("inf"), float("nan")])
def test_weight_that_is_not_valid_is_refused(tmp_path, weight):
    Dataset.from_dict({"text": ["a"], "y": [1.0], "w": [weight]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"row 0, column 'w': a weight should be a finite number of at least 0\. Found"):
        load(tmp_path, TEXT, {"score": "y"}, path="parquet", data_files={"train": "a.parquet"}, weight="w")
