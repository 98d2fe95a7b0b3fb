"""From text to a searching encoder, step by step: Condenser, coCondenser, a retriever on BM25's
negatives, mining with it, a second retriever on what was mined, evaluation, export, report.

    condenser ──> cocondenser ──┬──> first ──> mined ──┐
                     bm25 ──────┘              └───────┴──> second ──> evaluation ──> export

Both retrievers start from the coCondenser (Gao and Callan 2022, section 4): the first one only
finds the negatives of the second.
"""

import dataclasses
import functools
import itertools
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from condenser_jax.config import RunConfig
from condenser_jax.data.prepare import prepared_directories
from condenser_jax.encoder import Encoder, default_dtype
from condenser_jax.exporting import export_run
from condenser_jax.feeds.corpus import DataConfig, prepare_config, tokenizer_of
from condenser_jax.feeds.ranking import texts_hashes
from condenser_jax.mine import mine_file
from condenser_jax.pipeline.config import PipelineConfig
from condenser_jax.pipeline.steps import Facts, Pipeline, Result, Step
from condenser_jax.retrieval.collection import CollectionOptions
from condenser_jax.retrieval.kinds import open_collection
from condenser_jax.retrieval.mining import MiningOptions
from condenser_jax.retrieval.training_texts import open_training
from condenser_jax.run import train
from condenser_jax.tasks.contract import Options
from condenser_jax.tasks.retrieval import report_retrieval
from condenser_jax.tasks.table import write_files
from condenser_jax.training.workdir import FREE_KEYS
from condenser_jax.vectors import hash_texts
from condenser_jax.warm_start import weights_identity

RUN, TRAINING_FILE = "run", "train.jsonl.gz"
Results = Mapping[str, Result]


def training_step(
    name: str,
    config: RunConfig,
    *,
    init: Step | None = None,
    negatives: Step | None = None,
    step: str = "last",
) -> Step:
    """Trains, and exports the checkpoint `step` ("last" or "best") to <directory>/<name>.

    Args:
      init: the step whose run the weights, and the tokenizer, come from; None: as configured.
      negatives: the step whose training file is learned from; None: as configured.
    """

    def run(directory: Path, earlier: Results) -> Facts:
        run_config = config
        if init is not None:
            run_config = changed(run_config, "model", init=str(earlier[init.name].directory / RUN))
        if negatives is not None:
            file = earlier[negatives.name].directory / TRAINING_FILE
            run_config = changed(run_config, "data", train=f"tevatron:{file}")
        workdir, history = train(run_config, directory / RUN, time.time())
        export_run(workdir.root, directory / name, step)
        return {"figures": history, "model": name}

    settings = settings_of(config, taught_by_a_step=negatives is not None) | {"exports": step}
    if step == "best" or config.training.patience:
        settings["eval_every"] = config.training.eval_every
    return Step(name, run, settings, tuple(filter(None, (init, negatives))))


def mining_step(
    name: str,
    collection: str,
    split: str,
    options: MiningOptions,
    reading: CollectionOptions,
    *,
    by: Step | None = None,
) -> Step:
    """Writes a training file of the split's queries, with negatives that BM25 finds, and, if given,
    the retriever `by`.
    """

    def run(directory: Path, earlier: Results) -> Facts:
        encoder = None
        if by is not None:
            found = earlier[by.name]
            encoder = Encoder.load(
                str(found.directory / found.facts["model"]), dtype=default_dtype()
            )
        said = mine_file(
            directory / TRAINING_FILE,
            collection,
            split,
            options,
            encoder=encoder,
            vectors=directory / "vectors",
            uses_bm25=True,
            reading=reading,
            shows_progress=True,
        )
        return {"said": said}

    known = collection_hash(collection, split, reading)
    settings = {"options": dataclasses.asdict(options), "collection": known}
    return Step(name, run, settings, (by,) if by else ())


def evaluation_step(
    name: str, collection: str, split: str, reading: CollectionOptions, models: tuple[Step, ...]
) -> Step:
    """Searches the collection with each model, and with BM25; the first is tested against the
    second.
    """

    def run(directory: Path, earlier: Results) -> Facts:
        paths = tuple(_model(earlier[model.name]) for model in models)
        options = Options(models=paths, data=collection, split=split, reading=reading)
        report = report_retrieval(dataclasses.replace(options, vectors=str(directory / "vectors")))
        write_files(report, directory / "retrieval")
        markdown = (directory / "retrieval.md").read_text(encoding="utf-8")
        return {"table": report.table, "markdown": markdown, **report.figures}

    settings = {"collection": collection_hash(collection, split, reading), "split": split}
    return Step(name, run, settings, models)


def steps_of(config: PipelineConfig) -> dict[str, Step]:
    """The steps of the whole pipeline by name, in the order in which they are done."""
    where, split, reading = config.collection, config.split, config.reading
    condenser = training_step("condenser", config.condenser)
    cocondenser = training_step("cocondenser", config.cocondenser, init=condenser)
    taught = [retriever.data.train_split for retriever in (config.first, config.second)]
    bm25 = mining_step("bm25-negatives", where, taught[0], config.bm25, reading)
    first = training_step("first", config.first, init=cocondenser, negatives=bm25, step="best")
    mined = mining_step("mined-negatives", where, taught[1], config.mining, reading, by=first)
    second = training_step("second", config.second, init=cocondenser, negatives=mined, step="best")
    evaluation = evaluation_step("evaluation", where, split, reading, (second, first, cocondenser))
    steps = (condenser, cocondenser, bm25, first, mined, second, evaluation)
    return {step.name: step for step in steps}


def run_pipeline(config: PipelineConfig, root: str | Path) -> dict[str, Result]:
    """Does what is not done yet; returns the results by name. Raises UserError, Preempted or
    RunFailed as the steps do: the same command goes on.
    """
    pipeline = Pipeline(Path(root))
    return {name: pipeline.result(step) for name, step in steps_of(config).items()}


def _model(result: Result) -> str:
    """The encoder that a training step exported."""
    return str(result.directory / result.facts["model"])


def changed(config: RunConfig, section: str, **values: Any) -> RunConfig:
    changed = dataclasses.replace(getattr(config, section), **values)
    return dataclasses.replace(config, **{section: changed})


def what_is_learned(config: RunConfig) -> dict[str, Any]:
    """The configuration without what changes only the form of the computation."""
    stored = json.loads(json.dumps(dataclasses.asdict(config)))
    return {
        section: {
            key: value
            for key, value in content.items()
            if f"{section}.{key}" not in FREE_KEYS and f"{section}." not in FREE_KEYS
        }
        if isinstance(content, dict)
        else content
        for section, content in stored.items()
    }


def settings_of(
    config: RunConfig, taught_by_a_step: bool = False, data: list[str] | None = None
) -> dict[str, Any]:
    """What the result of a run depends on: its configuration, its data, and where it starts.

    Args:
      taught_by_a_step: its training file is a step's, which is known already.
      data: its `identity`, where that is known: of `docstrings:` it takes .4 s to find out.
    """
    return {
        "config": what_is_learned(config),
        "data": identity(config, taught_by_a_step) if data is None else data,
        "init": weights_identity(config.model.init),
    }


def identity(config: RunConfig, taught_by_a_step: bool = False) -> list[str]:
    """What the data are known by, so that a changed source is a changed step."""
    data = config.data
    if isinstance(data, DataConfig):
        options = prepare_config(data, config.seed, tokenizer_of(config))
        return [directory.name for directory, _ in prepared_directories(options)]
    reading = CollectionOptions.of(data)
    found = [collection_hash(data.collection or data.train, data.split, reading)]
    if not taught_by_a_step:
        texts = open_training(data.train, data.train_split, reading)
        found += texts_hashes(texts).values()
    return found


@functools.cache  # steps share collections, and a large one takes a minute
def collection_hash(collection: str, split: str, reading: CollectionOptions) -> str:
    """A hash of passages and queries, with their ids, and of judgements."""
    found = open_collection(collection, split, reading)
    judged = json.dumps({query: dict(grades) for query, grades in found.qrels.items()})
    texts = itertools.chain(found.corpus, found.queries)
    return hash_texts(itertools.chain(((text.id, text.joined) for text in texts), [("", judged)]))
