from .arguments import training_arguments as training_arguments
from .build import Run as Run
from .build import build_model as build_model
from .build import build_trainer as build_trainer
from .plan import describe_plan as describe_plan
from .prepare import prepare_evaluation as prepare_evaluation
from .train import TrainedRun as TrainedRun
