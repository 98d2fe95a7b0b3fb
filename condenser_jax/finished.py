"""A run read back from its work directory: its encoder, its figures, what an export says of it."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from condenser_jax.config import RunConfig
from condenser_jax.errors import UserError, choose
from condenser_jax.hf.card import EncoderCard, read_card
from condenser_jax.hf.model_card import Facts
from condenser_jax.methods import METHODS, configure
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.objectives.base import Objective
from condenser_jax.objectives.condenser import early_layer_of
from condenser_jax.objectives.distillation import Teacher
from condenser_jax.training.saved import Saved
from condenser_jax.training.workdir import Workdir, existing_workdir, read_config_json


class Finished(NamedTuple):
    """What a work directory holds of a checkpoint."""

    workdir: Workdir
    config: RunConfig
    backbone: BackboneConfig
    card: EncoderCard
    facts: dict[str, Any]
    objective: Objective
    step: int
    params: dict[str, Any]  # the exported groups, as host arrays
    record: dict[str, Any]

    @property
    def early_layer(self) -> int | None:
        """The hidden state that its condenser head reads; None if it has none."""
        if "condenser_head" not in self.params:
            return None
        return early_layer_of(self.backbone, self.config.objective)


def read_run(path: str | Path, step: str = "last") -> Finished:
    """Reads a checkpoint of a work directory, parameters only: "last", "best" or a step's number.

    Raises UserError if it is no work directory, or has no such checkpoint.
    """
    workdir = existing_workdir(path)
    if not workdir.has_checkpoint:
        if workdir.result.is_file():
            raise UserError(
                f"{path} is finished and keeps no checkpoint, as the runs of a suite do; name "
                "another --workdir there, with --config.keep=True"
            )
        raise UserError(f"{path} has no checkpoint yet; let its run go on until it saves one")
    config = configure(read_config_json(workdir))
    facts = read_facts(workdir)
    backbone = BackboneConfig(**facts["backbone"])
    method = METHODS[config.objective.name]
    objective = method.build(backbone, ComputeConfig(), config.objective, *_teachers(facts))
    lower = method.goal.lower_is_better
    checkpoints = Saved(workdir.checkpoints, lower_is_better=lower)
    chosen = _chosen_step(checkpoints, step)
    shapes = jax.eval_shape(lambda key: objective.init(key, {}), jax.random.key(0))
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    abstract = {
        group: jax.tree.map(
            lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes[group]
        )
        for group in objective.exports
    }
    params = jax.tree.map(np.asarray, checkpoints.restore_params(chosen, abstract))
    record = checkpoints.read_record(chosen)
    card = read_card(workdir.card)
    return Finished(workdir, config, backbone, card, facts, objective, chosen, params, record)


def _teachers(facts: dict[str, Any]) -> tuple[Teacher, ...]:
    """The teacher of a run that had one."""
    if "teacher" not in facts:
        return ()
    known = facts["teacher"]
    ids = (tuple(known.get(kind, ())) for kind in ("special_ids", "absent_ids"))
    return (Teacher(BackboneConfig(**known["config"]), *ids),)


def _chosen_step(checkpoints: Saved, step: str) -> int:
    known = {"last": checkpoints.latest_step, "best": checkpoints.best_step}
    if step.isdecimal():
        return int(step)
    chosen = known[choose("step", step, known)]
    if chosen is None:
        raise UserError(f"{checkpoints.directory} has no checkpoint yet; let the run go on first.")
    return chosen


def model_facts(run: Finished, licence: str) -> Facts:
    """What the model card says: data, training, figures, versions."""
    training, optimizer = run.config.training, run.config.optimizer
    tokens = METHODS[run.config.objective.name].feed.tokens_per_step(run.config)
    history = run.record.get("history", {})
    return Facts(
        objective=run.config.objective.name,
        initial_weights=_initial_weights(run),
        teacher=_teacher(run.facts),
        licence=licence,
        data={without_folders(card["spec"]): _summary(card) for card in run.facts["data"]},
        training={
            "steps": f"{run.step:,} of {training.steps:,}",
            "batch": f"{training.batch_size} rows, {tokens:,} tokens",
            "learning rate": optimizer.learning_rate,
            "weight decay": optimizer.weight_decay,
            "seed": run.config.seed,
        },
        evaluation={
            "after step": history.get("evaluated", 0),  # not always that of the checkpoint
            **{name: round(value, 4) for name, value in history.get("last", {}).items()},
        },
        versions=run.facts["versions"],
    )


def _initial_weights(run: Finished) -> str:
    """What the run started from: a model, layers of its teacher, or nothing."""
    if run.config.model.init:
        return without_folders(run.config.model.init)
    start = "weights: backbone: "
    notes = [note.removeprefix(start) for note in run.facts["weights"] if note.startswith(start)]
    return without_folders(notes[0]) if notes else "random"


def _teacher(facts: dict[str, Any]) -> str:
    if "teacher" not in facts:
        return ""
    where, config = facts["teacher"]["where"], facts["teacher"]["config"]
    return f"{without_folders(where)} ({config['num_layers']} layers x {config['hidden_size']})"


def without_folders(text: str) -> str:
    """A source or a path, of absolute paths only the last two names: a model card may be published,
    and where things lie on this machine is nobody's business.
    """
    return re.sub(r"(?<![\w.*~-])/(?:[^\s/]+/)*([^\s/]+/[^\s/]+)/?", r"\1", text)


def _summary(card: dict[str, Any]) -> str:
    """What there is to learn from in a source."""
    if "splits" not in card:
        return card["summary"]
    train = card["splits"]["train"]
    return f"{train['documents']:,} documents, {train['tokens']:,} tokens"


def read_facts(workdir: Workdir) -> dict[str, Any]:
    """Returns what facts.json holds; raises UserError if it cannot be read."""
    try:
        return json.loads(workdir.facts.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{workdir.facts} cannot be read ({error}); start the run again, which writes it anew."
        ) from error
