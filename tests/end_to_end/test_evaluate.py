"""launch/evaluate.py on a finished run and its export. Slow: real processes."""

import json
import shutil

import pytest

from tests.end_to_end.launching import launch

pytestmark = pytest.mark.slow
TASK = "--task=cls_attention"


def test_a_run_and_its_export_stand_in_one_picture(finished, cache, tmp_path):
    exported, text, prefix = tmp_path / "exported", tmp_path / "mine.txt", tmp_path / "new" / "cls"
    done = launch("export", f"--workdir={finished}", f"--output={exported}", cache=cache)
    assert done.returncode == 0, done.stderr
    text.write_text("".join(f"Returns the sum of {i} and an array.\n" for i in range(9)))
    models = [f"--model={path}" for path in (finished, exported)]
    how = [TASK, *models, f"--data=text:{text}", "--max_length=16", f"--output={prefix}"]
    done = launch("evaluate", *how, cache=cache)
    assert done.returncode == 0, done.stderr
    assert f"written: {prefix}.json, {prefix}.png" in done.stdout
    run, copy = json.loads(prefix.with_suffix(".json").read_text())["models"].values()
    assert run["texts"] == 9
    assert {k: run[k] for k in run if k != "path"} == {k: copy[k] for k in copy if k != "path"}
    assert prefix.with_suffix(".png").stat().st_size > 10_000


def test_a_run_is_shown_what_it_held_out_while_its_data_are_the_same(finished, cache, tmp_path):
    how = [TASK, "--limit=20", "--max_length=32", f"--output={tmp_path / 'cls'}"]
    done = launch("evaluate", *how, f"--model={finished}", cache=cache)
    assert "20 texts of " in done.stdout and "held out of docstrings:" in done.stdout, done.stderr
    changed = shutil.copytree(finished, tmp_path / "changed")
    (changed / "data_hashes.json").write_text('{"docstrings-of-yesterday": "1"}')
    done = launch("evaluate", *how, f"--model={changed}", cache=cache)
    assert done.returncode == 2
    assert "so what was held out is unknown; name texts: --data=" in done.stderr


def test_a_run_is_searched_with_beside_bm25_and_the_results_are_read_back(
    finished, cache, tmp_path
):
    how = ["--task=retrieval", f"--model={finished}", "--data=docstrings:jax"]
    done = launch("evaluate", *how, "--trec", f"--output={tmp_path / 'first'}", cache=cache)
    assert done.returncode == 0, done.stderr
    names = [f"first{end}" for end in (".json", ".md", ".per_query.json", ".BM25.trec")]
    assert all((tmp_path / name).is_file() for name in names) and "BM25" in done.stdout
    baseline = f"--baseline={tmp_path / 'first.per_query.json'}"
    given = f"--run={tmp_path / 'first.BM25.trec'}"
    done = launch("evaluate", *how, baseline, given, f"--output={tmp_path / 'again'}", cache=cache)
    assert "difference +0.0000 over" in done.stdout and ", p 1 (" in done.stdout, done.stderr
    found = json.loads((tmp_path / "again.json").read_text())["systems"]
    assert found["first.BM25.trec"] == pytest.approx(found["BM25"])


def test_mistakes_are_one_line(cache, tmp_path):
    done = launch("evaluate", "--task=cls_atention", cache=cache)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    said = "error: unknown task 'cls_atention'; did you mean 'cls_attention'? known: cls_attention,"
    assert line.startswith(said)
    done = launch("evaluate", TASK, "--model=a", "--k=5", cache=cache)
    assert done.returncode == 2
    assert "--k means nothing to task cls_attention; it reads --data, --limit" in done.stderr
    done = launch("evaluate", TASK, f"--model={tmp_path}", cache=cache)
    assert done.returncode == 2 and "is neither a work directory nor" in done.stderr
