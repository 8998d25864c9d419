"""A run: a recipe with its data, which builds the model, the batches and the trainer."""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase, set_seed

from mtl_nlp.data.encoding import EncodedDataset, EncodedStream
from mtl_nlp.errors import RecipeError
from mtl_nlp.hub.loading import load_model
from mtl_nlp.hub.outside import Loading, check_size
from mtl_nlp.messages import conceal
from mtl_nlp.mixture.mixture import TaskMixture
from mtl_nlp.mixture.sampler import MixtureBatchSampler
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.modeling.modeling_multitask import MultitaskModel
from mtl_nlp.modeling.tasks_multitask import Task
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.run.adapters import adapt
from mtl_nlp.run.argument_types import seed_of
from mtl_nlp.run.arguments import training_arguments
from mtl_nlp.run.gradients import check_gradients, gradient_method_of
from mtl_nlp.run.notes import held_out_split
from mtl_nlp.run.refusal import REFUSALS, refused
from mtl_nlp.run.teachers import Teacher, taught_splits
from mtl_nlp.run.trial import try_model
from mtl_nlp.run.weighting import loss_weighting
from mtl_nlp.training.arguments import MultitaskTrainingArguments
from mtl_nlp.training.best_metric import check_best_metric
from mtl_nlp.training.headroom import check_headroom
from mtl_nlp.training.schedule import batch_sampler
from mtl_nlp.training.trainer import MultitaskTrainer

logger = logging.getLogger(__name__)


@dataclass
class Run:
    """A recipe with its data, ready for training or evaluation.

    Attributes:
        recipe: the recipe.
        tokenizer: the encoder's tokenizer.
        config: the model's configuration with all tasks and their label spaces. Before training, the configuration has
            only the adapters of the trained model that the recipe starts from.
        splits: split -> dataset -> its encoded rows.
        streams: dataset -> its training split, if that is streamed.
        notes: sentences for the user about the data and the encoder.
        headroom: the value of `TaskMixture.headroom`; False for an evaluation.
        trained_heads: the tasks whose heads a trained model has, from which the recipe starts.
        teachers: the teacher of each task that the recipe teaches.
    """

    recipe: Recipe
    tokenizer: PreTrainedTokenizerBase
    config: MultitaskConfig
    splits: dict[str, dict[str, EncodedDataset]]
    streams: dict[str, EncodedStream]
    notes: list[str] = field(default_factory=list)
    headroom: bool | dict[str, float] = False
    trained_heads: Collection[str] = ()
    teachers: dict[str, Teacher] = field(default_factory=dict)
    _is_tried: bool = field(default=False, init=False, repr=False)

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """All tasks of the model by name: the recipe's tasks, and the tasks of a trained model that it starts from.

        The recipe decides the scores of its tasks.
        """
        tasks = {task.name: task for task in self.config.get_tasks()}
        return {
            name: task.with_scores_of(self.recipe.task(name)) if name in self.recipe.tasks else task
            for name, task in tasks.items()
        }

    @property
    def train(self) -> dict[str, EncodedDataset | EncodedStream]:
        """The training splits in the recipe's order; empty for an evaluation."""
        found: dict[str, EncodedDataset | EncodedStream] = {**self.splits.get("train", {}), **self.streams}
        return {name: found[name] for name in self.recipe.datasets if name in found}

    @cached_property
    def mixture(self) -> TaskMixture:
        """The training splits as the recipe mixes them."""
        return self._mix(self.train)

    def taught_mixture(self, arguments: MultitaskTrainingArguments) -> TaskMixture:
        """Return the mixture with the scores of the recipe's teachers, which are computed unless they are in the cache.

        Args:
            arguments: the training arguments, see `taught_splits`.

        Raises:
            ModelError: if a teacher cannot be loaded.
        """
        if not self.teachers:
            return self.mixture
        return self._mix(taught_splits(self.train, self.teachers, self.tasks, arguments))

    def _mix(self, datasets: dict[str, EncodedDataset | EncodedStream]) -> TaskMixture:
        try:
            return TaskMixture(datasets, **{**dict(self.recipe.mixture), "headroom": self.headroom})
        except ValueError as error:
            raise RecipeError(f"mixture: {error}") from error

    @property
    def held_out(self) -> str:
        """The split to report scores on, see `held_out_split`."""
        return held_out_split(self.recipe.tasks, self.splits)

    def training_arguments(self) -> MultitaskTrainingArguments:
        """Return the training arguments of the recipe.

        Raises:
            RecipeError: if a value is not valid.
        """
        return training_arguments(self.recipe)

    def try_model(self) -> None:
        """Run a small random model of the run's form once, and add what it shows to the notes, see `trial.try_model`.

        Raises:
            RecipeError: if the encoder's family does not work with the tasks or the adapters.
        """
        if not self._is_tried:
            self.notes += try_model(self.recipe, self.tokenizer, self.config)
            self._is_tried = True

    def build_model(self) -> MultitaskModel:
        """Build the model: an encoder or a trained model, with new heads and adapters, see `build_model`.

        Raises:
            RecipeError: if the encoder's family does not work with the tasks or the adapters.
        """
        self.try_model()
        return build_model(self)

    def build_trainer(
        self,
        model: MultitaskModel | None = None,
        args: MultitaskTrainingArguments | None = None,
        **options: Any,
    ) -> MultitaskTrainer:
        """Build the trainer, which trains on the mixture and evaluates on the validation split.

        Args:
            model: the model; by default, a new model of the recipe, unless there is a `model_init`.
            args: the training arguments; those of the recipe by default.
            **options: further arguments of [`MultitaskTrainer`], such as `callbacks` and `compute_metrics`; with
                `model_init=run.build_model`, each training begins with a new model of the recipe.

        Raises:
            RecipeError: if arguments contradict each other, or need a package that is not installed.
        """
        if model is None and options.get("model_init") is None:
            model = self.build_model()
        return build_trainer(self, model, args or self.training_arguments(), **options)


def build_model(run: Run) -> MultitaskModel:
    """Build the model of a run: an encoder or a trained model, with new heads and adapters.

    `training.seed` seeds the new weights.

    Args:
        run: the run.

    Raises:
        RecipeError: if the encoder cannot be loaded, or the recipe's adapters or frozen parts do not fit the encoder.
        ModelError: if a trained model cannot be loaded.
    """
    logger.info("building the model from %s", conceal(run.recipe.encoder))
    set_seed(seed_of(run.recipe))
    return _apply_recipe(load_start(run.recipe, run.config, list(run.tasks.values())), run)


def load_start(recipe: Recipe, config: MultitaskConfig, tasks: Sequence[Task]) -> MultitaskModel:
    """Load the model that the training of a recipe starts from, without the recipe's adapters.

    Args:
        recipe: the recipe.
        config: the configuration from `load_encoder_parts`.
        tasks: the tasks of the new heads of a pretrained encoder. A trained multitask model has its own heads only.

    Raises:
        RecipeError: if the encoder cannot be loaded.
        ModelError: if a trained model cannot be loaded.
    """
    options = copy.deepcopy(recipe.model_init_kwargs)  # the libraries may change them, and the recipe is published
    options["trust_remote_code"] = False  # `load_encoder_parts` has refused an encoder that needs its own code
    if config.name_or_path:  # a trained multitask model
        return load_model(recipe.encoder, **{"dtype": torch.float32, **options})
    with Loading(RecipeError, f"encoder: {recipe.encoder}"):
        check_size(config.text_config, recipe.encoder, **options)
        return MultitaskModel.from_encoder(
            recipe.encoder, tasks, max_length=config.max_length, stride=config.stride, **options
        )


def build_meta_model(run: Run) -> MultitaskModel:
    """Build the model of `build_model` on the meta device, without weights.

    Args:
        run: the run.

    Raises:
        RecipeError: if the recipe's adapters or frozen parts do not fit the model.
    """
    with torch.device("meta"):
        return _apply_recipe(MultitaskModel(copy.deepcopy(run.config)), run)


def _apply_recipe(model: MultitaskModel, run: Run) -> MultitaskModel:
    for name, task in run.tasks.items():
        if name not in model.tasks:
            model.add_task(task)
        model.tasks[name] = task  # with the scores that the recipe asks for
    model.config.tasks = [task.to_dict() for task in model.tasks.values()]
    model.config.max_length, model.config.stride = run.config.max_length, run.config.stride
    model.config.pair_tasks = run.config.pair_tasks
    adapt(model, run.recipe)
    return model


def check_splits(run: Run, arguments: MultitaskTrainingArguments) -> None:
    """Check that a run has splits for the evaluation in training, with its best metric, and for the final scores.

    Args:
        run: the run.
        arguments: the training arguments of the run.

    Raises:
        RecipeError: if a split is missing, or the metric for the best model.
    """
    if "validation" not in run.splits and arguments.eval_strategy != "no":
        raise RecipeError(
            "training.eval_strategy: there is no validation split. Add one, set `validation_size` in a dataset, or "
            "set `training.eval_strategy: no`."
        )
    try:
        check_best_metric(arguments, {"": run.splits.get("validation", {})}, run.tasks)
    except ValueError as error:
        raise RecipeError(f"training: {error}") from error
    if not run.splits.keys() & {"test", "validation"}:
        raise RecipeError(
            "datasets: there is neither a test nor a validation split to score the model on. Add one, or set "
            "`validation_size` in a dataset."
        )


def plan_batches(run: Run, arguments: MultitaskTrainingArguments) -> MixtureBatchSampler:
    """Return the sampler of the training batches.

    Args:
        run: the run.
        arguments: the training arguments of the run.

    Raises:
        RecipeError: if the mixture or its batches cannot be built.
    """
    try:
        sampler = batch_sampler(run.mixture, arguments)
    except ValueError as error:
        raise error if isinstance(error, RecipeError) else RecipeError(f"training: {error}") from error
    try:
        check_headroom(sampler, run.splits.get("validation", {}), arguments)
    except ValueError as error:
        raise RecipeError(f"mixture.headroom: {error}") from error
    return sampler


def build_trainer(
    run: Run,
    model: MultitaskModel | None,
    arguments: MultitaskTrainingArguments,
    *,
    trainer_class: type[MultitaskTrainer] = MultitaskTrainer,
    teaches: bool = True,
    **options: Any,
) -> MultitaskTrainer:
    """Build the trainer of a run.

    Args:
        run: the run.
        model: the model of the run; None for the models of the option `model_init`.
        arguments: the training arguments of the run.
        trainer_class: the class of the trainer.
        teaches: whether the scores of the recipe's teachers are computed, and the trainer uses them.
        **options: further arguments of [`MultitaskTrainer`], instead of those of the recipe.

    Raises:
        RecipeError: if arguments contradict each other, or need a package that is not installed.
    """
    given: dict[str, Any] = {"processing_class": run.tokenizer, "eval_dataset": run.splits.get("validation")}
    if run.train:
        check_gradients(model or build_meta_model(run), run.recipe, arguments)
        given |= {
            "train_dataset": run.taught_mixture(arguments) if teaches else run.mixture,
            "gradient_method": gradient_method_of(run.recipe, run.tasks),
            "loss_weighting": loss_weighting(run.recipe, run.tasks),
        }
    try:
        trainer = trainer_class(model=model, args=arguments, **{**given, **options})
    except REFUSALS as error:  # such as an ImportError, if a package for `report_to` is missing
        raise refused(error) from error
    trainer.recipe = run.recipe.to_yaml()
    return trainer
