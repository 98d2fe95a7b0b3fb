"""The classical methods of distillation, on the data of configs/tutor_kd.py, with as many updates.

    python launch/train.py --config=configs/mlm.py:teacher
    python launch/train.py --config=configs/distill.py:kd
    python launch/train.py --config=configs/distill.py:distilbert
    python launch/train.py --config=configs/distill.py:tinybert
    python launch/train.py --config=configs/distill.py:minilm
    python launch/train.py --config=configs/distill.py:minilmv2

Embedded: a student of 2 layers x 96 of the teacher that `configs/mlm.py:teacher` leaves, by KD
(Hinton et al. 2015), DistilBERT (Sanh et al. 2019), TinyBERT's general stage (Jiao et al. 2020),
MiniLM or MiniLMv2 (Wang et al. 2020, 2021). No network, 2 CPU cores, a minute or two each.
All five start from random weights, DistilBERT too: half as wide as the teacher, its student cannot
take over layers of it.

    python launch/train.py --config=configs/distill.py:smoke

KD in seconds, with the teacher that `configs/mlm.py:smoke` leaves; without a variant,

    python launch/train.py --config=configs/distill.py

is `kd`.

    python launch/train.py --config=configs/distill.py:kd-paper
    python launch/train.py --config=configs/distill.py:distilbert-paper
    python launch/train.py --config=configs/distill.py:tinybert-paper
    python launch/train.py --config=configs/distill.py:minilm-paper
    python launch/train.py --config=configs/distill.py:minilmv2-paper

BERT-base's students of 6 layers x 768 as published for comparison with Tutor-KD, on the data, steps
and schedule of configs/tutor_kd.py:paper. DistilBERT's starts from layers 1, 3, 5, 8, 10 and 12 of
its teacher, as in its public code. Expect mean GLUE figures of 78.6 (DistilBERT), 79.8 (TinyBERT)
and 81.2 (MiniLM, MiniLMv2), beside 82.8 of Tutor-KD; of KD none was published at this size. Not yet
measured here.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from condenser_jax.errors import choose
from configs.common import distillation, published_distillation, smoke_distillation

METHODS = ("kd", "distilbert", "tinybert", "minilm", "minilmv2")
PAPER = "-paper"
VARIANTS = ("", *METHODS, "smoke", *(method + PAPER for method in METHODS))


def get_config(variant: str = "") -> ConfigDict:
    """One of METHODS, small or as published; `kd` by default, and smaller still for `smoke`."""
    choose("variant", variant, VARIANTS)
    wanted = variant.removesuffix(PAPER)
    name = wanted if wanted in METHODS else "kd"
    config = distillation(name)
    objective = config.objective
    if name in ("kd", "distilbert"):
        objective.temperature = 2.0  # of both distributions
        objective.kd_weight = 5.0 if name == "distilbert" else 1.0  # of their KL divergence
        objective.mlm_weight = 2.0 if name == "distilbert" else 0.0  # of masked language modelling
        objective.cosine_weight = 1.0 if name == "distilbert" else 0.0  # of last hidden states
    elif name == "tinybert":
        objective.hidden_weight = 1.0  # of hidden states
        objective.attention_weight = 1.0  # of attention scores; 0 where heads differ in number
    else:
        objective.teacher_layer = placeholder(int)  # whose relations are told, from 1; None: last
    if name == "minilmv2":
        objective.relation_heads = 48  # divides the widths of student and teacher
    if variant == "smoke":
        smoke_distillation(config)
    if variant.endswith(PAPER):
        published_distillation(config)
        if name == "distilbert":
            objective.student_layers = (1, 3, 5, 8, 10, 12)  # from which its layers start
    return config
