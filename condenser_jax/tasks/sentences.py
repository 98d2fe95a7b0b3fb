"""Sentences side by side in rows, and what each model makes of them."""

from collections.abc import Iterator, Sequence, Sized

import numpy as np

from condenser_jax.data.progress import Progress
from condenser_jax.tasks.contract import Options
from condenser_jax.tasks.models import name_models, open_each


def numbered(rows: Sized) -> list[str]:
    """The names of rows in figures: their numbers, from 1."""
    return [str(number) for number in range(1, len(rows) + 1)]


def encode_columns(
    options: Options, rows: Sequence[Sequence[str]]
) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yields each model's name and the vectors [n, D] of every column of rows [n]; a text is
    encoded once, as a passage, however often it occurs.
    """
    models = name_models(options.models)
    numbers = {
        text: number for number, text in enumerate(dict.fromkeys(t for r in rows for t in r))
    }
    columns = np.array([[numbers[text] for text in row] for row in rows]).T
    for name, encoder in open_each(models, options.usage):
        with Progress("encode", True, len(numbers)) as bar:
            vectors = encoder.encode(list(numbers), advance=bar.advance)
        yield name, [vectors[column] for column in columns]
