"""From a ConfigDict to frozen dataclasses: below `read_config` no configuration has a key that
nobody knows.

One dataclass per section of a config file. Unknown keys are refused with the nearest valid one,
values of the wrong type with what was expected.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from condenser_jax.errors import UserError, choose
from condenser_jax.training.optimizers import OptimizerConfig

Section = TypeVar("Section")
MAX_SEED = 2**32


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What is trained on, and how it is cut and masked."""

    source: str = "docstrings:"  # "kind:where", or a mixture "0.8 kind:where + 0.2 kind:where"
    directory: str = ""  # where prepared data is kept; "": the cache directory
    tokenizer: str = (
        ""  # directory or hub id; "": that of model.init, else one trained on the source
    )
    vocab_size: int = 8192  # of a tokenizer trained here
    recipe: str = "sentences"  # sentences, sentence_groups, paragraphs or fixed (docs/data.md)
    max_length: int = 128  # tokens of a row, [CLS] and [SEP] included
    short_probability: float = (
        0.1  # share of blocks with a random shorter length (recipe sentences)
    )
    sentences_per_span: int = 3  # recipe sentence_groups
    min_tokens: int = 6  # shorter spans are dropped
    heldout_share: float = 0.02  # of the groups (packages' modules, documents) held out
    mask_rate: float = 0.15  # of a row's tokens
    text_layout: str = (
        "lines"  # text: one document per line, or "paragraphs" separated by blank lines
    )
    text_field: str = "text"  # jsonl, parquet, hf, tfds: the field that holds the text
    split: str = "train"  # hf, tfds: which split is read
    bad_share: float = 0.01  # share of broken records above which they are fatal
    workers: int | None = None  # processes that prepare; None: one per core


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The encoder: a checkpoint, or an architecture that starts from scratch."""

    init: str = (
        ""  # work directory, Hugging Face directory (also an export) or hub id; "": from scratch
    )
    model_type: str = "bert"  # the fields from here on describe an encoder from scratch
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    max_positions: int = 512
    initializer_range: float = 0.02
    hidden_dropout: float | None = None  # None: as the checkpoint says, 0.1 from scratch
    attention_dropout: float | None = None
    unigram_bias: bool = True  # from scratch: start the MLM bias at the log unigram of the corpus


@dataclasses.dataclass(frozen=True)
class RunComputeConfig:
    """The form of the computation; none of it changes the result, only its cost."""

    dtype: str = "auto"  # float32, bfloat16; auto: bfloat16 on GPU and TPU
    scan_layers: bool | None = None  # None: scanned on accelerators, unrolled on CPU
    remat: bool = (
        False  # recompute layers in the backward pass: less memory, a third more operations
    )
    lean: bool = True  # False: the plain reference form, which computes what nobody reads
    chunk_size: int | str = "all"  # rows per device encoded at a time (gradient caching), or "auto"


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """How many devices share the batch (data), the batch and the weights (fsdp), each product
    (tensor).
    """

    data: int = -1  # -1: all that are left
    fsdp: int = 1
    tensor: int = 1


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """The length and the rhythm of a run."""

    steps: int = 1000
    batch_size: int = 32  # rows of the global batch, whatever the mesh
    accumulate: int = 1  # micro-batches per step; exact
    log_every: int = 50
    eval_every: int = 500
    save_every: int = 500
    keep: int = 2  # latest checkpoints kept, beside the best one
    threads: int = 1  # that build batches ahead
    tensorboard: bool = True
    wandb: str = ""  # project of Weights & Biases; "": off
    profile: tuple[int, ...] = ()  # (first, last) step to trace


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What is measured on held-out documents."""

    spans: int = 1024  # spans for the masked-LM loss
    documents: int = 1000  # documents among which a span's other span is searched
    batch_size: int = 128


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A whole run. `objective` is the dataclass of the method that `objective.name` names."""

    seed: int
    data: DataConfig
    model: ModelConfig
    compute: RunComputeConfig
    mesh: MeshConfig
    objective: Any
    optimizer: OptimizerConfig
    training: TrainingConfig
    evaluation: EvaluationConfig


SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "compute": RunComputeConfig,
    "mesh": MeshConfig,
    "optimizer": OptimizerConfig,
    "training": TrainingConfig,
    "evaluation": EvaluationConfig,
}


def read_config(config: Mapping[str, Any], objectives: Mapping[str, type]) -> RunConfig:
    """Checks a nested mapping (a ConfigDict's `to_dict()`) and freezes it.

    `objectives` maps the names of methods to their dataclasses. Raises UserError for unknown keys,
    wrong types and unknown methods.
    """
    known = {*SECTIONS, "objective", "seed"}
    for key in config:
        choose("configuration key", key, known)
    sections: dict[str, Any] = {
        name: read_section(section, config.get(name, {}), name)
        for name, section in SECTIONS.items()
    }
    options = config.get("objective", {})
    if "name" not in options:
        raise UserError(f"objective.name is missing; known: {', '.join(sorted(objectives))}")
    method = objectives[choose("objective", options["name"], objectives)]
    objective: Any = read_section(method, options, "objective")
    seed = _checked(config.get("seed", 0), int, "seed")
    if not 0 <= seed < MAX_SEED:
        raise UserError(f"seed is {seed}; expected 0 to {MAX_SEED - 1}.")
    return RunConfig(seed=seed, objective=objective, **sections)


def read_section(section: type[Section], values: Mapping[str, Any], name: str) -> Section:
    """A dataclass from a mapping, keys and types checked; messages call the section `name`."""
    hints = typing.get_type_hints(section)
    checked = {}
    for key, value in values.items():
        choose(f"key in {name!r}", key, hints)
        checked[key] = _checked(value, hints[key], f"{name}.{key}")
    return section(**checked)


def _checked(value: Any, hint: Any, where: str) -> Any:
    """`value` if it is of the hinted type; an int may stand for a float, a list for a tuple."""
    union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    allowed = [typing.get_origin(t) or t for t in (typing.get_args(hint) if union else (hint,))]
    if isinstance(value, list) and tuple in allowed:
        return tuple(tuple(item) if isinstance(item, list) else item for item in value)
    if isinstance(value, int) and not isinstance(value, bool) and float in allowed:
        return value if int in allowed else float(value)
    if any(type(value) is t for t in allowed):
        return value
    names = " or ".join("None" if t is types.NoneType else t.__name__ for t in allowed)
    raise UserError(f"{where} is {value!r}; expected {names}.")
