"""What a run starts from: a work directory, a Hugging Face directory, the hub, or nothing."""

import contextlib
import dataclasses
import logging
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from condenser_jax.config import RunConfig
from condenser_jax.data.files import fingerprint
from condenser_jax.data.tokenization import have_the_same_words
from condenser_jax.errors import UserError
from condenser_jax.evaluation.masked_lm import log_unigram
from condenser_jax.feeds.base import Material
from condenser_jax.finished import read_facts, read_run
from condenser_jax.hf import names
from condenser_jax.hf.load import LEFT_OUT, QUERIES, Checkpoint, load_checkpoint
from condenser_jax.models.config import BackboneConfig
from condenser_jax.objectives.base import Objective
from condenser_jax.objectives.condenser import early_layer_of
from condenser_jax.training.workdir import Workdir, is_workdir

log = logging.getLogger("condenser_jax")
COPIES = {QUERIES: "backbone"}  # groups that begin as another does, where they are not there


def initial_checkpoint(where: str, groups: tuple[str, ...] = names.GROUPS) -> Checkpoint | None:
    """The last checkpoint of a work directory, or a Hugging Face directory or hub id; "": None.

    Of a Hugging Face directory `groups` are looked for.
    Raises UserError if it cannot be read, or a work directory has no checkpoint yet.
    """
    if not where:
        return None
    if not is_workdir(where):
        return load_checkpoint(where, groups)
    run = read_run(where)
    notes = [f"{group}: from {run.workdir.root} after step {run.step:,}" for group in run.params]
    tokenizer = run.workdir.tokenizer
    return Checkpoint(run.backbone, run.params, tokenizer, notes, run.early_layer)


def resumed_start(path: str | Path, config: RunConfig) -> Checkpoint | None:
    """What a run in the work directory `path` has to know of its start to go on: architecture,
    tokenizer and origin, and no weights. None where it begins, or began from scratch.
    """
    workdir = Workdir(Path(path))
    if not (config.model.init and workdir.is_started and workdir.has_checkpoint):
        return None
    with contextlib.suppress(UserError):  # unreadable facts are written anew from the beginning
        facts = read_facts(workdir)
        backbone = BackboneConfig(**facts["backbone"])
        return Checkpoint(backbone, {}, workdir.tokenizer, facts["weights"])
    return None


def with_tokenizer(config: RunConfig, start: Checkpoint) -> RunConfig:
    """The configuration with the tokenizer of its start, unless it names one."""
    if config.data.tokenizer:
        return config
    data = dataclasses.replace(config.data, tokenizer=str(start.tokenizer_path))
    return dataclasses.replace(config, data=data)


def check_head_layers(checkpoint: Checkpoint, config: RunConfig) -> None:
    """Raises UserError if the checkpoint's Condenser head has another number of layers."""
    wanted = getattr(config.objective, "head_layers", None)  # of the methods that have such a head
    head = checkpoint.params.get("condenser_head")
    if head is not None and wanted not in (None, len(head)):
        raise UserError(
            f"the condenser head of {config.model.init} has {len(head)} layers, "
            f"objective.head_layers is {wanted}; set --config.objective.head_layers={len(head)}."
        )


def initial_groups(
    objective: Objective, checkpoint: Checkpoint | None, config: RunConfig
) -> tuple[dict[str, Any], list[str]]:
    """The groups that start from the checkpoint, and a line on the origin of each group."""
    trained = dict.fromkeys(group for phase in objective.phases for group in phase.trains)
    trained |= dict.fromkeys(objective.exports)  # a backbone under a new head may be fixed
    if checkpoint is None:
        return {}, [f"weights: {group} {_fresh(group, 'from scratch')}" for group in trained]
    known = checkpoint.params.keys() - {"classifier"}  # that of another task is of no use
    loaded = {group: checkpoint.params[group] for group in trained if group in known}
    unused = checkpoint.params.keys() - loaded.keys()
    notes = [f"weights: {n}" for n in checkpoint.notes if n.partition(":")[0] not in unused]
    fresh = (group for group in trained if group not in (*loaded, "condenser_head"))
    notes += [f"weights: {group} {_fresh(group, 'random')}" for group in fresh]
    if QUERIES in unused:
        notes.append(f"weights: {QUERIES}: {LEFT_OUT}")
    head = loaded.get("condenser_head")
    if head is not None and checkpoint.early_layer is not None:
        _warn_of_another_early_layer(checkpoint, config)
    if "condenser_head" in trained and head is None:
        copied = config.objective.head_init == "late"
        notes.append(f"weights: condenser_head {'copied from late layers' if copied else 'random'}")
        if not copied and not config.objective.head_warmup_steps:
            log.warning(
                "THE CONDENSER HEAD IS RANDOM on a trained backbone. That is right for a BERT "
                "checkpoint; on a Condenser it will likely corrupt the rest of the model: load its "
                "head, or use objective.head_init=late or objective.head_warmup_steps."
            )
    return loaded, notes


def _fresh(group: str, drawn: str) -> str:
    """The origin of a group that no checkpoint has."""
    return f"copied from {COPIES[group]}" if group in COPIES else drawn


def _warn_of_another_early_layer(checkpoint: Checkpoint, config: RunConfig) -> None:
    wanted = early_layer_of(checkpoint.config, config.objective)
    if wanted != checkpoint.early_layer:
        log.warning(
            "THE CONDENSER HEAD READ HIDDEN STATE %d in %s, and objective.early_layer is %d: it "
            "knows no such states, which will likely corrupt the rest of the model; set "
            "--config.objective.early_layer=%d, or objective.head_warmup_steps.",
            checkpoint.early_layer,
            config.model.init,
            wanted,
            checkpoint.early_layer,
        )


def start_at_unigram(objective: Objective, unigram: np.ndarray) -> Objective:
    """The objective with its MLM bias born at the log unigram of the training tokens."""
    bias = log_unigram(unigram).astype(np.float32)

    def init(key, loaded):
        params = dict(objective.init(key, loaded))
        head = dict(params["mlm_head"])
        rest = jnp.full_like(head["bias"], bias.min())  # of rows that are no token
        head["bias"] = rest.at[: len(bias)].set(bias)
        return params | {"mlm_head": head}

    return dataclasses.replace(objective, init=init)


def check_words(
    checkpoint: Checkpoint, material: Material, is_taught: bool, given: str = ""
) -> None:
    """Warns where ids mean other words to the checkpoint, which may have no tokenizer beside it:
    then one should be `given`. A student has no choice but the tokenizer of its teacher: raises
    UserError.
    """
    own = checkpoint.tokenizer_path
    if own is None and not (given or is_taught):
        log.warning(
            "THE CHECKPOINT HAS NO TOKENIZER beside it, and one was trained here, whose ids mean "
            "other words to these weights; give theirs as data.tokenizer."
        )
    if own is None or have_the_same_words(own, material.tokenizer_directory):
        return
    if is_taught:
        raise UserError(
            f"the student starts from weights of another tokenizer ({own}) than its teacher's: ids "
            "mean other words to them; choose as model.init a checkpoint with the teacher's "
            "tokenizer, or leave it empty."
        )
    log.warning(
        "THE TOKENIZER IS NOT THAT OF THE CHECKPOINT (%s): its ids mean other words to these "
        "weights; leave data.tokenizer empty to use the checkpoint's own.",
        own,
    )


def weights_identity(where: str) -> list[Any]:
    """What weights to start from are known by: names, sizes and fingerprints of their files, of a
    work directory those of its last checkpoint; nothing for a hub id, which names its weights.
    """
    root = Path(where).expanduser()
    if not where or not root.is_dir():
        return []
    steps = [path for path in (root / "checkpoints").glob("*") if path.name.isdecimal()]
    last = max(steps, key=lambda path: int(path.name), default=root)
    kinds = ("metadata", ".safetensors", ".bin", ".pt")
    files = sorted(path for path in last.rglob("*") if path.name.endswith(kinds))
    return [
        [str(path.relative_to(root)), path.stat().st_size, fingerprint(str(path))] for path in files
    ]
