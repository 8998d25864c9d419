"""The search for the settings of a recipe: spaces, trials, studies, and the choice of the best settings."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
