"""The methods that can be trained: name -> its options and its objective. A new method is a file
and a row.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.objectives import cocondenser, condenser, mlm
from condenser_jax.objectives.base import Goal, Objective


class Method(NamedTuple):
    """What a method brings."""

    options: type  # the dataclass of the configuration's section `objective`
    build: Callable[[BackboneConfig, ComputeConfig, Any], Objective]
    goal: Goal
    pairs: bool = False  # trains on two spans of each document, else on spans


METHODS: dict[str, Method] = {
    "mlm": Method(mlm.MlmConfig, mlm.build, Goal("heldout/late_loss")),
    "condenser": Method(condenser.CondenserConfig, condenser.build, Goal("heldout/head_loss")),
    "cocondenser": Method(
        cocondenser.CoCondenserConfig,
        cocondenser.build,
        Goal("heldout/span_retrieval_mrr", lower_is_better=False),
        pairs=True,
    ),
}
