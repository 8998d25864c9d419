"""The values that a trainer accepts, and the lines with which it refuses others."""

from __future__ import annotations

import pytest
from datasets import Dataset, DatasetDict
from toy_splits import TASKS, build_split
from trainers import build_model
from transformers import (
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Seq2SeqTrainingArguments,
    TrainingArguments,
    default_data_collator,
)

from mtl_nlp import DataError, MultitaskTrainer, MultitaskTrainingArguments, Regression, TaskMixture, TextClassification
from mtl_nlp.data.from_python import Columns
from mtl_nlp.training.inputs import (
    check_callables,
    check_named_sets,
    evaluation_sets,
    training_arguments_of,
)

TEXTS = Dataset.from_dict({"text": ["a", "b", "c"], "kind": ["news", "sport", "news"]})


def trainer(tokenizer, folder, **given) -> MultitaskTrainer:
    args = TrainingArguments(str(folder), save_strategy="no", max_steps=1, report_to="none", disable_tqdm=True)
    return MultitaskTrainer(**{"model": build_model(), "args": args, "processing_class": tokenizer, **given})


def test_plain_arguments_keep_what_they_change_and_get_the_defaults_of_multitask_training(tmp_path):
    plain = TrainingArguments(
        str(tmp_path), learning_rate=1e-3, lr_scheduler_type="cosine", eval_strategy="steps", eval_steps=7, seed=3
    )
    args = training_arguments_of(plain)
    assert type(args) is MultitaskTrainingArguments
    assert (args.learning_rate, args.seed, args.eval_steps, args.output_dir) == (1e-3, 3, 7, str(tmp_path))
    assert args.lr_scheduler_type == plain.lr_scheduler_type
    assert (args.remove_unused_columns, args.label_names) == (False, ["labels"])
    assert training_arguments_of(args) is args
    best = {"load_best_model_at_end": True, "eval_strategy": "steps"}
    for given, chosen in (({}, ("mtl_score", True)), ({"metric_for_best_model": "eval_loss"}, ("eval_loss", False))):
        args = training_arguments_of(TrainingArguments(str(tmp_path), **best, **given))
        assert (args.metric_for_best_model, args.greater_is_better) == chosen
    with pytest.raises(ValueError, match=r"or plain TrainingArguments\. Found Seq2SeqTrainingArguments"):
        training_arguments_of(Seq2SeqTrainingArguments(str(tmp_path)))


def test_single_and_raw_datasets_train_and_evaluate_with_plain_arguments(tokenizer, tmp_path, disjoint):
    built = trainer(tokenizer, tmp_path, train_dataset=disjoint["texts"], eval_dataset=disjoint["texts"])
    built.train()
    assert {"eval_topic_accuracy", "eval_score_pearson"} <= built.evaluate().keys()
    columns = {"inputs": {"text": "text"}, "labels": {"topic": "kind"}}
    splits = DatasetDict({"train": TEXTS, "validation": TEXTS, "test": TEXTS})
    raw = trainer(tokenizer, tmp_path, train_dataset={"t": splits}, eval_dataset={"t": splits}, **columns)
    raw.train()
    metrics = raw.evaluate()
    assert list(raw.train_dataset.datasets) == ["t"]
    for given in (TEXTS, {"t": TEXTS}, TaskMixture(raw.train_dataset.datasets), raw.train_dataset.datasets["t"]):
        assert raw.evaluate(given)["eval_loss"] == pytest.approx(metrics["eval_loss"], rel=1e-5)


def test_columns_and_tokenizer_of_a_mixture_serve_the_trainer(tokenizer, tmp_path):
    tasks = [TextClassification("topic"), Regression("score")]
    mixture = TaskMixture(TEXTS, inputs={"text": "text"}, labels={"topic": "kind"}, tasks=tasks, tokenizer=tokenizer)
    built = trainer(None, tmp_path, model=build_model(mixture.tasks), train_dataset=mixture, eval_dataset=TEXTS)
    assert built.processing_class is tokenizer
    assert (built.columns.max_length, built.model.config.max_length) == (48, 48)
    assert "eval_topic_accuracy" in built.evaluate()


def test_names_and_weights_of_a_mixture_or_a_trainer_hold_for_evaluation_sets(tokenizer, tmp_path, caplog):
    rows = Dataset.from_dict({"text": ["a", "b", "c"], "kind": ["N", "S", "N"], "sure": [1.0, 2.0, 0.0]})
    columns = {
        "inputs": {"text": "text"},
        "labels": {"topic": "kind"},
        "label_map": {"topic": {"N": "news", "S": "sport"}},
        "weight": "sure",
    }
    mixture = TaskMixture(rows, tasks=list(TASKS.values()), tokenizer=tokenizer, **columns)
    for given in ({"train_dataset": mixture}, {"train_dataset": rows, **columns}):
        built = trainer(tokenizer, tmp_path, eval_dataset={"d": rows, "e": rows.remove_columns("sure")}, **given)
        assert built.train_dataset.datasets["data"].references["topic"][:] == ["news", "sport", "news"]
        for name, weights in (("d", [1.0, 2.0, 0.0]), ("e", None)):
            windows = built.eval_dataset[name].windows
            assert built.eval_dataset[name].references["topic"][:] == ["news", "sport", "news"]
            assert (windows["weight"][:] if "weight" in windows.column_names else None) == weights
        assert built.predict({"e": rows.remove_columns("sure")}).label_ids["topic"].tolist() == [0, 1, 0]
    assert not caplog.messages


def test_labels_and_numbers_that_the_model_does_not_know_are_named_once(tokenizer, tmp_path, caplog):
    rows = Dataset.from_dict({"text": ["a", "b", "c"], "kind": ["news", "travel", "news"], "number": [1.0, 2.0, 4.0]})
    columns = {"inputs": {"text": "text"}, "labels": {"topic": "kind"}}
    built = trainer(tokenizer, tmp_path, eval_dataset={"unseen": rows}, **columns)
    built.evaluate()
    (line,) = caplog.messages
    assert line.startswith("unseen: the evaluation rows have the labels 'travel', which task 'topic' does not have.")
    caplog.clear()
    columns["labels"] = {"score": "number"}
    trainer(tokenizer, tmp_path, train_dataset=rows, **columns)
    (line,) = caplog.messages
    assert line.startswith("Task 'score': `normalize: true` has no effect, since")
    mixture = TaskMixture(rows, tasks=[Regression("score")], tokenizer=tokenizer, **columns)
    caplog.clear()
    built = trainer(tokenizer, tmp_path, model=build_model(mixture.tasks), train_dataset=mixture)
    assert built.tasks["score"].mean == pytest.approx(7 / 3) and not caplog.messages


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": build_model().encoder}, r"^`model` should be a MultitaskModel, .*Found BertModel\.$"),
        ({"model": None}, r"^Either `model` or `model_init` should be given\. Found both or none\.$"),
        ({"processing_class": None}, r"^`processing_class` should be the model's tokenizer"),
        ({"train_dataset": [1]}, r"^`train_dataset` should be a TaskMixture, .*Found list\.$"),
        ({"train_dataset": TEXTS}, r"^data: a raw dataset needs `labels=`"),
        ({"eval_dataset": [1]}, r"^`eval_dataset` should be splits by dataset .*Found \[1\]\.$"),
        ({"eval_dataset": {"a": {}}}, r"^`eval_dataset`: a set should have at least one dataset"),
        ({"compute_loss_func": print}, r"^`compute_loss_func` would replace the joint loss, .*`loss_weighting=`"),
        (
            {"compute_metrics": {"topik": print}},
            r"^`compute_metrics` should name tasks of the model .*Found 'topik'\.$",
        ),
        ({"data_collator": default_data_collator}, r"^`data_collator` should .*Found default_data_collator\."),
        ({"model": None, "model_init": build_model, "optimizers": (1, 1)}, r"^`optimizers` belong to one model"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_in_one_line(tokenizer, tmp_path, given, message):
    with pytest.raises(ValueError, match=message) as raised:
        trainer(tokenizer, tmp_path, **given)
    assert "\n" not in str(raised.value)


def test_stock_collators_are_refused(tokenizer):
    for kind in (DataCollatorWithPadding, DataCollatorForTokenClassification):
        with pytest.raises(ValueError, match=f"like MultitaskDataCollator. Found {kind.__name__}"):
            check_callables(TASKS, kind(tokenizer), None)
    with pytest.raises(ValueError, match=f"Found {type(tokenizer).__name__}"):
        check_callables(TASKS, tokenizer, None)


def test_dicts_and_mixtures_are_sets_and_datasets_are_parts_of_one_set(tokenizer, disjoint):
    columns = Columns({"text": "text"}, {"topic": "kind"}, tuple(TASKS.values()), tokenizer, max_length=48)
    assert list(evaluation_sets(disjoint, columns, TASKS)) == [""]
    sets = {"news": {"a": TEXTS, "b": DatasetDict({"validation": TEXTS})}, "mixed": TaskMixture(disjoint)}
    found = evaluation_sets(sets, columns, TASKS)
    assert {name: list(parts) for name, parts in found.items()} == {"news": ["a", "b"], "mixed": ["words", "texts"]}
    assert evaluation_sets(found, columns, TASKS) == found
    with pytest.raises(DataError, match=r"either sets .* or datasets\. Found the sets news beside a\."):
        evaluation_sets({"news": {"a": TEXTS}, "a": TEXTS}, columns, TASKS)


def test_decisions_in_training_need_a_metric_of_one_of_the_sets(tmp_path):
    sets = {"news": {}, "tweets": {}}
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "save_strategy": "steps"}
    with pytest.raises(ValueError, match=r"such as 'news_mtl_score'\. Found 'mtl_score'"):
        check_named_sets(sets, MultitaskTrainingArguments(str(tmp_path), **best), has_headroom=False)
    chosen = MultitaskTrainingArguments(str(tmp_path), metric_for_best_model="eval_tweets_mtl_score", **best)
    check_named_sets(sets, chosen, has_headroom=False)
    with pytest.raises(ValueError, match="need scores on one evaluation set"):
        check_named_sets(sets, chosen, has_headroom=True)


def test_data_for_other_label_spaces_is_refused(tokenizer, tmp_path):
    data = build_split(tokenizer, 3, [3, 4], {"topic": lambda n: True})
    model = build_model([TextClassification("topic", ["sport", "news"])])
    for given in ({"train_dataset": {"d": data}}, {"eval_dataset": {"d": data}}):
        with pytest.raises(DataError, match="the label space of task 'topic' differs between data and model"):
            trainer(tokenizer, tmp_path, **{"model": model, **given})
