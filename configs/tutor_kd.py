"""Tutor-KD (Kim et al., EMNLP 2022): a tutor writes what the student is taught on.

    python launch/train.py --config=configs/mlm.py:teacher
    python launch/train.py --config=configs/tutor_kd.py

The embedded default: a teacher of 2 layers x 192, and its student of 2 x 96, on the documentation
of the installed packages. Tutor and student take turns, a step each. No network, 2 CPU cores, 4
and 3 minutes. Expect the AUC of ratios to rise from .53 to .80 (held-out text, words put in by the
teacher), the cosine of hidden states from 0 to .74. The published weight of the ratios is large at
this size: with `--config.objective.logit_weight=2.5` joint steps made better students by every
measure; from a larger teacher not on uniform words (docs/distillation-compared.md).

    python launch/train.py --config=configs/tutor_kd.py:joint

The same with both phases on one batch in every step, as published, in half as many steps.

    python launch/train.py --config=configs/tutor_kd.py:smoke

The same in seconds, with the teacher that `configs/mlm.py:smoke` leaves.

    python launch/train.py --config=configs/tutor_kd.py:paper
    python launch/train.py --config=configs/tutor_kd.py:half
    python launch/train.py --config=configs/tutor_kd.py:ext12
    python launch/train.py --config=configs/tutor_kd.py:ext6
    python launch/train.py --config=configs/tutor_kd.py:ext2

BERT-base and its students as published, Wikipedia + BookCorpus, batch 128 x 128, a million joint
steps: 6 layers x 768 (`paper` and `half`, 66M), and 12, 6 or 2 layers x 264 with factorised
embeddings of 132 (14M, 9M, 5.7M), which are exported as ELECTRA encoders. Expect mean GLUE figures
of 82.8 for `half`, and 80.4, 78.2, 70.5 (7 tasks) for the others. Not yet measured here.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from condenser_jax.errors import choose
from configs.common import distillation, published_distillation, smoke_distillation

LAYERS = {"ext12": 12, "ext6": 6, "ext2": 2}
VARIANTS = ("", "smoke", "joint", "paper", "half", *LAYERS)


def get_config(variant: str = "") -> ConfigDict:
    """The embedded default, or a variant."""
    choose("variant", variant, VARIANTS)
    config = distillation("tutor_kd")
    config.training.update({"steps": 1800, "eval_every": 600, "save_every": 600})
    objective = config.objective
    objective.schedule = "separate"  # phases in turn; or "joint": both on one batch, as published
    objective.maximise_steps = 1  # of a cycle of separate phases: steps of the tutor
    objective.minimise_steps = 1  # and of the student
    objective.sampling = "tutor"  # what is put in; or teacher, uniform, none ([MASK] stays)
    objective.sample_specials = True  # special tokens may be put in, as published
    objective.teacher_reward = True  # reward what the teacher still sees through
    objective.student_reward = True  # reward what the student misjudges
    objective.reward_baseline = "none"  # subtracted from rewards; or "batch_mean"
    objective.tutor_init = "random"  # or "teacher": its MLM head
    objective.modified_logit = True  # learn ratios; False: distributions, by an MLM head
    objective.policy_weight = 1.0  # of the policy gradient; 0: the tutor learns by KL alone
    objective.kl_weight = 1.0  # of KL(teacher || tutor)
    objective.logit_weight = placeholder(float)  # None: 25 for ratios, 1 for distributions
    objective.hidden_weight = 0.5  # of hidden states
    objective.attention_weight = 0.5  # of attention scores; 0 where heads differ in number
    if variant == "smoke":
        smoke_distillation(config)
    elif variant == "joint":
        objective.schedule = "joint"
        config.training.update({"steps": 900, "eval_every": 300, "save_every": 300})
    elif variant:
        published_distillation(config)
        objective.schedule = "joint"
    if variant in LAYERS:
        config.model.update({"hidden_size": 264, "intermediate_size": 1056})
        config.model.update({"embedding_size": 132, "num_layers": LAYERS[variant]})
    if variant == "ext2":
        objective.attention_weight = 0.0  # as published
    return config
