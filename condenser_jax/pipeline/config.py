"""The configuration of a pipeline: those of its runs, and what joins them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from condenser_jax.config import RunConfig, read_section, without_given
from condenser_jax.errors import UserError, choose
from condenser_jax.methods import configure
from condenser_jax.retrieval.collection import CollectionOptions
from condenser_jax.retrieval.mining import MiningOptions

RUNS = {
    "condenser": "condenser",
    "cocondenser": "cocondenser",
    "first": "retriever",
    "second": "retriever",
}  # name -> its method
_START = {"model.init": "condenser.model.init, for all else starts from that run"}
_TAUGHT = {
    **_START,
    "data.train": "collection, for whose training queries negatives are mined",
    "data.collection": "collection",
}
SET_HERE = {"cocondenser": _START, "first": _TAUGHT, "second": _TAUGHT}  # key -> what is given


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """Four runs, two minings, and the collection that is searched."""

    collection: str  # docs/collections.md
    split: str  # whose queries are asked at the end
    condenser: RunConfig
    cocondenser: RunConfig
    first: RunConfig
    second: RunConfig
    bm25: MiningOptions
    mining: MiningOptions

    @property
    def reading(self) -> CollectionOptions:
        """How all steps read the collection: as the retrievers do."""
        return CollectionOptions.of(self.second.data)


def configure_pipeline(values: Mapping[str, Any]) -> PipelineConfig:
    """Checks a nested mapping (a ConfigDict's `to_dict()`) and freezes it.

    The retrievers search the pipeline's collection. Raises UserError for unknown keys, wrong types,
    another method than a run's own, what the steps set themselves (SET_HERE), and retrievers that
    read the collection in two ways.
    """
    known = [field.name for field in dataclasses.fields(PipelineConfig)]
    for key in values:
        choose("configuration key", key, known)
    missing = [key for key in known if key not in values]
    if missing:
        raise UserError(f"{missing[0]} is missing from the configuration of the pipeline")
    runs = {}
    for name, method in RUNS.items():
        run = configure(without_given(values[name], name, "the pipeline", SET_HERE.get(name, {})))
        if run.objective.name != method:
            raise UserError(
                f"{name}.objective.name is {run.objective.name!r}; this run of the pipeline is a "
                f"{method}."
            )
        runs[name] = run
    _check_reading(runs["first"], runs["second"])
    for name in ("first", "second"):
        if runs[name].data.train_split == values["split"]:
            raise UserError(
                f"{name}.data.train_split is {values['split']!r}, whose queries are asked at the "
                "end; train on another split than `split`."
            )
        data = dataclasses.replace(runs[name].data, collection=values["collection"])
        runs[name] = dataclasses.replace(runs[name], data=data)
    return PipelineConfig(
        collection=values["collection"],
        split=values["split"],
        bm25=read_section(MiningOptions, values["bm25"], "bm25"),
        mining=read_section(MiningOptions, values["mining"], "mining"),
        **runs,
    )


def _check_reading(first: RunConfig, second: RunConfig) -> None:
    """Raises UserError where one retriever's `train` could be the other's `test`."""
    for name in (field.name for field in dataclasses.fields(CollectionOptions)):
        values = getattr(first.data, name), getattr(second.data, name)
        if len(set(values)) > 1:
            raise UserError(
                f"first.data.{name} is {values[0]:g} and second.data.{name} is {values[1]:g}, but "
                "all steps read one collection; make them equal."
            )
