"""Fine-tuning of a dense retriever (Gao and Callan 2021, section 4.3; 2022, section 4).

    python launch/train.py --config=configs/retrieval.py --config.model.init=runs/cocondenser

The embedded default: from the summary of a docstring to its body, on the documentation of the
installed packages, starting from the coCondenser of configs/cocondenser.py. No network, 2 CPU
cores, about 3 minutes; the log says BM25's figure beside its own. Without `model.init`

    python launch/train.py --config=configs/retrieval.py

starts from random weights, the baseline that every pre-training must beat.

    python launch/train.py --config=configs/retrieval.py:smoke

The same in seconds.

    python launch/train.py --config=configs/retrieval.py:msmarco \
        --config.data.train=tevatron:my/train.jsonl --config.data.collection=msmarco:my/msmarco

MS MARCO passages as published: 8 queries with 8 passages each, learning rate 5e-6, 3 epochs on BM25
negatives; `launch/mine.py` makes the negatives of the second stage, which starts anew from the
pre-trained encoder for 2 epochs (`--config.training.steps=100195`). Expect MRR@10 .357 after the
first stage and .382 after the second, from a coCondenser. Not yet measured here. Evaluations ask
the queries of `dev.small`, as MS MARCO's own files are called; a BEIR folder has a `dev` instead
(`--config.data.collection=beir:my/msmarco --config.data.split=dev`).

    python launch/train.py --config=configs/retrieval.py:nq \
        --config.data.train=tevatron:my/train.jsonl --config.data.collection=beir:my/nq-dev
    python launch/train.py --config=configs/retrieval.py:triviaqa \
        --config.data.train=tevatron:my/train.jsonl --config.data.collection=beir:my/triviaqa-dev

Open question answering as published: two encoders, 128 queries with one hard negative each, whose
negatives come from blocks of 32 queries (four devices), length 256, 40 epochs. Evaluations during
training need judged passages, and DPR's questions have answers alone. So beir:my/nq-dev is a folder
of yours: corpus.jsonl, queries.jsonl, and in qrels/dev.tsv the positive passages that DPR's dev
file names (positive_ctxs). The test takes DPR's own files: launch/evaluate.py --task=open_qa
--data=dpr:my/nq. Expect top-20 accuracy 84.3 (NQ) and 83.2
(TriviaQA) after the second stage. Not yet measured here.
"""

from ml_collections import ConfigDict

from condenser_jax.errors import choose
from configs.common import small_run

VARIANTS = ("", "smoke", "msmarco", "nq", "triviaqa")
# Training queries with a passage to learn from; of DPR's files those that DPR trained on.
QUERIES = {"msmarco": 400_782, "nq": 58_880, "triviaqa": 60_413}


def get_config(variant: str = "") -> ConfigDict:
    """The embedded default, or a variant."""
    choose("variant", variant, VARIANTS)
    config = small_run()

    config.data = data = ConfigDict()
    data.train = "docstrings:"  # tevatron:FILE, or a collection with judgements
    data.train_split = "train"  # of a collection
    data.collection = ""  # what is searched in evaluations; "": that of `train`
    data.split = "dev"  # whose queries are asked in evaluations
    data.group = 1  # passages of each query: its positive, and group - 1 hard negatives
    data.train_limit = 0  # train on so many of the queries, drawn by the seed; 0: all
    data.wrong_positives = 0.0  # share of positives replaced at random, to study robustness
    data.query_length = 32  # tokens, specials included
    data.passage_length = 64  # tokens, specials included; a longer passage loses its end
    data.query_prefix = ""  # put in front of every query
    data.passage_prefix = ""  # put in front of every passage
    data.tokenizer = ""  # directory or hub id; "": that of model.init, else trained on passages
    data.vocab_size = 8192  # of a tokenizer trained here
    data.heldout_share = 0.1  # docstrings: modules of `test`; `dev` takes as many
    data.split_seed = 0  # docstrings: of the split; the seed of pre-training, which saw no `test`
    data.bad_share = 0.01  # broken records above this share are fatal

    config.objective = objective = ConfigDict()
    objective.name = "retriever"  # the method: a row of condenser_jax/methods.py
    objective.tied = True  # one encoder for queries and passages; False: two, from the same start
    objective.pooling = "cls"  # or "mean"
    objective.normalise = False  # vectors of length 1: scores are cosines
    objective.temperature = 1.0  # scores are divided by it
    objective.negatives = "global"  # the whole batch, or n: blocks of n queries, as some runs had
    objective.exclude_copies = True  # known positives elsewhere in the batch are no negatives
    objective.distillation = "none"  # or "kl", "margin_mse": from scores in the training file
    objective.distillation_weight = 1.0  # beside the contrast
    objective.contrast_weight = 1.0  # 0: distillation alone

    config.evaluation = evaluation = ConfigDict()
    evaluation.queries = 500  # asked during training
    evaluation.passages = 5000  # searched: all relevant ones, filled up with others
    evaluation.batch_size = 128  # rows at a time; changes no figure

    config.optimizer.update({"learning_rate": 1e-3, "decay": "linear"})
    config.training.update({"steps": 900, "batch_size": 64, "eval_every": 150, "save_every": 300})
    if variant == "smoke":
        data.update({"train": "docstrings:jax", "vocab_size": 1024})
        config.model.update({"hidden_size": 32, "num_heads": 2, "intermediate_size": 64})
        config.training.update({"steps": 20, "batch_size": 16, "log_every": 5})
        config.training.update({"eval_every": 10, "save_every": 10})
        evaluation.update({"queries": 32, "passages": 200, "batch_size": 32})
    elif variant:
        _published(config, variant)
    return config


def _published(config: ConfigDict, collection: str) -> None:
    """The papers' settings of a BERT-base."""
    config.model.init = "runs/cocondenser-paper"  # or any BERT: directory or hub id
    config.model.update({"hidden_size": 768, "num_layers": 12, "num_heads": 12})
    config.model.update({"intermediate_size": 3072, "initializer_range": 0.02})
    config.model.update({"hidden_dropout": 0.1, "attention_dropout": 0.1})
    config.optimizer.update({"learning_rate": 5e-6, "b2": 0.999, "clip_norm": 1.0})
    config.data.train = f"tevatron:{collection}/train.jsonl"  # name yours
    config.evaluation.update({"queries": 1000, "passages": 100_000})
    config.training.update({"log_every": 100, "eval_every": 2_000, "save_every": 2_000})
    if collection == "msmarco":
        config.data.collection = "msmarco:msmarco"  # a folder of its tsv files
        config.data.split = "dev.small"  # as they call it
        config.data.update({"group": 8, "query_length": 32, "passage_length": 128})
        config.training.update({"batch_size": 8, "steps": 3 * QUERIES[collection] // 8})
        return
    config.data.collection = f"beir:{collection}"  # with judged queries of `dev`
    config.data.update({"group": 2, "query_length": 256, "passage_length": 256})
    config.objective.update({"tied": False, "negatives": "32"})
    config.training.update({"batch_size": 128, "steps": 40 * QUERIES[collection] // 128})
