from .arguments import MultitaskTrainingArguments as MultitaskTrainingArguments
from .trainer import MultitaskTrainer as MultitaskTrainer
