"""Benchmarks run to their end in their smallest sizes, and touch no published figure."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.end_to_end.launching import ROOT, environment

pytestmark = pytest.mark.slow
PUBLISHED = [ROOT / "docs" / "results.md", *(ROOT / "docs" / "benchmarks").glob("*")]


def measured(name: str, *flags: str, cache: Path) -> str:
    """What benchmarks/<name>.py prints."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *flags],
        env=environment(cache),
        capture_output=True,
        text=True,
        timeout=600,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("name", "flags", "row"),
    [
        (
            "claims",
            ["--arms=start,mlm", "--labels=50", "--batches=32", "--wrong=0"],
            "| 50 labels, batch 32, 0% wrong | 0.",
        ),
        ("distillation", ["--methods=joint,kd"], "| joint | 0."),
    ],
)
def test_an_experiment_goes_from_text_to_a_page_of_its_own(name, flags, row, cache, tmp_path):
    before = {path: path.read_bytes() for path in PUBLISHED}
    measured(name, "--smoke", f"--workdir={tmp_path}", *flags, cache=cache)
    page = (tmp_path / "results.md").read_text()
    assert row in page and f"python benchmarks/{name}.py --smoke" in page
    (picture,) = tmp_path.glob("*.png")
    assert f"]({picture.name})" in page
    assert "hours" in json.loads((tmp_path / f"{name}.jsonl").read_text())
    assert {path: path.read_bytes() for path in PUBLISHED} == before


def test_encoding_is_timed_beside_sentence_transformers_on_equal_vectors(cache, tmp_path):
    pytest.importorskip("sentence_transformers")
    lines = tmp_path / "encode.jsonl"
    flags = ["--texts=40", "--rounds=1", f"--output={lines}"]
    assert "times as fast as shipped" in measured("encode", *flags, cache=cache)
    assert json.loads(lines.read_text())["largest_difference"] < 1e-4


def test_the_memory_of_search_is_measured_and_its_scores_are_those_of_float64(cache, tmp_path):
    lines = tmp_path / "search.jsonl"
    flags = ["--rows", "3000", "6000", "--width=16", "--queries=8", "--k=20", f"--output={lines}"]
    measured("search", *flags, f"--folder={tmp_path}", cache=cache)
    found = json.loads(lines.read_text())
    assert [one["rows"] for one in found["sizes"]] == [3000, 6000]
    assert max(one["largest_difference"] for one in found["sizes"]) < 1e-4
