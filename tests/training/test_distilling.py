"""Knowledge distillation: the targets, their loss, and the scores of teachers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from toy_splits import TASKS, build_split
from toys import build_tokenizer, lively_model
from trainers import assert_same_weights

from mtl_nlp import MultiLabelClassification, MultitaskDataCollator, TextClassification, TokenClassification
from mtl_nlp.data.teachers import TEACHERS, WithTeachers, with_scores, write_scores
from mtl_nlp.modeling.label_kinds_multitask import IGNORED
from mtl_nlp.training.distilling import mix_targets, teacher_scores


@pytest.fixture(scope="module")
def encoded(tokenizer):
    has = {"pos": lambda n: n != 4, "topic": lambda n: n > 3, "score": lambda n: True}
    return build_split(tokenizer, 1, [3, 5, 4, 2, 7, 6, 8, 3], has)


@pytest.fixture(scope="module")
def teacher():
    return lively_model([*TASKS.values()])


@pytest.fixture(scope="module")
def taught(encoded, teacher, tokenizer, tmp_path_factory):
    """The rows with the scores of a teacher for three tasks."""
    folder = tmp_path_factory.mktemp("scores")
    for name in ("pos", "topic", "score"):
        write_scores(folder / name, TASKS[name], teacher_scores(teacher, tokenizer, encoded, TASKS[name]))
    return with_scores(encoded, [folder / name for name in ("pos", "topic", "score")])


# The loss


def test_loss_of_each_type_is_that_of_the_formula():
    """ℓ = -Σ_c (λ · [y = c] + (1 - λ) · q_c) · log p_c for classes, by hand."""
    share, z, s = 0.25, torch.tensor([[[1.0, -1.0], [0.5, 0.0]]]), torch.tensor([[[2.0, 0.0], [9.0, 9.0]]])
    log_p, q = z.log_softmax(-1), s.softmax(-1)
    words = TokenClassification(name="w", labels=["a", "b"])
    batch = {"labels": {"w": torch.tensor([[1, IGNORED]])}, TEACHERS: {"w": s.half()}}
    mix_targets(batch, {"w": words}, share)
    expected = -(0.75 * q[0, 0, 0] * log_p[0, 0, 0] + (0.25 + 0.75 * q[0, 0, 1]) * log_p[0, 0, 1])
    assert words.kind.loss_sum(z, batch["labels"]["w"]) == pytest.approx(expected.item(), rel=1e-6)
    assert words.kind.count_units(batch["labels"]["w"]) == 1
    assert TEACHERS not in batch

    weighted = TextClassification(name="t", labels=["a", "b"], class_weights={"b": 3.0})
    batch = {"labels": {"t": torch.tensor([1])}, TEACHERS: {"t": s[:, 0]}}
    mix_targets(batch, {"t": weighted}, share)
    of_class = torch.tensor([1.0, 3.0]) * torch.tensor([0.75 * q[0, 0, 0], 0.25 + 0.75 * q[0, 0, 1]])
    loss = weighted.kind.loss_sum(z[:, 0], batch["labels"]["t"])
    assert loss == pytest.approx(-(of_class * log_p[0, 0]).sum().item(), rel=1e-6)
    assert weighted.kind.count_units(batch["labels"]["t"]) == pytest.approx(of_class.sum().item())

    several = MultiLabelClassification(name="m", labels=["a", "b"])
    batch = {"labels": {"m": torch.tensor([[1.0, 0.0]])}, TEACHERS: {"m": s[:, 0]}}
    mix_targets(batch, {"m": several}, share)
    soft = 0.25 * torch.tensor([[1.0, 0.0]]) + 0.75 * s[:, 0].sigmoid()
    expected = F.binary_cross_entropy_with_logits(z[:, 0], soft, reduction="sum")
    assert several.kind.loss_sum(z[:, 0], batch["labels"]["m"]) == pytest.approx(expected.item(), rel=1e-6)

    number = TASKS["score"]
    batch = {"labels": {"score": torch.tensor([2.0])}, TEACHERS: {"score": torch.tensor([[4.0]])}}
    mix_targets(batch, {"score": number}, share)
    assert number.kind.loss_sum(torch.tensor([[1.0]]), batch["labels"]["score"]) == pytest.approx((3.5 - 1.0) ** 2)


def test_teacher_that_predicts_the_labels_gives_the_plain_loss(trainer_of, encoded, tmp_path):
    """The scores of such a teacher are one-hot; the weights after training equal those without a teacher."""
    for name in ("pos", "topic", "score"):
        task, found = TASKS[name], []
        for label in encoded.windows[f"label:{name}"]:
            if label is None or name == "score":
                found.append(None if label is None else np.array([label]))
            else:
                found.append(1e4 * np.eye(len(task.labels))[np.array(label)])
        write_scores(tmp_path / name, task, found)
    copied = with_scores(encoded, [tmp_path / name for name in ("pos", "topic", "score")])
    trainers = [
        trainer_of({"d": rows}, max_steps=3, per_device_train_batch_size=4, logging_steps=1, learning_rate=1e-2)
        for rows in (encoded, copied)
    ]
    losses = []
    for trainer in trainers:
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_teacher_counts_at_the_start_and_labels_at_the_end(trainer_of, taught):
    """λ grows with the optimizer steps from 0; the first step has the teacher's targets only."""
    trainer = trainer_of({"d": taught}, max_steps=4, per_device_train_batch_size=8)
    found, begin = [], trainer.step.begin

    def watched(counts, batches, *, progress, **place):
        found.append((progress, *(batches[0]["labels"][name] for name in ("topic", "pos"))))
        begin(counts, batches, progress=progress, **place)

    trainer.step.begin = watched
    trainer.train()
    assert [share for share, *_ in found] == [0.0, 0.25, 0.5, 0.75]
    assert all(targets.sum(-1).allclose(torch.ones(())) for _, targets, _ in found)
    assert all(set(words.sum(-1).round(decimals=4).unique().tolist()) == {0.0, 1.0} for *_, words in found)
    # Of each text, the largest entry is at least λ at the label.
    assert (found[-1][1].max(-1).values > 0.74).all()


def test_one_batch_of_8_equals_two_micro_batches_of_4(trainer_of, taught, encoded, tokenizer):
    collator = WithTeachers(MultitaskDataCollator(tokenizer, TASKS), {n: TASKS[n] for n in ("pos", "topic", "score")})
    models = []
    for rows, size, accumulated in ((taught, 8, 1), (taught, 4, 2), (encoded, 8, 1)):
        trainer = trainer_of(
            {"d": rows},
            max_steps=3,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulated,
            learning_rate=1e-2,
            optim="sgd",
            lr_scheduler_type="constant",
            batches=[[0, 1, 2, 3, 4, 5, 6, 7]] if size == 8 else [[0, 1, 2, 3], [4, 5, 6, 7]],
        )
        if rows is taught:
            trainer.data_collator = collator  # the loader of the given batches has no other one
        trainer.train()
        models.append(trainer.model)
    for (name, one), two in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        assert torch.allclose(one, two, atol=1e-6), name
    one, _, untaught = (model.heads_by_task["pos"].state_dict() for model in models)
    assert not any(torch.allclose(values, untaught[name], atol=1e-5) for name, values in one.items())


@pytest.mark.slow
def test_resumed_training_equals_an_uninterrupted_one(trainer_of, taught, tmp_path):
    options = {"per_device_train_batch_size": 4, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = trainer_of({"d": taught}, **options)
    whole.train()
    resumed = trainer_of({"d": taught}, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert_same_weights(whole.model, resumed.model)


# The scores


def test_teacher_with_another_tokenizer_scores_every_word(encoded, teacher, tokenizer):
    """Each word has one row of scores, whatever the sub-words; the scores are those of the teacher's own reading."""
    other = build_tokenizer("unigram")
    for name in ("pos", "topic"):
        found = teacher_scores(teacher, other, encoded, TASKS[name], rows_per_batch=3)
        assert [each is None for each in found] == [label is None for label in encoded.windows[f"label:{name}"]]
        for window, scores in zip(encoded.windows, found, strict=True):
            if scores is not None:
                words = encoded.inputs["tokens"][window["row"]]
                inputs = other(words, is_split_into_words=True, return_tensors="pt")
                with torch.no_grad():
                    logits = teacher(input_ids=inputs["input_ids"]).logits[name][0].numpy()
                firsts = [inputs.word_to_tokens(number).start for number in range(len(words))]
                assert np.allclose(scores, logits[firsts] if name == "pos" else logits, atol=1e-5)
                assert scores.shape == ((len(words), 3) if name == "pos" else (2,))


def test_long_texts_have_a_score_for_each_word_of_each_window(teacher, tokenizer):
    encoded = build_split(tokenizer, 2, [90, 4], {"pos": lambda n: True, "topic": lambda n: True})
    found = teacher_scores(teacher, build_tokenizer("unigram"), encoded, TASKS["pos"])
    assert len(encoded) > 2
    assert [len(scores) for scores in found] == [len(words) for words in encoded.windows["words"]]
    topics = teacher_scores(teacher, tokenizer, encoded, TASKS["topic"])
    assert [scores is None for scores in topics] == [number > 0 for number in _numbers(encoded)]


def _numbers(encoded):
    rows = encoded.windows["row"]
    return [rows[:place].count(row) for place, row in enumerate(rows)]


def test_order_of_labels_is_that_of_the_student(encoded, teacher, tokenizer):
    turned = TextClassification(name="topic", labels=["sport", "news"])
    same, other = (teacher_scores(teacher, tokenizer, encoded, task) for task in (TASKS["topic"], turned))
    for one, two in zip(same, other, strict=True):
        assert (one is None and two is None) or np.array_equal(one, two[::-1])
