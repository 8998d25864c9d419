"""The loss weightings once more, each as the formulas of its paper in a few lines, and a training loop without Trainer.

The references have plain numbers as state, need no batches to be split, and have no code in common with the package.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.nn import Parameter
from torchjd.scalarization import IMTLL, STCH, Scalarizer

from mtl_nlp import MultitaskModel

RATE = 0.05
"""The learning rate of the model and of the parameters of a weighting."""

Numbers = Mapping[str, float]


class Reference:
    """A weighting. `weights` gets the mean losses L_t and shares s_t of the tasks with labels in the step."""

    def __init__(self, tasks: Sequence[str]) -> None:
        self.tasks = list(tasks)

    def weights(self, losses: Numbers, epoch: int, number: int) -> dict[str, float]:
        raise NotImplementedError

    def after(self, losses: Numbers, shares: Numbers, norms: Numbers, losses_after: Numbers, epoch: int) -> None:
        pass


class UncertaintyReference(Reference):
    """d/dη of s · (f e^(−η) L + ½ η), with f = ½ for the regression."""

    def __init__(self, tasks):
        super().__init__(tasks)
        self.eta = dict.fromkeys(tasks, 0.0)
        self.factor = {task: 0.5 if task == "score" else 1.0 for task in tasks}

    def weights(self, losses, epoch, number):
        return {task: self.factor[task] * math.exp(-eta) for task, eta in self.eta.items()}

    def after(self, losses, shares, norms, losses_after, epoch):
        for task, loss in losses.items():
            slope = -self.factor[task] * math.exp(-self.eta[task]) * loss + 0.5
            self.eta[task] -= RATE * shares[task] * slope


class ImtlLReference(Reference):
    """`IMTLL` of torchjd for one task at a time, as its documentation uses it."""

    def __init__(self, tasks):
        super().__init__(tasks)
        self.scalarizers = {task: IMTLL(1) for task in tasks}

    def weights(self, losses, epoch, number):
        return {task: math.exp(each.log_scale.item()) for task, each in self.scalarizers.items()}

    def after(self, losses, shares, norms, losses_after, epoch):
        for task, loss in losses.items():
            optimizer = torch.optim.SGD(self.scalarizers[task].parameters(), lr=RATE)
            (shares[task] * self.scalarizers[task](torch.tensor([loss]))).backward()
            optimizer.step()
            optimizer.zero_grad()


class DwaReference(Reference):
    def __init__(self, tasks):
        super().__init__(tasks)
        self.seen = {task: {} for task in tasks}

    def weights(self, losses, epoch, number):
        means = {task: {e: sum(all_) / len(all_) for e, all_ in seen.items()} for task, seen in self.seen.items()}
        if epoch < 2:
            return dict.fromkeys(self.tasks, 1.0)
        powers = {task: math.exp(mean[epoch - 1] / mean[epoch - 2] / 2.0) for task, mean in means.items()}
        return {task: len(self.tasks) * power / sum(powers.values()) for task, power in powers.items()}

    def after(self, losses, shares, norms, losses_after, epoch):
        for task, loss in losses.items():
            self.seen[task].setdefault(epoch, []).append(loss)


class GradNormReference(Reference):
    def __init__(self, tasks):
        super().__init__(tasks)
        self.w = dict.fromkeys(tasks, 1.0)
        self.first: dict[str, float] = {}

    def weights(self, losses, epoch, number):
        return dict(self.w)

    def after(self, losses, shares, norms, losses_after, epoch):
        self.first = {**losses, **self.first}
        ratio = {task: loss / self.first[task] for task, loss in losses.items()}
        mean_ratio = sum(ratio.values()) / len(ratio)
        scaled = {task: self.w[task] * norms[task] for task in losses}
        mean = sum(scaled.values()) / len(scaled)
        before = sum(self.w[task] for task in losses)
        for task in losses:
            target = mean * (ratio[task] / mean_ratio) ** 1.5
            self.w[task] -= 0.025 * math.copysign(norms[task], scaled[task] - target) * (scaled[task] != target)
        after = sum(self.w[task] for task in losses)
        for task in losses:
            self.w[task] *= before / after


class FamoReference(Reference):
    """The update of the paper by autograd and torch's Adam, which skips tasks without a gradient."""

    def __init__(self, tasks):
        super().__init__(tasks)
        self.logits = {task: Parameter(torch.zeros((), dtype=torch.float64)) for task in tasks}
        self.adam = torch.optim.Adam(self.logits.values(), lr=0.025, weight_decay=0.001)

    def weights(self, losses, epoch, number):
        z = torch.softmax(torch.stack([self.logits[task] for task in losses]), 0)
        parts = {task: share / loss for task, share, loss in zip(losses, z.tolist(), losses.values(), strict=True)}
        return {task: len(losses) * part / sum(parts.values()) for task, part in parts.items()}

    def after(self, losses, shares, norms, losses_after, epoch):
        z = torch.softmax(torch.stack([self.logits[task] for task in losses]), 0)
        fallen = torch.tensor([math.log(losses[task]) - math.log(losses_after[task]) for task in losses])
        self.adam.zero_grad()
        if len(losses) > 1:
            (z * fallen).sum().backward()
            self.adam.step()


class StchReference(Reference):
    def weights(self, losses, epoch, number):
        values = torch.tensor(list(losses.values()), dtype=torch.float64, requires_grad=True)
        STCH(0.5)(values).backward()
        scaled = values.grad / values.grad.sum() * len(losses)
        return dict(zip(losses, scaled.tolist(), strict=True))


class EqualStartReference(Reference):
    """The mean loss in the first four steps."""

    def __init__(self, tasks):
        super().__init__(tasks)
        self.seen: dict[str, list[float]] = {task: [] for task in tasks}

    def weights(self, losses, epoch, number):
        for task, loss in losses.items() if number < 4 else ():
            self.seen[task].append(loss)
        return {task: len(seen) / sum(seen) if seen else 1.0 for task, seen in self.seen.items()}


class LogClassesReference(Reference):
    def weights(self, losses, epoch, number):
        return {"pos": 1 / math.log(3), "ner": 1 / math.log(3), "topic": 1 / math.log(2), "score": 1.0}


REFERENCES = {
    "uncertainty": UncertaintyReference,
    "imtl-l": ImtlLReference,
    "dwa": DwaReference,
    "gradnorm": GradNormReference,
    "famo": FamoReference,
    "stch": StchReference,
    "equal-start": EqualStartReference,
    "log-classes": LogClassesReference,
}

OWN_PARAMETERS = {
    "uncertainty": {"learning_rate": RATE}, "imtl-l": {"learning_rate": RATE}, "equal-start": {"steps": 4},
}  # fmt: skip


def losses_of(model: MultitaskModel, batch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the mean loss of each task with labels in a batch."""
    sums = model(**batch).loss_sums
    units = {task: model.tasks[task].kind.count_units(batch["labels"][task]) for task in sums}
    return {task: sums[task] / units[task] for task in sums if len(batch["rows"][task]) and units[task]}


def train_by_hand(
    model: MultitaskModel, epochs: Sequence[Sequence[Mapping[str, Any]]], reference: Reference, scale: str = "rows"
) -> list[dict[str, float]]:
    """Train with plain gradient descent, one batch per step, and return the weights of the tasks in each step.

    Args:
        model: the model.
        epochs: the batches of each epoch.
        reference: the weighting.
        scale: `rows` or `per_task`.
    """
    used = []
    last = [p for name, p in model.encoder.named_parameters() if "encoder.layer.1." in f"encoder.{name}"]
    assert last
    numbered = [(epoch, batch) for epoch, batches in enumerate(epochs) for batch in batches]
    for number, (epoch, batch) in enumerate(numbered):
        losses = losses_of(model, batch)
        plain = {task: loss.item() for task, loss in losses.items()}
        shares = {
            task: len(batch["rows"][task]) / len(batch["input_ids"]) if scale == "rows" else 1.0 for task in losses
        }
        weights = reference.weights(plain, epoch, number)
        norms = {}
        for task, loss in losses.items():
            gradients = torch.autograd.grad(loss, last, retain_graph=True, allow_unused=True)
            norms[task] = math.sqrt(sum(float(each.square().sum()) for each in gradients if each is not None))
        model.zero_grad()
        sum(weights[task] * shares[task] * loss for task, loss in losses.items()).backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= RATE * (0.0 if parameter.grad is None else parameter.grad)
            after = {task: loss.item() for task, loss in losses_of(model, batch).items()}
        reference.after(plain, shares, norms, after, epoch)
        used.append(weights)
    return used


def by_torchjd(scalarizer: Scalarizer, losses: Sequence[float]) -> list[float]:
    """Return the gradient of a scalarizer with respect to the losses, as a user of torchjd computes it."""
    values = torch.tensor(losses, requires_grad=True)
    scalarizer(values).backward()
    return values.grad.tolist()
