"""docs/results.md, which several experiments write: each replaces its own section and leaves the
others as they are.

A section stands between two comments, `<!-- begin NAME -->` and `<!-- end NAME -->`, and says which
command wrote it. What stands outside of them is nobody's, and stays.
"""

import dataclasses
import os
import re
import shlex
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import record

from condenser_jax.data.mixture import parse_mixture
from condenser_jax.errors import UserError
from condenser_jax.finished import without_folders
from condenser_jax.pipeline.steps import Pipeline
from condenser_jax.whole_files import written_whole

HEADING = "# Results\n"
BEGIN, END = "<!-- begin {} -->\n", "<!-- end {} -->\n"
OF_THIS_MACHINE = ("--workdir", "--output", "--jobs", "--part")  # flags that change no figure


def replace_section(
    page: Path, name: str, title: str, command: str, content: Iterable[str]
) -> None:
    """Writes the section `name` of `page`, in its place or at the end; the page is whole at any
    time.

    Args:
      title: its heading.
      command: that wrote it, as `command_line` gives it.
      content: lines of Markdown.

    Raises UserError where the section begins and does not end, or is there twice.
    """
    text = page.read_text(encoding="utf-8") if page.is_file() else HEADING
    begin, end = BEGIN.format(name), END.format(name)
    lines = [f"## {title}", "", "Written by", "", f"    {command}", "", *content]
    section = begin + "\n".join(lines).rstrip("\n") + "\n" + end
    if begin not in text and end not in text:
        text = f"{text.rstrip()}\n\n{section}"
    else:
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found or begin in after or end in before + after:
            raise UserError(
                f"{page} has no single section between {begin.strip()} and {end.strip()}; mend "
                "these comments, or delete them with what stands between."
            )
        text = before + section + after
    page.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(page) as half:
        half.write_text(text, encoding="utf-8")


def section_on(section: tuple[str, str], spec: str) -> tuple[str, str]:
    """Name and title of the section of an experiment on `spec` ("kind:place", or a mixture of
    such), given those of the experiment on docstrings: other data leave that section alone.
    """
    kinds, places = zip(*(one.partition(":")[::2] for one, _ in parse_mixture(spec)), strict=True)
    if kinds == ("docstrings",):
        return section
    told = " and ".join(
        Path(*Path(where).parts[-2:]).as_posix().lstrip("/") if kind != "docstrings" else kind
        for kind, where in zip(kinds, places, strict=True)
    )
    slug = re.sub(r"[^\w.]+", "-", told)
    return f"{section[0]}-on-{slug}", f"{section[1]}, on {told}"


def command_line(arguments: Sequence[str]) -> str:
    """The command of a benchmark, given sys.argv, so that it can be copied: of absolute paths the
    last two names, and nothing of where its parts are kept.
    """
    script, *flags = arguments
    told, skips = [f"python benchmarks/{Path(script).name}"], False
    for flag in flags:
        hidden = flag.partition("=")[0] in OF_THIS_MACHINE
        if not hidden and not skips:
            told.append(_quoted(without_folders(flag)))
        skips = hidden and "=" not in flag  # its value is the next word
    return " ".join(told)


def told_options(args: Namespace) -> dict[str, str]:
    """What an experiment was asked for, without what is of this machine alone."""
    hidden = [flag.lstrip("-") for flag in OF_THIS_MACHINE]
    options = {name: value for name, value in vars(args).items() if name not in hidden}
    return {name: without_folders(str(value)) for name, value in options.items()}


def publish(
    args: Namespace,
    name: str,
    section: tuple[str, str],
    content: Iterable[str],
    figures: Any,
    draw: Callable[[Path], None],
    pipeline: Pipeline,
) -> None:
    """Writes an experiment's section (name, title) of the page, which begins with the picture that
    `draw` makes, and appends a line of JSON: its figures, a dataclass, and the hours that all its
    parts took, whenever they were done. The picture lies beside the lines, that of another page
    than usual beside it.
    """
    page, lines = places(args, name)
    folder = page.parent if args.output else lines.parent  # else another page changed ours
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / f"{section[0]}.png"
    with written_whole(picture) as half:
        draw(half)
    shown = f"![{section[1]}]({Path(os.path.relpath(picture, page.parent)).as_posix()})"
    replace_section(page, *section, command_line(sys.argv), [shown, "", *content])
    hours = sum(result.seconds for result in pipeline.results) / 3600
    where = {"jax": jax.__version__, "device": jax.devices()[0].device_kind}
    told = {**dataclasses.asdict(figures), "hours": round(hours, 2), **where}
    record.append(lines, told)
    print(f"written: {page}")


def places(args: Namespace, name: str) -> tuple[Path, Path]:
    """The page and the file of JSON lines; in smoke size, whose figures say nothing, below
    --workdir.
    """
    lines = record.FOLDER / f"{name}.jsonl"
    page = record.FOLDER.parent / "results.md"
    if args.smoke:
        lines, page = (args.workdir / path.name for path in (lines, page))
    return args.output or page, lines


def _quoted(flag: str) -> str:
    """A word of the shell: of --name=value the value alone is quoted."""
    name, equals, value = flag.partition("=")
    if equals and name.startswith("--"):
        return f"{name}={shlex.quote(value)}"
    return shlex.quote(flag)
