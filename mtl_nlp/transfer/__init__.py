"""Did sharing help? Differences between ways to train the same tasks, with intervals, and where the answers differ."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
