"""The whole way from text to a searching encoder, in its smoke size. Slow: four runs."""

import json

import numpy as np
import pytest

from condenser_jax.encoder import Encoder
from tests.end_to_end.launching import launch

pytestmark = pytest.mark.slow


def test_one_command_leads_from_text_to_an_encoder_and_is_done_once(cache, tmp_path):
    root = tmp_path / "pipe"
    args = ("--config=configs/pipeline.py:smoke", f"--workdir={root}")
    done = launch("pipeline", *args, cache=cache)
    assert done.returncode == 0, done.stderr
    assert "BM25" in done.stdout and f"encoder: {root}/encoder" in done.stdout
    report = (root / "report.md").read_text()
    assert "| second |" in report and "| BM25 |" in report and (root / "report.png").is_file()
    vectors = Encoder.load(str(root / "encoder")).encode(["a text", "another"])
    assert vectors.shape == (2, 32) and np.isfinite(vectors).all()
    (found,) = root.glob("evaluation-*/done.json")
    systems = json.loads(found.read_text())["facts"]["systems"]
    assert list(systems) == ["second", "first", "cocondenser", "BM25"]

    again = launch("pipeline", *args, cache=cache)
    assert again.returncode == 0 and again.stderr.count("done before") == 7
    changed = launch(
        "pipeline", *args, "--config.mining.seed=1", "--config.second.seed=-1", cache=cache
    )
    assert changed.returncode == 2 and "seed is -1" in changed.stderr
