"""The models that a task looks at: runs, directories of Hugging Face's format or hub ids alike."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from condenser_jax.data.prepare import prepared_directories
from condenser_jax.data.store import Prepared
from condenser_jax.encoder import Encoder, default_dtype
from condenser_jax.encoder_source import UNSAID, Usage, read_source, untold
from condenser_jax.errors import UserError
from condenser_jax.feeds.corpus import DataConfig, prepare_config, prepare_corpus
from condenser_jax.finished import Finished
from condenser_jax.models.config import BackboneConfig
from condenser_jax.types import Tree


class Weights(NamedTuple):
    """A model to look into."""

    name: str  # in tables and pictures; no two models of a report share one
    path: str  # as the user wrote it
    config: BackboneConfig
    params: Tree  # the group `backbone`, host arrays
    tokenizer: Any
    prepared: Callable[[], Sequence[Prepared]] | None  # a run's data, read when called


def name_models(paths: Sequence[str], taken: Sequence[str] = ()) -> dict[str, str]:
    """Returns {name: path} of models, each once: the name of its folder, or its whole path where
    two folders have one name, or one that is `taken`. Raises UserError where there is none.
    """
    paths = list(dict.fromkeys(paths))
    if not paths:
        raise UserError(
            "--model is missing; name a work directory, a Hugging Face directory or a hub id "
            "(repeat it for several)"
        )
    names = [Path(path).resolve().name for path in paths]
    if len({*names, *taken}) < len(names) + len(taken):
        names = paths
    return dict(zip(names, paths, strict=True))


def usage_of(paths: Sequence[str], usage: Usage) -> dict[str, Usage]:
    """What to tell of each model: a field of `usage` is for those whose files do not tell it; where
    all of them do, it must be theirs.
    """
    if usage == UNSAID:
        return dict.fromkeys(paths, usage)
    free = {path: untold(path) for path in paths}
    told_by_all = set(Usage._fields).difference(*free.values())
    return {
        path: Usage(**{name: getattr(usage, name) for name in free[path] | told_by_all})
        for path in paths
    }


def open_encoder(path: str, usage: Usage) -> Encoder:
    """A model as an encoder of texts, in the dtype of the device."""
    return Encoder.load(path, **usage._asdict(), dtype=default_dtype())


def open_each(models: Mapping[str, str], usage: Usage) -> Iterator[tuple[str, Encoder]]:
    """Yields every name with its encoder, which is read when it is its turn, so that one is in
    memory. What is wrong with a later one is told before the first is used: each is opened once
    for that, and dropped.
    """
    usages = usage_of(list(models.values()), usage)
    for path in list(models.values())[1:]:
        open_encoder(path, usages[path])
    for name, path in models.items():
        yield name, open_encoder(path, usages[path])


def read_weights(path: str, name: str) -> Weights:
    """Reads the last checkpoint of a work directory, or a checkpoint of Hugging Face's.

    Raises UserError for what is no encoder.
    """
    source = read_source(path)
    run = source.run
    has_spans = run is not None and isinstance(run.config.data, DataConfig)
    return Weights(
        name,
        path,
        source.config,
        source.params["backbone"],
        source.tokenizer,
        (lambda: _prepared_data(run)) if run and has_spans else None,
    )


def _prepared_data(run: Finished) -> list[Prepared]:
    """The data of a run, prepared again if they were removed: with the run's own tokenizer, or with
    one that is trained on them, which then is the run's.

    Raises UserError if its sources have changed since: then other documents would be held out.
    """
    data, seed = run.config.data, run.config.seed
    known = json.loads(run.workdir.data_hashes.read_text(encoding="utf-8"))
    for tokenizer in (str(run.workdir.tokenizer), ""):
        wanted = prepared_directories(prepare_config(data, seed, tokenizer))
        if {directory.name for directory, _ in wanted} <= known.keys():  # a teacher too
            return [prepared for prepared, _ in prepare_corpus(data, seed, tokenizer).sources]
    raise UserError(
        f"{data.source!r} has changed since {run.workdir.root} was trained on it, "
        "so what was held out is unknown; name texts: --data=text:my/*.txt"
    )
