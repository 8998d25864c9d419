"""The use of a trained model: answers for files of texts, on a page, and in a Hub Space.

The module `mtl_nlp.serving.page` needs the extra `demo` and is not imported here.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
