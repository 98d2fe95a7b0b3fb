"""How many floating-point operations a step of distillation needs, counted on paper (as flops.py).

Every pass that somebody reads is counted once, whichever phases read it, and vocabulary products at
the masked tokens alone. A teacher is read forwards; its tutor's gradient ends at the teacher's
states, so the backward pass of the tutor's first product is one product, not two.
"""

from condenser_jax.models.config import BackboneConfig
from condenser_jax.objectives.distillation import DistillationConfig
from condenser_jax.objectives.kd import KdConfig, needs_fit
from condenser_jax.objectives.minilm import MiniLmConfig, MiniLmV2Config
from condenser_jax.objectives.tinybert import TinyBertConfig
from condenser_jax.objectives.tutor_kd_config import MAXIMISE, MINIMISE, TutorKdConfig
from condenser_jax.training.flops import (
    FORWARD_PASSES,
    embedding_flops,
    layer_flops,
    vocabulary_flops,
)


def distillation_flops(
    student: BackboneConfig,
    teacher: BackboneConfig,
    options: DistillationConfig,
    length: int,
    slots: int,
) -> float:
    """Operations of a mean step for one text of `length` tokens, `slots` of them masked."""
    if isinstance(options, TutorKdConfig):
        cycle = options.turns.cycle
        steps = (tutor_kd_flops(student, teacher, options, length, slots, a) for a in cycle)
        return sum(steps) / len(cycle)
    if isinstance(options, KdConfig):
        rows = length if options.cosine_weight else slots
        ours = encoder_flops(student, length, rows) + vocabulary_flops(student, slots)
        theirs = encoder_flops(teacher, length, rows) + vocabulary_flops(teacher, slots)
        ours += needs_fit(options, student, teacher) * fit_flops(student, teacher, length)
        return FORWARD_PASSES * ours + theirs
    if isinstance(options, TinyBertConfig):
        ours, theirs = (encoder_flops(config, length, length) for config in (student, teacher))
        ours += (student.num_layers + 1) * fit_flops(student, teacher, length)
    else:
        assert isinstance(options, MiniLmConfig), f"nobody counted {type(options).__name__}"
        relations = 3 if isinstance(options, MiniLmV2Config) else 2
        ours = attention_flops(student, length, student.num_layers, 3, relations)
        taught = options.teacher_layer or teacher.num_layers
        theirs = attention_flops(teacher, length, taught, 3, relations)
    return FORWARD_PASSES * ours + theirs


def tutor_kd_flops(
    student: BackboneConfig,
    teacher: BackboneConfig,
    options: TutorKdConfig,
    length: int,
    slots: int,
    active: tuple[str, ...],
) -> float:
    """Operations of a step of Tutor-KD in which these phases are active, for one text."""
    is_taught = MINIMISE in active
    theirs = _teacher_flops(teacher, options, length, slots, active)
    read = encoder_flops(student, length, length)
    if options.has_ratio:
        read += 2 * length * student.hidden_size * (student.hidden_size + 1)
    else:
        read += vocabulary_flops(student, slots)
    if options.hidden_weight and is_taught:
        read += (student.num_layers + 1) * fit_flops(student, teacher, length)
    tutor = 0.0
    if options.has_tutor:
        transform = 2 * slots * teacher.hidden_size**2
        decoder = 2 * slots * teacher.hidden_size * teacher.padded_vocab_size
        is_trained = MAXIMISE in active or options.kl_weight > 0
        tutor = (2 * transform + 3 * decoder) if is_trained else transform + decoder
    return theirs + tutor + (FORWARD_PASSES if is_taught else 1) * read


def _teacher_flops(
    teacher: BackboneConfig,
    options: TutorKdConfig,
    length: int,
    slots: int,
    active: tuple[str, ...],
) -> float:
    """Of the teacher on masked text and on new text, so far as these phases or the sampling read
    it; without sampling both texts are one.
    """
    is_taught, total = MINIMISE in active, 0.0
    predicts = options.has_ratio or options.sampling == "teacher"  # on masked text
    predicts |= options.has_tutor and is_taught  # for the KL
    if predicts or options.has_tutor:
        total += encoder_flops(teacher, length, slots) + predicts * vocabulary_flops(teacher, slots)
    rewards = MAXIMISE in active or (options.samples and not options.maximises)
    if rewards or not options.has_ratio:
        return total + encoder_flops(teacher, length, length) + vocabulary_flops(teacher, slots)
    if options.hidden_weight:
        return total + encoder_flops(teacher, length, length)
    if options.attention_weight:
        return total + attention_flops(teacher, length, teacher.num_layers, 2, 1)
    return total


def encoder_flops(config: BackboneConfig, length: int, rows: int) -> int:
    """Forward operations of an encoder on one text, the last layer on `rows` of its positions."""
    full = layer_flops(config, length, length)
    before = embedding_flops(config, length) + (config.num_layers - 1) * full
    return before + layer_flops(config, length, rows)


def attention_flops(
    config: BackboneConfig, length: int, num_layers: int, parts: int, relations: int
) -> int:
    """Forward operations of an encoder on one text up to the attention of layer `num_layers`: so
    many `parts` of queries, keys and values, and so many `relations` of all positions among them.
    """
    full = layer_flops(config, length, length)
    before = embedding_flops(config, length) + (num_layers - 1) * full
    width = config.hidden_size
    return before + 2 * length * width * (parts * width + relations * length)


def fit_flops(student: BackboneConfig, teacher: BackboneConfig, length: int) -> int:
    """Forward operations of the fit of one hidden state of one text."""
    return 2 * length * student.hidden_size * teacher.hidden_size
