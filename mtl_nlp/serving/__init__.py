"""The answers of a trained model: for files of texts, on a page, and in a Hub Space.

The page is in `mtl_nlp.serving.page`, which needs the extra `demo`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
