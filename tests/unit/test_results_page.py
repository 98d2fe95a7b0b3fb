"""docs/results.md has several authors: each writes its own section, and no other."""

import dataclasses
import json
import re
import shlex
import sys
import types
from argparse import Namespace

import pytest

from condenser_jax.errors import UserError
from tests.helpers import benchmark_module


@pytest.fixture(scope="module")
def pages():
    return benchmark_module("results_page")


@pytest.fixture
def page(pages, tmp_path):
    """A page of two sections."""
    path = tmp_path / "docs" / "results.md"
    for name in ("one", "two"):
        pages.replace_section(path, name, f"The {name}", f"python {name}.py", [f"figures {name}"])
    return path


def test_a_new_section_is_added_at_the_end(page):
    assert page.read_text() == (
        "# Results\n\n"
        "<!-- begin one -->\n## The one\n\nWritten by\n\n    python one.py\n\nfigures one\n"
        "<!-- end one -->\n\n"
        "<!-- begin two -->\n## The two\n\nWritten by\n\n    python two.py\n\nfigures two\n"
        "<!-- end two -->\n"
    )


def test_a_section_is_replaced_in_its_place_and_the_rest_stays(pages, page):
    page.write_text(page.read_text().replace("# Results\n", "# Results\n\nA word of mine.\n"))
    before = page.read_text()
    pages.replace_section(page, "one", "The one", "python one.py", ["others", "|two|"])
    assert page.read_text() == before.replace("figures one\n", "others\n|two|\n")


def test_the_same_section_twice_changes_nothing(pages, page):
    before = page.read_text()
    pages.replace_section(page, "two", "The two", "python two.py", ["figures two"])
    assert page.read_text() == before


@pytest.mark.parametrize("name", ["claims", "claims-from-a-checkpoint"])
def test_a_name_that_begins_another_is_another_section(pages, tmp_path, name):
    path = tmp_path / "results.md"
    for one in ("claims", "claims-from-a-checkpoint"):
        pages.replace_section(path, one, one, "python x.py", [f"old {one}"])
    pages.replace_section(path, name, name, "python x.py", ["new"])
    other = ({"claims", "claims-from-a-checkpoint"} - {name}).pop()
    assert "new" in path.read_text() and f"old {other}\n" in path.read_text()
    assert f"old {name}\n" not in path.read_text()


@pytest.mark.parametrize("lost", ["<!-- end one -->\n", "<!-- begin one -->\n"])
def test_a_section_without_an_end_is_refused_and_nothing_is_written(pages, page, lost):
    broken = page.read_text().replace(lost, "")
    page.write_text(broken)
    with pytest.raises(UserError, match="no single section between <!-- begin one -->"):
        pages.replace_section(page, "one", "The one", "python one.py", [])
    assert page.read_text() == broken


def test_the_command_can_be_copied_and_tells_nothing_of_the_machine(pages):
    words = ["/home/me/code/benchmarks/claims.py", "--init=/data/models/mini/model", "--steps=5"]
    words += ["--workdir=/tmp/x", "--output", "/tmp/y.md", "--row=a b={}", "--row", 'c d={"e": 1}']
    told = pages.command_line(words)
    assert told == (
        "python benchmarks/claims.py --init=mini/model --steps=5 --row='a b={}' "
        "--row 'c d={\"e\": 1}'"
    )
    assert shlex.split(told)[4:] == ["--row=a b={}", "--row", 'c d={"e": 1}']


def test_options_tell_nothing_of_the_machine(pages):
    args = Namespace(workdir="/tmp/x", output=None, init="/data/models/mini/model", steps=5)
    assert pages.told_options(args) == {"init": "mini/model", "steps": "5"}


def test_a_smoke_run_leaves_the_documentation_alone(pages, tmp_path):
    args = Namespace(workdir=tmp_path, output=None, smoke=True)
    assert pages.places(args, "claims") == (tmp_path / "results.md", tmp_path / "claims.jsonl")
    args.smoke = False
    page, lines = pages.places(args, "claims")
    assert page.parts[-2:] == ("docs", "results.md") and lines.parts[-2] == "benchmarks"


@dataclasses.dataclass
class Figures:
    best: float = 0.5


@pytest.mark.parametrize("place", ["", "elsewhere/page.md"])
def test_a_section_begins_with_its_picture_which_lies_beside_its_lines_or_the_page_asked_for(
    pages, tmp_path, place, monkeypatch
):
    monkeypatch.setattr(sys, "argv", ["claims.py"])
    output = tmp_path / place if place else None
    args = Namespace(workdir=tmp_path, output=output, smoke=True)
    nothing = types.SimpleNamespace(results=[])
    section = ("claims-from-a-checkpoint", "From a checkpoint")
    pages.publish(
        args, "claims", section, ["a table"], Figures(), lambda p: p.write_text("!"), nothing
    )
    page = output or tmp_path / "results.md"
    (shown,) = re.findall(r"!\[From a checkpoint\]\((.*)\)\n\na table", page.read_text())
    assert (page.parent / shown).resolve() == page.parent / "claims-from-a-checkpoint.png"
    assert (page.parent / shown).read_text() == "!"
    assert json.loads((tmp_path / "claims.jsonl").read_text())["best"] == 0.5


@pytest.mark.parametrize(
    ("spec", "name", "title"),
    [
        ("docstrings:", "one", "One"),
        ("docstrings:jax", "one", "One"),
        ("beir:/home/me/data/squad_v1.1", "one-on-data-squad_v1.1", "One, on data/squad_v1.1"),
        ("jsonl:my texts/*.jsonl.gz", "one-on-my-texts-.jsonl.gz", "One, on my texts/*.jsonl.gz"),
        ("beir:/data", "one-on-data", "One, on data"),
        (
            "docstrings: + 2 jsonl:my/x.jsonl",
            "one-on-docstrings-and-my-x.jsonl",
            "One, on docstrings and my/x.jsonl",
        ),
    ],
)
def test_other_data_than_docstrings_have_a_section_of_their_own(pages, spec, name, title):
    assert pages.section_on(("one", "One"), spec) == (name, title)
