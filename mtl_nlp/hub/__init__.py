"""The Hub: loading trained models from it and pushing them to it, with their model card."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
