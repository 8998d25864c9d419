"""Probes of every kind of label, and the hidden states and rows that they read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from adapted_models import NER, POS, TOPIC
from inspected_models import texts_of

from mtl_nlp import MultiLabelClassification, Regression, TextClassification
from mtl_nlp.run.build import build_model
from mtl_nlp.transfer.inspected_texts import draw_texts
from mtl_nlp.transfer.probes import Probe, probe_tasks, read_features, training_windows

CPU = torch.device("cpu")
CHANCE = np.random.default_rng(0)
FEATURES = CHANCE.normal(size=(200, 6)).astype(np.float32)


def test_classes_are_learned_from_the_features_and_absent_classes_are_never_chosen():
    targets = np.where(FEATURES[:, 0] > 0, 2, 0)
    targets[:20] = -100
    logits = Probe(POS.kind, FEATURES, targets).logits(FEATURES)
    assert logits.shape == (200, 3)
    assert (logits[20:].argmax(axis=1) == targets[20:]).mean() > 0.95
    assert (logits[:, 1] < logits[:, [0, 2]].min(axis=1)).all()
    assert POS.kind.decode(logits)[30] == ["A", "B", "C"][targets[30]]


def test_more_than_two_classes_and_a_single_class():
    targets = np.digitize(FEATURES[:, 1], [-0.5, 0.5])
    assert (Probe(POS.kind, FEATURES, targets).logits(FEATURES).argmax(axis=1) == targets).mean() > 0.9
    only = Probe(POS.kind, FEATURES, np.ones(200, dtype=int)).logits(FEATURES)
    assert set(only.argmax(axis=1)) == {1}


def test_each_class_of_a_set_has_its_own_decision():
    kind = MultiLabelClassification(name="tags", labels=["p", "q", "r"]).kind
    targets = np.stack([FEATURES[:, 0] > 0, FEATURES[:, 1] > 0, np.zeros(200)], axis=1).astype(np.float32)
    logits = Probe(kind, FEATURES, targets).logits(FEATURES)
    assert ((logits > 0) == targets).mean(axis=0).min() > 0.95
    assert kind.decode(logits[0]) == [name for name, has in zip("pqr", targets[0], strict=True) if has]


def test_numbers_are_learned_by_ridge_regression():
    kind = Regression(name="score").kind
    targets = (3 * FEATURES[:, 2] - 1).astype(np.float32)
    targets[0] = np.nan
    logits = Probe(kind, FEATURES, targets).logits(FEATURES)
    assert logits.shape == (200, 1)
    assert kind.decode(logits[5]) == pytest.approx(float(targets[5]), abs=0.2)


def test_the_features_are_the_states_that_the_head_reads():
    batch = texts_of().batches[0]
    hidden = [torch.randn(5, 7, 4)]
    (words,) = read_features(NER, batch, [1, 0], hidden)
    assert np.array_equal(words, torch.cat([hidden[0][1, 1:4], hidden[0][0, 1:6]]).numpy())
    (first,) = read_features(TOPIC, batch, [1, 2], hidden)
    assert np.array_equal(first, hidden[0][[1, 2], 0].numpy())
    mean = TextClassification(name="topic", labels=["x", "y"], pooling="mean")
    (pooled,) = read_features(mean, batch, [1], hidden)
    np.testing.assert_allclose(pooled[0], hidden[0][1, :4].mean(0).numpy(), rtol=1e-5)


def test_windows_are_drawn_until_there_are_enough_words_or_texts(run):
    train = run.splits["train"]
    most = {True: 60, False: 5}
    (words,) = training_windows(train, run.tasks["pos"], most).values()
    lengths = [len(train["sample"].windows[place]["words"]) for place in words]
    assert 60 <= sum(lengths) < 60 + max(lengths)
    (texts,) = training_windows(train, run.tasks["topic"], most).values()
    assert len(texts) == 5
    assert training_windows(train, run.tasks["topic"], most) == {"sample": texts}
    assert training_windows({}, run.tasks["topic"], most) == {}


def test_all_tasks_are_probed_from_the_embeddings_and_all_layers(run):
    model = build_model(run).eval()
    texts = draw_texts(run.splits["validation"], run.tasks, run.tokenizer, CPU, 20)
    found = probe_tasks(model, run.splits["train"], texts, run.tokenizer)
    assert {name: len(scores) for name, scores in found.scores.items()} == {"pos": 3, "ner": 3, "topic": 3}
    assert found.units["topic"] == run.splits["train"]["sample"].num_rows
    assert 4000 <= found.units["pos"] < 4100
    assert all(0 <= score <= 1 for scores in found.scores.values() for score in scores)
    # Untrained states of words are nearly those of the words alone, which say much about the part of speech.
    assert min(found.scores["pos"]) > 0.4
