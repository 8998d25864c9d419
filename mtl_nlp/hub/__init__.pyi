from .loading import load_config as load_config
from .loading import load_model as load_model
from .loading import load_model_tokenizer as load_model_tokenizer
from .model_card import write_model_card as write_model_card
from .repository import make_repository as make_repository
from .repository import push_files as push_files
from .repository import repository_files as repository_files
