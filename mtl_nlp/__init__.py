"""Multitask fine-tuning of transformer encoders: one encoder, one head per task, many datasets.

The public names are in `__init__.pyi`. Each name is imported on first use, so that `import mtl_nlp`
takes a few milliseconds.
"""

import lazy_loader

from mtl_nlp.registration import register_on_import

register_on_import()

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
