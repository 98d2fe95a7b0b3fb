"""Whether a run has held out the modules of docstrings that a collection calls `test`: it has with
the same seed and as large a share, or a larger one.
"""

import logging
from pathlib import Path

from condenser_jax.retrieval.collection import CollectionOptions
from condenser_jax.retrieval.docstring_pairs import DOCSTRINGS
from condenser_jax.training.workdir import Workdir, is_workdir, read_config_json

log = logging.getLogger("condenser_jax")


def warn_of_another_split(start: str, data: str, reading: CollectionOptions) -> None:
    """Logs that the run `start` has read modules of `test` in `data`, if it has; says nothing of
    what is no work directory, and of other data.
    """
    if not (data.startswith(DOCSTRINGS) and start and is_workdir(start)):
        return
    before = read_config_json(Workdir(Path(start)))
    section = before.get("data", {})
    source = str(section.get("source") or section.get("train"))
    if DOCSTRINGS not in source:
        return
    seed = section.get("split_seed", before.get("seed"))  # spans are held out by the run's own
    share = section.get("heldout_share", 0.0)  # a task with labels has a split of its own
    if seed != reading.split_seed or share < reading.heldout_share:
        log.warning(
            "%s HAS READ MODULES OF `test`: it was trained with seed %s and heldout_share %g, and "
            "split_seed is %d, heldout_share %g; make them equal, or do not believe figures of "
            "`test`.",
            start,
            seed,
            share,
            reading.split_seed,
            reading.heldout_share,
        )
