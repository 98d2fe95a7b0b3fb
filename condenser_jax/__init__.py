"""Condenser pre-training in JAX: text encoders from raw text to a Hugging Face checkpoint.

    from condenser_jax import Encoder
    encoder = Encoder.load("my-encoder")
    vectors = encoder.encode(["a text"])

Nothing else is imported here, and Encoder only when it is used, so that every command starts fast;
docs/design.md says what lies where.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["Encoder"]


def __getattr__(name: str) -> Any:
    if name == "Encoder":
        from condenser_jax.encoder import Encoder

        return Encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
