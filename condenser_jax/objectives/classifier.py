"""Fine-tuning on a task of one or two sentences (Devlin et al. 2019, section 4.1).

loss = mean over texts of the cross entropy of their class, or of the squared error of a score
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from condenser_jax.errors import UserError
from condenser_jax.glue.tasks import find_task
from condenser_jax.losses.classification import class_losses, score_losses
from condenser_jax.models.bert import Backbone
from condenser_jax.models.classifier import Classifier, Pooler
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.models.dropout import Dropout
from condenser_jax.objectives.base import Loss, Objective, Phase, Schedule
from condenser_jax.types import Array, Batch, Counts, Frozen, Mean, Params, Tree


@dataclasses.dataclass(frozen=True)
class ClassifierConfig:
    """What is learned, and the one choice that a head has."""

    name: str = "classifier"
    task: str = "packages"  # a row of glue/tasks.py
    head_dropout: float | None = None  # None: that of the hidden states, as in Hugging Face

    def __post_init__(self) -> None:
        find_task(self.task)
        if self.head_dropout is not None and not 0 <= self.head_dropout < 1:
            raise UserError(
                f"objective.head_dropout is {self.head_dropout}; expected a share of at least 0 "
                "and under 1."
            )


class SequenceClassifier:
    """A backbone with the head of its type: two groups, of BERT three."""

    def __init__(
        self, config: BackboneConfig, compute: ComputeConfig, options: ClassifierConfig
    ) -> None:
        self.config, self.compute, self.task = config, compute, find_task(options.task)
        rate = config.hidden_dropout if options.head_dropout is None else options.head_dropout
        self.backbone, self.pooler = Backbone(config, compute), Pooler(config, compute)
        self.classifier = Classifier(config, compute, self.task.outputs, rate)
        pooled = ("pooler",) if config.has_pooler else ()
        self.groups = ("backbone", *pooled, "classifier")

    def init(self, key: Array, loaded: Params) -> dict[str, Tree]:
        """All groups: as loaded, else fresh."""
        keys = jax.random.split(key, 3)
        ids, cls = jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, self.config.hidden_size))
        fresh = {
            "backbone": lambda: self.backbone.init(keys[0], ids, ids)["params"],
            "pooler": lambda: self.pooler.init(keys[1], cls)["params"],
            "classifier": lambda: self.classifier.init(keys[2], cls, None)["params"],
        }
        return {group: loaded.get(group) or fresh[group]() for group in self.groups}

    def logits(self, params: Params, batch: Batch, dropout: Dropout | None) -> Array:
        """[B, C]; of the last layer the CLS alone is computed."""
        ids, mask = batch["input_ids"], batch["attention_mask"]
        types = batch["token_type_ids"] if self.config.type_vocab_size > 1 else None
        queries = jnp.zeros((len(ids), 1), jnp.int32) if self.compute.lean else None
        variables = {"params": params["backbone"]}
        hidden, _ = self.backbone.apply(variables, ids, mask, types, dropout, queries)
        cls = hidden[:, 0]
        if self.config.has_pooler:
            cls = self.pooler.apply({"params": params["pooler"]}, cls)
        logits: Any = self.classifier.apply({"params": params["classifier"]}, cls, dropout)
        return logits

    def loss(self, params: Params, batch: Batch, counts: Counts, dropout: Dropout | None) -> Loss:
        """The mean over the texts of the global batch."""
        logits, labels = self.logits(params, batch, dropout), batch["labels"]
        count = jnp.asarray(len(labels), logits.dtype)
        if self.task.is_regression:
            losses, metrics = score_losses(logits, labels), {}
        else:
            losses, correct = class_losses(logits, labels)
            metrics = {"accuracy": Mean(correct.sum(), count)}
        return Loss(losses.sum() / counts["texts"], {"loss": Mean(losses.sum(), count), **metrics})


def count_texts(batch: Batch) -> Counts:
    """The texts of the global batch."""
    return {"texts": jnp.asarray(len(batch["labels"]), jnp.float32)}


def build(backbone: BackboneConfig, compute: ComputeConfig, options: ClassifierConfig) -> Objective:
    """The objective `classifier`: one phase that trains everything."""
    model = SequenceClassifier(backbone, compute, options)

    def losses(params, frozen, batch, counts, dropout):
        del frozen
        return {"train": model.loss(params, batch, counts, dropout)}

    def logits(params: Params, frozen: Frozen, batch: Batch) -> Array:
        """[B, C], no dropout."""
        del frozen
        return model.logits(params, batch, None)

    return Objective(
        init=model.init,
        counts=count_texts,
        losses=losses,
        phases=(Phase("train", model.groups),),
        schedule=Schedule((("train",),)),
        exports=model.groups,
        predict={"logits": logits},
    )
