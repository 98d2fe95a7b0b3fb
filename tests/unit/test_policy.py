"""The policy: samples are distributed as it says, ratios stay finite, its gradient earns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from condenser_jax.losses import policy
from condenser_jax.models.dropout import Dropout, uniforms

VOCABULARY, REAL = 384, 300
DRAWS = 200_000


def logits_of(seed=0, spread=3.0):
    """Of a padded vocabulary: the last 84 are no tokens."""
    logits = spread * np.random.default_rng(seed).standard_normal(VOCABULARY)
    logits[REAL:] = -1e9
    return logits.astype(np.float32)


def evenly_spread(draws=DRAWS):
    return ((np.arange(draws) + 0.5) / draws).astype(np.float32)


sample = jax.jit(lambda logits, numbers: jax.vmap(policy.sample, (None, 0))(logits, numbers))


def test_samples_are_distributed_as_the_policy():
    logits = logits_of()
    probability = np.exp(logits - logits.max())
    probability /= probability.sum()
    counts = np.bincount(sample(logits, evenly_spread()), minlength=VOCABULARY)
    # evenly spread numbers: each token's count is right but for its two borders
    assert np.abs(counts - DRAWS * probability).max() < 4
    assert counts[REAL:].sum() == 0
    wrong = np.bincount(sample(2 * logits, evenly_spread()), minlength=VOCABULARY)
    assert np.abs(wrong - DRAWS * probability).max() > 1000


def test_samples_of_a_run_are_distributed_as_the_policy():
    rows, slots = 2000, 20
    dropout = Dropout(np.array([7, 9], np.uint32), np.arange(rows, dtype=np.int32))
    positions = np.broadcast_to(np.arange(1, slots + 1, dtype=np.int32), (rows, slots))
    numbers = np.asarray(uniforms(dropout, 2048, positions)).ravel()
    assert numbers.min() >= 0 and numbers.max() < 1
    logits = np.full(VOCABULARY, -1e9, np.float32)
    logits[[3, 130, 131, 299]] = np.log([0.1, 0.2, 0.3, 0.4])
    found = np.bincount(sample(logits, numbers), minlength=VOCABULARY)[[3, 130, 131, 299]]
    assert chisquare(found, len(numbers) * np.array([0.1, 0.2, 0.3, 0.4])).pvalue > 1e-3
    assert np.abs(np.corrcoef(numbers.reshape(rows, slots)[:, :2].T)[0, 1]) < 0.1


@pytest.mark.parametrize("number", [0.0, 0.5, 1 - 2**-24])
@pytest.mark.parametrize("place", [0, 127, 128, REAL - 1])
def test_what_has_no_probability_is_never_drawn(place, number):
    logits = np.full(VOCABULARY, -1e9, np.float32)
    logits[place] = 5.0
    assert sample(logits, np.array([number], np.float32))[0] == place


def test_uniform_choices_are_uniform_over_what_is_allowed():
    allowed = np.array([2, 5, 7], np.int32)
    found = policy.uniform_choice(jnp.asarray(allowed), evenly_spread(3000))
    np.testing.assert_array_equal(np.bincount(found)[allowed], 1000)
    assert policy.uniform_choice(jnp.asarray(allowed), jnp.array([1.0]))[0] == 7


@pytest.mark.parametrize(
    ("of_replaced", "of_original", "ratio"),
    [(0.0, 0.0, 1.0), (-1e4, 1e4, 0.0), (1e4, -1e4, 1.0), (-300.0, -299.0, np.exp(-1.0))],
)
def test_the_ratio_is_finite_where_both_probabilities_vanish(of_replaced, of_original, ratio):
    logits = np.full((1, 128), 0.0, np.float32)
    logits[0, :2] = of_replaced, of_original
    logits[0, 2] = 1e4
    found = jnp.exp(policy.log_ratio(logits, np.array([0]), np.array([1])))
    np.testing.assert_allclose(found, ratio, rtol=1e-5)
    with np.errstate(all="ignore"):  # the quotient of probabilities is not
        probability = np.exp(logits - logits.max())
        naive = probability[0, 0] / probability[0, 1]
    assert np.isnan(naive) or of_original == 1e4 or of_replaced == 1e4


def test_the_teachers_reward_is_negative_where_it_would_be_fooled():
    logits = np.log(np.array([[0.7, 0.2, 0.1]], np.float32))
    reward = [float(policy.teacher_reward(logits, np.array([r]), np.array([1]))[0]) for r in (0, 2)]
    np.testing.assert_allclose(reward, [0.2 - 0.7, 0.2 - 0.1], atol=1e-6)


def test_the_entropy_of_a_uniform_policy_is_the_logarithm_of_its_tokens():
    np.testing.assert_allclose(policy.entropy(np.zeros((2, 8), np.float32)), np.log(8), rtol=1e-6)


def reward_earned(sign: float, learning_rate: float, steps: int = 300) -> tuple[float, float]:
    """(what a policy earns in the end, what uniform sampling does) on a problem in which each of 8
    contexts has one best token of 128 (reward 1); others have less, -0.2 on average.
    """
    contexts, batch, rng = 8, 64, np.random.default_rng(0)
    rewards = rng.uniform(-1.0, 0.6, (contexts, 128))
    rewards[np.arange(contexts), rng.integers(0, 128, contexts)] = 1.0
    rewards = jnp.asarray(rewards, jnp.float32)

    def step(carry, number):
        logits, at = carry
        dropout = Dropout(jnp.array([3, 4], jnp.uint32), jnp.full((1,), number, jnp.int32))
        numbers = uniforms(dropout, 1, jnp.arange(batch * contexts)[None])[0]
        numbers = numbers.reshape(contexts, batch)

        def loss(logits):
            wide = jnp.broadcast_to(logits[:, None], (contexts, batch, 128))
            drawn = policy.sample(jax.lax.stop_gradient(wide), numbers)
            reward = sign * jnp.take_along_axis(rewards, drawn, 1)
            reward = reward - reward.mean()
            ones = jnp.ones_like(numbers)
            return policy.policy_loss(wide, drawn, reward, ones, jnp.float32(batch))

        return (logits - learning_rate * jax.grad(loss)(logits), at), None

    start = jnp.zeros((contexts, 128))
    (logits, _), _ = jax.lax.scan(step, (start, 0), jnp.arange(steps))
    earned = (jax.nn.softmax(logits) * rewards).sum(-1).mean()
    return float(earned), float(rewards.mean())


def test_the_policy_gradient_earns_95_percent_of_the_best_policys_reward():
    earned, _ = reward_earned(sign=1.0, learning_rate=3.0)
    assert earned > 0.95  # the best policy earns 1


def test_with_the_sign_flipped_it_earns_less_than_uniform_sampling():
    earned, uniform = reward_earned(sign=-1.0, learning_rate=3.0)
    assert earned < uniform - 0.3
