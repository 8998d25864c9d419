from .predict import answer_file as answer_file
from .predict import load_pipeline as load_pipeline
from .space import write_space as write_space
