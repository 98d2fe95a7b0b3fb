"""How far a student agrees with its teacher on held-out texts with replaced tokens.

Masks are fixed, and so are replacements: drawn once of the teacher's MLM head and once uniformly,
two kinds, since a student does better on the kind that it was trained on. Where there is a tutor, a
third set is drawn of it anew at each evaluation: its rewards, beside those of the teacher's
replacements of the same tokens, say whether it does better than the language model that it comes
from.

    heldout_teacher/auc           of the student's ratio as a sign that the teacher's is >= 1/2
    heldout_teacher/cosine        of last hidden states, through the fit
    heldout_teacher/ratio_error   mean |ratio_T - ratio_S|; `..._of_one` that of a constant 1
    heldout_teacher/reward        of the replacements
    heldout_uniform/..., heldout_tutor/...
    heldout/reward_margin         reward of the tutor's replacements minus the teacher's; of its
                                  parts: teacher_reward_margin, student_reward_margin
    heldout/loss                  of the method, on the teacher's replacements; of one that learns
                                  on other texts, on those
    heldout/teacher_accuracy      of the teacher's MLM head on the masked texts
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from condenser_jax.errors import UserError
from condenser_jax.evaluation.base import over_mesh, place
from condenser_jax.objectives.distillation import count_tokens
from condenser_jax.types import Frozen, Mean, Params

AGREES = 0.5  # a ratio from which on the teacher finds a replacement as good as the original
FIXED = ("teacher", "uniform")
REWARDS = ("reward", "teacher_reward", "student_reward")
RATIOS = ("teacher_ratio", "student_ratio")
LOSS = "loss"  # ending of figures that are read of the teacher's replacements alone

Show = Callable[[Mapping[str, np.ndarray]], None]  # arrays of the first batch
Replaced = dict[str, list[jax.Array]]  # by kind, what was put in: int32 [B, M] of each batch


class Agreement:
    """The evaluation: (params, frozen) -> figures. What does not move is found at the first call,
    which asks the teacher.

    Args:
      predict: "draw", "agreement" and "teacher_masked_lm" of an objective of distillation; and
        "own", its losses, where it learns on texts without replacements.
      batches: of fixed masks, with "numbers" float32 [B, M] in [0, 1) by which samples are drawn;
        how the texts are cut into batches changes no figure.
      least_accuracy: of the teacher's MLM; a UserError is raised under it.
      show: is given the first batch with the replacements of the tutor, or else of the teacher,
        and the ratios of both (if the student knows them).
    """

    def __init__(
        self,
        predict: Mapping[str, Callable],
        batches: Sequence[Mapping[str, np.ndarray]],
        least_accuracy: float,
        mesh: Mesh,
        show: Show | None = None,
    ) -> None:
        self.batches, self.least_accuracy, self.show = batches, least_accuracy, show
        self.placed = [place(batch, mesh) for batch in batches]
        names = "attention_mask", "masked_weights"
        whole = {name: jnp.concatenate([batch[name] for batch in batches]) for name in names}
        self.counts = jax.device_get(count_tokens(whole))  # losses are shares in that of all texts
        self.draw = over_mesh(predict["draw"], mesh)
        self.agreement = over_mesh(predict["agreement"], mesh)
        self.own = over_mesh(predict["own"], mesh) if "own" in predict else None
        self.teacher_masked_lm = over_mesh(predict["teacher_masked_lm"], mesh)
        self.accuracy: float | None = None  # of the teacher; None: not asked yet
        self.fixed: Replaced = {}  # of the kinds FIXED

    def __call__(self, params: Params, frozen: Frozen) -> dict[str, float]:
        if self.accuracy is None:
            self.accuracy = self._accuracy_of_teacher(params, frozen)
        has_tutor = "tutor" in params
        drawn = self._draw(params, frozen) if has_tutor or not self.fixed else {}
        self.fixed = self.fixed or {kind: drawn[kind] for kind in FIXED}
        replaced = drawn | self.fixed
        found = {kind: self._judge(ids, params, frozen) for kind, ids in replaced.items()}
        figures = {"heldout/teacher_accuracy": self.accuracy}
        if self.own is not None:
            own = [self.own(params, frozen, batch, self.counts) for batch in self.placed]
            figures |= {f"heldout/{name}": value for name, value in _means(own).items()}
        for kind, judged in found.items():
            figures |= _figures(kind, self.batches, judged)
        if has_tutor:
            for name in REWARDS:
                earned = (figures[f"heldout_{kind}/{name}"] for kind in ("tutor", "teacher"))
                figures[f"heldout/{name}_margin"] = next(earned) - next(earned)
        if self.show is not None:
            kind = "tutor" if has_tutor else "teacher"
            ratios = dict(zip(RATIOS, found[kind][0].get("ratios", ()), strict=False))
            arrays = {"replaced_ids": replaced[kind][0], **ratios}
            shown = {name: np.asarray(values) for name, values in arrays.items()}
            self.show({**self.batches[0], **shown})
        return figures

    def _accuracy_of_teacher(self, params: Params, frozen: Frozen) -> float:
        found = [self.teacher_masked_lm(params, frozen, batch) for batch in self.placed]
        accuracy = _mean_over(self.batches, [correct for _, correct in found])
        if accuracy < self.least_accuracy:
            raise UserError(
                f"the teacher's MLM head names {accuracy:.1%} of the masked held-out tokens, under "
                f"the {self.least_accuracy:.0%} of objective.least_accuracy: it has little to "
                "teach; train it longer, or set --config.objective.least_accuracy=0 to take it as "
                "it is."
            )
        return accuracy

    def _draw(self, params: Params, frozen: Frozen) -> Replaced:
        drawn = [self.draw(params, frozen, batch) for batch in self.placed]
        return {kind: [ids[kind] for ids in drawn] for kind in drawn[0]}

    def _judge(self, replaced: Sequence[jax.Array], params: Params, frozen: Frozen) -> list[dict]:
        """What student and teacher make of replacements, batch by batch."""
        return [
            self.agreement(params, frozen, {**batch, "replaced_ids": ids}, self.counts)
            for batch, ids in zip(self.placed, replaced, strict=True)
        ]


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """The probability that a positive has a higher score than a negative, ties counting half; nan
    without one of either.
    """
    positives = int(positive.sum())
    negatives = len(scores) - positives
    if not positives or not negatives:
        return float("nan")
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]  # from 1, the mean of those that are equal
    excess = ranks[positive].sum() - positives * (positives + 1) / 2
    return float(excess / (positives * negatives))


def _figures(kind: str, batches: Sequence, found: Sequence[Mapping]) -> dict[str, float]:
    """What was found on one set of replacements of these batches."""
    means = _means([one["means"] for one in found])
    figures = {f"heldout_{kind}/{k}": v for k, v in means.items() if not k.endswith(LOSS)}
    if kind == "teacher":
        figures |= {f"heldout/{k}": v for k, v in means.items() if k.endswith(LOSS)}
    if "ratios" in found[0]:
        used = np.concatenate([batch["masked_weights"] for batch in batches]) > 0
        ours, theirs = (
            np.concatenate([np.asarray(one["ratios"][side]) for one in found])[used]
            for side in (1, 0)
        )
        figures[f"heldout_{kind}/auc"] = auc(ours, theirs >= AGREES)
    return figures


def _means(found: Sequence[Mapping[str, Mean]]) -> dict[str, float]:
    """Over all batches."""
    sums: dict[str, Mean] = {}
    for one in jax.device_get(found):
        for name, mean in one.items():
            sums[name] = sums[name] + mean if name in sums else mean
    return {name: float(mean.total) / max(float(mean.count), 1.0) for name, mean in sums.items()}


def _mean_over(batches: Sequence, values: Sequence) -> float:
    """The mean of values [B, M] over the used slots of all batches."""
    weights = [batch["masked_weights"] for batch in batches]
    total = sum((np.asarray(v) * w).sum() for v, w in zip(values, weights, strict=True))
    return float(total) / max(float(np.sum([w.sum() for w in weights])), 1.0)
