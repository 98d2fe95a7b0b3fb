"""How many floating-point operations a step of distillation needs, counted on paper (as flops.py).

Every pass is counted once, whichever phases read it, and vocabulary products at the masked tokens
alone. A teacher is read forwards; its tutor's gradient ends at the teacher's states, so the
backward pass of the tutor's first product is one product, not two.
"""

from condenser_jax.models.config import BackboneConfig
from condenser_jax.objectives.distillation import DistillationConfig
from condenser_jax.objectives.kd import KdConfig
from condenser_jax.objectives.minilm import MiniLmConfig
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
        cycle = options.cycle.cycle
        steps = (tutor_kd_flops(student, teacher, options, length, slots, a) for a in cycle)
        return sum(steps) / len(cycle)
    if isinstance(options, KdConfig):
        rows = length if options.cosine_weight else slots
        ours = encoder_flops(student, length, rows) + vocabulary_flops(student, slots)
        theirs = encoder_flops(teacher, length, rows) + vocabulary_flops(teacher, slots)
        is_fitted = options.cosine_weight and student.hidden_size != teacher.hidden_size
        return FORWARD_PASSES * (ours + is_fitted * fit_flops(student, teacher, length)) + theirs
    ours, theirs = (encoder_flops(config, length, length) for config in (student, teacher))
    if isinstance(options, TinyBertConfig):
        ours += (student.num_layers + 1) * fit_flops(student, teacher, length)
    else:  # what follows the attention of the last layer is not computed
        assert isinstance(options, MiniLmConfig), f"nobody counted {type(options).__name__}"
        taught = options.teacher_layer or teacher.num_layers
        theirs = encoder_flops(teacher, length, 0, taught)
        ours = encoder_flops(student, length, 0)
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
    learns = {MAXIMISE: MAXIMISE in active, MINIMISE: MINIMISE in active}
    on_masked = encoder_flops(teacher, length, slots) + vocabulary_flops(teacher, slots)
    on_text = encoder_flops(teacher, length, length)
    needs_rewards = learns[MAXIMISE] or (options.samples and not options.maximises)
    if needs_rewards or not options.has_ratio:
        on_text += vocabulary_flops(teacher, slots)
    read = encoder_flops(student, length, length)
    read += (
        2 * length * student.hidden_size * (student.hidden_size + 1)
        if options.has_ratio
        else vocabulary_flops(student, slots)
    )
    if options.hidden_weight and learns[MINIMISE]:
        read += (student.num_layers + 1) * fit_flops(student, teacher, length)
    tutor = 0.0
    if options.has_tutor:
        transform = 2 * slots * teacher.hidden_size**2
        decoder = 2 * slots * teacher.hidden_size * teacher.padded_vocab_size
        is_trained = learns[MAXIMISE] or options.kl_weight > 0
        tutor = (2 * transform + 3 * decoder) if is_trained else transform + decoder
    return on_masked + on_text + tutor + (FORWARD_PASSES if learns[MINIMISE] else 1) * read


def encoder_flops(
    config: BackboneConfig, length: int, rows: int, num_layers: int | None = None
) -> int:
    """Forward operations of an encoder on one text, the last layer on `rows` of its positions."""
    layers = config.num_layers if num_layers is None else num_layers
    full = layer_flops(config, length, length)
    return embedding_flops(config, length) + (layers - 1) * full + layer_flops(config, length, rows)


def fit_flops(student: BackboneConfig, teacher: BackboneConfig, length: int) -> int:
    """Forward operations of the fit of one hidden state of one text."""
    return 2 * length * student.hidden_size * teacher.hidden_size
