"""From a ConfigDict to frozen dataclasses: below `read_config` no configuration has a key that
nobody knows.

One dataclass per section of a config file. Unknown keys are refused with the nearest valid one,
values of the wrong type with what was expected.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from condenser_jax.errors import UserError, choose
from condenser_jax.training.optimizers import OptimizerConfig

Section = TypeVar("Section")
MAX_SEED = 2**32


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
    embedding_size: int | None = None  # width of the tables, if factorised (an ELECTRA); None: not
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
    patience: int = 0  # evaluations without a better goal after which a run ends; 0: never
    keep: int = 2  # latest checkpoints kept, beside the best one
    threads: int = 1  # that build batches ahead
    tensorboard: bool = True
    wandb: str = ""  # project of Weights & Biases; "": off
    profile: tuple[int, ...] = ()  # (first, last) step to trace


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A whole run. `objective`, `data` and `evaluation` are dataclasses of the method that
    `objective.name` names.
    """

    seed: int
    data: Any
    model: ModelConfig
    compute: RunComputeConfig
    mesh: MeshConfig
    objective: Any
    optimizer: OptimizerConfig
    training: TrainingConfig
    evaluation: Any


class OfMethod(NamedTuple):
    """The dataclasses of the sections that differ from method to method."""

    objective: type
    data: type
    evaluation: type


SECTIONS: dict[str, type] = {  # of every method
    "model": ModelConfig,
    "compute": RunComputeConfig,
    "mesh": MeshConfig,
    "optimizer": OptimizerConfig,
    "training": TrainingConfig,
}


def read_config(config: Mapping[str, Any], methods: Mapping[str, OfMethod]) -> RunConfig:
    """Checks a nested mapping (a ConfigDict's `to_dict()`) and freezes it.

    `methods` maps the names of methods to their sections. Raises UserError for unknown keys, wrong
    types and unknown methods.
    """
    known = {*SECTIONS, *OfMethod._fields, "seed"}
    for key in config:
        choose("configuration key", key, known)
    options = config.get("objective", {})
    if "name" not in options:
        raise UserError(f"objective.name is missing; known: {', '.join(sorted(methods))}")
    method = methods[choose("objective", options["name"], methods)]
    sections: dict[str, Any] = {
        name: read_section(section, config.get(name, {}), name)
        for name, section in (SECTIONS | method._asdict()).items()
    }
    seed = _checked(config.get("seed", 0), int, "seed")
    if not 0 <= seed < MAX_SEED:
        raise UserError(f"seed is {seed}; expected 0 to {MAX_SEED - 1}.")
    return RunConfig(seed=seed, **sections)


def read_section(section: type[Section], values: Mapping[str, Any], name: str) -> Section:
    """A dataclass from a mapping, keys and types checked; messages call the section `name`, which
    is "" where keys stand by themselves.
    """
    hints = typing.get_type_hints(section)
    checked = {}
    for key, value in values.items():
        choose(f"key in {name!r}", key, hints)
        checked[key] = _checked(value, hints[key], f"{name}.{key}".removeprefix("."))
    return section(**checked)


def without_given(
    run: Mapping[str, Any], name: str, set_by: str, instead: Mapping[str, str]
) -> dict[str, Any]:
    """The configuration `name` of a run without the keys of `instead`, which None stands for.

    Args:
      set_by: what sets these keys for each of its runs.
      instead: {"section.key": what is given instead}.

    Raises UserError for one that has a value.
    """
    sections = {k: dict(v) if isinstance(v, Mapping) else v for k, v in run.items()}
    for path, other in instead.items():
        section, _, key = path.partition(".")
        value = sections.get(section, {}).pop(key, None)
        if value is not None:
            raise UserError(
                f"{name}.{path} is {value!r}, but {set_by} sets it for each of its runs; "
                f"give {other}."
            )
    return sections


def _checked(value: Any, hint: Any, where: str) -> Any:
    """`value` if it is of the hinted type; an int may stand for a float, a list for a tuple."""
    union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    allowed = [typing.get_origin(t) or t for t in (typing.get_args(hint) if union else (hint,))]
    if isinstance(value, list | tuple) and tuple in allowed:
        return tuple(_checked(item, _item_of(hint), f"an item of {where}") for item in value)
    if isinstance(value, int) and not isinstance(value, bool) and float in allowed:
        return value if int in allowed else float(value)
    if isinstance(value, float) and float in allowed and not math.isfinite(value):
        raise UserError(f"{where} is {value!r}; expected a finite number.")
    if any(type(value) is t for t in allowed):
        return value
    names = " or ".join("None" if t is types.NoneType else t.__name__ for t in allowed)
    raise UserError(f"{where} is {value!r}; expected {names}.")


def _item_of(hint: Any) -> Any:
    """Of tuple[X, ...], alone or in a union: X."""
    tuples = [t for t in (hint, *typing.get_args(hint)) if typing.get_origin(t) is tuple]
    return typing.get_args(tuples[0])[0]
