from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from toy_splits import TASKS, build_split
from toy_weightings import Attentive, Uncertainty, Watching
from trainers import adapted_model, assert_same_weights, build_model
from transformers import TrainerCallback
from watched_training import Recorder

from mtl_nlp import EncodedDataset
from mtl_nlp.balancing.static import Static
from mtl_nlp.balancing.weighting import LossWeighting, WeightingStep
from mtl_nlp.modeling.loss_multitask import StepCounts, count_step, joint_loss


@pytest.fixture(scope="module")
def unequal(tokenizer) -> EncodedDataset:
    """32 texts; only the six longest have a topic, so short micro-batches have none."""
    lengths = np.random.default_rng(0).permutation(np.arange(2, 34) // 2).tolist()
    has = {"pos": lambda n: True, "ner": lambda n: n % 3 > 0, "topic": lambda n: n > 13, "score": lambda n: n % 2 == 0}
    return build_split(tokenizer, 1, lengths, has)


class WeightingRecorder(TrainerCallback):
    """Callback that copies the gradients of a loss weighting before every optimizer step."""

    def __init__(self, weighting: LossWeighting) -> None:
        self.weighting = weighting
        self.gradients: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.gradients.append({name: copy.deepcopy(p.grad) for name, p in self.weighting.named_parameters()})


def flat(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients.values()])


@pytest.mark.parametrize("scale", ["rows", "per_task"])
@pytest.mark.parametrize("kind", [Uncertainty, Attentive])
def test_accumulated_micro_batches_give_the_gradients_of_the_formula(trainer_of, unequal, kind, scale):
    model, weighting = build_model(), kind(TASKS)
    trainer = trainer_of({"d": unequal}, model=model, per_device_train_batch_size=32)
    (batch,) = trainer.get_train_dataloader()
    counts, output = count_step([batch], TASKS), model(**batch)
    losses = {task: sums.detach() / counts.units[task] for task, sums in output.loss_sums.items()}
    step = WeightingStep(counts, losses)
    weights = weighting.weights(step)
    loss = joint_loss(output.loss_sums, counts, weights, scale) + weighting.penalty(step)
    loss.backward()
    expected = [flat({name: p.grad for name, p in each.named_parameters()}) for each in (model, weighting)]
    assert all(gradients.any() for gradients in expected)
    for size, accumulation in ((32, 1), (16, 2), (8, 4)):
        weighting = kind(TASKS)
        recorders = Recorder(), WeightingRecorder(weighting)
        sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
        trainer = trainer_of(
            {"d": unequal}, callbacks=[*recorders], max_steps=1, loss_scale=scale, logging_steps=1,
            loss_weighting=weighting, **sizes,
        )  # fmt: skip
        assert len(list(trainer.get_train_dataloader())) == accumulation
        trainer.train()
        for recorder, reference in zip(recorders, expected, strict=True):
            assert (flat(recorder.gradients[0]) - reference).norm() <= 1e-6 * reference.norm()
        (entry,) = (entry for entry in trainer.state.log_history if "loss" in entry)
        assert entry["loss"] == pytest.approx(loss.item(), rel=1e-6)
        for task, weight in weights.items():
            assert entry[f"weight_{task}"] == pytest.approx(weight.item(), rel=1e-6)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_losses_for_the_weights_equal_the_losses_of_the_step_with_dropout(trainer_of, unequal, accumulation):
    """Check that a pass ahead draws the same dropout as the step and does not change the random state."""
    found = []
    for kind in (Attentive, Watching):
        weighting = kind(TASKS) if kind is Attentive else kind()
        trainer = trainer_of(
            {"d": unequal}, model=build_model(hidden_dropout_prob=0.5), max_steps=1, logging_steps=1,
            per_device_train_batch_size=32 // accumulation, gradient_accumulation_steps=accumulation,
            loss_weighting=weighting,
        )  # fmt: skip
        trainer.train()
        (entry,) = (entry for entry in trainer.state.log_history if "loss" in entry)
        found.append([entry[f"loss_{task}"] for task in TASKS])
        weighed = (
            [2.0 * mean - 1.0 for mean in weighting.means.tolist()]
            if kind is Attentive
            else [weighting.seen[0].losses[task].item() for task in TASKS]
        )
        assert weighed == pytest.approx(found[-1], rel=1e-5)
    assert found[0] == found[1]


def test_weighting_gets_the_losses_of_tasks_with_labels_after_each_step(trainer_of, disjoint):
    weighting = Watching()
    batches = [[0, 1, 2], [3, 16], [20, 21]]
    trainer = trainer_of(disjoint, batches=batches, num_train_epochs=1, logging_steps=1, loss_weighting=weighting)
    trainer.train()
    words, texts = {"pos", "ner"}, {"topic", "score"}
    assert [set(step.losses) for step in weighting.seen] == [words, words | texts, texts]
    assert [step.counts.rows for step in weighting.seen] == [3, 2, 2]
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    for step, entry in zip(weighting.seen, logs, strict=True):
        assert all(entry[f"loss_{task}"] == pytest.approx(loss.item()) for task, loss in step.losses.items())
    assert not any(key.startswith("weight_") for entry in logs for key in entry)


def test_constant_weights_equal_the_argument_and_are_not_logged(trainer_of, disjoint):
    weights = {"pos": 0.3, "ner": 1.0, "topic": 1.0, "score": 2.0}
    found = []
    for settings in ({"loss_weights": weights}, {"loss_weighting": Static(weights)}):
        trainer = trainer_of(disjoint, max_steps=3, logging_steps=1, learning_rate=0.01, **settings)
        trainer.train()
        found.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
        assert not any(key.startswith("weight_") for entry in trainer.state.log_history for key in entry)
    assert found[0] == found[1]


def test_pair_of_weights_moves_over_the_training_and_a_resumed_run_continues_it(trainer_of, disjoint, tmp_path):
    settings = {
        "max_steps": 5, "logging_steps": 1, "learning_rate": 0.01, "save_steps": 2, "save_strategy": "steps",
        "loss_weights": {"pos": [1.0, 0.0], "ner": 1.0, "topic": 1.0, "score": 0.5},
    }  # fmt: skip
    whole = trainer_of(disjoint, disjoint, **settings)
    whole.train()
    entries = [entry for entry in whole.state.log_history if "loss" in entry]
    assert [entry["weight_pos"] for entry in entries] == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])
    assert [entry["weight_score"] for entry in entries] == pytest.approx([0.5] * 5)
    metrics = whole.evaluate()
    weights = {"pos": 0.2, "ner": 1.0, "topic": 1.0, "score": 0.5}
    shares = {"pos": 16 / 40, "ner": 16 / 40, "topic": 24 / 40, "score": 24 / 40}
    expected = sum(weights[task] * shares[task] * metrics[f"eval_{task}_loss"] for task in TASKS)
    assert metrics["eval_loss"] == pytest.approx(expected, rel=1e-5)
    for step in (2, 4, 5):
        resumed = trainer_of(disjoint, disjoint, **{**settings, "save_strategy": "no"})
        resumed.train(resume_from_checkpoint=str(tmp_path / "run" / f"checkpoint-{step}"))
        assert_same_weights(resumed.model, whole.model)
        assert resumed.evaluate()["eval_loss"] == metrics["eval_loss"]


def test_weights_of_zero_for_all_tasks_are_refused(trainer_of):
    with pytest.raises(ValueError, match="Found 0 for every task at the end of training"):
        trainer_of(loss_weights={**dict.fromkeys(TASKS, 0.0), "pos": [1.0, 0.0]})


def test_logged_weights_are_the_mean_over_several_steps(trainer_of, disjoint):
    weighting = Uncertainty(TASKS)
    seen = []

    class Weights(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            seen.append(torch.exp(-weighting.log_variances.detach()))

    settings = {"max_steps": 4, "logging_steps": 2, "learning_rate": 0.1}
    trainer = trainer_of(disjoint, callbacks=[Weights()], loss_weighting=weighting, **settings)
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    for entry, two in zip(logs, (seen[:2], seen[2:]), strict=True):
        found = [entry[f"weight_{task}"] for task in TASKS]
        assert found == pytest.approx(torch.stack(two).mean(0).tolist(), rel=1e-5)
    assert seen[0].tolist() != pytest.approx(seen[-1].tolist(), rel=1e-2)


class OnlyTopic(Uncertainty):
    """Weights for the topic alone, and only in every second step."""

    steps = 0

    def weights(self, step):
        return {"topic": torch.tensor(2.0)} if self.steps % 2 == 0 else {}

    def after_step(self, step):
        self.steps += 1


def test_logged_weight_counts_as_1_in_steps_that_do_not_name_the_task(trainer_of, disjoint):
    trainer = trainer_of(disjoint, max_steps=4, logging_steps=4, loss_weighting=OnlyTopic(TASKS))
    trainer.train()
    (entry,) = (entry for entry in trainer.state.log_history if "loss" in entry)
    assert {key: value for key, value in entry.items() if key.startswith("weight_")} == {"weight_topic": 1.5}


def test_clipping_neither_counts_nor_scales_the_gradients_of_a_weighting(trainer_of, disjoint):
    found = []
    for clip in (0.0, 1e-3):
        recorder = WeightingRecorder(weighting := Uncertainty(TASKS))
        trainer = trainer_of(
            disjoint, callbacks=[recorder], max_steps=1, max_grad_norm=clip, logging_steps=1, loss_weighting=weighting
        )
        trainer.train()
        norm = next(entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry)
        found.append((flat(recorder.gradients[0]), norm))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1] > 1e-3


@pytest.mark.parametrize("accumulation", [1, 2])
def test_weighting_that_reads_losses_trains_every_parameter_in_bfloat16(trainer_of, unequal, accumulation):
    recorder = Recorder()
    trainer = trainer_of(
        {"d": unequal}, callbacks=[recorder], max_steps=1, bf16=True, per_device_train_batch_size=32 // accumulation,
        gradient_accumulation_steps=accumulation, loss_weighting=Attentive(TASKS),
    )  # fmt: skip
    trainer.train()
    assert all(gradient.any() for name, gradient in recorder.gradients[0].items() if "key.bias" not in name)
    assert trainer.loss_weighting.log_variances.dtype == trainer.loss_weighting.means.dtype == torch.float32


def test_loss_includes_both_the_pull_and_the_penalty_of_a_weighting(trainer_of, disjoint):
    found = []
    for pull in (0.0, 0.1):
        trainer = trainer_of(
            disjoint, model=adapted_model(), adapter_pull=pull, max_steps=1, logging_steps=1,
            loss_weighting=Uncertainty(list(TASKS)[:1]),
        )  # fmt: skip
        trainer.train()
        found.append(next(entry for entry in trainer.state.log_history if "loss" in entry))
    assert found[1]["loss"] == pytest.approx(found[0]["loss"] + found[1]["pull"])
    weighted = sum(found[0][f"loss_{task}"] * trainer.step.counts.task_rows[task] for task in TASKS)
    plain = weighted / trainer.step.counts.rows
    first = found[0]["loss_pos"] * trainer.step.counts.task_rows["pos"] / trainer.step.counts.rows
    assert found[0]["loss"] == pytest.approx(plain + (np.exp(0.5) - 1.0) * first - 0.25, rel=1e-5)


def test_weight_of_an_unknown_task_is_refused(trainer_of, disjoint):
    trainer = trainer_of(disjoint, max_steps=1, loss_weighting=Uncertainty(["pos", "pso"]))
    with pytest.raises(ValueError, match=r"should name tasks of the model \(pos, ner, .*Found {'pso'}"):
        trainer.train()


# Evaluation


@pytest.mark.parametrize("kind", [Uncertainty, Attentive])
def test_evaluated_loss_has_the_current_weights_and_changes_no_state(trainer_of, disjoint, kind):
    weighting = kind(TASKS)
    trainer = trainer_of(disjoint, disjoint, max_steps=3, learning_rate=0.1, loss_weighting=weighting)
    trainer.train()
    before = copy.deepcopy(weighting.state_dict())
    metrics = trainer.evaluate()
    assert all(torch.equal(before[name], value) for name, value in weighting.state_dict().items())
    shares = {"pos": 16 / 40, "ner": 16 / 40, "topic": 24 / 40, "score": 24 / 40}
    losses = {task: torch.tensor(metrics[f"eval_{task}_loss"]) for task in TASKS}
    weights = weighting.weights(WeightingStep(trainer.step.counts, losses))
    expected = sum(weights[task].item() * shares[task] * losses[task].item() for task in TASKS)
    assert metrics["eval_loss"] == pytest.approx(expected, rel=1e-5)
    assert weighting.log_variances.grad is None


class Drawn(LossWeighting):
    """A random weight."""

    def weights(self, step: WeightingStep) -> dict[str, torch.Tensor]:
        return {"pos": torch.rand(())}


def test_evaluated_loss_with_random_weights_keeps_the_random_state(trainer_of, disjoint):
    step = trainer_of(disjoint, loss_weighting=Drawn()).step
    counts = StepCounts(1, {"pos": 1, "ner": 0}, {"pos": 2, "ner": 0})
    before = torch.get_rng_state()
    loss = step.outside_step({"pos": torch.tensor(6.0), "ner": torch.tensor(0.0)}, counts)
    assert torch.equal(before, torch.get_rng_state())
    assert loss == 3.0 * torch.rand(())
