"""Students that differ in numbers alone, as one objective: the numbers stand among its parameters,
in a group that nothing trains, so that a step can be mapped over many students at once.

A reward that is off is a reward of weight 0, and so on; whose samples are put in is a choice among
all that are drawn. What a family's objective computes for one set of numbers is what the objective
of that row computes (tests/unit/test_distillation_family.py).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from condenser_jax.config import RunConfig
from condenser_jax.methods import METHODS
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.objectives.base import Objective
from condenser_jax.objectives.distillation import Teacher, replace_masked
from condenser_jax.objectives.tutor_kd import Played, TutorKd, objective_of
from condenser_jax.objectives.tutor_kd_config import SAMPLINGS
from condenser_jax.types import Array, Batch, Frozen, Params

NUMBERS = "numbers"  # the group of what tells rows of a family apart
Builder = Callable[[BackboneConfig, ComputeConfig, Any, Teacher], Objective]


class Weight:
    """A traced number in place of a Python float. Its value is unknown at compile time, so it
    counts as switched on and its term is always computed.
    """

    def __init__(self, value: Array) -> None:
        self.value = value

    def __bool__(self) -> bool:
        return True

    def __gt__(self, other: float) -> bool:
        assert other == 0, "only whether it is on is known before"
        return True

    def __mul__(self, other: Any) -> Any:
        return self.value * other


class TracedOptions:
    """A method's options, of which some are replaced by traced numbers."""

    def __init__(self, options: Any, weights: Mapping[str, Array]) -> None:
        self._options = options
        self._weights = {name: Weight(value) for name, value in weights.items()}

    def __getattr__(self, name: str) -> Any:
        return self._weights[name] if name in self._weights else getattr(self._options, name)


class Sampler(TutorKd):
    """Tutor-KD whose samples are those of a tutor, of the teacher's MLM, of chance, or none."""

    def play(self, params: Params, frozen: Frozen, batch: Batch, numbers: Array | None) -> Played:
        """All are drawn by the same numbers, and one is put in."""
        played, which = super().play(params, frozen, batch, numbers), params[NUMBERS]["sampling"]
        assert numbers is not None, "sampling asks for numbers"
        drawn = {
            "teacher": self.replacements.of_policy(played.teacher, numbers),
            "uniform": self.replacements.at_random(numbers),
            "none": batch["masked_ids"],
        }
        replaced = played.replaced
        for name, ids in drawn.items():
            replaced = jnp.where(which == SAMPLINGS.index(name), ids, replaced)
        text = replace_masked(batch, replaced)
        masked = jnp.where(which == SAMPLINGS.index("none"), batch["input_ids"], text)
        return played._replace(ids=masked, replaced=replaced)


def _tutor_kd(
    backbone: BackboneConfig, compute: ComputeConfig, options: Any, teacher: Teacher
) -> Objective:
    return objective_of(Sampler(backbone, compute, options, teacher))


class Family(NamedTuple):
    """Which rows train as one, and by what numbers they are told apart."""

    lead: str  # the row whose choices hold where no number is told
    build: Builder
    numbers: tuple[str, ...]  # attributes of the options
    free: tuple[str, ...]  # fields of the options that may differ

    def numbers_of(self, options: Any) -> dict[str, float]:
        """What tells a row apart."""
        found = {name: float(getattr(options, name)) for name in self.numbers}
        sampling = getattr(options, "sampling", None)
        return found if sampling is None else found | {"sampling": SAMPLINGS.index(sampling)}

    def has(self, config: RunConfig, lead: RunConfig) -> bool:
        """Whether a row differs from the lead in nothing else, the learning rate excepted."""
        ours, theirs = dataclasses.asdict(config.objective), dataclasses.asdict(lead.objective)
        same = {name: theirs[name] for name in self.free}
        optimizer = dataclasses.replace(
            config.optimizer, learning_rate=lead.optimizer.learning_rate
        )
        plain = dataclasses.replace(config, objective=lead.objective, optimizer=optimizer)
        return (
            ours | same == theirs
            and plain == lead
            and _learns_ratios(config) == _learns_ratios(lead)
        )

    def objective(
        self,
        lead: Objective,
        backbone: BackboneConfig,
        compute: ComputeConfig,
        options: Any,
        teacher: Teacher,
    ) -> Objective:
        """The objective of the row `lead`, reading its numbers in the parameters."""

        def of(params: Params) -> Objective:
            weights = {name: params[NUMBERS][name] for name in self.numbers}
            return self.build(backbone, compute, TracedOptions(options, weights), teacher)

        def predicted(name: str) -> Callable:
            return lambda params, *rest: of(params).predict[name](params, *rest)

        return dataclasses.replace(
            lead,
            losses=lambda params, *rest: of(params).losses(params, *rest),
            predict={name: predicted(name) for name in lead.predict},
        )


REWARDED = ("teacher_reward", "student_reward", "policy_weight", "attention_weight")
OF_TUTOR = (*REWARDED, "baseline", "weight_of_logit")
FREE_OF_TUTOR = (
    *REWARDED,
    *("reward_baseline", "logit_weight", "sampling", "tutor_init", "modified_logit"),
)
OF_KD = ("kd_weight", "mlm_weight", "cosine_weight")
FAMILIES = {
    "ratios": Family("joint", _tutor_kd, OF_TUTOR, FREE_OF_TUTOR),
    "distributions": Family("no-modified-logit", _tutor_kd, OF_TUTOR, FREE_OF_TUTOR),
    "predictions": Family("distilbert", METHODS["kd"].build, OF_KD, ("name", *OF_KD)),
}


def _learns_ratios(config: RunConfig) -> bool:
    """Whether the student learns ratios, or distributions."""
    return getattr(config.objective, "has_ratio", False)


def families_of(
    rows: Mapping[str, RunConfig], leads: Mapping[str, RunConfig]
) -> dict[str, list[str]]:
    """{family: its rows} of those that have two or more.

    Args:
      rows: the chosen rows. leads: by family, the configuration of its lead.
    """
    found = {
        name: [row for row, config in rows.items() if family.has(config, leads[name])]
        for name, family in FAMILIES.items()
    }
    return {name: members for name, members in found.items() if len(members) > 1}
