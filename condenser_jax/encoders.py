"""Encoders to be evaluated, read from runs, Hugging Face directories or the hub alike."""

import json
from collections.abc import Sequence
from pathlib import Path

from condenser_jax.corpus import prepare_config, prepare_corpus, tokenizer_of
from condenser_jax.data.prepare import prepared_directories
from condenser_jax.data.store import Prepared
from condenser_jax.data.tokenization import load_tokenizer
from condenser_jax.errors import UserError
from condenser_jax.evaluation.contract import Encoder
from condenser_jax.finished import Finished, read_run
from condenser_jax.hf.load import check_vocabulary, load_checkpoint
from condenser_jax.training.workdir import is_workdir


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
    if Path(path).is_dir():
        if is_workdir(path):
            return _from_run(path, name)
        if not (Path(path) / "config.json").is_file():
            raise UserError(
                f"{path} is neither a work directory nor a Hugging Face directory: it has no "
                "config.json; name another --model"
            )
    return _from_hf(path, name)


def _from_run(path: str, name: str) -> Encoder:
    run = read_run(path)
    tokenizer = load_tokenizer(run.workdir.tokenizer)
    return Encoder(
        name,
        path,
        run.backbone,
        run.params["backbone"],
        tokenizer,
        lambda: _prepared_data(run),
    )


def _from_hf(path: str, name: str) -> Encoder:
    checkpoint = load_checkpoint(path, groups=("backbone",))
    if checkpoint.tokenizer_path is None:
        raise UserError(f"{path} has no tokenizer; copy that of its model (tokenizer.json) there")
    tokenizer = load_tokenizer(checkpoint.tokenizer_path)
    check_vocabulary(checkpoint.config, tokenizer)
    return Encoder(name, path, checkpoint.config, checkpoint.params["backbone"], tokenizer, None)


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
