from .collator import MultitaskDataCollator as MultitaskDataCollator
from .encoding import EncodedDataset as EncodedDataset
from .encoding import EncodedStream as EncodedStream
from .from_python import encode as encode
from .learning import learn_tasks as learn_tasks
from .tokenizer import load_tokenizer as load_tokenizer
