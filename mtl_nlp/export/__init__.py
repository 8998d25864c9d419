"""The export of a trained model to different formats: stock transformers models, PEFT adapters and ONNX.

The module `mtl_nlp.export.onnx` needs the extra `onnx` and is not imported here.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
