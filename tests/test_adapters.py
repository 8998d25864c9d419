"""Adapters in training: recipes, the pull, what is trained, and adding a task to a trained model."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from command_line import run_command
from conftest import build_config, build_model
from peft import LoraConfig
from torch import nn

from mtl_nlp import Recipe, RecipeError, TextClassification, TokenClassification
from mtl_nlp.adapters import adapt, adapter_spread, check_adapters, describe_parameters
from mtl_nlp.modeling.adapters_multitask import low_rank_factors
from mtl_nlp.run import build_model as build_run_model
from mtl_nlp.run import build_trainer, outline_model, prepare_run, training_arguments
from mtl_nlp.trained_model import load_model

TASKS = [
    TokenClassification(name="pos", labels=["A", "B"]),
    TokenClassification(name="ner", labels=["O", "B-X"], scheme="iob2"),
    TextClassification(name="topic", labels=["x", "y"]),
]
ADAPTERS = {"r": 4, "target_modules": "all-linear"}
