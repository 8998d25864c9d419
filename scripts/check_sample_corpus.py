"""Compare the sample corpus with a model trained on English-EWT: python scripts/check_sample_corpus.py runs/ewt

The script prints the share of equal UPOS tags and the strict F1 of the model's entities against the entities of the
corpus, per topic and in total. With --disagreements it prints every word on which the model and the corpus differ. The
model must be trained by recipes/ewt.yaml, on all rows or on some.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

from transformers import AutoTokenizer, pipeline

from mtl_nlp.data.conll import read_conll
from mtl_nlp.evaluation.metrics import compute
from mtl_nlp.hub.loading import load_model
from mtl_nlp.modeling.pipeline_multitask import parse_input
from mtl_nlp.modeling.spans_multitask import repair_tags

CORPUS = Path(__file__).parents[1] / "recipes" / "sample_corpus"


def main() -> None:
    """Tag the corpus with the model and print the agreement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of a model trained by recipes/ewt.yaml")
    parser.add_argument("--disagreements", action="store_true", help="print every word with different labels")
    options = parser.parse_args()
    files = sorted(CORPUS.glob("*/*.conll"))
    texts = [row for file in files for row in read_conll(file, ["tokens", "upos", "ner"])]
    answer = pipeline(
        "multitask", model=load_model(options.model), tokenizer=AutoTokenizer.from_pretrained(options.model)
    )
    tagged: dict[str, dict[str, list]] = {"pos": defaultdict(list), "ner": defaultdict(list)}
    inputs = [{"tokens": row["tokens"]} for row in texts]
    for row, answers in zip(texts, answer(inputs, batch_size=32), strict=True):
        _, words = parse_input({"tokens": row["tokens"]})
        tags = {name: answer.model.tasks[name].kind.as_strings(answers[name], words) for name in ("pos", "ner")}
        for name, gold in (("pos", row["upos"]), ("ner", repair_tags(row["ner"], "iob2"))):
            for key in (row["topic"], "all"):
                tagged[name][key].append((tags[name], gold))
        if options.disagreements:
            print_differences(row, tags)
    for key in sorted(tagged["pos"], key=lambda name: (name == "all", name)):
        accuracy = compute("accuracy", *map(list, zip(*tagged["pos"][key], strict=True)))["accuracy"]
        f1 = compute("span_f1_iob2", *map(list, zip(*tagged["ner"][key], strict=True)))["f1"]
        print(f"{key:8}  UPOS agreement {100 * accuracy:.2f} %  entity F1 {f1:.3f}  ({len(tagged['pos'][key])} texts)")


def print_differences(row: dict, tags: dict[str, list[str]]) -> None:
    """Print one line per differing word: the text's id, the word, and the labels of the corpus and of the model."""
    words = zip(row["tokens"], row["upos"], tags["pos"], row["ner"], tags["ner"], strict=True)
    for word, upos, predicted_upos, ner, predicted_ner in words:
        if upos != predicted_upos or ner != predicted_ner:
            print(f"{row['sent_id']}\t{word}\t{upos} {predicted_upos}\t{ner} {predicted_ner}\t{row['text']}")


if __name__ == "__main__":
    main()
