"""How exactly numbers of float32 are multiplied.

Left alone, matrix units of GPUs keep 10 of the 23 bits of a float32's fraction (TF32), and those of
TPUs 7 (bfloat16). Who asks for float32 has asked for exact products, slow as they are; the fast
ones are those of bfloat16, where nothing is left to choose.
"""

import jax.numpy as jnp
import numpy as np


def precision_of(dtype: str | np.dtype) -> str | None:
    """The `precision` of products of arrays of this dtype, whatever the device."""
    return "highest" if jnp.dtype(dtype) == jnp.float32 else None
