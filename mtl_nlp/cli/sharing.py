"""The commands that share or change a trained model: `push`, `export` and `drop`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl_nlp.cli.options import add_command, add_overrides, new_folder, quiet_libraries
from mtl_nlp.errors import ExportError, ModelError, needs_extra, writing_to
from mtl_nlp.messages import counted, table
from mtl_nlp.recipe.sections import SPLITS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from mtl_nlp.modeling.modeling_multitask import MultitaskModel


def add_commands(commands: Any) -> None:
    """Add the commands of this module to the command line."""
    parser = add_command(
        commands, push, "push a trained model to the Hub", "mtl-nlp push runs/quickstart YOU/NAME --private"
    )
    parser.add_argument("model", help="folder of a trained model")
    parser.add_argument("repo_id", help="OWNER/NAME, or NAME for your own account; created if it does not exist")
    parser.add_argument("--private", action="store_true", help="create a repository that only its owner can see")
    parser.add_argument("--revision", help="the branch to push to; created if it does not exist (default: main)")
    parser.add_argument("--create-pr", action="store_true", help="open a pull request instead of pushing")
    parser.add_argument("--with-code", action="store_true", help="push the model's code too, for users without mtl_nlp")
    parser.add_argument("--commit-message", default="Upload model trained with mtl_nlp", metavar="TEXT")

    parser = add_command(
        commands,
        export,
        "write a trained model in another format",
        "mtl-nlp export runs/quickstart --task ner --format transformers ner-model\n"
        "  mtl-nlp export runs/adapters --task ner --format peft ner-adapter\n"
        "  mtl-nlp export runs/quickstart --format onnx --int8 --recipe recipes/quickstart.yaml onnx-model",
    )
    parser.add_argument("model", help="folder or Hub id of a trained model")
    parser.add_argument("output", help="the folder to write")
    parser.add_argument("--format", choices=("transformers", "peft", "onnx"), required=True)
    parser.add_argument("--task", help="the task to export (for transformers and peft)")
    parser.add_argument("--int8", action="store_true", help="write 8-bit weights (for onnx; needs --recipe)")
    parser.add_argument("--recipe", help="compare the scores of file and model on this recipe's --split (for onnx)")
    parser.add_argument("--split", choices=SPLITS, default="validation", help="default: validation")
    add_overrides(parser)

    parser = add_command(
        commands, drop, "remove tasks from a trained model", "mtl-nlp drop runs/quickstart without-ner --task ner"
    )
    parser.add_argument("model", help="folder or Hub id of a trained model")
    parser.add_argument("output", help="the folder to write")
    parser.add_argument("--task", action="append", required=True, help="the task to remove; may be repeated")


def push(options: argparse.Namespace) -> None:
    """Push a trained model to the Hub as one commit: model, tokenizer, card, recipe, results and report.

    The report is made again, without local paths, and without texts unless the recipe says `card: {examples: true}`.
    """
    folder = Path(options.model)
    if not folder.is_dir():
        raise ModelError(f"There is no folder {folder}. Train a model: mtl-nlp train.")
    quiet_libraries()
    from mtl_nlp.hub.loading import load_model, load_model_tokenizer
    from mtl_nlp.hub.repository import check_can_be_published, make_repository, push_files, repository_files

    # Check that the model is complete before anyone can see it.
    load_model_tokenizer(options.model, load_model(options.model).config)
    check_can_be_published(folder)
    report = _shared_report(folder, options.repo_id)
    repo_id = make_repository(options.repo_id, private=options.private or None)
    files = repository_files(folder, repo_id, with_code=options.with_code) | report
    pushed = push_files(
        files,
        repo_id,
        commit_message=options.commit_message,
        revision=options.revision,
        create_pr=options.create_pr,
    )
    print(f"Pushed {counted(len(files), 'file')}: {pushed.pr_url or pushed.commit_url}")


def _shared_report(folder: Path, repo_id: str) -> dict[str, Path | bytes]:
    """Return the report for a push: on the comparison of the model, else on its run; empty if it has no results."""
    from mtl_nlp.hub.comparison import comparison_of
    from mtl_nlp.report.page import report_page
    from mtl_nlp.run_folder import REPORT_NAME, RESULTS_NAME, shared_recipe

    comparison = comparison_of(folder)
    if comparison is None and not (folder / RESULTS_NAME).is_file():
        return {}
    recipe = shared_recipe(folder)
    page = report_page(
        folder if comparison is None else comparison.parent,
        examples=recipe is not None and recipe.card.examples,
        name=repo_id,  # the name of a folder can be the value of a variable
    )
    return {REPORT_NAME: page.encode()}


def export(options: argparse.Namespace) -> None:
    """Write one task of a trained model as a plain transformers model or a PEFT adapter, or all tasks as ONNX."""
    output = new_folder(options.output)
    quiet_libraries()
    from mtl_nlp.export.peft import export_peft
    from mtl_nlp.export.stock import export_stock
    from mtl_nlp.hub.loading import load_model, load_model_tokenizer
    from mtl_nlp.run_folder import saved_recipe

    model = load_model(options.model)
    tokenizer = load_model_tokenizer(options.model, model.config)
    if options.format == "onnx":
        _export_onnx(options, model, tokenizer, output)
        return
    if options.task is None:
        raise ExportError(f"--format {options.format}: name the --task, one of {', '.join(model.tasks)}.")
    if options.int8 or options.recipe is not None or options.set:
        raise ExportError("--int8, --recipe and --set need --format onnx.")
    if options.format == "transformers":
        with writing_to(output, "OUT"):
            written = export_stock(model, tokenizer, options.task, output)
        if written != model.dtype:
            print(f"note: written in float32, since {model.dtype} cannot hold numbers with this mean and deviation")
        print(f'The task is in {output}: pipeline("{model.tasks[options.task].kind.pipeline_task}", "{output}")')
        return
    recipe = saved_recipe(Path(options.model))
    with writing_to(output, "OUT"):
        base = export_peft(model, tokenizer, options.task, output, None if recipe is None else recipe.encoder)
    task = model.tasks[options.task]
    precision = str(model.dtype).removeprefix("torch.")
    # transformers loads a model in the precision in which it is stored, and the base may be stored in half precision.
    labels = "" if Path(base).parent == output else f', num_labels={task.num_labels}, dtype="{precision}"'
    print(
        f"The adapter is in {output}, for {base}: "
        f'PeftModel.from_pretrained({task.kind.auto_class}.from_pretrained("{base}"{labels}), "{output}")'
    )


def drop(options: argparse.Namespace) -> None:
    """Write a trained model without some of its tasks. The answers of the other tasks stay the same."""
    output = new_folder(options.output)
    quiet_libraries()
    from mtl_nlp.hub.loading import load_model, load_model_tokenizer
    from mtl_nlp.hub.model_card import write_model_card

    model = load_model(options.model)
    tokenizer = load_model_tokenizer(options.model, model.config)
    try:
        for task in options.task:
            model.drop_task(task)
    except ValueError as error:
        raise ModelError(f"--task: {error}") from error
    with writing_to(output, "OUT"):
        model.save_pretrained(output)
        tokenizer.save_pretrained(output)
        write_model_card(output)
    print(f"The model, with {', '.join(model.tasks)}, is in {output}.")


def _export_onnx(
    options: argparse.Namespace, model: MultitaskModel, tokenizer: PreTrainedTokenizerBase, output: Path
) -> None:
    with needs_extra("onnx"):
        from mtl_nlp.export.onnx import export_onnx
    from mtl_nlp.export.scores import compare_scores
    from mtl_nlp.recipe.schema import Recipe
    from mtl_nlp.run.prepare import prepare_evaluation

    if options.task is not None:
        raise ExportError("--task needs --format transformers or peft. An ONNX file has an output per task.")
    if options.int8 and options.recipe is None:
        raise ExportError("--int8 reduces accuracy. Name a --recipe, on whose --split the scores are compared.")
    run = None
    if options.recipe is not None:
        recipe = Recipe.load(options.recipe, options.set, allow_code=options.allow_code)
        run = prepare_evaluation(recipe, model, options.model, options.split)
    with needs_extra("onnx"), writing_to(output, "OUT"):
        exported = export_onnx(model, tokenizer, output, int8=options.int8)
    if run is not None:
        rows = compare_scores(model, exported, run.splits[options.split], tokenizer)
        kind = "onnx int8" if options.int8 else "onnx"
        print(table(("task", f"{options.split} score", "torch", kind, "points"), rows))
    print(f"The model is in {output}. Try it: mtl-nlp predict {output} FILE")
