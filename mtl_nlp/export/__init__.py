"""The export of a trained model to other formats: plain transformers models, PEFT adapters and ONNX.

The functions for ONNX are in `mtl_nlp.export.onnx`, which needs the extra `onnx`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
