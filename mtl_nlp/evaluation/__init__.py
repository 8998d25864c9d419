"""The evaluation: predictions of a model on a split, their metrics, and the results file."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
