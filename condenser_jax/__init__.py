"""Condenser pre-training in JAX: text encoders from raw text to a Hugging Face checkpoint.

Nothing is imported here, so that every command starts fast; docs/design.md says what lies where.
"""

__version__ = "0.1.0"
