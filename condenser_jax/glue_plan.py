"""What a suite of GLUE runs, and by which protocol: a grid of tasks, learning rates and seeds, and
what all its runs share.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from condenser_jax.config import RunConfig, read_section, without_given
from condenser_jax.errors import UserError, choose
from condenser_jax.glue.tasks import NINE, find_task
from condenser_jax.methods import configure
from condenser_jax.training.optimizers import check_rate

METHOD, ALL = "classifier", "all"
SET_HERE = {  # keys of a run that are no one's to give: what is given instead
    "objective.task": "tasks",
    "optimizer.learning_rate": "learning_rates",
    "training.steps": "epochs",
    "training.eval_every": "epochs, each of which is evaluated",
    "training.save_every": "epochs, each of which is saved",
    "training.keep": "keep=True, for the checkpoints of all runs",
}
DROPOUT = ("model.hidden_dropout", "model.attention_dropout")
# Sections that are the system, or change no figure but by rounding; and what counts of them.
LEFT_OUT = ("model", "compute", "mesh", "evaluation", "training")
COUNTED = {*DROPOUT, "training.batch_size", "training.patience"}
# Keys of the other sections that are the system or the cell.
NOT_COUNTED = {
    *("objective.name", "objective.task", "optimizer.learning_rate"),
    *("data.source", "data.tokenizer", "data.vocab_size", "data.bad_share"),
}


@dataclasses.dataclass(frozen=True)
class Grid:
    """Which runs there are."""

    tasks: str = ALL  # the nine, or names with commas
    seeds: int = 5
    epochs: int = 3
    learning_rates: tuple[float, ...] = (5e-5,)
    keep: bool = False  # the checkpoints of finished runs

    def __post_init__(self) -> None:
        _ = self.names  # raises UserError for an unknown task
        for name in ("seeds", "epochs"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; expected at least 1.")
        if not self.learning_rates:
            raise UserError(
                "learning_rates is empty; expected one rate, or several to choose from."
            )
        for rate in self.learning_rates:
            check_rate("an item of learning_rates", rate)
        if len({f"{rate:g}" for rate in self.learning_rates}) < len(self.learning_rates):
            raise UserError(
                f"learning_rates is {self.learning_rates}; expected rates that differ in their "
                "first six digits, which name the folders of their runs."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks."""
        names = tuple(NINE) if self.tasks == ALL else tuple(self.tasks.split(","))
        return tuple(find_task(name.strip()).name for name in names)


class Suite(NamedTuple):
    """A grid, and what its runs share."""

    grid: Grid
    run: RunConfig


def configure_suite(values: Mapping[str, Any]) -> Suite:
    """Checks a nested mapping (a ConfigDict's `to_dict()`) and freezes it.

    Raises UserError for unknown keys and tasks, wrong types, another method than `classifier`, and
    what the suite sets itself.
    """
    known = [field.name for field in dataclasses.fields(Grid)]
    for key in values:
        choose("configuration key", key, [*known, "run"])
    run = configure(without_given(values.get("run", {}), "run", "a suite", SET_HERE))
    if run.objective.name != METHOD:
        raise UserError(f"run.objective.name is {run.objective.name!r}; tasks need a {METHOD}.")
    grid = read_section(Grid, {key: values[key] for key in known if key in values}, "")
    return Suite(grid, run)


def cell_config(suite: Suite, task: str, rate: float, seed: int, rows: int) -> RunConfig:
    """The configuration of one run: as many epochs as asked, evaluated and saved after each."""
    epoch = -(-rows // suite.run.training.batch_size)
    steps = suite.grid.epochs * epoch
    run = dataclasses.replace(suite.run, seed=seed)
    training = {"steps": steps, "eval_every": epoch, "save_every": epoch, "keep": 1}
    return with_sections(
        run, objective={"task": task}, optimizer={"learning_rate": rate}, training=training
    )


def protocol_of(suite: Suite) -> dict[str, Any]:
    """Everything but the system, the tasks and their data that moves a figure, as it was asked
    for: a dropout of None is the checkpoint's, which a finished run knows.
    """
    flat = {
        f"{section}.{key}": value
        for section, content in dataclasses.asdict(suite.run).items()
        if isinstance(content, dict)
        for key, value in content.items()
        if _is_counted(section, f"{section}.{key}")
    }
    grid = suite.grid
    rates = list(grid.learning_rates)
    return {"epochs": grid.epochs, "seeds": grid.seeds, "learning_rates": rates, **flat}


def _is_counted(section: str, path: str) -> bool:
    return path in COUNTED if section in LEFT_OUT else path not in NOT_COUNTED


def with_sections(config: RunConfig, **sections: Mapping[str, Any]) -> RunConfig:
    """A configuration with some keys changed."""
    changed = {
        name: dataclasses.replace(getattr(config, name), **values)
        for name, values in sections.items()
    }
    return dataclasses.replace(config, **changed)
