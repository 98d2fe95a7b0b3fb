"""Fine-tuning on GLUE (Wang et al. 2019), one task: the nine, or an embedded one.

    python launch/train.py --config=configs/glue.py --config.model.init=runs/condenser

The embedded default, without a network: from a docstring's first paragraph to the package that it
documents, jax or numpy, starting from the Condenser of configs/condenser.py. 2 CPU cores, about a
minute. Without `model.init` it starts from random weights.

    python launch/train.py --config=configs/glue.py:smoke

The same in seconds.

    python launch/train.py --config=configs/glue.py:cola --config.model.init=bert-base-uncased
    python launch/train.py --config=configs/glue.py:sst2 --config.model.init=bert-base-uncased
    python launch/train.py --config=configs/glue.py:mrpc --config.model.init=bert-base-uncased
    python launch/train.py --config=configs/glue.py:stsb --config.model.init=bert-base-uncased
    python launch/train.py --config=configs/glue.py:qqp --config.model.init=bert-base-uncased
    python launch/train.py --config=configs/glue.py:mnli --config.model.init=bert-base-uncased
    python launch/train.py --config=configs/glue.py:qnli --config.model.init=bert-base-uncased
    python launch/train.py --config=configs/glue.py:rte --config.model.init=bert-base-uncased
    python launch/train.py --config=configs/glue.py:wnli --config.model.init=bert-base-uncased

A task as published: batch 32, 3 epochs, AdamW 5e-5 with 10 % warm-up and linear decay, no weight
decay, no clipping. Expect for BERT-base, as published: Matthews about .59 on CoLA, accuracy .92 on
SST-2 and .65 on RTE. Not yet measured here. configs/glue_suite.py is for all of them.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from condenser_jax.errors import choose
from condenser_jax.glue.tasks import NINE, PACKAGES, Task
from configs.common import small_run

VARIANTS = ("", "smoke", *NINE)
EPOCHS, BATCH = 3, 32


def get_config(variant: str = "") -> ConfigDict:
    """The embedded default, its smoke size, or a task of the nine."""
    choose("variant", variant, VARIANTS)
    config = small_run()

    config.data = data = ConfigDict()
    data.source = "docstrings:"  # hf:, tfds:, a folder with <task>/<split>.jsonl; or docstrings:
    data.train_split = ""  # "": train
    data.dev_split = ""  # "": validation; of MNLI both, matched and mismatched
    data.train_limit = 0  # train on so many texts, the same for every seed; 0: all
    # (training.steps does not follow the limit: name it too, or use configs/glue_suite.py)
    data.max_length = placeholder(int)  # tokens of a row; None: what the task needs, at most 128
    data.tokenizer = ""  # directory or hub id; "": that of model.init, else trained on the texts
    data.vocab_size = 8192  # of a tokenizer trained here
    data.bad_share = 0.01  # broken records above this share are fatal

    config.objective = objective = ConfigDict()
    objective.name = "classifier"  # the method: a row of condenser_jax/methods.py
    objective.task = PACKAGES.name  # a row of condenser_jax/glue/tasks.py
    objective.head_dropout = placeholder(float)  # None: that of the hidden states

    config.evaluation = evaluation = ConfigDict()
    evaluation.batch_size = 128  # rows at a time; changes no figure

    config.optimizer.update({"learning_rate": 5e-4, "decay": "linear", "weight_decay": 0.0})
    config.optimizer.clip_norm = placeholder(float)  # None: no clipping
    config.training.update({"batch_size": BATCH, "tensorboard": False})
    if variant in NINE:
        _as_published(config)
    if variant == "smoke":
        data.update({"vocab_size": 1024})
        config.model.update({"hidden_size": 32, "num_heads": 2, "intermediate_size": 64})
        config.optimizer.update({"learning_rate": 2e-3})
    _epochs(config, NINE.get(variant, PACKAGES))
    return config


def _as_published(config: ConfigDict) -> None:
    """The settings of a BERT-base; its dropout is the checkpoint's."""
    config.data.source = "hf:"  # the hub's copy
    config.model.init = "bert-base-uncased"  # any BERT or RoBERTa, an export, a work directory
    config.model.update({"hidden_size": 768, "num_layers": 12, "num_heads": 12})
    config.model.update({"intermediate_size": 3072, "initializer_range": 0.02})
    config.model.hidden_dropout = placeholder(float)  # None: as the checkpoint says
    config.model.attention_dropout = placeholder(float)  # the same, of attention weights
    config.optimizer.update({"learning_rate": 5e-5, "b2": 0.999})


def _epochs(config: ConfigDict, task: Task) -> None:
    """A run of EPOCHS, evaluated and saved after each."""
    config.objective.update({"task": task.name})
    epoch = -(-task.train_rows // BATCH)
    config.training.update({"steps": EPOCHS * epoch, "eval_every": epoch, "save_every": epoch})
    config.training.update({"log_every": min(50, epoch)})
