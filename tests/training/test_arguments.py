from __future__ import annotations

from dataclasses import fields

import pytest
from transformers import HfArgumentParser, TrainingArguments
from transformers.training_args import ParallelMode

from mtl_nlp import MultitaskTrainingArguments
from mtl_nlp.messages import remember_expanded


def test_arguments_extend_training_arguments_and_keep_their_defaults():
    ours, stock = ({f.name: f.default for f in fields(c)} for c in (MultitaskTrainingArguments, TrainingArguments))
    more = {
        "loss_weights",
        "loss_scale",
        "max_tokens_per_batch",
        "head_learning_rate",
        "layer_lr_decay",
        "early_stopping_patience",
        "freeze_patience",
        "on_nonfinite",
        "conflict_every",
    }
    more |= {"adapter_learning_rate", "adapter_pull", "conflict_every", "precision"}
    assert set(ours) - set(stock) == more
    changed = {name for name, default in stock.items() if ours[name] is not default}
    more = {"restore_callback_states_from_checkpoint", "logging_nan_inf_filter"}
    assert changed == {"remove_unused_columns", "label_names", "ddp_find_unused_parameters"} | more


def test_defaults_keep_all_columns_find_the_labels_and_report_to_nothing(tmp_path):
    args = MultitaskTrainingArguments(str(tmp_path))
    assert args.remove_unused_columns is False
    assert args.label_names == ["labels"]
    assert args.report_to == []


def test_command_line_sets_every_field(tmp_path):
    line = ["--output_dir", str(tmp_path), "--loss_weights", '{"pos": [1.0, 0.5]}', "--loss_scale", "per_task"]
    line += ["--head_learning_rate", "0.01", "--early_stopping_patience", "3", "--load_best_model_at_end"]
    line += ["--eval_strategy", "epoch", "--save_strategy", "epoch", "--max_tokens_per_batch", "4096"]
    (args,) = HfArgumentParser(MultitaskTrainingArguments).parse_args_into_dataclasses(line)
    assert (args.loss_weights, args.loss_scale) == ({"pos": [1.0, 0.5]}, "per_task")
    assert (args.head_learning_rate, args.early_stopping_patience) == (0.01, 3)
    assert args.max_tokens_per_batch == 4096


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"loss_scale": "rwos"}, "`loss_scale` should be 'rows' or 'per_task'. Found 'rwos'"),
        (
            {"loss_weights": {"pos": -1.0}},
            "`loss_weights.pos` should be finite and at least 0. Found -1.0",
        ),
        (
            {"loss_weights": {"pos": [1.0, 0.5, 0.2]}},
            "`loss_weights.pos` should be a number or a pair of numbers. Found ",
        ),
        (
            {"loss_weights": {"pos": float("nan")}},
            "`loss_weights.pos` should be finite and at least 0. Found nan",
        ),
        ({"loss_weights": "weights.json"}, "`loss_weights` should map tasks to weights. Found 'weights.json'"),
        ({"max_tokens_per_batch": 0}, "`max_tokens_per_batch` should be at least 1. Found 0"),
        ({"max_tokens_per_batch": -512}, "`max_tokens_per_batch` should be at least 1. Found -512"),
        ({"logging_nan_inf_filter": True}, "`logging_nan_inf_filter` should be false, since a run ends"),
        ({"learning_rate": float("nan")}, "`learning_rate` should be finite and at least 0. Found nan"),
        ({"learning_rate": 1e39}, "`learning_rate` should be at most 3.4e\\+38, the limit of float32. Found 1e\\+39"),
        ({"weight_decay": float("inf")}, "`weight_decay` should be finite and at least 0. Found inf"),
        ({"head_learning_rate": -0.1}, "`head_learning_rate` should be at least 0. Found -0.1"),
        ({"layer_lr_decay": 1.5}, "`layer_lr_decay` should be above 0 and at most 1. Found 1.5"),
        ({"layer_lr_decay": 0.0}, "`layer_lr_decay` should be above 0 and at most 1. Found 0.0"),
        ({"on_nonfinite": "go"}, "`on_nonfinite` should be 'stop' or 'skip'. Found 'go'"),
        ({"precision": "fp64"}, "`precision` should be one of auto, fp32, bf16. Found 'fp64'"),
        ({"precision": "bf16", "fp16": True}, "`precision` bf16 and `fp16` exclude each other"),
        ({"precision": "fp32", "bf16": True}, "`precision` fp32 and `bf16` exclude each other"),
        ({"freeze_patience": 0}, "`freeze_patience` should be at least 1. Found 0"),
        ({"freeze_patience": 2}, "`freeze_patience` needs evaluations during training"),
        ({"early_stopping_patience": 2}, "`early_stopping_patience` needs `load_best_model_at_end: true`"),
    ],
)
def test_values_out_of_range_are_refused(tmp_path, wrong, message):
    with pytest.raises(ValueError, match=message):
        MultitaskTrainingArguments(str(tmp_path), **wrong)


def test_patience_of_zero_evaluations_is_refused(tmp_path):
    best = {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "epoch"}
    with pytest.raises(ValueError, match="`early_stopping_patience` should be at least 1"):
        MultitaskTrainingArguments(str(tmp_path), early_stopping_patience=0, **best)


def test_ddp_does_not_search_unused_parameters_by_default(tmp_path):
    assert MultitaskTrainingArguments(str(tmp_path)).ddp_find_unused_parameters is False
    assert MultitaskTrainingArguments(str(tmp_path), ddp_find_unused_parameters=True).ddp_find_unused_parameters


@pytest.mark.parametrize("found", [0, 1, 4])
def test_process_uses_at_most_one_device_and_no_data_parallel(tmp_path, found):
    args = MultitaskTrainingArguments(str(tmp_path), per_device_train_batch_size=5, per_device_eval_batch_size=6)
    assert args.n_gpu in {0, 1}
    args._n_gpu = found
    assert args.n_gpu == min(found, 1)
    assert (args.train_batch_size, args.eval_batch_size) == (5, 6)
    assert args.parallel_mode == ParallelMode.NOT_PARALLEL


@pytest.mark.parametrize("setting", [{"train_sampling_strategy": "group_by_length"}, {"dataloader_drop_last": True}])
def test_arguments_that_the_mixture_decides_are_refused(tmp_path, setting):
    with pytest.raises(ValueError, match=r"since the mixture orders and groups the batches.*\. Leave it out\."):
        MultitaskTrainingArguments(str(tmp_path), **setting)


def test_best_model_is_chosen_by_mtl_score_by_default(tmp_path):
    best = {"load_best_model_at_end": True, "eval_strategy": "epoch", "save_strategy": "epoch"}
    assert MultitaskTrainingArguments(str(tmp_path), **best).metric_for_best_model == "mtl_score"
    assert MultitaskTrainingArguments(str(tmp_path), **best).greater_is_better
    named = MultitaskTrainingArguments(str(tmp_path), **best, metric_for_best_model="loss")
    assert named.metric_for_best_model == "loss"


def test_values_from_the_environment_are_not_reported_to_trackers(tmp_path):
    remember_expanded("qqtracked-7", "${MTL_RUN}")
    args = MultitaskTrainingArguments(
        str(tmp_path), run_name="a-qqtracked-7", lr_scheduler_kwargs={"note": ["qqtracked-7"]}
    )
    assert args.run_name == "a-qqtracked-7"
    assert args.to_dict()["run_name"] == args.to_sanitized_dict()["run_name"] == "a-${MTL_RUN}"
    assert args.to_dict()["lr_scheduler_kwargs"] == {"note": ["${MTL_RUN}"]}
    assert "qqtracked" not in args.to_json_string()


def test_checkpoints_of_transformers_at_sigterm_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`enable_jit_checkpoint` should be false"):
        MultitaskTrainingArguments(output_dir=str(tmp_path), enable_jit_checkpoint=True)
