"""From one docstring to prose: its paragraphs, without code, tables, markup and section rules.

The rules are cheap, one pass over the lines: what is dropped wrongly costs a few sentences, what
is kept wrongly costs a model that learns to predict `>>>`.
"""

import inspect
import re

CODE_DIRECTIVES = frozenset(
    "code code-block sourcecode plot math testcode testsetup doctest ipython image figure table "
    "csv-table list-table toctree autosummary autofunction autoclass automodule currentmodule "
    "include literalinclude index contents bibliography".split()
)
DIRECTIVE = re.compile(r"\.\. *([\w:-]+?)::")
RULE = re.compile(r"[-=~^*#+\"'`|. ]{3,}$")  # an underline of a section, a border of a table
HEADER = re.compile(r"(#+ .*|[A-Z][\w ]{0,30}:)$")  # "Args:", "## Usage"
ROLE = re.compile(r":[\w:+-]+:`~?([^`<]*?)(?:\s*<[^>]*>)?`")
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)|\[`?~?([\w.]+)`?\]")
CITATION = re.compile(r"\s*\[\d+\]_|`_+")
TAG = re.compile(r"</?\w+[^<>]*>")
LETTERS = re.compile(r"[^\W\d_]{2,}")
MIN_WORDS = 3
MIN_SUMMARY_WORDS = 2  # "Sort arrays." says something, a lone "For example." does not


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _blocks(lines: list[str]) -> list[list[str]]:
    """Groups lines into paragraphs; leaves out doctests, fenced code, literal blocks and code
    directives.
    """
    blocks: list[list[str]] = [[]]
    skipped_below = -1  # while >= 0, lines that are indented deeper belong to a dropped block
    is_fenced = is_doctest = False
    for line in lines:
        text = line.strip()
        if text.startswith("```"):
            is_fenced = not is_fenced
            continue
        if not text:
            is_doctest = False
            blocks.append([])
            continue
        if is_fenced:
            continue
        if skipped_below >= 0:
            if _indent(line) > skipped_below:
                continue
            skipped_below = -1
        is_doctest = is_doctest or text.startswith(">>>")
        if is_doctest or text[0] in "|+":
            continue
        if text.startswith((".. [", ".. _")):  # a reference, the target of a link
            skipped_below = _indent(line)
            continue
        directive = DIRECTIVE.match(text)
        if directive:
            if directive.group(1) in CODE_DIRECTIVES:
                skipped_below = _indent(line)
            continue
        if RULE.match(text):
            if blocks[-1]:
                blocks[-1].pop()  # the title above the rule
            continue
        if text.endswith("::"):
            skipped_below = _indent(line)
            text = text[:-2].rstrip(".") + "."
        if not HEADER.match(text):
            blocks[-1].append(text)
    return blocks


def _plain(text: str) -> str:
    """Strips inline markup and folds white space."""
    text = CITATION.sub("", ROLE.sub(r"\1", text))
    text = LINK.sub(lambda match: match.group(1) or match.group(2) or "", text)
    text = TAG.sub("", text)
    return " ".join(text.replace("`", "").replace("**", "").split())


def _is_prose(text: str, min_words: int) -> bool:
    """True when a text has some words and is made of letters more than of anything else."""
    words = LETTERS.findall(text)
    return len(words) >= min_words and 2 * sum(map(len, words)) > len(text)


def paragraphs(docstring: str) -> list[str]:
    """Returns the paragraphs of prose of a docstring, a line each; the first is the summary."""
    lines = inspect.cleandoc(docstring).splitlines()
    plain = (_plain(" ".join(block)) for block in _blocks(lines) if block)
    return [
        text
        for place, text in enumerate(plain)
        if _is_prose(text, MIN_WORDS if place else MIN_SUMMARY_WORDS)
    ]
