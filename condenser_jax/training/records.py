"""The JSON of a checkpoint: what the loop remembers, the metric, and what every array must be.

It is signed with a checksum of its own, so that a record that changed on disk is not believed.
"""

import json
import math
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from condenser_jax.training.checksums import Described

CHECKSUM = "checksum"


class Record(NamedTuple):
    """What a checkpoint says of itself."""

    loop: dict[str, Any]  # step, history, offset of metrics.jsonl: as given to `save`
    metric: float | None  # decides which checkpoint is the best; None: never this one
    arrays: dict[str, Described]  # {"params/backbone/...": ..., "rest/step": ...}


class Unsigned(ValueError):
    """A record without a checksum: of an earlier version."""


def to_json(
    loop: Mapping[str, Any], metric: float | None, arrays: Mapping[str, Described]
) -> dict[str, Any]:
    """The record as it is stored, signed. A metric that is not finite counts as none."""
    metric = float(metric) if metric is not None and math.isfinite(metric) else None
    stored = json.loads(json.dumps(Record(dict(loop), metric, dict(arrays))._asdict()))
    return stored | {CHECKSUM: _checksum(stored)}


def from_json(stored: Mapping[str, Any]) -> Record:
    """Raises Unsigned, or ValueError where the record is not what was stored."""
    content = dict(stored)
    if CHECKSUM not in content:
        raise Unsigned("it has no checksum")
    if content.pop(CHECKSUM) != _checksum(content):
        raise ValueError("its record does not have its checksum")
    arrays = {
        name: Described(dtype, tuple(shape), checksum)
        for name, (dtype, shape, checksum) in content["arrays"].items()
    }
    return Record(content["loop"], content["metric"], arrays)


def _checksum(content: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())
