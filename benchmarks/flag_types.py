"""Types of flags that the experiments share: what does not fit is said before anything is run."""

import argparse
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def count(text: str, least: int = 1) -> int:
    """A whole number of at least `least`."""
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise argparse.ArgumentTypeError(
            f"{text} is no count; expected a whole number from {least}"
        )
    return int(text)


def limit(text: str) -> int:
    """A whole number, of which 0 stands for all."""
    return count(text, least=0)


def share(text: str) -> float:
    """A number of at least 0 and under 1. Raises ValueError for what is no number."""
    if not 0 <= float(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no share; expected 0 or more, and under 1")
    return float(text)


def rate(text: str) -> float:
    """A learning rate. Raises ValueError for what is no number."""
    if not 0 < float(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no rate; expected more than 0, less than 1")
    return float(text)


def folder(text: str) -> Path:
    """A place on this machine, ~ being the user's home."""
    return Path(text).expanduser()


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
