"""Encoders to be evaluated, from runs, Hugging Face directories or the hub alike."""

import json
from collections.abc import Sequence
from pathlib import Path

from condenser_jax.data.prepare import prepared_directories
from condenser_jax.data.store import Prepared
from condenser_jax.encoder_source import read_source
from condenser_jax.errors import UserError
from condenser_jax.evaluation.contract import Encoder
from condenser_jax.feeds.corpus import DataConfig, prepare_config, prepare_corpus, tokenizer_of
from condenser_jax.finished import Finished


def read_encoders(paths: Sequence[str]) -> list[Encoder]:
    """Reads each of `paths` once; an encoder is named by its folder, or by its whole path where
    two folders have one name. Raises UserError for what is no encoder.
    """
    paths = list(dict.fromkeys(paths))
    if not paths:
        raise UserError(
            "--model is missing; name a work directory, a Hugging Face directory or a hub id "
            "(repeat it for several)"
        )
    names = [Path(path).resolve().name for path in paths]
    if len(set(names)) < len(names):
        names = paths
    return [read_encoder(path, name) for path, name in zip(paths, names, strict=True)]


def read_encoder(path: str, name: str) -> Encoder:
    """Reads the last checkpoint of a work directory, or a checkpoint of Hugging Face's."""
    source = read_source(path)
    run = source.run
    has_spans = run is not None and isinstance(run.config.data, DataConfig)
    return Encoder(
        name,
        path,
        source.config,
        source.params["backbone"],
        source.tokenizer,
        (lambda: _prepared_data(run)) if run and has_spans else None,
    )


def _prepared_data(run: Finished) -> list[Prepared]:
    """The data of a run, prepared again if they were removed.

    Raises UserError if its sources have changed since: then other documents would be held out.
    """
    known = json.loads(run.workdir.data_hashes.read_text(encoding="utf-8"))
    tokenizer = tokenizer_of(run.config)
    wanted = prepared_directories(prepare_config(run.config.data, run.config.seed, tokenizer))
    if {directory.name for directory, _ in wanted} != known.keys():
        raise UserError(
            f"{run.config.data.source!r} has changed since {run.workdir.root} was trained on it, "
            "so what was held out is unknown; name texts: --data=text:my/*.txt"
        )
    corpus = prepare_corpus(run.config.data, run.config.seed, tokenizer)
    return [prepared for prepared, _ in corpus.sources]
