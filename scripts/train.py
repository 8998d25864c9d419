"""Train a recipe with `accelerate launch scripts/train.py RECIPE`, the same as `mtl-nlp train RECIPE`."""

import sys

from mtl_nlp.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
