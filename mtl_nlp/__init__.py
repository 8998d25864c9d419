"""Multitask fine-tuning of transformer encoders: one encoder, one head a task, many datasets."""

from transformers import AutoModel
from transformers.pipelines import PIPELINE_REGISTRY

from mtl_nlp._version import __version__
from mtl_nlp.data.collator import MultitaskDataCollator
from mtl_nlp.data.encoding import EncodedDataset, EncodedStream, encode
from mtl_nlp.data.tokenizer import load_tokenizer
from mtl_nlp.errors import DataError, RecipeError
from mtl_nlp.mixture.mixture import TaskMixture
from mtl_nlp.modeling.configuration_multitask import MultitaskConfig
from mtl_nlp.modeling.label_kinds_multitask import LabelKind
from mtl_nlp.modeling.loss_multitask import joint_loss
from mtl_nlp.modeling.modeling_multitask import MultitaskModel, MultitaskOutput
from mtl_nlp.modeling.pipeline_multitask import MultitaskPipeline
from mtl_nlp.modeling.tasks_multitask import (
    TASK_TYPES,
    MultiLabelClassification,
    Regression,
    Task,
    TextClassification,
    TokenClassification,
    register_task_type,
)
from mtl_nlp.recipe.schema import Recipe
from mtl_nlp.training.arguments import MultitaskTrainingArguments
from mtl_nlp.training.trainer import MultitaskTrainer

PIPELINE_REGISTRY.register_pipeline("multitask", pipeline_class=MultitaskPipeline, pt_model=AutoModel, type="text")

__all__ = [
    "TASK_TYPES",
    "DataError",
    "EncodedDataset",
    "EncodedStream",
    "LabelKind",
    "MultiLabelClassification",
    "MultitaskConfig",
    "MultitaskDataCollator",
    "MultitaskModel",
    "MultitaskOutput",
    "MultitaskPipeline",
    "MultitaskTrainer",
    "MultitaskTrainingArguments",
    "Recipe",
    "RecipeError",
    "Regression",
    "Task",
    "TaskMixture",
    "TextClassification",
    "TokenClassification",
    "__version__",
    "encode",
    "joint_loss",
    "load_tokenizer",
    "register_task_type",
]
