"""Tiny models, batches and the comparison that equality tests share."""

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np

from condenser_jax.models.config import BackboneConfig
from condenser_jax.objectives.base import Objective

SPECIALS = 5  # ids below are special tokens
_KEY_BIAS = re.compile(r"\bkey\b(?=\W+bias)")  # in a path of ours, or a name of Hugging Face
BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")
QUICK = {"xla_backend_optimization_level": 0}  # compiles in a third of the time


def tiny_backbone(**changes: Any) -> BackboneConfig:
    """Four layers of width 16; all sizes differ, so that no two axes can be mistaken."""
    sizes = dict(
        vocab_size=90,
        hidden_size=16,
        num_layers=4,
        num_heads=2,
        intermediate_size=24,
        max_positions=48,
    )
    return BackboneConfig(**{**sizes, **changes})


def masked_batch(
    config: BackboneConfig, rows: int = 4, length: int = 16, mask_rate: float = 0.3, seed: int = 0
) -> dict[str, np.ndarray]:
    """A masked batch (docs/design.md section 5): odd rows are padded, row 1 has one mask, rows 2i
    and 2i + 1 are spans of one document.
    """
    rng = np.random.default_rng(seed)
    slots = max(1, round(mask_rate * (length - 2)))
    batch = {
        "input_ids": rng.integers(SPECIALS, config.vocab_size, (rows, length)),
        "attention_mask": np.ones((rows, length), int),
        "masked_positions": np.zeros((rows, slots), int),
        "masked_ids": np.zeros((rows, slots), int),
        "document": np.arange(rows) // 2,
    }
    weights = np.zeros((rows, slots), np.float32)
    for row in range(rows):
        used = length - row % 2 * (1 + row)
        count = 1 if row == 1 else max(1, round(mask_rate * (used - 2)))
        places = np.sort(1 + rng.permutation(used - 2)[:count])
        batch["input_ids"][row, used:] = config.pad_token_id
        batch["attention_mask"][row, used:] = 0
        batch["masked_positions"][row, :count] = places
        batch["masked_ids"][row, :count] = rng.integers(SPECIALS, config.vocab_size, count)
        weights[row, :count] = 1
    ints = {name: values.astype(np.int32) for name, values in batch.items()}
    return ints | {"masked_weights": weights}


def random_params(objective: Objective, dtype: str = "float32", seed: int = 0) -> dict[str, Any]:
    """Every parameter drawn at random, so that no gradient is zero by initialisation."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return (centre + 0.3 * rng.standard_normal(leaf.shape)).astype(dtype)

    shapes = jax.eval_shape(lambda key: objective.init(key, {}), jax.random.key(0))
    return jax.tree_util.tree_map_with_path(draw, shapes)


def compile_quickly(function: Callable, *arguments: Any) -> Callable:
    """The function compiled for arguments of these shapes; for programs that run once or twice."""
    return jax.jit(function).lower(*arguments).compile(compiler_options=QUICK)


def benchmark_module(name: str) -> ModuleType:
    """A module of benchmarks/, imported as a script beside it does."""
    sys.path.insert(0, BENCHMARKS)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(BENCHMARKS)


def worst_difference(got: Any, expected: Any, floor: float = 0.0) -> tuple[float, str]:
    """The largest max|a - b| / max|b| of any tensor of two equal trees, and its path.

    The gradient of an attention's key bias is 0 in exact arithmetic, since softmax does not notice
    what is added to all its scores; what is computed is rounding. So its scale is that of the
    query bias beside it. No scale is less than `floor` times the largest element of all tensors:
    with it other gradients may be such zeros, which are equal up to an absolute difference.
    """
    ours, theirs = _leaves(got), _leaves(expected)
    assert ours.keys() == theirs.keys()
    differences = {}
    least = floor and floor * max(np.abs(b).max() for b in theirs.values())
    for path, a in ours.items():
        b = theirs[path]
        assert a.shape == b.shape, f"{path}: {a.shape} is not {b.shape}"
        scale = max(least, np.abs(theirs[_KEY_BIAS.sub("query", path)]).max())
        distance = np.abs(a - b).max()
        differences[path] = distance / scale if scale else np.inf * distance if distance else 0.0
    path = max(differences, key=lambda name: np.nan_to_num(differences[name], nan=np.inf))
    return float(differences[path]), path


def assert_close(got: Any, expected: Any, tolerance: float, floor: float = 0.0) -> None:
    """Every tensor of two trees is equal within `tolerance` times its largest element, or its
    scale's floor (`worst_difference`).
    """
    difference, path = worst_difference(got, expected, floor)
    assert difference <= tolerance, f"{path} differs by {difference:.2e}, allowed {tolerance:.0e}"


def _leaves(tree: Any) -> dict[str, np.ndarray]:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in flat}
