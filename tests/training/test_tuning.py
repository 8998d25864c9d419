from __future__ import annotations

import pytest
from datasets import Dataset
from trainers import build_model

from mtl_nlp import (
    MultiLabelClassification,
    MultitaskModel,
    MultitaskTrainer,
    MultitaskTrainingArguments,
    encode,
)
from mtl_nlp.evaluation.evaluator import score_answers
from mtl_nlp.training.tuning import datasets_to_tune_on

TASK = MultiLabelClassification(name="tags", labels=["x", "y"], threshold="tuned")


@pytest.fixture(scope="module")
def splits(tokenizer):
    texts = ["the fox", "the dog", "ada lives", "in paris"] * 3
    rows = Dataset.from_dict({"text": texts, "tags": [["x"], [], ["x", "y"], []] * 3})
    split = encode(rows, inputs={"text": "text"}, labels={"tags": "tags"}, tasks=[TASK], tokenizer=tokenizer)
    return {"d": split}


def test_thresholds_are_chosen_after_training_and_saved(trainer_of, splits, tmp_path):
    model = build_model([TASK])
    for head in model.heads:
        head.stock.classifier.bias.data.fill_(-2.0)  # no probability is near 0.5
    trainer = trainer_of(splits, splits, model=model, max_steps=1, bf16_full_eval=True, learning_rate=0.0)
    before = score_answers(trainer_of(splits, splits, model=model).answer(splits), splits, {"tags": TASK})
    assert before.scores["tags"]["macro_f1"] == 0.0
    trainer.train()
    tuned = trainer.tasks["tags"].tuned_thresholds
    assert tuned.keys() == {"x", "y"}
    assert max(tuned.values()) < 0.2
    assert str(trainer.model.dtype) == "torch.float32"
    assert trainer_of(splits, splits, model=trainer.model).score(splits).scores["tags"]["macro_f1"] > 0.5
    trainer.model.save_pretrained(tmp_path / "saved")
    loaded = MultitaskModel.from_pretrained(tmp_path / "saved")
    assert loaded.tasks["tags"] == trainer.tasks["tags"]
    assert loaded.heads[0].kind.thresholds == tuned
    assert datasets_to_tune_on(loaded.tasks, splits) == splits


def test_each_new_model_answers_with_its_own_thresholds(tokenizer, splits, tmp_path):
    def new_model():
        model = build_model([TASK])
        model.heads[0].stock.classifier.bias.data.fill_(-2.0)
        return model

    args = MultitaskTrainingArguments(
        str(tmp_path), disable_tqdm=True, save_strategy="no", report_to="none", max_steps=1, learning_rate=0.0
    )
    trainer = MultitaskTrainer(
        args=args, model_init=new_model, train_dataset=splits, eval_dataset=splits, processing_class=tokenizer
    )
    for _ in range(2):  # the second model begins without the thresholds of the first
        trainer.train()
        assert trainer.tasks is trainer.model.tasks
        assert trainer.evaluate()["eval_tags_macro_f1"] > 0.5
        assert any(trainer.predict(splits["d"]).labels["tags"])


def test_training_without_validation_rows_is_refused(trainer_of, splits):
    model = build_model([TASK])
    with pytest.raises(ValueError, match=r"^Task 'tags': `threshold: tuned` needs an `eval_dataset` with labels"):
        trainer_of(splits, model=model, max_steps=1).train()
