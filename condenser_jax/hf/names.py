"""The one table of parameter names: our path <-> Hugging Face name.

`entries` lists every parameter of a group with its path in our tree (docs/design.md, section 4),
its name in a Hugging Face file and its shape there; everything else here is a loop over that list.
Works on plain numpy arrays and imports no model code.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from condenser_jax.errors import UserError, choose
from condenser_jax.models.config import BackboneConfig

GROUPS = ("backbone", "mlm_head", "condenser_head", "ratio_head")
OF_TASKS = ("pooler", "classifier")  # read (the pooler) and written where they are asked for

# Modules of one layer: our path, their name, their kind.
_LAYER = (
    ("attention/query", "attention.self.query", "square"),
    ("attention/key", "attention.self.key", "square"),
    ("attention/value", "attention.self.value", "square"),
    ("attention/output", "attention.output.dense", "square"),
    ("attention/layer_norm", "attention.output.LayerNorm", "norm"),
    ("feed_forward/intermediate", "intermediate.dense", "widen"),
    ("feed_forward/output", "output.dense", "narrow"),
    ("feed_forward/layer_norm", "output.LayerNorm", "norm"),
)
_EMBEDDINGS = (
    ("embeddings/word", "embeddings.word_embeddings", "words"),
    ("embeddings/position", "embeddings.position_embeddings", "positions"),
    ("embeddings/token_type", "embeddings.token_type_embeddings", "token_types"),
    ("embeddings/layer_norm", "embeddings.LayerNorm", "table_norm"),
)
_PROJECTION = (("embeddings/projection", "embeddings_project", "from_tables"),)
_MLM_HEAD = {
    "bert": (
        ("transform", "cls.predictions.transform.dense", "square"),
        ("layer_norm", "cls.predictions.transform.LayerNorm", "norm"),
        ("", "cls.predictions", "vocabulary_bias"),
    ),
    "roberta": (
        ("transform", "lm_head.dense", "square"),
        ("layer_norm", "lm_head.layer_norm", "norm"),
        ("", "lm_head", "vocabulary_bias"),
    ),
    "electra": (
        ("transform", "generator_predictions.dense", "to_tables"),
        ("layer_norm", "generator_predictions.LayerNorm", "table_norm"),
        ("", "generator_lm_head", "vocabulary_bias"),
    ),
}
_RATIO_HEAD = (  # no class of transformers has one: these names are ours
    ("transform", "ratio_head.dense", "square"),
    ("layer_norm", "ratio_head.LayerNorm", "norm"),
    ("logit", "ratio_head.out", "scalar"),
)
_POOLER = (("transform", "bert.pooler.dense", "square"),)
_DENSE_AND_OUTPUT = (
    ("transform", "classifier.dense", "square"),
    ("output", "classifier.out_proj", "outputs"),
)
_CLASSIFIER = {
    "bert": (("output", "classifier", "outputs"),),
    "roberta": _DENSE_AND_OUTPUT,
    "electra": _DENSE_AND_OUTPUT,
}
_DECODERS = {"bert": "cls.predictions", "roberta": "lm_head", "electra": "generator_lm_head"}
_PREFIXES = {
    "pooler": ("bert.pooler.",),
    "classifier": ("classifier.",),
    "backbone": ("bert.", "roberta.", "electra."),
    "mlm_head": ("cls.predictions.", "lm_head.", "generator_"),
    "condenser_head": ("c_head.",),
    "ratio_head": ("ratio_head.",),
}
# What one module holds: our leaf, their leaf, shape there (letters of docs/design.md).
_KINDS = {
    "square": (("kernel", "weight", "DD"), ("bias", "bias", "D")),
    "widen": (("kernel", "weight", "FD"), ("bias", "bias", "F")),
    "narrow": (("kernel", "weight", "DF"), ("bias", "bias", "D")),
    "outputs": (("kernel", "weight", "CD"), ("bias", "bias", "C")),
    "norm": (("scale", "weight", "D"), ("bias", "bias", "D")),
    "scalar": (("kernel", "weight", "1D"), ("bias", "bias", "1")),
    "words": (("embedding", "weight", "VE"),),
    "positions": (("embedding", "weight", "PE"),),
    "token_types": (("embedding", "weight", "TE"),),
    "table_norm": (("scale", "weight", "E"), ("bias", "bias", "E")),
    "from_tables": (("kernel", "weight", "DE"), ("bias", "bias", "D")),
    "to_tables": (("kernel", "weight", "ED"), ("bias", "bias", "E")),
    "vocabulary_bias": (("bias", "bias", "V"),),
}
_IGNORED = re.compile(
    r"(^|\.)(pooler\.dense\.(weight|bias)|embeddings\.(position_ids|token_type_ids)"
    r"|cls\.seq_relationship\.(weight|bias)|discriminator_predictions\..*"
    r"|classifier\.((dense|out_proj)\.)?(weight|bias))$"
)


class Entry(NamedTuple):
    """One parameter: its path in the tree of its group, its Hugging Face name, its shape there."""

    path: str
    name: str
    shape: tuple[int, ...]
    is_transposed: bool  # torch keeps a kernel as [out, in]
    is_padded: bool  # our leading axis is the padded vocabulary


def entries(config: BackboneConfig, group: str, count: int | None = None) -> list[Entry]:
    """Every parameter of `group`; `count` is needed for the condenser head (its layers) and the
    classifier (its outputs) alone.
    """
    choose("parameter group", group, (*GROUPS, *OF_TASKS))
    if group == "pooler":
        return list(_expand(config, _POOLER))
    if group == "classifier":
        return list(_expand(config, _CLASSIFIER[config.model_type], outputs=count or 0))
    if group == "mlm_head":
        return list(_expand(config, _MLM_HEAD[config.model_type]))
    if group == "condenser_head":
        return list(_layers(config, "layer_{}/", "c_head.{}.", count or 0))
    if group == "ratio_head":
        return list(_expand(config, _RATIO_HEAD))
    prefix = f"{config.model_type}."
    is_factorised = config.embedding_width != config.hidden_size
    embeddings = (*_EMBEDDINGS, *_PROJECTION) if is_factorised else _EMBEDDINGS
    layers = _layers(config, "layers/layer_{}/", prefix + "encoder.layer.{}.", config.num_layers)
    return [*_expand(config, embeddings, "", prefix), *layers]


def to_hf(
    params: Mapping[str, Any], config: BackboneConfig, groups: Iterable[str]
) -> dict[str, np.ndarray]:
    """Renames the groups for Hugging Face: {name: contiguous float32 array}, padded rows cut off.

    Raises UserError if a parameter is missing, left over or of another shape.
    """
    tensors = {}
    for group in groups:
        leaves = dict(flatten(params[group]))
        is_classifier = group == "classifier"
        count = len(leaves["output/bias"]) if is_classifier else len(params[group])
        table = entries(config, group, count)
        _check_names(
            {f"{group}/{path}" for path in leaves}, {f"{group}/{entry.path}" for entry in table}
        )
        for entry in table:
            tensors[entry.name] = _to_theirs(leaves[entry.path], entry, config, group)
    return tensors


def from_hf(
    tensors: Mapping[str, np.ndarray], config: BackboneConfig, groups: Iterable[str]
) -> dict[str, Any]:
    """Builds {group: tree of float32} of tensors named as `canonical` does; pads the vocabulary.

    Raises UserError if a parameter is missing, left over or of another shape.
    """
    num_head_layers = count_head_layers(tensors)
    tables = {group: entries(config, group, num_head_layers) for group in groups}
    _check_names(set(tensors), {entry.name for table in tables.values() for entry in table})
    return {
        group: unflatten(
            {entry.path: _to_ours(tensors[entry.name], entry, config) for entry in table}
        )
        for group, table in tables.items()
    }


def group_of(name: str) -> str | None:
    """The group that a tensor under its canonical name belongs to; None if to none."""
    groups = (*OF_TASKS, *GROUPS)  # the pooler's names begin as the backbone's do
    return next((group for group in groups if name.startswith(_PREFIXES[group])), None)


def count_head_layers(names: Iterable[str]) -> int:
    """Number of layers of the condenser head among `names`: the highest index plus one."""
    found = (re.match(r"c_head\.(\d+)\.", name) for name in names)
    return max((int(match[1]) + 1 for match in found if match), default=0)


def canonical(
    tensors: Mapping[str, np.ndarray], config: BackboneConfig, has_pooler: bool = False
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Brings the dialects of Hugging Face files to the names of `entries`; returns notes as well.

    Adds a missing `bert.` or the like, turns gamma and beta of old files into weight and bias,
    drops the pooler (unless `has_pooler`), heads of classifiers, next sentences and replaced
    tokens, position buffers and the copies that a tied decoder leaves. Raises UserError if a
    decoder is not tied to the word table.
    """
    prefix = f"{config.model_type}."
    renamed, ignored = {}, []
    for name, tensor in tensors.items():
        is_kept = has_pooler and re.match(r"(bert\.)?pooler\.", name)
        if _IGNORED.search(name) and not is_kept:
            ignored.append(name)
            continue
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight")
        name = name.replace("LayerNorm.beta", "LayerNorm.bias")
        bare = ("embeddings.", "embeddings_project.", "encoder.", "pooler.")
        is_bare = name.startswith(bare)
        renamed[prefix + name if is_bare else name] = tensor
    notes = [f"ignored, not part of the encoder: {', '.join(sorted(ignored))}"] if ignored else []
    head = _DECODERS[config.model_type]
    word_table = f"{prefix}embeddings.word_embeddings.weight"
    if f"{head}.decoder.bias" in renamed:
        renamed.setdefault(f"{head}.bias", renamed[f"{head}.decoder.bias"])
    copies = {"weight": word_table, "decoder.weight": word_table, "decoder.bias": f"{head}.bias"}
    for copy, original in copies.items():
        notes += _drop_copy(renamed, f"{head}.{copy}", original)
    return renamed, notes


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields ("a/b/c", leaf) of a nested dict."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Builds the nested dict whose `flatten` is `leaves`."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, last = path.split("/")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[last] = leaf
    return tree


def _layers(config: BackboneConfig, path: str, name: str, count: int) -> Iterator[Entry]:
    for layer in range(count):
        yield from _expand(config, _LAYER, path.format(layer), name.format(layer))


def _expand(
    config: BackboneConfig,
    modules: Sequence[tuple[str, str, str]],
    path: str = "",
    name: str = "",
    outputs: int = 0,
) -> Iterator[Entry]:
    sizes = {
        "V": config.vocab_size,
        "C": outputs,
        "D": config.hidden_size,
        "E": config.embedding_width,
        "1": 1,
        "P": config.max_positions,
        "T": config.type_vocab_size,
        "F": config.intermediate_size,
    }
    for our_module, their_module, kind in modules:
        for our_leaf, their_leaf, axes in _KINDS[kind]:
            yield Entry(
                path + f"{our_module}/{our_leaf}".lstrip("/"),
                f"{name}{their_module}.{their_leaf}",
                tuple(sizes[axis] for axis in axes),
                is_transposed=our_leaf == "kernel",
                is_padded=axes.startswith("V"),
            )


def _to_theirs(leaf: Any, entry: Entry, config: BackboneConfig, group: str) -> np.ndarray:
    array = np.asarray(leaf, np.float32)
    array = array.T if entry.is_transposed else array
    rows = (config.padded_vocab_size,) if entry.is_padded else entry.shape[:1]
    _check_shape(f"{group}/{entry.path} (as {entry.name})", array.shape, rows + entry.shape[1:])
    # safetensors writes the raw buffer: a transposed view would be stored wrongly, and silently.
    return np.ascontiguousarray(array[: entry.shape[0]])


def _to_ours(tensor: np.ndarray, entry: Entry, config: BackboneConfig) -> np.ndarray:
    _check_shape(entry.name, tensor.shape, entry.shape)
    array = np.asarray(tensor, np.float32)
    if entry.is_padded:
        missing = config.padded_vocab_size - config.vocab_size
        array = np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1))
    return np.ascontiguousarray(array.T if entry.is_transposed else array)


def _check_shape(name: str, got: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if tuple(got) != tuple(expected):
        raise UserError(
            f"parameter {name} has shape {list(got)}, expected {list(expected)} by the "
            "configuration; take the configuration and the weights from one checkpoint"
        )


def _check_names(got: set[str], expected: set[str]) -> None:
    for kind, names in (("missing", expected - got), ("left over", got - expected)):
        if names:
            first, others = min(names), len(names) - 1
            more = f" and {others} more" if others else ""
            raise UserError(
                f"parameter {first}{more} {kind}: the weights are not those of the configured "
                "model; take the configuration and the weights from one checkpoint"
            )


def _drop_copy(tensors: dict[str, np.ndarray], copy: str, original: str) -> list[str]:
    """Removes a tied tensor that a file holds twice, if it is one."""
    if copy not in tensors:
        return []
    if original in tensors and not np.array_equal(tensors[copy], tensors[original]):
        raise UserError(
            f"parameter {copy} differs from {original}: an MLM decoder with weights of its own "
            "is not supported; choose a checkpoint with tied word embeddings"
        )
    del tensors[copy]
    return [f"ignored, a copy of {original}: {copy}"]
