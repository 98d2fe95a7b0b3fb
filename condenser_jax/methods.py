"""The methods that can be trained: name -> its options and its objective. A new method is a file
and a row.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.objectives import condenser, mlm
from condenser_jax.objectives.base import Objective


class Method(NamedTuple):
    """What a method brings."""

    options: type  # the dataclass of the configuration's section `objective`
    build: Callable[[BackboneConfig, ComputeConfig, Any], Objective]
    best_metric: str  # held-out figure, lower is better, that names the best checkpoint


METHODS: dict[str, Method] = {
    "mlm": Method(mlm.MlmConfig, mlm.build, "heldout/late_loss"),
    "condenser": Method(condenser.CondenserConfig, condenser.build, "heldout/head_loss"),
}
