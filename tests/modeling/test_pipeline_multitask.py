"""The pipeline answers every input shape, every task and every word with one encoder pass per batch."""

import gc
import itertools
import re
import tracemalloc
from collections import UserDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from toys import build_config, build_model, build_tokenizer, lively_model, liven_adapters
from transformers import AutoModel, AutoTokenizer, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from mtl_nlp import MultiLabelClassification, MultitaskModel, Regression, TextClassification, TokenClassification
from mtl_nlp.modeling.pipeline_multitask import parse_input
from mtl_nlp.modeling.windows_multitask import tokenize_words
from mtl_nlp.modeling.words_multitask import split_words

TASKS = [
    TokenClassification(name="pos", labels=["NOUN", "VERB", "ADJ"]),
    TokenClassification(name="ner", labels=["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], scheme="iob2"),
    TextClassification(name="topic", labels=["news", "sport", "travel"]),
    MultiLabelClassification(name="tags", labels=["urgent", "angry"]),
    Regression(name="score"),
]
LONG = "Ada Lovelace can't live in Paris, near the river bank. " * 12
INPUTS = [
    "The quick brown fox jumps.",
    {"text": "Ada lives in Paris.", "text_pair": "She works there."},
    {"tokens": ["Ada", "lives", "", "in", "Paris", "."]},
    "",
    LONG,
    {"text": LONG, "text_pair": LONG},
    "ünïcode 😀 עולם \u200b cafe\u0301",
    {"tokens": []},
    "half a \ud83d pair",
    {"tokens": ["\ude00", "x"]},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("multitask")
    model = build_model(TASKS)
    for head in model.heads:  # uneven logits, so that spans are found
        head.stock.classifier.weight.data *= 40
    model.save_pretrained(folder)
    build_tokenizer("wordpiece").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def answer(folder):
    return pipeline("multitask", model=folder, device="cpu")


def assert_close(one, other):
    """Check that answers are equal, with scores equal to 1e-5."""
    assert one.keys() == other.keys()
    for name in one:
        without_scores = [[{k: v for k, v in entry.items() if k != "score"} for entry in a[name]] for a in (one, other)]
        assert without_scores[0] == without_scores[1]
        scores = [[entry["score"] for entry in a[name]] for a in (one, other)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)


def test_all_tasks_answer_in_order(answer):
    answers = answer(INPUTS[0])
    assert list(answers) == [task.name for task in TASKS]
    assert [entry["word"] for entry in answers["pos"]] == ["The", "quick", "brown", "fox", "jumps", "."]
    assert answers["pos"][0].keys() == {"word", "label", "score", "start", "end", "index"}
    assert answers["topic"][0].keys() == {"label", "score"}
    assert answers["score"][0]["label"] == "score"


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_lists_generators_and_batch_sizes_give_the_answers_of_single_inputs(answer, batch_size):
    single = [answer(item) for item in INPUTS]
    listed = answer(INPUTS, batch_size=batch_size)
    generated = list(answer((item for item in INPUTS), batch_size=batch_size))
    assert len(single) == len(listed) == len(generated) == len(INPUTS)
    for one, other, third in zip(single, listed, generated, strict=True):
        assert_close(one, other)
        assert_close(one, third)


def test_one_encoder_pass_serves_a_batch_and_all_tasks(answer):
    passes = []
    hook = answer.model.encoder.register_forward_hook(lambda *_: passes.append(1))
    answer(["Ada lives in Paris."] * 16, batch_size=8)
    hook.remove()
    assert len(passes) == 2


@pytest.mark.parametrize("item", INPUTS, ids=range(len(INPUTS)))
def test_offsets_slice_the_text(answer, item):
    text, _ = parse_input(item)
    answers = answer(item)
    for entry in answers["pos"] + answers["ner"]:
        assert text[entry["start"] : entry["end"]] == entry["word"]


def test_every_word_of_a_long_text_has_one_answer_in_order(answer):
    words = split_words(LONG)
    entries = answer(LONG)["pos"]
    assert [(entry["word"], entry["start"], entry["end"]) for entry in entries] == words
    assert [entry["index"] for entry in entries] == list(range(1, len(words) + 1))


def test_windows_follow_the_model_configuration(answer, monkeypatch):
    monkeypatch.setattr(answer.model.config, "max_length", 20)
    monkeypatch.setattr(answer.model.config, "stride", 9)
    words = [word.text for word in split_words(LONG)]
    expected = tokenize_words(answer.tokenizer, [words], max_length=20, stride=9)[0]
    assert answer.preprocess([LONG])[0].windows == expected


def test_later_windows_do_not_change_earlier_words(answer):
    short, long = (answer(LONG + tail)["pos"][:20] for tail in ("", "fox " * 100))
    assert_close({"pos": short}, {"pos": long})


def test_truncated_pair_answers_for_its_remaining_words(answer):
    entries = answer({"text": LONG, "text_pair": LONG})["pos"]
    words = split_words(LONG)
    assert 0 < len(entries) < len(words)
    assert [(entry["word"], entry["start"], entry["end"]) for entry in entries] == words[: len(entries)]


def test_second_text_of_a_pair_is_read(answer):
    one, other = (answer({"text": "Ada lives.", "text_pair": pair})["score"] for pair in ("Yes .", "Not in Paris ."))
    assert one != other


def test_a_single_text_has_no_answer_of_a_pair_task_unless_asked_for(answer, monkeypatch):
    monkeypatch.setattr(answer.model.config, "pair_tasks", ["score"])
    everything = answer({"text": "Ada lives.", "text_pair": "Yes."})
    one = answer("Ada lives.")
    assert list(one) == [name for name in everything if name != "score"]
    assert list(answer("Ada lives.", tasks=["score"])) == ["score"]
    monkeypatch.setattr(answer.model.config, "pair_tasks", list(everything))
    assert list(answer("Ada lives.")) == list(everything)


def test_given_tokens_are_not_split_further(answer):
    entries = answer({"tokens": ["can't", "New York", ""]})["pos"]
    assert [(entry["word"], entry["start"], entry["end"]) for entry in entries] == [
        ("can't", 0, 5),
        ("New York", 6, 14),
        ("", 15, 15),
    ]


def test_tokens_that_were_added_to_the_tokenizer_stay_whole(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["[E1]", "[/E1]", "<user>"])
    answer = pipeline("multitask", model=folder, tokenizer=tokenizer, device="cpu")
    words = ["[E1]", "Ada", "[/E1]", "lives", "near", "<user>"]
    (in_text,) = answer.preprocess([" ".join(words)])
    assert [word.text for word in in_text.words] == words
    (of_words,) = answer.preprocess([{"tokens": words}])
    assert in_text.windows == of_words.windows
    (pair,) = answer.preprocess([{"text": "Ada", "text_pair": "near <user>"}])
    assert tokenizer.convert_tokens_to_ids("<user>") in pair.windows[0].input_ids
    assert [entry["word"] for entry in answer(" ".join(words))["pos"]] == words


def test_spans_are_found_and_legal(answer):
    spans = answer(LONG)["ner"]
    assert spans
    assert all(span.keys() == {"entity_group", "score", "word", "start", "end"} for span in spans)
    assert all(one["end"] <= other["start"] for one, other in itertools.pairwise(spans))


def test_empty_text_has_a_class_and_no_words(answer):
    answers = answer("")
    assert answers["pos"] == answers["ner"] == []
    assert len(answers["topic"]) == 1


@pytest.mark.parametrize("tasks", [["score"], ["ner", "topic"]])
def test_only_requested_tasks_answer(answer, tasks):
    assert list(answer(INPUTS[0], tasks=tasks)) == tasks
    assert set(answer(INPUTS[0])) == {task.name for task in TASKS}


@pytest.mark.parametrize(("top_k", "count"), [(1, 1), (2, 2), (None, 3), (9, 3)])
def test_top_k_classes_are_shown_best_first(answer, top_k, count):
    classes = answer(INPUTS[0], top_k=top_k)["topic"]
    assert len(classes) == count
    assert classes == sorted(classes, key=lambda entry: -entry["score"])
    if count == 3:
        assert sum(entry["score"] for entry in classes) == pytest.approx(1)


def test_constructor_options_hold_unless_a_call_overrides_them(folder):
    answer = pipeline("multitask", model=folder, device="cpu", tasks=["topic"], top_k=None)
    assert {name: len(entries) for name, entries in answer(INPUTS[0]).items()} == {"topic": 3}
    assert {name: len(entries) for name, entries in answer(INPUTS[0], top_k=2).items()} == {"topic": 2}
    assert list(answer(INPUTS[0], tasks=["score"])) == ["score"]


def test_model_without_word_tasks_reads_raw_texts(tmp_path):
    build_model(TASKS[2:]).save_pretrained(tmp_path)
    build_tokenizer("wordpiece").save_pretrained(tmp_path)
    answer = pipeline("multitask", model=str(tmp_path), device="cpu")
    single = [answer(item) for item in INPUTS]
    for one, other in zip(single, answer(INPUTS, batch_size=8), strict=True):
        assert_close(one, other)
    ids = answer.tokenizer(INPUTS[0], return_tensors="pt")
    assert single[0]["score"][0]["score"] == pytest.approx(answer.model(**ids).logits["score"].item(), abs=1e-5)


def test_unknown_task_is_refused_with_the_valid_tasks(answer):
    with pytest.raises(ValueError, match=r"No task 'pso' in this model\. The model has pos, ner, topic, tags, score"):
        answer("Hi", tasks=["pso"])


def test_unknown_option_is_refused(answer):
    with pytest.raises(ValueError, match=r"accepts `tasks` and `top_k`\. Found topk"):
        answer("Hi", topk=3)


@pytest.mark.parametrize(
    "item",
    [3, None, {}, {"txt": "a"}, {"text": 3}, {"tokens": "abc"}, {"tokens": None}, {"tokens": [1]}, {"text_pair": "a"}],
)
def test_wrong_input_is_refused_with_the_valid_formats(item):
    with pytest.raises(ValueError, match=r'accepts a text, {"text": …, "text_pair": …} or {"tokens": \[...\]}. Found'):
        parse_input(item)


FORMATS = r'The multitask pipeline accepts a text, {"text": …, "text_pair": …} or {"tokens": \[\.\.\.\]}\. Found'
WRONG_INPUTS = [
    *(3, None, True, b"bytes", bytearray(b"bytes"), {}, {1: "a"}, UserDict(text="a")),
    *({"txt": "a"}, {"text": 3}, {"text": None}, {"text": b"a"}, {"text": "a", "id": 1}, {"text_pair": "a"}),
    *({"text": "a", "text_pair": None}, {"text": "a", "text_pair": ["b"]}, {"text": "a", "tokens": ["a"]}),
    *({"tokens": "abc"}, {"tokens": None}, {"tokens": [1]}, {"tokens": [["a"]]}, {"tokens": [b"a"]}),
]


@pytest.fixture
def passes(answer) -> Iterator[list[int]]:
    """The encoder passes during a test, as a list with an entry per pass."""
    found: list[int] = []
    hook = answer.model.encoder.register_forward_hook(lambda *_: found.append(1))
    yield found
    hook.remove()


@pytest.mark.parametrize("item", WRONG_INPUTS)
def test_wrong_input_is_refused_before_the_model_runs(answer, passes, item):
    with pytest.raises(ValueError, match=f"^{FORMATS}"):
        answer(item)
    for batch_size in (1, 2):
        with pytest.raises(ValueError, match=rf"^inputs\[2\]: {FORMATS}"):
            answer(["Ada", "fox", item], batch_size=batch_size)
    with pytest.raises(ValueError, match=rf"^inputs\[2\]: {FORMATS}"):
        next(answer((each for each in ["Ada", "fox", item]), batch_size=2))
    assert not passes


@pytest.mark.parametrize("item", [["a"], ("a", "b"), [], [{"role": "user", "content": "a"}]])
def test_nested_lists_are_refused_with_the_number_of_the_input(answer, passes, item):
    for inputs in ([item], (item,), iter([item])):
        with pytest.raises(ValueError, match=rf"^inputs\[0\]: {FORMATS}"):
            answer(inputs)
    assert not passes


def test_generator_is_answered_up_to_a_wrong_input(answer):
    answers = answer((item for item in ["Ada", "fox", 3]), batch_size=1)
    assert [len(next(answers)["pos"]) for _ in range(2)] == [1, 1]
    with pytest.raises(ValueError, match=rf"^inputs\[2\]: {FORMATS} 3\."):
        next(answers)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, 2.0, True, False, "2", [2], float("nan")])
def test_batch_size_that_is_not_a_positive_integer_is_refused(folder, answer, passes, batch_size):
    message = rf"^`batch_size` should be an integer of at least 1\. Found {re.escape(repr(batch_size))}\.$"
    for inputs in ("Ada", ["Ada"], [], (text for text in ["Ada"])):
        with pytest.raises(ValueError, match=message):
            answer(inputs, batch_size=batch_size)
    with pytest.raises(ValueError, match=message):
        pipeline("multitask", model=folder, batch_size=batch_size)
    assert not passes


@pytest.mark.parametrize("top_k", [0, -1, 1.5, "x", "1", True, False, [1], float("nan")])
def test_top_k_that_is_not_a_positive_integer_is_refused(folder, answer, passes, top_k):
    message = (
        rf"^`top_k` should be an integer of at least 1, or None for all classes\. Found {re.escape(repr(top_k))}\.$"
    )
    for inputs in ("Ada", ["Ada"], (text for text in ["Ada"])):
        with pytest.raises(ValueError, match=message):
            answer(inputs, top_k=top_k)
    with pytest.raises(ValueError, match=message):
        pipeline("multitask", model=folder, top_k=top_k)
    assert not passes


def test_one_name_stands_for_one_task(answer):
    assert answer("Ada", tasks="ner") == answer("Ada", tasks=["ner"])


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        *((wrong, "`tasks` should be a list with at least one task") for wrong in ([], (), {}, 3, True, b"ner")),
        *((["ner", wrong], "No task .* in this model") for wrong in (None, 3, "", ["pos"], {"ner"})),
        ("slots", "No task 'slots' in this model"),
    ],
)
def test_tasks_that_are_not_a_list_of_tasks_are_refused(folder, answer, passes, tasks, message):
    for inputs in ("Ada", ["Ada"], (text for text in ["Ada"])):
        with pytest.raises(ValueError, match=rf"^{message}.* The model has pos, ner, topic, tags, score\.$"):
            answer(inputs, tasks=tasks)
    with pytest.raises(ValueError, match=message):
        pipeline("multitask", model=folder, tasks=tasks)
    assert not passes


def test_integers_and_lists_of_any_kind_are_accepted(answer):
    expected = answer(["Ada", "fox"], batch_size=2, top_k=2, tasks=["topic", "ner"])
    options = {"batch_size": np.int64(2), "top_k": np.int64(2)}
    assert answer(["Ada", "fox"], **options, tasks=("topic", "ner", "topic")) == expected
    assert answer(["Ada", "fox"], **options, tasks=iter(["topic", "ner"])) == expected
    assert list(expected[0]) == ["ner", "topic"]


def test_model_without_tasks_is_refused():
    encoder = AutoModel.from_config(build_config("bert"))
    with pytest.raises(ValueError, match="needs a multitask model"):
        pipeline("multitask", model=encoder, tokenizer=build_tokenizer("wordpiece"))


def test_batches_hold_texts_of_similar_length_in_any_order(answer):
    texts = ["fox"] * 8 + ["the lazy dog " * 5] * 8
    shapes = []
    hook = answer.model.encoder.register_forward_hook(
        lambda _, args, kwargs, output: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    answer([texts[number * 5 % 16] for number in range(16)], batch_size=8)
    hook.remove()
    assert [rows for rows, _ in shapes] == [8, 8]
    assert shapes[0][1] > 2 * shapes[1][1]


@pytest.mark.parametrize(
    "kind",
    [
        tuple,
        iter,
        lambda items: Dataset.from_dict({"text": items})["text"],
        lambda items: KeyDataset(Dataset.from_dict({"text": items}), "text"),
    ],
)
def test_iterables_give_the_answers_of_a_list(answer, kind):
    texts = ["Ada lives in Paris.", "", "The fox."]
    assert list(answer(kind(texts), batch_size=2)) == answer(texts, batch_size=2)


@pytest.mark.parametrize("nothing", [[], ()])
def test_empty_inputs_have_empty_answers(answer, nothing):
    assert answer(nothing) == []


def test_generators_are_read_lazily_in_constant_memory(answer):
    read = itertools.count()

    def texts():
        while next(read) < 10_000:
            yield "Ada lives in Paris."

    answers = answer(texts(), batch_size=8, tasks=["topic"])
    next(answers)
    assert next(read) == 32 * 8
    for _ in range(1000):
        next(answers)
    tracemalloc.start()
    peaks = []
    for _ in range(4):
        gc.collect()  # the hooks of modules leave reference cycles
        tracemalloc.reset_peak()
        for _ in itertools.islice(answers, 2000):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert sum(1 for _ in answers) == 10_000 - 2 - 1000 - 8000
    assert peaks[-1] < 1.2 * peaks[1]


def test_text_of_100_000_characters_has_one_answer_per_word(answer):
    text = "Ada lives in Paris near the river. " * 2858
    entries = answer(text, batch_size=16)["pos"]
    assert len(text) > 100_000
    assert [(entry["word"], entry["start"], entry["end"]) for entry in entries] == split_words(text)


def test_threads_can_share_a_pipeline(answer):
    # The tokenizer truncates pairs and long texts, which must not affect other texts.
    items = [INPUTS[number % len(INPUTS)] for number in range(48)]
    expected = [answer(item) for item in items]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(answer, items))
    for one, other in zip(expected, found, strict=True):
        assert_close(one, other)


def test_dtype_and_batch_size_are_set_as_in_stock_pipelines(folder, answer):
    half = pipeline("multitask", model=folder, device="cpu", dtype=torch.bfloat16, batch_size=4)
    assert half.model.dtype == torch.bfloat16
    one, other = half(INPUTS[0])["topic"][0], answer(INPUTS[0])["topic"][0]
    assert one["label"] == other["label"]
    assert one["score"] == pytest.approx(other["score"], abs=0.05)


def test_pipeline_does_not_change_the_tokenizer(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    answer = pipeline("multitask", model=folder, tokenizer=tokenizer, device="cpu")
    right = pipeline("multitask", model=folder, device="cpu")
    for one, other in zip(answer(INPUTS, batch_size=8), right(INPUTS, batch_size=8), strict=True):
        assert_close(one, other)
    assert tokenizer.padding_side == "left"


# Models with adapters


ADAPTERS = {
    "lora": {"pos": {}, "topic": {"r": 2, "target_modules": ["query", "value"]}, "tags": {"use_rslora": True}},
    "shared": {"ner": {}, "shared": {"r": 3}, "topic": {}},
    "shared alone": {"shared": {}},
    "dora": {"pos": {"use_dora": True}, "topic": {"use_dora": True}},
}
PASSES = {"lora": 4, "shared": 3, "shared alone": 1, "dora": 3}


def adapted(kind: str, family: str = "bert") -> MultitaskModel:
    """Build a model whose adapters change the answers of their tasks."""
    model = lively_model(TASKS, family)
    for name, options in ADAPTERS[kind].items():
        model.add_adapter(LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **options}), name)
    return liven_adapters(model)


def plain(model: MultitaskModel) -> MultitaskModel:
    """Return the model with encoder and heads only."""
    without = build_model(TASKS, model.config.text_config.model_type)
    encoder = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in model.encoder.state_dict().items()
        if ".lora_" not in name
    }
    without.encoder.load_state_dict(encoder)
    without.heads.load_state_dict(model.heads.state_dict())
    return without


def counting(answer, inputs, **options):
    """Return the answers and the number of rows of each encoder pass."""
    rows = []
    hook = answer.model.encoder.register_forward_hook(
        lambda _, args, kwargs, output: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    answers = answer(inputs, **options)
    hook.remove()
    return answers, rows


@pytest.fixture(scope="module", params=ADAPTERS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def of_adapters(kind, tmp_path_factory):
    """Return the folder of a model with adapters."""
    folder = tmp_path_factory.mktemp("adapted")
    adapted(kind).save_pretrained(folder)
    build_tokenizer("wordpiece").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def adapted_answer(of_adapters):
    return pipeline("multitask", model=of_adapters, device="cpu")


@pytest.mark.parametrize("batch_size", [1, 4])
def test_every_task_answers_through_its_own_adapter(adapted_answer, batch_size):
    model, options = adapted_answer.model, {"batch_size": batch_size, "top_k": None}
    answers = adapted_answer(INPUTS, **options)
    without = pipeline("multitask", model=plain(model), tokenizer=adapted_answer.tokenizer)(INPUTS, **options)
    for task in TASKS:
        alone = pipeline("multitask", model=model, tokenizer=adapted_answer.tokenizer, merge_task=task.name)
        for one, other in zip(answers, alone(INPUTS, **options), strict=True):
            assert_close({task.name: one[task.name]}, other)
        scores = [[entry["score"] for one in each for entry in one[task.name]] for each in (answers, without)]
        assert (scores[0] == pytest.approx(scores[1], abs=1e-5)) == (not model.adapters_of(task.name)), (
            "adapters should change only the answers of their own tasks"
        )


def test_each_adapter_takes_one_pass_and_the_remaining_tasks_share_one(kind, adapted_answer):
    texts = ["Ada lives in Paris."] * 16
    _, rows = counting(adapted_answer, texts, batch_size=8)
    assert rows == [8] * 2 * PASSES[kind]
    model = adapted_answer.model
    for tasks in (["pos"], ["score", "ner"], ["topic", "pos"], ["tags", "pos", "score"]):
        answers, rows = counting(adapted_answer, texts, batch_size=16, tasks=tasks)
        assert rows == [16] * len({model.adapters_of(name) for name in tasks})
        # Answers have the order of the model's tasks.
        assert [set(each) for each in answers] == [set(tasks)] * 16


@pytest.mark.parametrize("task", ["pos", "ner", "topic", "score"])
def test_merged_task_gives_equal_answers_in_one_pass(of_adapters, adapted_answer, task):
    answer = pipeline("multitask", model=of_adapters, device="cpu", merge_task=task)
    answers, rows = counting(answer, INPUTS[:4] * 2, batch_size=8, top_k=None)
    assert rows == [8]
    for one, other in zip(answers, adapted_answer(INPUTS[:4] * 2, batch_size=8, tasks=[task], top_k=None), strict=True):
        assert_close(one, other)
    assert list(answers[0]) == list(answer.model.tasks) == [task]
    assert not [name for name, _ in answer.model.named_parameters() if "lora" in name or "base_layer" in name]
    with pytest.raises(ValueError, match=rf"^No task 'tags' in this model\. The model has {task}\.$"):
        answer("Hi", tasks=["tags"])


@pytest.mark.parametrize("task", ["topic", "ner"])
@pytest.mark.parametrize("kind_of_tokenizer", ["bpe", "unigram"])
def test_merged_task_reads_the_same_sub_words(kind_of_tokenizer, task):
    tokenizer = build_tokenizer(kind_of_tokenizer)
    merging = [{}, {"merge_task": task}]
    answers = [
        pipeline("multitask", model=adapted("lora"), tokenizer=tokenizer, device="cpu", **options)(INPUTS, tasks=[task])
        for options in merging
    ]
    for one, other in zip(*answers, strict=True):
        assert_close(one, other)


def test_task_without_adapters_can_be_merged(folder, answer):
    alone = pipeline("multitask", model=folder, device="cpu", merge_task="ner")
    for one, other in zip(alone(INPUTS), answer(INPUTS, tasks=["ner"]), strict=True):
        assert_close(one, other)


def test_unknown_merge_task_is_refused_with_the_valid_tasks(of_adapters):
    message = r"^No task 'nre'\. The model has pos, ner, topic, tags, score\.$"
    with pytest.raises(ValueError, match=message):
        pipeline("multitask", model=of_adapters, device="cpu", merge_task="nre")
    with pytest.raises(ValueError, match=r"^No task 'pos' in this model\. The model has ner\.$"):
        pipeline("multitask", model=of_adapters, device="cpu", merge_task="ner", tasks=["pos"])
    with pytest.raises(ValueError, match=r"accepts `tasks` and `top_k`\. Found merge_task"):
        pipeline("multitask", model=of_adapters, device="cpu")("Hi", merge_task="ner")


def test_merging_does_not_change_the_given_model(kind):
    model = adapted(kind)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pipeline("multitask", model=model, tokenizer=build_tokenizer("wordpiece"), device="cpu", merge_task="pos")("Hi")
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert list(model.tasks) == [task.name for task in TASKS]


def test_merged_model_round_trips_as_a_model_of_one_task(of_adapters, tmp_path):
    merged = pipeline("multitask", model=of_adapters, device="cpu", merge_task="ner")
    merged.model.save_pretrained(tmp_path)
    again = pipeline("multitask", model=str(tmp_path), tokenizer=of_adapters, device="cpu")
    assert again.model.config.adapters is None
    for one, other in zip(again(INPUTS), merged(INPUTS), strict=True):
        assert_close(one, other)


def test_threads_can_share_a_pipeline_with_adapters(adapted_answer):
    chosen = [["pos"], ["topic"], ["ner", "tags"], ["score"], None]
    items = [(INPUTS[number % len(INPUTS)], chosen[number % len(chosen)]) for number in range(49)]
    expected = [adapted_answer(item, tasks=tasks) for item, tasks in items]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda item: adapted_answer(item[0], tasks=item[1]), items))
    for one, other in zip(expected, found, strict=True):
        assert_close(one, other)
