"""How far a student agrees with its teacher on held-out texts with replaced tokens.

Masks are fixed, and so are replacements: drawn once of the teacher's MLM head and once uniformly,
for each favours the student that was trained on it. Where there is a tutor, a third set is drawn of
it anew at each evaluation: its rewards, beside those of the teacher's replacements of the same
tokens, say whether it does better than the language model that it comes from.

    heldout_teacher/auc           of the student's ratio as a sign that the teacher's is >= 1/2
    heldout_teacher/cosine        of last hidden states, through the fit
    heldout_teacher/ratio_error   mean |ratio_T - ratio_S|; `..._of_one` that of a constant 1
    heldout_teacher/reward        of the replacements
    heldout_uniform/..., heldout_tutor/...
    heldout/reward_margin         reward of the tutor's replacements minus the teacher's
    heldout/loss                  of the method, on the teacher's replacements or on its own texts
    heldout/teacher_accuracy      of the teacher's MLM head on the masked texts
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
RATIOS = ("teacher_ratio", "student_ratio")
LOSSES = ("loss", "_loss")  # endings of figures that are read of the teacher's replacements alone

Show = Callable[[Mapping[str, np.ndarray]], None]  # arrays of the first batch


def agreement_evaluator(
    predict: Mapping[str, Callable],
    batches: Sequence[Mapping[str, np.ndarray]],
    least_accuracy: float,
    mesh: Mesh,
    show: Show | None = None,
) -> Callable[[Params, Frozen], dict[str, float]]:
    """Builds the evaluation.

    Args:
      predict: "draw", "agreement" and "teacher_masked_lm" of an objective of distillation.
      batches: of fixed masks, with "numbers" float32 [B, M] in [0, 1) by which samples are drawn;
        how the texts are cut into batches changes no figure.
      least_accuracy: of the teacher's MLM; a UserError is raised under it.
      show: is given the first batch with the replacements of the tutor, or else of the teacher,
        and the ratios of both (if the student knows them).
    """
    placed = [place(batch, mesh) for batch in batches]
    names = "attention_mask", "masked_weights"
    whole = {name: jnp.concatenate([batch[name] for batch in batches]) for name in names}
    counts = jax.device_get(count_tokens(whole))  # losses are shares in that of all texts
    compiled = {
        name: over_mesh(predict[name], mesh) for name in ("draw", "agreement", "teacher_masked_lm")
    }
    fixed: dict[str, Any] = {}  # found at the first evaluation: it asks the teacher

    def look_at_teacher(params: Params, frozen: Frozen) -> None:
        found = [compiled["teacher_masked_lm"](params, frozen, batch) for batch in placed]
        accuracy = _mean_over(batches, [correct for _, correct in found])
        if accuracy < least_accuracy:
            raise UserError(
                f"the teacher's MLM head names {accuracy:.1%} of the masked held-out tokens, under "
                f"the {least_accuracy:.0%} of objective.least_accuracy: it has little to teach; "
                "train it longer, or set --config.objective.least_accuracy=0 to take it as it is."
            )
        fixed["accuracy"] = accuracy
        drawn = [compiled["draw"](params, frozen, batch) for batch in placed]
        fixed["drawn"] = [{kind: ids[kind] for kind in FIXED} for ids in drawn]

    def evaluate(params: Params, frozen: Frozen) -> dict[str, float]:
        if not fixed:
            look_at_teacher(params, frozen)
        figures = {"heldout/teacher_accuracy": fixed["accuracy"]}
        replaced = {kind: [ids[kind] for ids in fixed["drawn"]] for kind in FIXED}
        if "tutor" in params:
            drawn = [compiled["draw"](params, frozen, batch) for batch in placed]
            replaced["tutor"] = [ids["tutor"] for ids in drawn]
        firsts: dict[str, Mapping[str, Any]] = {}
        for kind, ids in replaced.items():
            found = [
                compiled["agreement"](params, frozen, {**batch, "replaced_ids": new}, counts)
                for batch, new in zip(placed, ids, strict=True)
            ]
            firsts[kind] = found[0]
            figures |= _figures(kind, batches, found)
        if "tutor" in replaced:
            margin = figures["heldout_tutor/reward"] - figures["heldout_teacher/reward"]
            figures["heldout/reward_margin"] = margin
        if show is not None:  # the last kind is the tutor's, if there is one
            kind = "tutor" if "tutor" in replaced else "teacher"
            ratios = dict(zip(RATIOS, firsts[kind].get("ratios", ()), strict=False))
            arrays = {"replaced_ids": replaced[kind][0], **ratios}
            show({**batches[0], **{name: np.asarray(values) for name, values in arrays.items()}})
        return figures

    return evaluate


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
    sums: dict[str, Mean] = {}
    for one in jax.device_get([one["means"] for one in found]):
        for name, mean in one.items():
            sums[name] = sums[name] + mean if name in sums else mean
    means = {name: float(mean.total) / max(float(mean.count), 1.0) for name, mean in sums.items()}
    figures = {f"heldout_{kind}/{k}": v for k, v in means.items() if not k.endswith(LOSSES)}
    if kind == "teacher":
        figures |= {f"heldout/{k}": v for k, v in means.items() if k.endswith(LOSSES)}
    if "ratios" in found[0]:
        used = np.concatenate([batch["masked_weights"] for batch in batches]) > 0
        ours, theirs = (
            np.concatenate([np.asarray(one["ratios"][side]) for one in found])[used]
            for side in (1, 0)
        )
        figures[f"heldout_{kind}/auc"] = auc(ours, theirs >= AGREES)
    return figures


def _mean_over(batches: Sequence, values: Sequence) -> float:
    """The mean of values [B, M] over the used slots of all batches."""
    weights = [batch["masked_weights"] for batch in batches]
    total = sum((np.asarray(v) * w).sum() for v, w in zip(values, weights, strict=True))
    return float(total) / max(float(np.sum([w.sum() for w in weights])), 1.0)
