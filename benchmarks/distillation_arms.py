"""What benchmarks/distillation.py compares: students by name, their sizes, their configurations."""

import argparse
import json
import math
from typing import Any, NamedTuple

from condenser_jax.config import RunConfig
from condenser_jax.errors import UserError, choose
from condenser_jax.methods import configure
from condenser_jax.models.config import BackboneConfig
from condenser_jax.objectives.distillation import DistillationConfig
from condenser_jax.objectives.tutor_kd_config import MINIMISE, TutorKdConfig
from condenser_jax.training.optimizers import check_rate
from configs import distill, mlm, tutor_kd
from configs.common import smoke_distillation

TUTOR_KD, ABLATIONS, OTHERS, OWN = "Tutor-KD", "Tutor-KD joint, but", "other methods", "also asked"
SEPARATE, JOINT, KL_ALONE = "separate", "joint", "kl-alone"
TEACHER, RANDOM = "teacher", "random start"  # beside which students stand
TUTOR = "tutor_kd"  # the method where no other is named
MOST_RELATION_HEADS = 48  # as published
# names, and beginnings of names, of other parts: no row may have them
PARTS, OF_PARTS = ("rewards", "logs", "teacher-head"), ("family-", "probe-", "glue-")
HELDOUT = 0.1  # of the modules or documents


class Arm(NamedTuple):
    """A way to a student."""

    group: str  # of rows
    title: str
    method: str = TUTOR
    options: dict[str, Any] = {}  # of the section `objective`
    rate: float = 0.0  # learning rate; 0: that of all rows


def _ablation(title: str, **options: Any) -> Arm:
    return Arm(ABLATIONS, title, options={"schedule": "joint", **options})


ARMS = {
    SEPARATE: Arm(TUTOR_KD, "separate, 1 : 1", options={"schedule": "separate"}),
    JOINT: Arm(TUTOR_KD, "joint", options={"schedule": "joint"}),
    "no-teacher-reward": _ablation("no teacher reward", teacher_reward=False),
    "no-student-reward": _ablation("no student reward", student_reward=False),
    KL_ALONE: _ablation("no reward: tutor by KL alone", policy_weight=0.0),
    "reward-baseline": _ablation("batch mean off rewards", reward_baseline="batch_mean"),
    "tutor-from-teacher": _ablation("tutor started from the teacher's head", tutor_init="teacher"),
    "teacher-samples": _ablation("samples of the teacher's MLM", sampling="teacher"),
    "uniform-samples": _ablation("uniform samples", sampling="uniform"),
    "no-samples": _ablation("no samples ([MASK] stays)", sampling="none"),
    "no-modified-logit": _ablation("distributions, not ratios", modified_logit=False),
    "no-attention-loss": _ablation("no attention loss", attention_weight=0.0),
    "kd": Arm(OTHERS, "KD", "kd"),
    "distilbert": Arm(OTHERS, "DistilBERT (random start)", "distilbert"),
    "tinybert": Arm(OTHERS, "TinyBERT", "tinybert"),
    "minilm": Arm(OTHERS, "MiniLM", "minilm"),
    "minilmv2": Arm(OTHERS, "MiniLMv2", "minilmv2"),
}


class Size(NamedTuple):
    """How large an experiment is."""

    variant: str = "teacher"  # of configs/mlm.py
    teacher: dict[str, int] = {}  # of the section `model`; {}: the variant's
    teacher_steps: int = 4000
    teacher_rate: float = 1e-3
    teacher_batch: int = 32
    layers: int = 2  # of students
    narrower: int = 2  # how many times they are narrower than their teacher
    steps: int = 2000  # updates of a student
    rate: float = 2e-3
    batch: int = 16
    spans: int = 2048  # held out


SIZES = {
    "smoke": Size(variant="smoke", teacher_steps=40, steps=8, spans=128),
    "small": Size(),
    "large": Size(
        teacher={
            "hidden_size": 384,
            "num_layers": 6,
            "num_heads": 12,
            "intermediate_size": 1536,
        },
        teacher_steps=40_000,
        teacher_rate=5e-4,
        teacher_batch=128,
        layers=3,
        narrower=1,
        steps=20_000,
        rate=1e-3,
        batch=128,
        spans=4096,
    ),
}


def chosen_arms(args: argparse.Namespace) -> dict[str, Arm]:
    """The rows that --methods leaves, with those of --row. Raises UserError for unknown ones."""
    found = dict(ARMS)
    if args.methods:
        names = [choose("method", name.strip(), ARMS) for name in args.methods.split(",")]
        found = {name: arm for name, arm in ARMS.items() if name in names}
    taken = {*ARMS, *map(_slug, (TEACHER, RANDOM)), *PARTS}
    for row in args.row:
        name, arm = _own_row(row, taken)
        found[name] = arm
        taken.add(name)
    return found


def _own_row(row: str, taken: set[str]) -> tuple[str, Arm]:
    """(name, arm) of TITLE={...}."""
    title, _, options = row.partition("=")
    try:
        values = dict(json.loads(options))
    except (ValueError, TypeError):
        raise UserError(
            f"--row={row} is no row; expected a title and, as JSON, keys of `objective` or a "
            "learning_rate, such as 'weaker ratios={\"logit_weight\": 5}'."
        ) from None
    rate = values.pop("learning_rate", None)
    if rate is not None:
        check_rate(f"the learning_rate of --row={row}", rate)
    if "teacher" in values:
        raise UserError(f"--row={row} names a teacher; all rows have that of --teacher")
    name = _slug(title)
    if name in taken or not name or "/" in name or name.startswith(OF_PARTS):
        raise UserError(
            f"--row={row} cannot be called {title!r}; expected a title without a slash, and none "
            f"of {', '.join(sorted(taken))}"
        )
    method = choose("method", values.pop("name", TUTOR), (TUTOR, *distill.METHODS))
    usual = {"schedule": "joint"} if method == TUTOR else {}
    return name, Arm(OWN, title, method, usual | values, rate or 0.0)


def _slug(title: str) -> str:
    return title.strip().replace(" ", "-")


def teacher_config(args: argparse.Namespace, seed: int) -> RunConfig:
    """A teacher from scratch; of a checkpoint that has no MLM head, the training of one."""
    size = SIZES[args.size]
    values = mlm.get_config("teacher" if args.teacher else size.variant)
    _data(values, args, seed)
    steps = args.teacher_steps or size.teacher_steps
    values.model.update(size.teacher)
    values.optimizer.learning_rate = size.teacher_rate
    if args.teacher:
        values.model.init = args.teacher
        values.objective.frozen_backbone = True
    values.training.update({"steps": steps, "batch_size": size.teacher_batch})
    values.training.update({"eval_every": steps, "save_every": max(steps // 4, 1), "keep": 1})
    values.evaluation.update({"documents": 32 if args.smoke else 500})
    return configure(values.to_dict())


def student_config(
    args: argparse.Namespace, arm: Arm, seed: int, teacher: BackboneConfig
) -> RunConfig:
    """A student; who teaches it is filled in when the teacher is there."""
    size = SIZES[args.size]
    is_tutor = arm.method == TUTOR
    values = tutor_kd.get_config() if is_tutor else distill.get_config(arm.method)
    if args.smoke:
        smoke_distillation(values)
    _data(values, args, seed)
    width, heads = args.width or teacher.hidden_size // size.narrower, teacher.num_heads
    values.model.update({"num_layers": size.layers, "num_heads": heads})
    values.model.update({"hidden_size": width, "intermediate_size": 4 * width})
    values.optimizer.learning_rate = arm.rate or args.learning_rate or size.rate
    options = {"teacher": "", "least_accuracy": args.least_accuracy, **arm.options}
    if arm.method == "minilmv2":
        options.setdefault("relation_heads", relation_heads(width, teacher.hidden_size))
    for key, value in options.items():
        choose("key of `objective`", key, values.objective.keys())
        try:
            values.objective[key] = value
        except TypeError as error:  # of ml_collections, which keeps the type of the default
            kind = values.objective.get_type(key).__name__
            raise UserError(f"objective.{key} of a --row is {value!r}; expected {kind}") from error
    steps = _steps_of(args.steps or size.steps, configure(values.to_dict()).objective)
    values.training.update({"steps": steps, "eval_every": steps, "save_every": max(steps // 4, 1)})
    values.training.update({"batch_size": args.batch or size.batch, "keep": 1})
    values.evaluation.update({"spans": args.spans or size.spans, "examples": 1})
    return configure(values.to_dict())


def relation_heads(*widths: int) -> int:
    """As many as divide all widths, at most those that are published."""
    shared = math.gcd(*widths)
    return max(n for n in range(1, MOST_RELATION_HEADS + 1) if shared % n == 0)


def _steps_of(updates: int, objective: DistillationConfig) -> int:
    """Steps of a run in which the student has so many updates: where phases take turns, the tutor
    has its own.
    """
    if not isinstance(objective, TutorKdConfig):
        return updates
    cycle = objective.turns.cycle
    own = [place for place, phases in enumerate(cycle) if MINIMISE in phases]  # the student's
    before, last = divmod(updates - 1, len(own))
    return before * len(cycle) + own[last] + 1


def _data(values: Any, args: argparse.Namespace, seed: int) -> None:
    """The same data, split by the seed, for teacher and students."""
    values.seed = seed
    values.data.update({"source": args.source, "max_length": args.length, "heldout_share": HELDOUT})
    values.training.update({"tensorboard": False, "log_every": 100})
    values.compute.scan_layers = False  # few layers: faster by themselves
