"""What a student is told to imitate, as weighted sums over the positions of the global batch.

    hidden states and attention scores   mean squared error (TinyBERT, Jiao et al. 2020; Tutor-KD)
    the teacher's ratio                  cross entropy of soft targets (Tutor-KD, Kim et al. 2022)
    distributions over the vocabulary    KL divergence at a temperature (Hinton et al. 2015)
    the direction of the last state      cosine (DistilBERT, Sanh et al. 2019)
    relations between positions          KL divergence (MiniLM, MiniLMv2, Wang et al. 2020, 2021)

Padding is outside every mean. Counts are those of the uncut batch, so that parts of it add up.
"""

import jax
import jax.numpy as jnp

from condenser_jax.precision import precision_of
from condenser_jax.types import Array, Scalar

NEGATIVE = -1e9  # added to what no query attends to


def hidden_mse(student: Array, teacher: Array, attention_mask: Array, attended: Scalar) -> Scalar:
    """Mean over attended positions and width of the squared difference of states [B, L, D]."""
    squares = (_wide(student) - _wide(teacher)) ** 2
    return (squares.mean(-1) * attention_mask).sum() / attended


def attention_mse(student: Array, teacher: Array, attention_mask: Array, pairs: Scalar) -> Scalar:
    """Mean squared difference of attention scores [B, H, L, L] before softmax.

    Over attended queries, the keys that they attend to, and heads; `pairs` is the number of such
    (query, key) in the global batch, the sum of squared lengths.
    """
    attended = attention_mask[:, None, :, None] * attention_mask[:, None, None, :]
    squares = (_wide(student) - _wide(teacher)) ** 2
    return (squares * attended).sum() / (pairs * student.shape[1])


def ratio_cross_entropy(
    logits: Array,
    masked_logits: Array,
    ratio: Array,
    attention_mask: Array,
    masked_weights: Array,
    attended: Scalar,
) -> Scalar:
    """Mean over attended positions of the cross entropy of sigmoid(logit) and the teacher's ratio.

    With logits z, the ratio being 1 outside the masked slots, it is the sum of softplus(z) - z over
    positions, plus the sum of (1 - ratio) z over slots: nothing is scattered.

    Args:
      logits: [B, L] of the ratio head at every position.
      masked_logits, ratio: [B, M] at the masked slots, of weight `masked_weights`.
    """
    as_if_one = jax.nn.softplus(logits) - logits
    rest = (1.0 - ratio) * masked_logits
    return ((as_if_one * attention_mask).sum() + (rest * masked_weights).sum()) / attended


def kl_divergence(target_logits: Array, logits: Array, temperature: float = 1.0) -> Array:
    """KL(softmax(target / T) || softmax(logits / T)) * T^2 over the last axis, in nats.

    The target gets no gradient. Logits of -1e9 in both weigh nothing.
    """
    scaled = _kl(target_logits / temperature, logits / temperature)
    return scaled * temperature**2


@jax.custom_vjp
def _kl(target_logits: Array, logits: Array) -> Array:
    return _kl_forward(target_logits, logits)[0]


def _kl_forward(target_logits: Array, logits: Array) -> tuple:
    target, log_q = jax.nn.log_softmax(target_logits), jax.nn.log_softmax(logits)
    return (jnp.exp(target) * (target - log_q)).sum(-1), (target, log_q)


def _kl_backward(residuals: tuple, cotangent: Array) -> tuple:
    target, log_q = residuals
    return None, (jnp.exp(log_q) - jnp.exp(target)) * cotangent[..., None]


_kl.defvjp(_kl_forward, _kl_backward)


def cosine_distance(
    student: Array, teacher: Array, attention_mask: Array, attended: Scalar
) -> Scalar:
    """Mean over attended positions of 1 - cosine of states [B, L, D]."""
    distance = 1.0 - cosine(student, teacher)
    return (distance * attention_mask).sum() / attended


def cosine(a: Array, b: Array) -> Array:
    """Cosine of vectors [..., D]; 0 where one of them has length 0."""
    a, b = _wide(a), _wide(b)
    squares = (a * a).sum(-1) * (b * b).sum(-1)
    return (a * b).sum(-1) * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))


def relations(parts: Array, num_heads: int) -> Array:
    """Scaled products of all positions with all others: queries, keys or values [B, L, H, K] ->
    [B, num_heads, L, L], the width H K cut anew into `num_heads` relation heads.
    """
    rows, length, heads, width = parts.shape
    cut = parts.reshape(rows, length, num_heads, heads * width // num_heads)
    scores = _wide(jnp.einsum("blhk,bmhk->bhlm", cut, cut, precision=precision_of(cut.dtype)))
    return scores * cut.shape[-1] ** -0.5


def relation_kl(student: Array, teacher: Array, attention_mask: Array, attended: Scalar) -> Scalar:
    """Mean over heads and attended queries of KL(teacher || student) of what each attends to.

    `student` and `teacher` are scores [B, H, L, L] before softmax; padding is no key.
    """
    bias = jnp.where(attention_mask[:, None, None, :] > 0, 0.0, NEGATIVE)
    divergence = kl_divergence(_wide(teacher) + bias, _wide(student) + bias)  # B H L
    return (divergence * attention_mask[:, None]).sum() / (attended * student.shape[1])


def _wide(x: Array) -> Array:
    return x.astype(jnp.promote_types(jnp.float32, x.dtype))
