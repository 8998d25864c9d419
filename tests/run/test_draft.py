from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from mtl_nlp.data.labels import unite_label_spaces
from mtl_nlp.data.loading import load_splits
from mtl_nlp.errors import DataError
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.draft import draft_recipe

REPOSITORY = Path(__file__).parents[2]
TEXTS = ["My invoice is wrong again", "The screen of my phone stays black", "I cannot log in to the page", "Thank you"]


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def drafted(tmp_path: Path, *files: Path) -> tuple[Recipe, str]:
    """Return the checked recipe for files, and its text."""
    text = draft_recipe(files, tmp_path / "recipe.yaml")
    write(tmp_path / "recipe.yaml", text)
    return Recipe.load(tmp_path / "recipe.yaml"), text


def tickets(path: Path) -> Path:
    rows = [
        f'{1000 + n},"{TEXTS[n % 4]}, number {n}",{("billing", "technical", "account", "other")[n % 4]},{n % 5 + 1},en,'
        for n in range(40)
    ]
    return write(path, "\n".join(["id,body,category,priority,language,note", *rows]) + "\n")


def conll_2003(folder: Path) -> list[Path]:
    sentence = ["EU NNP I-NP I-ORG", "rejects VBZ I-VP O", "German JJ I-NP I-MISC", "call NN I-NP O", ". . O O", ""]
    other = ["Peter NNP I-NP I-PER", "saw VBD I-VP O", "the DT I-NP O", "London NNP I-NP I-LOC", ""]
    text = "\n".join(["-DOCSTART- -X- O O", "", *sentence, *other] * 6) + "\n"
    return [write(folder / name, text) for name in ("eng.train", "eng.testa", "eng.testb")]


def nli(folder: Path) -> list[Path]:
    return [
        write(
            folder / f"snli_{split}.jsonl",
            "".join(
                json.dumps(
                    {
                        "pairID": f"p{n}",
                        "sentence1": f"A man number {n} is walking in a park",
                        "sentence2": f"Person {n} is outside today",
                        "gold_label": ("entailment", "neutral", "contradiction")[n % 3],
                        "score": n / 7,
                        "topics": [["sport", "news"], ["news"], []][n % 3],
                    }
                )
                + "\n"
                for n in range(30)
            ),
        )
        for split in ("train", "dev", "test")
    ]


def conllu(folder: Path) -> list[Path]:
    tags = [("The", "DET", "det"), ("dog", "NOUN", "nsubj"), ("sleeps", "VERB", "root"), (".", "PUNCT", "punct")]
    lines = [
        "# sent_id = {n}",
        *(f"{i}\t{form}\t{form.lower()}\t{upos}\t_\t_\t0\t{rel}\t_\t_" for i, (form, upos, rel) in enumerate(tags, 1)),
        "",
    ]
    text = "".join("\n".join(lines).replace("{n}", str(n)) + "\n" for n in range(30))
    return [write(folder / f"en_ewt-ud-{split}.conllu", text) for split in ("train", "dev", "test")]


def test_a_table_of_tickets_has_a_class_and_a_number(tmp_path):
    recipe, text = drafted(tmp_path, tickets(tmp_path / "tickets.csv"))
    assert recipe.tasks == {"category": {"type": "text-classification"}, "priority": {"type": "regression"}}
    (dataset,) = recipe.datasets.values()
    assert (list(recipe.datasets), dataset.inputs) == (["tickets"], {"text": "body"})
    assert dataset.validation_size == 0.1
    assert yaml.safe_load(text)["datasets"]["tickets"]["path"] == "tickets.csv"
    for line in (
        "priority: {type: regression}    # numbers from 1 to 5; for classes, write text-classification",
        "# id has no task: a different whole number in each row: an id",
        "# language has no task: always 'en'",
        "# note has no task: empty",
        "no file is for validation",
    ):
        assert line in text
    assert all("#" in line for line in text.splitlines() if "inputs:" in line or "type:" in line)
    assert recipe.training["save_strategy"] == "no"  # YAML 1.1 reads it without quotes as false


def test_columns_of_words_get_names_and_the_scheme(tmp_path):
    recipe, text = drafted(tmp_path, *conll_2003(tmp_path / "conll03"))
    assert recipe.tasks == {
        "pos": {"type": "token-classification"},
        "chunk": {"type": "token-classification", "scheme": "iob1"},
        "ner": {"type": "token-classification", "scheme": "iob1"},
    }
    (dataset,) = recipe.datasets.values()
    assert dataset.columns == ["tokens", "pos", "chunk", "ner"]
    assert list(dataset.data_files or {}) == ["train", "validation", "test"]
    assert "validation_size" not in text


def test_pairs_sets_and_numbers_are_found(tmp_path):
    recipe, text = drafted(tmp_path, *nli(tmp_path / "snli"))
    assert list(recipe.datasets) == ["snli"]
    assert recipe.datasets["snli"].inputs == {"text": "sentence1", "text_pair": "sentence2"}
    assert recipe.tasks == {
        "gold_label": {"type": "text-classification"},
        "score": {"type": "regression"},
        "topics": {"type": "multi-label-classification"},
    }
    assert "# pairID has no task: an id or a name, with 30 different values" in text


def test_treebanks_and_the_sample_corpus_are_known(tmp_path):
    recipe, _ = drafted(tmp_path, *conllu(tmp_path / "ud"))
    assert recipe.datasets["en_ewt_ud"].inputs == {"tokens": "tokens"}
    assert recipe.tasks.keys() >= {"upos", "deprel"}
    recipe, text = drafted(tmp_path, REPOSITORY / "recipes" / "sample_corpus")
    assert recipe.tasks == {
        "upos": {"type": "token-classification"},
        "ner": {"type": "token-classification", "scheme": "iob2"},
        "topic": {"type": "text-classification"},
    }
    files = recipe.datasets["sample_corpus"].data_files or {}
    assert {split: [Path(each).name for each in patterns] for split, patterns in files.items()} == {
        "train": ["*.conll"],
        "validation": ["*.conll"],
        "test": ["*.conll"],
    }
    assert "columns: [tokens, upos, ner]" in text


def test_datasets_share_a_task_if_they_share_labels(tmp_path):
    one = tickets(tmp_path / "one.csv")
    other = write(tmp_path / "other.csv", one.read_text())
    third = write(
        tmp_path / "third.tsv", "text\tcategory\n" + "a longer text here\tham\nsome other text too\tspam\n" * 9
    )
    recipe, _ = drafted(tmp_path, one, other, third)
    assert set(recipe.tasks) == {"category", "priority", "third_category"}
    assert Path(recipe.datasets["third"].path).name == "third.tsv"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.csv",
            "id,body\n1,one text here\n2,some other text\n3,a third text\n",
            r"^a: no column looks like labels\. ",
        ),
        ("a.csv", "n,m\n1,2\n2,1\n", r"^a: no column has texts or words\. The columns are n, m\."),
        ("a.csv", "n,m\n", r"a\.csv: the files have no rows\."),
        ("a.jsonl", "{\n", r"a\.jsonl, line 1: not JSON"),
        ("test.csv", "text,label\nx y z,a\n", r"test\.csv: there is no file for training\."),
        ("a.bin", "x\n", r"a\.bin: neither the ending nor the lines show a format\."),
    ],
)
def test_files_without_a_recipe_are_refused(tmp_path, name, text, message):
    with pytest.raises(DataError, match=message):
        draft_recipe([write(tmp_path / name, text)], tmp_path / "recipe.yaml")
    with pytest.raises(DataError, match=r"^There is no file /no/file\."):
        draft_recipe(["/no/file"], tmp_path / "recipe.yaml")


def test_names_with_line_breaks_and_control_characters_make_a_valid_recipe(tmp_path):
    notes, label = "Notes\n(free text)", "the\tlabel\n: #"
    rows = [f'"{TEXTS[n % 4]}, number {n}","note {n} of a person","{"xy"[n % 2]}"' for n in range(40)]
    file = write(tmp_path / "odd.csv", "\n".join([f'body,"{notes}","{label}"', *rows]) + "\n")
    recipe, text = drafted(tmp_path, file)
    assert recipe.datasets["odd"].labels == {"the label : #": label}
    assert f"# {'Notes (free text)'} has no task" in text


def test_tables_of_a_spreadsheet_sets_of_classes_and_spans_are_drafted_so_that_they_load(tmp_path):
    topics = ["news;sport", "sport", "news", "news; travel"]
    rows = [f'{TEXTS[n % 4]}, number {n};"{topics[n % 4]}"' for n in range(40)]
    sheet = write(tmp_path / "sheet.csv", "\n".join(["text;topics", *rows]) + "\n")
    flags = [f"{TEXTS[n % 4]} number {n}\t{n % 2}\t{n % 3 // 2}\t{n % 5 // 4}" for n in range(40)]
    flagged = [write(tmp_path / f"flags_{s}.tsv", "\n".join(["text\ta\tb\tc", *flags])) for s in ("train", "test")]
    spans = [{"text": f"Ada {n} lives here", "spans": [{"start": 0, "end": 3, "label": "PER"}]} for n in range(20)]
    marked = write(tmp_path / "marked.jsonl", "".join(json.dumps(row) + "\n" for row in spans))
    recipe, _ = drafted(tmp_path, sheet, *flagged, marked)
    assert recipe.datasets["sheet"].labels == {"topics": {"column": "topics", "delimiter": ";"}}
    assert recipe.datasets["sheet"].model_extra == {"sep": ";"}
    assert recipe.datasets["flags"].labels == {"labels": ["a", "b", "c"]}
    assert recipe.datasets["flags"].model_extra == {"sep": "\t"}
    assert recipe.tasks["spans"] == {"type": "token-classification", "scheme": "iob2"}
    tasks = {name: recipe.task(name) for name in recipe.tasks}
    loaded = {name: load_splits(name, dataset, tasks) for name, dataset in recipe.datasets.items()}
    spaces = unite_label_spaces(loaded, tasks).tasks
    assert {name: set(task.labels) for name, task in spaces.items()} == {
        "topics": {"news", "sport", "travel"},
        "labels": {"a", "b", "c"},
        "spans": {"O", "B-PER", "I-PER"},
    }
