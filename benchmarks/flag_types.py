"""Types of flags that the experiments share: what does not fit is said before anything is run."""

import argparse
from collections.abc import Callable, Collection
from typing import Any, TypeVar

T = TypeVar("T")


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no count; expected a whole number from 1")
    return int(text)


def listed(kind: Callable[[str], T], known: Collection[Any] = ()) -> Callable[[str], tuple[T, ...]]:
    """Values with commas between them, each once and of `known` if that is given."""

    def values(text: str) -> tuple[T, ...]:
        try:
            found = tuple(dict.fromkeys(kind(value.strip()) for value in text.split(",")))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text} is no list of {kind.__name__}s") from None
        for value in found:
            if known and value not in known:
                names = ", ".join(map(str, known))
                raise argparse.ArgumentTypeError(f"unknown {value!r}; expected some of {names}")
        return found

    return values
