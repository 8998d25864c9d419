"""The recipe: the YAML file that defines which tasks are trained on which datasets, and its validation."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
