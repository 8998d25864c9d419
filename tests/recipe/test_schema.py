from __future__ import annotations

import copy

import pytest
from plain_recipes import PLAIN, changed, write

from mtl_nlp.errors import RecipeError
from mtl_nlp.recipe.local_paths import relative_paths
from mtl_nlp.recipe.schema import Recipe


def test_a_recipe_loads_with_defaults(tmp_path):
    recipe = Recipe.load(write(tmp_path, PLAIN))
    assert list(recipe.tasks) == ["pos", "genre"]
    assert recipe.task("pos").kind.level == "token"
    assert recipe.mixture.temperature == 1.0
    assert recipe.loss.scale == "rows"


def test_relative_paths_are_resolved_against_the_folder_of_the_recipe(tmp_path):
    (tmp_path / "encoder").mkdir()
    recipe = Recipe.load(write(tmp_path, changed("encoder", "encoder")))
    files = recipe.datasets["ewt"].data_files
    assert files == {
        "train": [str(tmp_path / "train.jsonl")],
        "test": [str(tmp_path / "a.jsonl"), str(tmp_path / "b/*.jsonl")],
    }
    assert recipe.output_dir == str(tmp_path / "runs/x")
    assert recipe.encoder == str(tmp_path / "encoder")


def test_absolute_paths_urls_and_hub_ids_are_unchanged(tmp_path):
    data = changed("datasets.ewt.data_files", {"train": "/data/x.jsonl", "test": "https://host/y.jsonl"})
    data["datasets"]["hub"] = {**data["datasets"]["ewt"], "path": "user/set", "data_files": {"train": "x.jsonl"}}
    recipe = Recipe.load(write(tmp_path, data))
    assert recipe.encoder == "bert-base-cased"
    assert recipe.datasets["ewt"].data_files == {"train": ["/data/x.jsonl"], "test": ["https://host/y.jsonl"]}
    assert recipe.datasets["hub"].data_files == {"train": "x.jsonl"}


def test_a_folder_named_like_a_format_does_not_hide_the_format(tmp_path):
    (tmp_path / "json").mkdir()
    assert Recipe.load(write(tmp_path, PLAIN)).datasets["ewt"].path == "json"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("encodr", 1, r"^encodr: unknown key\. Did you mean 'encoder'"),
        ("mixture.temperatur", 1, r"^mixture\.temperatur: unknown key\. Did you mean 'temperature'"),
        ("loss.wieghts", {}, r"^loss\.wieghts: unknown key\. Did you mean 'weights'"),
        ("tasks.pos.shceme", "iob2", r"^tasks: Task 'pos': .* no option 'shceme'\. Did you mean 'scheme'"),
        ("tasks.pos.labels", ["A"], r"leave out `labels` \(taken from the data\) and `name` \(the task's key\)"),
        ("tasks.pos.name", "x", r"leave out `labels` \(taken from the data\) and `name` \(the task's key\)"),
        ("datasets.ewt.inputs", {"token": "x"}, r"^datasets\.ewt\.inputs: no such input 'token'.*'tokens'"),
        ("datasets.ewt.splits", {"valid": "x"}, r"^datasets\.ewt\.splits: no such split 'valid'.*'validation'"),
        ("datasets.ewt.data_files.dev", "x", r"^datasets\.ewt: `data_files` names 'dev', which is neither a split"),
        ("datasets.ewt.labels.gnre", "x", r"^datasets\.ewt\.labels\.gnre: no such task\. Did you mean 'genre'"),
        ("loss.weights", {"gnre": 1}, r"^loss\.weights\.gnre: no such task\. Did you mean 'genre'"),
        ("mixture.size_kap", 1, r"^mixture\.size_kap: unknown key\. Did you mean 'size_cap'"),
        ("adapters", {"rank": 8}, r"^adapters\.rank: unknown key\. "),
        ("datasets.ewt.max_rows", {"valid": 1}, r"^datasets\.ewt\.max_rows: no such split 'valid'.*'validation'"),
        ("baselines.task", {}, r"^baselines\.task: unknown key\. Did you mean 'tasks'"),
        (
            "baselines.tasks.pos",
            {"trainin": {}},
            r"^baselines\.tasks\.pos\.trainin: unknown key\. Did you mean 'training'",
        ),
        ("baselines.tasks.gnre", {}, r"^baselines\.tasks\.gnre: no such task\. Did you mean 'genre'"),
        ("card.example", True, r"^card\.example: unknown key\. Did you mean 'examples'"),
        ("mixture.probabilities", {"etw": 1}, r"^mixture: `probabilities` names 'etw', .* Did you mean 'ewt'"),
    ],
)
def test_unknown_name_is_refused_with_the_nearest_valid_name(key, value, message):
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict(changed(key, value))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("encoder", 3, r"^encoder: .*text\. Found 3"),
        ("max_length", True, r"^max_length: should be a number\. Found True"),
        ("adapters", {"r": True}, r"^adapters\.r: should be a number\. Found True"),
        ("mixture.temperature", [5, True], r"^mixture\.temperature: should be a number\. Found True"),
        ("mixture.probabilities", {"ewt": True}, r"^mixture\.probabilities\.ewt: should be a number\. Found True"),
        (
            "mixture.probabilities",
            {"ewt": float("nan")},
            r"^mixture\.probabilities\.ewt: should be at most 1\. Found nan",
        ),
        ("datasets.ewt.max_rows", {"train": True}, r"^datasets\.ewt\.max_rows\.train: should be a number\. Found True"),
        (
            "datasets.ewt.validation_size",
            float("nan"),
            r"^datasets\.ewt\.validation_size: should be above 0\. Found nan",
        ),
        ("datasets.ewt.labels.pos", False, r"\. Found False\. YAML reads it so; write it in quotes$"),
        ("mixture.temperature", "hot", r"^mixture\.temperature: .*number.*'hot'"),
        ("mixture.temperature", 0, r"^mixture: `temperature` should be above 0.*Found 0\.0"),
        ("mixture.temperature", [5, 0], r"^mixture: `temperature` should be above 0.*Found \[5\.0, 0\.0\]"),
        ("mixture.temperature", [5, 1, 2], r"^mixture: `temperature` .*two such values\. Found \[5\.0, 1\.0, 2\.0\]"),
        ("mixture.temperature", [5, "hot"], r"^mixture\.temperature: .*\[5, 'hot'\]"),
        ("mixture.temperature", [1, float("inf")], r"^mixture: `temperature` can only move between finite values"),
        ("mixture.size_cap", 0, r"^mixture\.size_cap: should be at least 1\. Found 0"),
        ("mixture.size_cap", 1.5, r"^mixture\.size_cap: .*integer.*Found 1\.5"),
        ("mixture.max_repeats", 0.5, r"^mixture\.max_repeats: should be at least 1\. Found 0\.5"),
        ("mixture.batching", "mixd", r"^mixture\.batching: .*'mixed' or 'homogeneous'\. Found 'mixd'"),
        ("mixture.length_window", 0, r"^mixture\.length_window: should be at least 1\. Found 0"),
        ("mixture.probabilities", {"ewt": 0.5}, r"^mixture: `probabilities` should sum to 1\. Found 0\.5"),
        ("mixture.probabilities", {"ewt": 0}, r"^mixture\.probabilities\.ewt: should be above 0\. Found 0"),
        ("mixture.probabilities", {}, r"^mixture: `probabilities` should name every dataset\. 'ewt' is missing"),
        ("mixture.probabilities", {"ewt": "all"}, r"^mixture\.probabilities\.ewt: .*number.*Found 'all'"),
        ("mixture", 3, r"^mixture: should be a section with the keys temperature, .*Found 3"),
        ("mixture.headroom", True, r"^mixture: `headroom` needs at least two datasets\. Found only 'ewt'"),
        ("mixture.headroom", [1], r"^mixture\.headroom: .*true or false.*Found \[1\]"),
        ("loss.gradients", "pcgard", r"^loss\.gradients: .*Found 'pcgard'\. Did you mean 'pcgrad'\?"),
        ("loss.freeze_when_overfit", {"patients": 2}, r"^loss\.freeze_when_overfit\.patients: unknown key.*'patience'"),
        ("loss.weighting", "dwaa", r"^loss\.weighting: .*'static', 'uncertainty', 'dwa'.*Found 'dwaa'"),
        (
            "loss",
            {"weighting": "dwa", "weights": {"pos": 1}},
            r"^loss: `weights` are for `weighting: static`, and `dwa`",
        ),
        ("loss.weighting_kwargs", 3, r"^loss\.weighting_kwargs: .*section.*Found 3"),
        (
            "loss.weights",
            dict.fromkeys(("pos", "genre"), 0),
            r"^loss\.weights: .* Found 0 for every task at the start",
        ),
        ("loss.on_nonfinite", "go", r"^loss\.on_nonfinite: .*'stop' or 'skip'.*'go'"),
        ("loss.scale", "x", r"^loss\.scale: .*'rows' or 'per_task'.*'x'"),
        ("loss.weights", {"pos": -1}, r"^loss\.weights\.pos: should be finite and at least 0\. Found -1\.0"),
        ("loss.weights", {"pos": float("nan")}, r"^loss\.weights\.pos: should be finite and at least 0\. Found nan"),
        ("loss.weights", {"pos": [1, -1]}, r"^loss\.weights\.pos: .*at least 0\. Found \[1\.0, -1\.0\]"),
        (
            "loss.weights",
            {"pos": [1, 2, 3]},
            r"^loss\.weights\.pos: .*number or a pair of numbers\. Found \[1\.0, 2\.0, 3",
        ),
        ("loss.weights", {"pos": True}, r"^loss\.weights\.pos: should be a number or a pair of numbers\. Found True$"),
        ("loss.weights", {"pos": [1, False]}, r"^loss\.weights\.pos: should be .*\. Found \[1, False\]$"),
        ("loss.every", "x", r"^loss\.every: should be an integer\. Found 'x'$"),
        ("analysis.conflict_every", 0, r"^analysis\.conflict_every: should be at least 1\. Found 0$"),
        ("mixture.headroom", 3, r"^mixture\.headroom: should be true or false or a text\. Found 3$"),
        (
            "loss.freeze_when_overfit",
            {"patience": 0},
            r"^loss\.freeze_when_overfit\.patience: .*at least 1\. Found 0",
        ),
        ("loss.freeze_when_overfit", {}, r"^loss\.freeze_when_overfit\.patience: this key is missing"),
        (
            "loss.freeze_when_overfit",
            2,
            r"^loss\.freeze_when_overfit: should be a section with the keys patience",
        ),
        ("loss.freeze_when_overfit", {"patence": 2}, r"^loss\.freeze_when_overfit\.(patience|patence): "),
        ("loss.weights", {"pos": "much"}, r"^loss\.weights\.pos: .*number.*Found 'much'"),
        ("loss.weights", {"pos": 0, "genre": [1, 0]}, r"^loss\.weights: .*Found 0 for every task at the end"),
        ("max_length", 4, r"^max_length: .*at least 8"),
        ("training", [1], r"^training: .*section"),
        ("tasks.pos", None, r"^tasks\.pos: should be a section with keys and values\. Found None"),
        ("tasks.pos.type", ["x"], r"^tasks: Task 'pos': `type` should be one of .*'x'"),
        ("tasks.pos.type", "tagging", r"^tasks: Task 'pos': `type` should be one of .*'tagging'"),
        ("tasks.genre.metrics", ["macro_f2"], r"^tasks: Task 'genre': `metrics`: .*Did you mean 'macro_f1'"),
        ("tasks.genre.primary", "f1", r"^tasks: Task 'genre': `primary`: .*Found 'f1'.*Valid: accuracy, balanced_"),
        ("tasks.pos.scheme", "bio", r"^tasks: Task 'pos': `scheme` should be one of iob2.*'bio'"),
        ("tasks.pos.scheme", 2, r"^tasks: Task 'pos': `scheme` should be one of .*2"),
        ("datasets.ewt", "x", r"^datasets\.ewt: should be a section with the keys path, "),
        ("datasets.ewt.data_files", [], r"^datasets\.ewt\.data_files: should be a file.*Found \[\]"),
        ("datasets.ewt.data_files.train", 3, r"^datasets\.ewt\.data_files: should be a file.*Found 3"),
        ("datasets.ewt.labels", {}, r"^datasets\.ewt\.labels: name at least one task"),
        ("datasets.ewt.validation_size", 0, r"^datasets\.ewt\.validation_size.*above 0"),
        (
            "datasets.ewt.max_rows",
            {"train": 0},
            r"^datasets\.ewt\.max_rows\.train: .*at least 1\. Found 0",
        ),
        ("datasets.ewt.max_rows", {"train": 1.5}, r"^datasets\.ewt\.max_rows\.train: .*integer.*Found 1\.5"),
        ("datasets.ewt.max_rows", 4000, r"^datasets\.ewt\.max_rows: .*section.*\. Found 4000"),
        ("baselines", {"training": 3}, r"^baselines\.training: .*section.*\. Found 3"),
        ("card.examples", "some", r"^card\.examples: .*true or false.*Found 'some'"),
        ("card.examples", "${SHOW}", r"^card\.examples: .*true or false.*Found '\$\{SHOW\}'"),
        ("datasets.ewt.path", ..., r"^datasets\.ewt\.path: this key is missing"),
        ("adapters", {"r": 0}, r"^adapters\.r: .*at least 1\. Found 0"),
        ("adapters", {"target_modules": "query"}, r"^adapters\.target_modules.*: .*Found 'query'"),
        ("adapters", {"tasks": "pos"}, r"^adapters\.tasks.*: .*Found 'pos'"),
        ("adapters", {"tasks": ["poss"]}, r"^adapters\.tasks: no such task 'poss'\. Did you mean 'pos'"),
        ("adapters", {"target_modules": []}, r"^adapters\.target_modules.*at least 1"),
        ("adapters", {"tasks": ["pos", "pos"]}, r"^adapters: `tasks` should name each task once"),
        ("adapters", {"tasks": []}, r"^adapters: `tasks` is empty and `shared` is false"),
        ("adapters", {"pull": -1}, r"^adapters\.pull: should be at least 0\. Found -1"),
        ("adapters", {"pull": float("inf")}, r"^adapters\.pull: should be at most 3\.40282e\+38\. Found inf"),
        ("adapters", {"dropout": 1.0}, r"^adapters\.dropout: .*below 1"),
        ("adapters", {"use_dora": True, "shared": True}, r"^adapters: `use_dora` cannot be combined with `shared`"),
        ("adapters", {"use_dora": True, "pull": 0.1}, r"^adapters: `use_dora` cannot be combined with .* or `pull`"),
        ("freeze", "encoder", r"^freeze: .*list\. Found 'encoder'"),
        ("tasks", ..., r"^tasks: this key is missing"),
        ("tasks", {}, r"^tasks: .*at least 1"),
    ],
)
def test_invalid_value_is_named_with_its_key(key, value, message):
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict(changed(key, value))


@pytest.mark.parametrize("other", [{"temperature": 2}, {"size_cap": 9}, {"max_repeats": 2}])
def test_probabilities_exclude_the_settings_that_they_replace(other):
    with pytest.raises(RecipeError, match=r"^mixture: `probabilities` cannot be combined with"):
        Recipe.from_dict(changed("mixture", {"probabilities": {"ewt": 1.0}, **other}))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"text": "text"}, r"^datasets\.ewt\.labels\.pos: a token-classification task needs the input `tokens`.*text"),
        ({"text": "a", "tokens": "b"}, "give either `tokens` or `text`"),
        ({"text_pair": "a"}, "give either `tokens` or `text`"),
        ({"tokens": "a", "text_pair": "b"}, "`text_pair` needs `text` and cannot be combined with `tokens`"),
    ],
)
def test_inputs_must_fit_the_tasks(inputs, message):
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict(changed("datasets.ewt.inputs", inputs))


def test_task_without_a_dataset_is_named():
    with pytest.raises(RecipeError, match=r"^tasks\.ner: no dataset has labels for this task"):
        Recipe.from_dict(changed("tasks.ner", {"type": "token-classification"}))


def test_resolved_recipe_loads_to_an_equal_recipe_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MTL_ENCODER", "from-environment")
    data = changed("datasets.ewt.sep", ";") | {
        "encoder": "${MTL_ENCODER}",
        "mixture": {"temperature": [5, 0.5], "max_repeats": 4, "length_window": 10},
        "loss": {"weights": {"pos": 0.5}},
        "training": {"learning_rate": 3.0e-4, "report_to": ["none"]},
    }
    first = Recipe.load(write(tmp_path, data), ["max_length=64"])
    (tmp_path / "elsewhere").mkdir()
    again = Recipe.load(write(tmp_path / "elsewhere", first.to_yaml()))
    assert again == first
    assert again.sha256() == first.sha256()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_length", 64),
        ("encoder", "bert-base-uncased"),
        ("tasks.genre.pooling", "mean"),
        ("datasets.ewt.labels.pos", "xpos"),
        ("datasets.ewt.data_files.train", "more.jsonl"),
        ("datasets.ewt.validation_size", 0.5),
        ("mixture.temperature", 2.0),
        ("loss.weights", {"pos": 0.5}),
        ("adapters", {"r": 4}),
        ("training.seed", 7),
        ("card.license", "mit"),
        ("datasets.ewt.max_rows", {"train": 10}),
    ],
)
def test_the_fingerprint_changes_with_any_key(key, value):
    assert Recipe.from_dict(PLAIN).sha256() != Recipe.from_dict(changed(key, value)).sha256()


def test_fingerprint_does_not_depend_on_the_location_of_recipe_data_encoder_and_output(tmp_path):
    data = changed("datasets.folder", {**PLAIN["datasets"]["ewt"], "path": "corpus", "data_files": None})
    data |= {"encoder": "models/bert", "training": {"deepspeed": "${CONFIGS}/ds.json"}}
    found = set()
    for place in ("here", "over/there"):
        for folder in ("corpus", "models/bert"):
            (tmp_path / place / folder).mkdir(parents=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CONFIGS", str(tmp_path / place))
            found.add(Recipe.load(write(tmp_path / place, data)).sha256())
            found.add(Recipe.load(write(tmp_path / place, data), ["output_dir=/elsewhere"]).sha256())
            shared = relative_paths(Recipe.load(write(tmp_path / place, data)).model_dump(exclude_defaults=True))
            found.add(Recipe.model_validate(shared).sha256())
    assert len(found) == 1


def test_fingerprint_is_equal_for_data_beside_and_apart_from_the_recipe(tmp_path):
    files = {"train": "corpus/train.jsonl", "test": ["corpus/a.jsonl", "corpus/b/*.jsonl"]}
    beside = Recipe.load(write(tmp_path, changed("datasets.ewt.data_files", files)))
    apart = {"train": "/data/v2/train.jsonl", "test": ["/data/v2/a.jsonl", "/data/v2/b/*.jsonl"]}
    assert beside.sha256() == Recipe.from_dict(changed("datasets.ewt.data_files", apart)).sha256()


@pytest.mark.parametrize("name", ["encoder", "shared"])
def test_task_name_must_differ_from_the_names_of_model_parts(name):
    data = copy.deepcopy(PLAIN)
    data["tasks"][name] = {"type": "text-classification"}
    data["datasets"]["ewt"]["labels"][name] = "x"
    assert name in Recipe.from_dict(data).tasks
    for more in ({"adapters": {}}, {"freeze": ["encoder"]}):
        with pytest.raises(RecipeError, match=rf"^tasks\.{name}: with `adapters` or `freeze`, '{name}' is"):
            Recipe.from_dict({**data, **more})


def test_all_tasks_have_adapters_unless_some_are_named():
    assert Recipe.from_dict(changed("adapters", {})).adapted_tasks == list(
        Recipe.from_dict(changed("adapters", {})).tasks
    )
    assert Recipe.from_dict(changed("adapters", {"tasks": ["pos"]})).adapted_tasks == ["pos"]
    assert Recipe.from_dict(changed("freeze", [])).adapted_tasks == []


BASELINES = {
    "training": {"learning_rate": 2.0e-4},
    "tasks": {"pos": {"training": {"learning_rate": 1.0e-4, "seed": 3}}},
}


def test_baselines_override_the_training_of_the_recipe_task_by_task():
    recipe = Recipe.from_dict(
        changed("training", {"learning_rate": 1.0, "num_train_epochs": 2}) | {"baselines": BASELINES}
    )
    assert recipe.baseline_training("genre") == {"learning_rate": 2.0e-4, "num_train_epochs": 2}
    assert recipe.baseline_training("pos") == {"learning_rate": 1.0e-4, "num_train_epochs": 2, "seed": 3}
    assert recipe.training == {"learning_rate": 1.0, "num_train_epochs": 2}


def test_baselines_are_kept_and_not_part_of_the_fingerprint_of_the_run(tmp_path):
    recipe = Recipe.from_dict(changed("baselines", BASELINES))
    assert Recipe.load(write(tmp_path, recipe.to_yaml())) == recipe
    assert recipe.sha256() == Recipe.from_dict(PLAIN).sha256()


def test_rows_cannot_be_drawn_from_a_stream():
    data = changed("datasets.ewt.max_rows", {"test": 5})
    data["datasets"]["ewt"]["streaming"] = True
    assert Recipe.from_dict(data).datasets["ewt"].max_rows == {"test": 5}
    data["datasets"]["ewt"]["max_rows"] = {"train": 5}
    with pytest.raises(RecipeError, match=r"^datasets\.ewt: rows cannot be drawn from a stream\. Leave out `max_rows"):
        Recipe.from_dict(data)


def test_a_recipe_shows_itself_as_yaml_with_its_variables(monkeypatch):
    monkeypatch.setenv("SECRET_FOLDER", "/secret/folder")
    shown = repr(Recipe.from_written({**PLAIN, "output_dir": "${SECRET_FOLDER}"}))
    assert 'output_dir: "${SECRET_FOLDER}"' in shown
    assert "/secret" not in shown
