"""The report: one page that says whether sharing helped, made from the files of a run or a comparison."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
