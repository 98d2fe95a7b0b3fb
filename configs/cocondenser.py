"""coCondenser pre-training (Gao and Callan, ACL 2022): Condenser, and the contrast of spans.

    python launch/train.py --config=configs/cocondenser.py

The embedded default: a small coCondenser from scratch on the documentation of the installed
packages. No network, 2 CPU cores, about 6 minutes. Expect the accuracy of span retrieval among 500
held-out documents to rise from .06, the untrained encoder's, to about .2. From scratch the contrast
slows masked-language modelling; as published, coCondenser starts from a Condenser:

    python launch/train.py --config=configs/cocondenser.py --workdir=runs/warm \
        --config.model.init=runs/condenser

takes the weights, the Condenser head and the tokenizer of that work directory.

    python launch/train.py --config=configs/cocondenser.py:smoke

The same in seconds, to see that everything works.

    python launch/train.py --config=configs/cocondenser.py:paper

BERT-base from a Condenser, 2048 documents x 2 spans x 128 tokens, 8 epochs over the target corpus,
as published; in the paper 2 to 3 days on four RTX 2080 Ti with gradient caching. Not yet measured
here. Expect, after fine-tuning with mined negatives, MRR@10 .382 and recall@1000 .984 on MS MARCO
passages, or top-20 accuracy 84.3 on NQ. `runs/condenser-paper` is where configs/condenser.py:paper
leaves its Condenser; name one's own corpus of whole documents:

    python launch/train.py --config=configs/cocondenser.py:paper \
        --config.data.source='jsonl:my/*.jsonl.gz' --config.model.init=runs/condenser-paper
"""

from ml_collections import ConfigDict

from configs.common import VARIANTS, docstrings, paper, smoke

__all__ = ["VARIANTS", "get_config"]


def get_config(variant: str = "") -> ConfigDict:
    """The embedded default, or the variant `smoke` or `paper`."""
    config = docstrings()
    config.objective = ConfigDict()
    config.objective.name = "cocondenser"  # the method: a row of condenser_jax/methods.py
    config.objective.early_layer = 1  # hidden state that skips to the head; the papers: half way
    config.objective.head_layers = 2  # layers of the condenser head
    config.objective.late_mlm = True  # also predict from the late states
    config.objective.head_init = "random"  # or "late": copies of the last late layers
    config.objective.head_warmup_steps = 0  # first steps that train the head alone
    config.objective.similarity = "dot"  # of two text vectors; or "cosine"
    config.objective.temperature = 1.0  # similarities are divided by it
    config.training.batch_size = 64  # two spans of 32 documents: 62 negatives of each
    config.training.update({"steps": 1200, "eval_every": 150, "save_every": 300})
    if variant == "paper":
        paper(config)
        config.data.source = "hf:wikimedia/wikipedia:20231101.en"  # the id is unverified here
        config.model.init = "runs/condenser-paper"  # where configs/condenser.py:paper leaves it
        config.objective.early_layer = 6
        config.compute.chunk_size = "auto"  # the batch fits no device at once
        config.training.batch_size = 4096
        config.training.steps = 22_000  # 8 epochs of about 5.6 million documents of two spans
        config.training.update({"eval_every": 1_000, "save_every": 1_000})
        return config
    return smoke(config, variant)
