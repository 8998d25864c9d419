"""Loading trained models from the Hub, and pushing them to the Hub with their model card."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
