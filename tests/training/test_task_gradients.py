from __future__ import annotations

import numpy as np
import pytest
import torch
from gradient_references import references
from torchjd import aggregation
from toy_gradient_methods import PlainSum, Watching
from toy_splits import TASKS, build_split
from toy_weightings import Attentive, Uncertainty
from trainers import adapted_model, assert_same_weights, build_model
from watched_training import Recorder

from mtl_nlp import EncodedDataset
from mtl_nlp.balancing.gradient_methods import build_gradient_method
from mtl_nlp.balancing.gradients import seed_of
from mtl_nlp.balancing.registry import build_weighting
from mtl_nlp.errors import CheckpointError, RunError
from mtl_nlp.modeling.loss_multitask import count_step
from mtl_nlp.training.task_gradients import PARTS, check_task_gradients, with_parts

TRAINED = {"max_steps": 3, "per_device_train_batch_size": 16, "logging_steps": 1, "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def unequal(tokenizer) -> EncodedDataset:
    """32 texts with labels for one to four of the tasks."""
    lengths = np.random.default_rng(0).permutation(np.arange(2, 34) // 2).tolist()
    has = {
        "pos": lambda n: n != 5,
        "ner": lambda n: n % 3 > 0,
        "topic": lambda n: n > 13,
        "score": lambda n: n % 2 == 0,
    }
    return build_split(tokenizer, 1, lengths, has)


def vector(tensors: dict[str, torch.Tensor], like: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return all tensors in one vector, with zeros for None, the gradient of an idle or frozen parameter."""
    parts = (torch.zeros_like(like[name]) if tensors[name] is None else tensors[name] for name in sorted(tensors))
    return torch.cat([part.flatten() for part in parts]).double()


def run_of(trainer_of, data, method=None, **arguments):
    """Return the recorder and the log of a training."""
    recorder = Recorder()
    trainer = trainer_of(data, callbacks=[recorder], gradient_method=method, **{**TRAINED, **arguments})
    trainer.train()
    return recorder, [entry for entry in trainer.state.log_history if "loss" in entry]


MODELS = {
    "plain": build_model,
    "adapters": adapted_model,
    "deberta": lambda: adapted_model(family="deberta-v2"),
}


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("data", ["shared", "disjoint"])
def test_sum_of_the_tasks_gradients_trains_like_the_plain_sum(trainer_of, unequal, disjoint, data, model, accumulation):
    splits = {"d": unequal} if data == "shared" else disjoint
    size = {"per_device_train_batch_size": 16 // accumulation, "gradient_accumulation_steps": accumulation}
    expected, logs = run_of(trainer_of, splits, model=MODELS[model](), **size)
    found, own_logs = run_of(trainer_of, splits, PlainSum(TASKS), model=MODELS[model](), **size)
    assert found.gradients[0].keys() == expected.gradients[0].keys()
    gradients, others = (vector(each.gradients[0], each.start) for each in (found, expected))
    assert (gradients - others).norm() <= 1e-6 * others.norm()
    weights, others, start = (
        vector(each, expected.start) for each in (found.weights[-1], expected.weights[-1], expected.start)
    )
    assert (weights - others).norm() <= 3e-4 * (others - start).norm()
    for entry, other in zip(own_logs, logs, strict=True):
        assert entry.keys() == other.keys()
        for key in (key for key in other if key.startswith("loss") or key in {"grad_norm", "padding"}):
            assert entry[key] == pytest.approx(other[key], rel=1e-5)


AGGREGATORS = references(len(TASKS))


def jacobian_of(model, batch) -> torch.Tensor:
    """Return the gradients of each task's term in the joint loss on the encoder, over the complete batch."""
    counts = count_step([batch], TASKS)
    rows = []
    for task in TASKS:
        term = model(**batch).loss_sums[task] / counts.units[task] * counts.task_rows[task] / counts.rows
        rows.append(torch.cat([each.flatten() for each in torch.autograd.grad(term, [*model.encoder.parameters()])]))
    return torch.stack(rows)


def of_encoder(recorder: Recorder) -> torch.Tensor:
    return torch.cat([g.flatten() for n, g in recorder.gradients[0].items() if n.startswith("encoder.")])


@pytest.mark.filterwarnings("ignore:You are solving a parameterized problem that is not DPP")  # torchjd
@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("name", AGGREGATORS)
def test_method_equals_torchjd_on_the_jacobian_of_the_complete_step(trainer_of, unequal, name, accumulation):
    make, factor = AGGREGATORS[name]
    model = build_model()
    trainer = trainer_of({"d": unequal}, model=model, per_device_train_batch_size=32)
    (batch,) = trainer.get_train_dataloader()
    jacobian = jacobian_of(model, batch)
    torch.manual_seed(seed_of(42, 0))
    expected = factor * make()(jacobian)
    heads = torch.autograd.grad(model(**batch).loss, [*model.heads.parameters()])
    found, _ = run_of(
        trainer_of, {"d": unequal}, build_gradient_method(name, TASKS, {}), model=build_model(), max_steps=1,
        per_device_train_batch_size=32 // accumulation, gradient_accumulation_steps=accumulation,
    )  # fmt: skip
    gradient = of_encoder(found)
    if name == "graddrop":  # rounding can change the sign of a gradient near zero
        assert (gradient - expected).abs().gt(1e-6 * expected.abs().max()).float().mean() < 1e-3
    else:
        tolerance = (
            1e-5 if name in {"gradvac", "cagrad", "aligned-mtl", "nash-mtl", "imtl-g"} else 1e-6
        )  # they enlarge rounding
        assert (gradient - expected).norm() <= tolerance * factor * jacobian.norm(dim=1).sum()
    own = torch.cat([g.flatten() for n, g in found.gradients[0].items() if n.startswith("heads.")])
    plain = torch.cat([each.flatten() for each in heads])
    assert (own - plain).norm() <= 1e-6 * plain.norm()


def test_surgery_runs_on_each_tasks_whole_gradient_and_not_on_pieces_of_one_backward(trainer_of, unequal):
    """Check a step in which PCGrad on the gradients of each parameter gives a different update."""
    model = build_model()
    trainer = trainer_of({"d": unequal}, model=model, per_device_train_batch_size=32)
    (batch,) = trainer.get_train_dataloader()
    jacobian = jacobian_of(model, batch)
    sizes = [parameter.numel() for parameter in model.encoder.parameters()]
    torch.manual_seed(seed_of(42, 0))
    whole = aggregation.PCGrad()(jacobian)
    pieces = torch.cat([aggregation.PCGrad()(piece) for piece in jacobian.split(sizes, dim=1)])
    assert (whole - pieces).norm() > 0.01 * whole.norm(), "the case does not tell the two apart"
    assert (whole - jacobian.sum(dim=0)).norm() > 1e-3 * whole.norm(), "no gradients conflict"
    found, _ = run_of(
        trainer_of, {"d": unequal}, build_gradient_method("pcgrad", TASKS, {}), model=build_model(), max_steps=1,
        per_device_train_batch_size=32,
    )  # fmt: skip
    assert (of_encoder(found) - whole).norm() <= 2e-6 * whole.norm()


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("kind", [Uncertainty, Attentive])
def test_learned_weights_train_as_with_the_plain_sum(trainer_of, unequal, kind, accumulation):
    size = {"per_device_train_batch_size": 16 // accumulation, "gradient_accumulation_steps": accumulation}
    states, logs = [], []
    for method in (None, PlainSum(TASKS)):
        weighting = kind(TASKS)
        _, log = run_of(trainer_of, {"d": unequal}, method, loss_weighting=weighting, adam_epsilon=1e-4, **size)
        states.append(weighting.log_variances.detach())
        logs.append(log)
    assert not torch.equal(states[0], kind(TASKS).log_variances)
    torch.testing.assert_close(*states, rtol=1e-5, atol=1e-6)
    for entry, other in zip(*logs, strict=True):
        entry["tokens_per_second"] = other["tokens_per_second"]
        assert entry == pytest.approx(other, rel=1e-4, abs=1e-6)


def test_pull_trains_as_with_the_plain_sum(trainer_of, unequal):
    found = [
        run_of(trainer_of, {"d": unequal}, method, model=adapted_model(), adapter_pull=0.1, adam_epsilon=1e-4)
        for method in (None, PlainSum(TASKS))
    ]
    (plain, logs), (own, own_logs) = found
    weights, others = (vector(each.weights[-1], plain.start) for each in (own, plain))
    assert (weights - others).norm() <= 1e-4 * (others - vector(plain.start, plain.start)).norm()
    assert [e["pull"] for e in own_logs] == pytest.approx([e["pull"] for e in logs], rel=1e-5)


def test_method_of_each_second_step_leaves_the_steps_between_to_the_plain_sum(trainer_of, unequal):
    watching = Watching(TASKS)
    watching.every = 2
    run_of(trainer_of, {"d": unequal}, watching, max_steps=5)
    assert len(watching.seen) == 2


@pytest.mark.parametrize("way", [{"activation_checkpointing": True}, {"bf16": True}, {"max_grad_norm": 0.1}])
def test_checkpointing_half_precision_and_clipping_are_those_of_the_plain_sum(trainer_of, unequal, way):
    expected, logs = run_of(trainer_of, {"d": unequal}, **way)
    found, own = run_of(trainer_of, {"d": unequal}, PlainSum(TASKS), **way)
    gradients, others = (vector(each.gradients[0], each.start) for each in (found, expected))
    tolerance = 0.02 if "bf16" in way else 1e-6
    assert (gradients - others).norm() <= tolerance * others.norm()
    assert own[0]["loss"] == pytest.approx(logs[0]["loss"], rel=tolerance)


@pytest.mark.parametrize("name", ["gradvac", "nash-mtl", "pcgrad", "graddrop"])
def test_resumed_run_ends_like_an_uninterrupted_run(trainer_of, unequal, tmp_path, name):
    def trainer(**more):
        settings = {**TRAINED, "max_steps": 4, **more}
        model, method = build_model(hidden_dropout_prob=0.2), build_gradient_method(name, TASKS, {})
        return trainer_of({"d": unequal}, model=model, gradient_method=method, **settings)

    whole = trainer(save_strategy="steps", save_steps=2)
    whole.train()
    checkpoint = tmp_path / "run" / "checkpoint-2"
    assert (checkpoint / "gradient_method.pt").is_file() == (name in {"gradvac", "nash-mtl"})
    resumed = trainer()
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert_same_weights(resumed.model, whole.model)
    assert_same_weights(resumed.gradient_method, whole.gradient_method)


def test_state_of_the_method_is_needed_to_resume(trainer_of, unequal, tmp_path):
    def trainer(name):
        method = None if name is None else build_gradient_method(name, TASKS, {})
        return trainer_of({"d": unequal}, gradient_method=method, **TRAINED, save_strategy="steps", save_steps=3)

    trainer("gradvac").train()
    checkpoint = tmp_path / "run" / "checkpoint-3"
    for other, named in (
        (None, "the plain sum has no state"),
        ("pcgrad", "PCGrad has no state"),
        ("nash-mtl", "NashMTL"),
    ):
        with pytest.raises(CheckpointError, match=named):
            trainer(other).train(resume_from_checkpoint=str(checkpoint))
    state = torch.load(checkpoint / "gradient_method.pt")
    torch.save({"cosines": state["cosines"] * float("nan")}, checkpoint / "gradient_method.pt")
    with pytest.raises(CheckpointError, match="should be finite"):
        trainer("gradvac").train(resume_from_checkpoint=str(checkpoint))
    (checkpoint / "gradient_method.pt").unlink()
    with pytest.raises(CheckpointError, match=r"has no gradient_method\.pt, the state of the gradient method GradVac"):
        trainer("gradvac").train(resume_from_checkpoint=str(checkpoint))


def test_gradient_that_is_not_finite_ends_the_run_and_names_its_task(trainer_of, with_bad_row):
    trainer = trainer_of(with_bad_row, gradient_method=build_gradient_method("upgrad", TASKS, {}), **TRAINED)
    with pytest.raises(RunError, match="the loss of task 'score' became infinite or NaN"):
        trainer.train()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optim": "galore_adamw_layerwise"}, "`optim: galore_adamw_layerwise` updates the weights in the backward"),
        (
            {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}},
            "use_reentrant",
        ),
    ],
)
def test_arguments_that_do_not_allow_gradients_per_task_are_refused(trainer_of, disjoint, arguments, message):
    with pytest.raises(ValueError, match=message):
        trainer_of(disjoint, gradient_method=PlainSum(TASKS), **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"torch_compile": True},
        {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}},
    ],
)
def test_arguments_that_do_not_allow_measurements_in_the_graph_of_training_are_refused(
    trainer_of, disjoint, arguments, monkeypatch
):
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "no")  # restored after the test: `torch_compile` sets the variable
    monkeypatch.setenv("ACCELERATE_DYNAMO_MODE", "default")
    measuring = ({"conflict_every": 2}, {"loss_weighting": build_weighting("gradnorm", TASKS, {}, {})})
    for more in measuring:
        with pytest.raises(ValueError, match=r"torch_compile|use_reentrant"):
            trainer_of(disjoint, **more, **arguments)


def test_tasks_without_shared_trained_parameters_are_refused(trainer_of, disjoint, tokenizer):
    model = build_model()
    model.freeze("encoder")
    for more in ({"gradient_method": PlainSum(TASKS)}, {"conflict_every": 2}):
        with pytest.raises(ValueError, match="share no trained parameters"):
            trainer_of(disjoint, model=model, **more)
    one = build_model([TASKS["score"]])
    with pytest.raises(ValueError, match="the model has one task"):
        trainer_of({"d": build_split(tokenizer, 3, [2, 3], {"score": lambda n: True})}, model=one, conflict_every=2)
    with pytest.raises(ValueError, match="FSDP and DeepSpeed shard the gradients"):
        check_task_gradients(build_model(), is_sharded=True)


def test_parts_have_every_labelled_row_once_without_the_padding_of_other_rows(trainer_of, unequal):
    trainer = trainer_of({"d": unequal}, per_device_train_batch_size=32)
    (batch,) = trainer.get_train_dataloader()
    model = trainer.model.eval()
    parts = with_parts(batch, TASKS)[PARTS]
    assert len({tuple(part["tasks"]) for part in parts}) == len(parts) > 2
    assert sum(len(part["input_ids"]) for part in parts) == 32 - sum(
        not any(row in batch["rows"][task] for task in TASKS) for row in range(32)
    )
    assert all(part["attention_mask"].any(dim=0).all() for part in parts)
    with torch.no_grad():
        whole = model(**batch).loss_sums
        found = [model(**part).loss_sums for part in parts]
    for task in TASKS:
        total = sum(each[task] for each in found if task in each)
        torch.testing.assert_close(total, whole[task])
