"""The notebooks run from the first cell to the last, in their smoke size. Slow: they train."""

import json
import re
import sys
from pathlib import Path

import pytest

from tests.end_to_end.launching import ROOT, environment

pytestmark = pytest.mark.slow
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SECONDS_PER_CELL = 300
# What has to be printed, and how often at least.
SHOWN = {
    "condenser_in_colab": {r"exported to": 1, r"heldout/mrr@10 ": 1, r"\d\.\d\d  \w": 9},
    "tutor_kd_in_colab": {
        r"exported to": 1,
        r"heldout/reward_margin ": 1,
        r"\(\S+ > \S+ \[\d\.\d\d \d\.\d\d\]\)": 6,  # what the tutor wrote
        r"heldout/accuracy ": 2,  # of both fine-tuned encoders
    },
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_through(path, cache, tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    for name, value in (environment(cache) | {"CONDENSER_JAX_SMOKE": "1"}).items():
        monkeypatch.setenv(name, value)
    # `!python` and the kernel are those of this environment
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    for folder in ("launch", "configs", "condenser_jax"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = with_checks(cell.source) if cell.cell_type == "code" else cell.source
    client = nbclient.NotebookClient(
        notebook,
        timeout=SECONDS_PER_CELL,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    said, pictures = outputs_of(notebook)
    for pattern, least in SHOWN[path.stem].items():
        assert len(re.findall(pattern, said)) >= least, pattern
    assert pictures == 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_pipe_hides_no_command_that_fails(path):
    cells = json.loads(path.read_text())["cells"]
    commands = [line for cell in cells for line in cell["source"] if line.lstrip().startswith("!")]
    assert commands
    for line in commands:
        assert " | " not in line or line.startswith('!bash -o pipefail -c "'), line


def with_checks(source: str) -> str:
    """A cell in which a command that fails ends the cell, which IPython lets pass."""
    check = "assert not _exit_code, 'the command failed'"
    lines = source.splitlines()
    return "\n".join(f"{line}\n{check}" if line.startswith("!") else line for line in lines)


def outputs_of(notebook) -> tuple[str, int]:
    """What all cells printed, and how many pictures they show."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    said = "".join(output.get("text", "") for output in outputs)
    return said, sum("image/png" in output.get("data", {}) for output in outputs)
