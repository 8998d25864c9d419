"""The model, as it ships to the Hub: configuration, tasks, heads, adapters, loss and pipeline."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
