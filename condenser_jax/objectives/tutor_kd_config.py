"""The choices of Tutor-KD (Kim et al., EMNLP 2022), its ablations among them, and what they imply:
phases, groups and schedule.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from condenser_jax.errors import UserError, choose
from condenser_jax.objectives.base import Phase, Schedule
from condenser_jax.objectives.distillation import FIT, DistillationConfig, check_weights

MAXIMISE, MINIMISE = "maximise", "minimise"
SAMPLINGS = ("tutor", "teacher", "uniform", "none")
SCHEDULES = ("separate", "joint")
BASELINES = ("none", "batch_mean")
TUTOR_INITS = ("random", "teacher")
OF_REWARDS = {"teacher_reward": True, "student_reward": True, "reward_baseline": "none"}  # as usual
OF_TUTOR = {"tutor_init": "random", "policy_weight": 1.0, "kl_weight": 1.0}


@dataclasses.dataclass(frozen=True)
class TutorKdConfig(DistillationConfig):
    """The choices of Tutor-KD. Defaults are the published ones, but for the schedule."""

    name: str = "tutor_kd"
    schedule: str = "separate"  # phases in turn, or "joint": both on one batch, as published
    maximise_steps: int = 1  # of a cycle of separate phases
    minimise_steps: int = 1  # the same
    sampling: str = "tutor"  # replacements: by tutor, teacher's MLM head, uniform; none: [MASK]
    sample_specials: bool = True  # False: special tokens are never put in
    teacher_reward: bool = True  # p_T(x | X') - p_T(r | X')
    student_reward: bool = True  # |ratio_T - ratio_S|
    reward_baseline: str = "none"  # subtracted from rewards; or "batch_mean"
    tutor_init: str = "random"  # or "teacher": its MLM head
    modified_logit: bool = True  # learn ratios; False: the teacher's distribution on X', by an MLM
    policy_weight: float = 1.0  # of the policy gradient; 0: the tutor learns by KL alone
    kl_weight: float = 1.0  # of KL(teacher || tutor)
    logit_weight: float | None = None  # None: 25 for ratios, 1 for distributions
    hidden_weight: float = 0.5
    attention_weight: float = 0.5  # 0 where heads of teacher and student differ in number

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("objective.schedule", self.schedule, SCHEDULES)
        choose("objective.sampling", self.sampling, SAMPLINGS)
        choose("objective.reward_baseline", self.reward_baseline, BASELINES)
        choose("objective.tutor_init", self.tutor_init, TUTOR_INITS)
        self._check_weights()
        self._check_schedule()
        self._check_tutor()

    @property
    def samples(self) -> bool:
        """Whether X' is another text than X^M."""
        return self.sampling != "none"

    @property
    def trains_mlm_head(self) -> bool:
        """Whether it fills masks: a student of replaced words never sees [MASK]."""
        return not self.samples

    @property
    def has_tutor(self) -> bool:
        """Whether there is a tutor."""
        return self.sampling == "tutor"

    @property
    def maximises(self) -> bool:
        """Whether there is a phase `maximise`."""
        return self.has_tutor and self.policy_weight > 0

    @property
    def has_ratio(self) -> bool:
        """Whether the student learns ratios; there are none where nothing is replaced."""
        return self.modified_logit and self.samples

    @property
    def baseline(self) -> float:
        """1 if the mean reward of the batch is subtracted from each reward, else 0."""
        return float(self.reward_baseline == "batch_mean")

    @property
    def weight_of_logit(self) -> float:
        """The weight of L_logit."""
        return self.usual_logit_weight if self.logit_weight is None else self.logit_weight

    @property
    def usual_logit_weight(self) -> float:
        """25 for ratios, as published; 1 for distributions, our choice."""
        return 25.0 if self.has_ratio else 1.0

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases and what they train. The student's groups, trained by `minimise` alone, are
        one player; the tutor is another.
        """
        head = "ratio_head" if self.has_ratio else "mlm_head"
        student = ("backbone", head, *((FIT,) if self.hidden_weight else ()))
        learns = self.has_tutor and self.kl_weight > 0
        minimise = Phase(MINIMISE, (*student, *(("tutor",) if learns else ())))
        return (Phase(MAXIMISE, ("tutor",)), minimise) if self.maximises else (minimise,)

    @property
    def groups(self) -> tuple[str, ...]:
        """All groups of parameters."""
        return tuple(dict.fromkeys(group for phase in self.phases for group in phase.trains))

    @property
    def turns(self) -> Schedule:
        """When which phase is active."""
        if not self.maximises:
            return Schedule(((MINIMISE,),))
        if self.schedule == "joint":
            return Schedule(((MAXIMISE, MINIMISE),))
        in_turn = ((MAXIMISE,),) * self.maximise_steps + ((MINIMISE,),) * self.minimise_steps
        return Schedule(in_turn)

    def _check_weights(self) -> None:
        names = ("policy", "kl", "logit", "hidden", "attention")
        check_weights(self, *(f"{name}_weight" for name in names))
        if not self.weight_of_logit:
            raise UserError(
                "objective.logit_weight is 0: nothing would teach the student's head; expected "
                f"above 0 (usually {self.usual_logit_weight:g})."
            )

    def _check_schedule(self) -> None:
        for name in ("maximise_steps", "minimise_steps"):
            steps = getattr(self, name)
            if steps < 1:
                raise UserError(f"objective.{name} is {steps}; expected at least 1.")
            if steps > 1 and not self.maximises:
                raise UserError(
                    f"objective.{name} is {steps}, but the student's is the only phase where no "
                    "policy gradient trains a tutor (objective.sampling='tutor' and "
                    "objective.policy_weight above 0); leave it at 1."
                )
            if steps > 1 and self.schedule == "joint":
                raise UserError(
                    f"objective.{name} is {steps}, but objective.schedule='joint' runs both phases "
                    "in every step; leave it at 1 or use objective.schedule='separate'."
                )

    def _check_tutor(self) -> None:
        if not self.has_tutor:
            why = f"there is no tutor with objective.sampling={self.sampling!r}"
            self._check_usual(OF_REWARDS | OF_TUTOR, why)
            return
        if self.policy_weight == 0 and self.kl_weight == 0:
            raise UserError(
                "objective.policy_weight and objective.kl_weight are 0: the tutor would learn "
                "nothing; use objective.sampling='teacher' or 'uniform' to do without one."
            )
        if not self.maximises:
            self._check_usual(OF_REWARDS, "with objective.policy_weight=0 no reward trains a tutor")
        elif not (self.teacher_reward or self.student_reward):
            raise UserError(
                "objective.teacher_reward and objective.student_reward are off: the tutor would be "
                "rewarded for nothing; set objective.policy_weight=0 to train it by KL alone."
            )

    def _check_usual(self, values: Mapping[str, Any], why: str) -> None:
        """Raises UserError for choices that would change nothing."""
        for name, usual in values.items():
            if getattr(self, name) != usual:
                raise UserError(
                    f"objective.{name} is {getattr(self, name)!r}, but {why}; leave it at "
                    f"{usual!r}."
                )
