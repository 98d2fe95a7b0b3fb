"""The notebooks run from the first cell to the last, in their smoke size. Slow: they train."""

import sys
from pathlib import Path

import pytest

from tests.end_to_end.launching import ROOT, environment

pytestmark = pytest.mark.slow
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SECONDS_PER_CELL = 300


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
    client = nbclient.NotebookClient(
        notebook,
        timeout=SECONDS_PER_CELL,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    client.execute()
    assert said(notebook, "exported to")


def said(notebook, words: str) -> bool:
    """Whether any cell printed `words`."""
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", []))
    return any(words in output.get("text", "") for output in outputs)
