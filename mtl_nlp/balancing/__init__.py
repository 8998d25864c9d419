"""The balance between tasks: the weights of their losses, and the pull between their adapters."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
