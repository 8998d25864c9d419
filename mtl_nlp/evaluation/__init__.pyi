from .evaluator import Evaluation as Evaluation
from .evaluator import score_model as score_model
