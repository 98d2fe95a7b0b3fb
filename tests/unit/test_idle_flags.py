"""Commands refuse flags that they would ignore, and an output that cannot be written, at the door.

One process tries all command lines of a command: its flags are declared once.
"""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import importlib, json, sys
from absl import flags
from condenser_jax.errors import UserError

script = importlib.import_module(f"launch.{sys.argv[1]}")
for line in json.loads(sys.argv[2]):
    flags.FLAGS.unparse_flags()
    flags.FLAGS(["x", *line.split()])
    try:
        script.main()
    except UserError as error:
        print(error)
"""
SEARCH = "--model=nowhere --vectors=nowhere"
ENCODE = "--model=nowhere --output=new"
EVALUATE = "--task=retrieval --data=beir:nowhere --run=r.trec"
IN_A_FILE = "/queries.tsv/x cannot be made: {}/queries.tsv is a file; name another --output"
# command -> {flags: what is said}; {} is a folder with the file queries.tsv
REFUSED = {
    "search": {
        f"{SEARCH} --queries={{}}/queries.tsv --split=dev": "--split would be ignored: {}/queries"
        ".tsv is a file and has no splits; leave it out",
        f"{SEARCH} --queries=beir:nowhere --output={{}}": "--output={} is a folder; name a file in",
        f"{SEARCH} --queries=beir:nowhere --output={{}}/queries.tsv/x": f"--output={{}}{IN_A_FILE}",
    },
    "encode": {
        f"{ENCODE} --corpus=beir:nowhere --split=dev": "--split would be ignored: passages belong "
        "to no split; leave it out",
        f"{ENCODE} --corpus={{}}/queries.tsv --kind=query --split=dev": "--split would be ignored: "
        "{}/queries.tsv is a file",
        "--model=nowhere --corpus=beir:nowhere --output={}/queries.tsv": "--output={}/queries.tsv "
        "cannot be made: {}/queries.tsv is a file",
    },
    "mine": {
        "--data=beir:x --bm25 --output={}/x.jsonl --vectors=v --pooling=cls --force": "--vectors "
        "and --pooling and --force would be ignored: there is no --model; leave them out",
        "--data=tevatron:x.jsonl --bm25 --output={}/x.jsonl --split=dev": "--split would be "
        "ignored: a training file has no splits; leave it out",
        "--data=beir:x --bm25 --output={}/queries.tsv/x.jsonl": "--output={}/queries.tsv/x.jsonl "
        "cannot be made: {}/queries.tsv is a file; name another --output",
    },
    "evaluate": {
        f"{EVALUATE} --pooling=cls --vectors=v": "--pooling and --vectors would be ignored: there "
        "is no --model; leave them out",
        f"{EVALUATE} --bm25=false --english": "--english would be ignored: --bm25=false leaves BM25"
        " out; leave it out",
        f"{EVALUATE} --bm25=false --trec": "--trec would be ignored: all runs are written, and ",
        "--task=sts --model=x --data={}/queries.tsv --split=dev": "--split would be ignored: {}/"
        "queries.tsv is a file and has no splits; leave it out",
        f"{EVALUATE} --output={{}}/queries.tsv/x": f"--output={{}}{IN_A_FILE}",
    },
}


@pytest.mark.parametrize("command", REFUSED)
def test_what_would_be_ignored_or_lost_is_refused_before_any_work(command, tmp_path):
    (tmp_path / "queries.tsv").write_text("1\tone\n")
    cases = {a.replace("{}", str(tmp_path)): b for a, b in REFUSED[command].items()}
    given = [sys.executable, "-c", SCRIPT, command, json.dumps(list(cases))]
    done = subprocess.run(given, capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert len(said) == len(cases)
    for line, expected in zip(said, cases.values(), strict=True):
        assert line.startswith(expected.replace("{}", str(tmp_path)))
