"""The entry point of `python -m mtl_nlp` and `accelerate launch -m mtl_nlp`."""

import sys

from mtl_nlp.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
