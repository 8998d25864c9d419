"""The rows: reading and checking datasets, encoding their texts and labels, and collating batches."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
