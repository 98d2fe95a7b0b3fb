"""What the pre-training configurations share: the embedded default, its smoke size, the papers'
setting.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from condenser_jax.errors import choose

VARIANTS = ("", "smoke", "paper")


def small_run() -> ConfigDict:
    """A small encoder from scratch, and how it is trained; whatever it learns from."""
    config = ConfigDict()
    config.seed = 0  # of cuts, masks, order, initial weights and dropout

    config.model = model = ConfigDict()
    model.init = ""  # work directory, Hugging Face directory or hub id; "": as the fields below say
    model.model_type = "bert"  # or "roberta"
    model.hidden_size = 128  # width of the hidden states
    model.num_layers = 2  # of the backbone
    model.num_heads = 4  # divides hidden_size
    model.intermediate_size = 512  # width inside the feed-forward block
    model.embedding_size = placeholder(int)  # of factorised tables (ELECTRA); None: hidden_size
    model.max_positions = 512  # the longest text that can be numbered, in tokens
    model.initializer_range = 0.05  # of fresh kernels and embeddings; 0.02 learns half as fast here
    model.hidden_dropout = 0.0  # a model this small underfits
    model.attention_dropout = 0.0  # the same, of attention weights
    model.unigram_bias = True  # start the MLM bias at the log unigram: saves hundreds of steps

    config.compute = compute = ConfigDict()
    compute.dtype = "auto"  # float32 on CPU, bfloat16 on GPU and TPU
    compute.scan_layers = placeholder(bool)  # None: scanned on accelerators, unrolled on CPU
    compute.remat = False  # recompute layers in the backward pass: less memory, more operations
    compute.lean = True  # False: the plain reference form, which computes what nobody reads
    compute.chunk_size = "all"  # rows per device encoded at a time: a number, "all" or "auto"

    config.mesh = mesh = ConfigDict()
    mesh.data = -1  # devices that share the batch; -1: all that are left
    mesh.fsdp = 1  # devices that share the batch and the weights
    mesh.tensor = 1  # devices that share each matrix product

    config.optimizer = optimizer = ConfigDict()
    optimizer.learning_rate = 2e-3  # the highest, at the end of warm-up
    optimizer.warmup = 0.1  # share of the steps
    optimizer.decay = "trapezoid"  # falls in the last fifth; or linear, cosine, constant
    optimizer.weight_decay = 0.01  # of kernels and embeddings
    optimizer.b1 = 0.9  # AdamW's memory of the gradient
    optimizer.b2 = 0.98  # AdamW's memory of its square: short, as the run is
    optimizer.eps = 1e-8  # AdamW's guard against division by 0
    optimizer.clip_norm = 1.0  # of the gradient's global norm
    optimizer.layer_decay = 1.0  # rate of a layer beside that of the layer above it; 1: equal

    config.training = training = ConfigDict()
    training.steps = 1800  # of the optimizer
    training.batch_size = 32  # rows of the global batch
    training.accumulate = 1  # micro-batches per step
    training.log_every = 50  # steps between two lines of progress
    training.eval_every = 500  # steps between two evaluations
    training.save_every = 500  # steps between two checkpoints
    training.patience = 0  # evaluations without a better goal after which a run ends; 0: never
    training.keep = 2  # latest checkpoints kept, beside the best
    training.threads = 1  # that build batches ahead
    training.tensorboard = True  # write its events to the work directory
    training.wandb = ""  # project of Weights & Biases; "": off
    training.profile = ()  # (first, last) step to trace
    return config


def docstrings() -> ConfigDict:
    """A small run on the documentation of the installed packages."""
    config = small_run()

    config.data = data = ConfigDict()
    data.source = "docstrings:"  # text: jsonl: parquet: hf: tfds: docstrings: (docs/data.md)
    data.tokenizer = ""  # directory or hub id; "": that of model.init, else one trained here
    data.vocab_size = 8192  # of a tokenizer trained here
    data.recipe = "sentences"  # sentences, sentence_groups, paragraphs or fixed (docs/data.md)
    data.max_length = 64  # tokens of a row, [CLS] and [SEP] included
    data.short_probability = 0.1  # share of spans with a random shorter length
    data.sentences_per_span = 3  # recipe sentence_groups
    data.min_tokens = 6  # shorter spans are dropped
    data.heldout_share = 0.1  # of the modules, held out as wholes: 1,000 documents of two spans
    data.mask_rate = 0.15  # of a row's tokens: whole words, in distillation each by itself
    data.directory = ""  # where prepared data is kept; "": the cache directory
    data.text_layout = "lines"  # text: one document per line, or "paragraphs" (blank lines between)
    data.text_field = "text"  # the field of jsonl, parquet, hf and tfds records
    data.split = "train"  # of hf and tfds sources
    data.bad_share = 0.01  # broken records above this share are fatal
    data.workers = placeholder(int)  # processes that prepare; None: one per core

    config.evaluation = evaluation = ConfigDict()
    evaluation.spans = 1024  # held-out spans for the masked-LM loss
    evaluation.documents = 1000  # held-out documents among which a span's other span is searched
    evaluation.batch_size = 128  # rows at a time; changes no figure
    return config


def distillation(name: str) -> ConfigDict:
    """A small student of the teacher that configs/mlm.py:teacher leaves, by the method `name`."""
    config = docstrings()
    config.data.tokenizer = ""  # must be the teacher's; "": it is
    config.model.update({"hidden_size": 96, "intermediate_size": 384})

    config.objective = objective = ConfigDict()
    objective.name = name  # the method: a row of condenser_jax/methods.py
    objective.teacher = "runs/mlm-teacher"  # work directory, Hugging Face directory or hub id
    objective.least_accuracy = 0.2  # of the teacher's MLM on held-out text; under it it is refused
    objective.student_layers = ()  # of the teacher, from 1, to start from; (): as `model` says

    config.evaluation = evaluation = ConfigDict()
    evaluation.spans = 512  # held-out spans on which student and teacher are compared
    evaluation.examples = 3  # of them shown in words at each evaluation
    evaluation.batch_size = 128  # rows at a time; changes no figure
    config.training.update({"steps": 900, "eval_every": 300, "save_every": 300})
    return config


def published_distillation(config: ConfigDict) -> None:
    """BERT-base distilled as published for Tutor-KD: Wikipedia + BookCorpus, batch 128 x 128, a
    million steps at 5e-4, no clipping.
    """
    corpus(config)
    config.objective.teacher = "bert-base-uncased"
    config.model.update({"hidden_size": 768, "num_layers": 6, "num_heads": 12})
    config.model.update({"intermediate_size": 3072, "initializer_range": 0.02})
    config.model.update({"hidden_dropout": 0.1, "attention_dropout": 0.1})
    config.optimizer.update({"learning_rate": 5e-4, "b2": 0.999, "eps": 1e-6, "decay": "linear"})
    config.optimizer.update({"warmup": 0.01, "clip_norm": None})
    config.training.update({"steps": 1_000_000, "batch_size": 128, "log_every": 500})
    config.training.update({"eval_every": 20_000, "save_every": 20_000})
    config.evaluation.update({"spans": 4096, "batch_size": 512})


def smoke_distillation(config: ConfigDict) -> None:
    """Shrinks everything to seconds; the teacher is that of configs/mlm.py:smoke."""
    config.data.source = "docstrings:jax"
    config.model.update({"hidden_size": 16, "num_heads": 2, "intermediate_size": 32})
    config.objective.update({"teacher": "runs/mlm-smoke", "least_accuracy": 0.0})
    config.training.update({"steps": 20, "batch_size": 16, "log_every": 5})
    config.training.update({"eval_every": 10, "save_every": 10})
    config.evaluation.update({"spans": 32, "batch_size": 32})


def smoke(config: ConfigDict, variant: str) -> ConfigDict:
    """Shrinks everything to seconds for the variant `smoke`; leaves the default as it is."""
    choose("variant", variant, VARIANTS)
    if variant == "smoke":
        config.data.source = "docstrings:jax"
        config.data.vocab_size = 1024
        config.model.update({"hidden_size": 32, "num_heads": 2, "intermediate_size": 64})
        config.training.update({"steps": 20, "batch_size": 16, "log_every": 5})
        config.training.update({"eval_every": 10, "save_every": 10})
        config.evaluation.update({"spans": 64, "documents": 32, "batch_size": 32})
    return config


def paper(config: ConfigDict) -> None:
    """BERT-base on Wikipedia + BookCorpus as published: batch 1024 x 128, lr 1e-4, 8 epochs of
    about 125k steps in all.
    """
    corpus(config)
    config.model.init = "bert-base-uncased"
    config.model.update({"hidden_size": 768, "num_layers": 12, "num_heads": 12})
    config.model.update({"intermediate_size": 3072, "initializer_range": 0.02})
    config.model.update({"hidden_dropout": 0.1, "attention_dropout": 0.1})
    config.optimizer.update({"learning_rate": 1e-4, "b2": 0.999, "decay": "linear"})
    config.training.update({"steps": 500_000, "batch_size": 1024, "log_every": 100})
    config.training.update({"eval_every": 5_000, "save_every": 5_000})
    config.evaluation.update({"spans": 8192, "documents": 1000, "batch_size": 512})


def corpus(config: ConfigDict) -> None:
    """Wikipedia + BookCorpus in rows of 128 tokens.

    `datasets` 5 reads parquet alone. `wikimedia/wikipedia` is published as parquet; the BookCorpus
    id is unverified.
    """
    # Both ids are unverified here (no hub at hand); BookCorpus has to be a version in parquet.
    wikipedia, books = "hf:wikimedia/wikipedia:20231101.en", "hf:bookcorpus/bookcorpus"
    config.data.source = f"0.8 {wikipedia} + 0.2 {books}"
    config.data.max_length = 128
    config.data.heldout_share = 0.0005


def sentences(variant: str) -> ConfigDict:
    """Fine-tuning on pairs or triplets of sentences: the embedded default, or a variant of it."""
    choose("variant", variant, VARIANTS)
    config = small_run()

    config.data = data = ConfigDict()
    data.train = "docstrings:"  # a folder with SPLIT.tsv, .csv or .jsonl, or such a file
    data.train_split = "train"  # of a folder
    data.dev = ""  # measured during training, a folder or a file; "": the folder of `train`
    data.split = "dev"  # of a folder
    data.train_limit = 0  # train on so many of the rows, drawn by the seed; 0: all
    data.max_length = 64  # tokens of a sentence, [CLS] and [SEP] included; it loses its end
    data.tokenizer = ""  # directory or hub id; "": that of model.init, else one trained here
    data.vocab_size = 8192  # of a tokenizer trained here
    data.heldout_share = 0.1  # docstrings: modules of `test`; `dev` takes as many
    data.split_seed = 0  # docstrings: of the split
    data.bad_share = 0.01  # broken lines above this share are fatal

    config.evaluation = evaluation = ConfigDict()
    evaluation.rows = 2000  # measured during training, spread over those that there are
    evaluation.batch_size = 128  # sentences at a time; changes no figure

    config.optimizer.update({"learning_rate": 1e-3, "decay": "linear"})
    config.training.update({"steps": 900, "eval_every": 150, "save_every": 300})
    if variant == "smoke":
        data.update({"train": "docstrings:jax", "vocab_size": 1024})
        config.model.update({"hidden_size": 32, "num_heads": 2, "intermediate_size": 64})
        config.training.update({"steps": 20, "batch_size": 16, "log_every": 5})
        config.training.update({"eval_every": 10, "save_every": 10})
        evaluation.update({"rows": 64, "batch_size": 32})
    if variant == "paper":
        data.max_length = 128
        config.model.init = "bert-base-uncased"
        config.model.update({"hidden_size": 768, "num_layers": 12, "num_heads": 12})
        config.model.update({"intermediate_size": 3072, "initializer_range": 0.02})
        config.model.update({"hidden_dropout": 0.1, "attention_dropout": 0.1})
        config.optimizer.update({"learning_rate": 2e-5, "b2": 0.999})
        config.training.batch_size = 16
    return config
