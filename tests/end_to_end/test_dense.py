"""launch/encode.py, search.py, mine.py and export.py on a finished run. Slow: real processes."""

import gzip
import json
import signal

import numpy as np
import pytest

from condenser_jax.errors import UserError
from condenser_jax.retrieval.trec import read_run
from condenser_jax.vectors import open_vectors
from tests.end_to_end.launching import Started, launch, local_cluster

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """A BEIR folder of 40 passages and 40 queries, each the beginning of its passage."""
    folder = tmp_path_factory.mktemp("collection")
    texts = [
        f"returns the sum of {i} and an array of {'many ' * (i % 9)}numbers" for i in range(40)
    ]
    for name, start, end in (("corpus", "p", None), ("queries", "q", 6)):
        rows = ({"_id": f"{start}{i}", "text": t[:end]} for i, t in enumerate(texts))
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "qrels").mkdir()
    judged = "".join(f"q{i}\tp{i}\t1\n" for i in range(40))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return f"beir:{folder}"


def encode(model, collection, output, cache, *more, **how):
    flags = [f"--model={model}", f"--corpus={collection}", f"--output={output}", "--shard_rows=8"]
    return launch("encode", *flags, *more, cache=cache, **how)


@pytest.fixture(scope="module")
def vectors(finished, collection, cache, tmp_path_factory):
    output = tmp_path_factory.mktemp("vectors") / "run"
    done = encode(finished, collection, output, cache)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("40 vectors of ")
    return open_vectors(output)


def test_a_run_and_its_export_search_the_same_vectors(
    finished, collection, vectors, cache, tmp_path
):
    exported, runs = tmp_path / "exported", []
    done = launch("export", f"--workdir={finished}", f"--output={exported}", cache=cache)
    assert done.returncode == 0, done.stderr
    assert "loaded by condenser_jax: within " in done.stdout
    assert done.stdout.endswith(f"exported to {exported}\n")
    for model in (finished, exported):
        output = tmp_path / "runs" / f"{len(runs)}.trec"
        flags = [f"--model={model}", f"--vectors={vectors.directory}", f"--queries={collection}"]
        done = launch("search", *flags, "--k=5", f"--output={output}", cache=cache)
        assert done.returncode == 0, done.stderr
        runs.append(read_run(output))
    assert runs[0] == runs[1]
    assert len(runs[0]) == 40 and {len(found) for found in runs[0].values()} == {5}


def test_negatives_are_mined_by_words_and_by_an_encoder_that_is_forced(
    finished, collection, vectors, cache, tmp_path
):
    output = tmp_path / "hard.jsonl.gz"
    flags = [f"--data={collection}", "--split=test", "--bm25", f"--output={output}"]
    with_model = [*flags, f"--model={finished}", f"--vectors={vectors.directory}"]
    done = launch("mine", *with_model, cache=cache)
    assert done.returncode == 2 and "was never fine-tuned" in done.stderr
    for line in (flags, [*with_model, "--force"]):
        done = launch("mine", *line, cache=cache)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("40 queries with ") and f"written to {output}" in done.stdout
    with gzip.open(output) as file:
        assert len(file.readlines()) == 40


def test_two_processes_make_the_vectors_of_one(finished, collection, vectors, cache, tmp_path):
    done = encode(finished, collection, tmp_path / "two", cache, launcher=local_cluster(2))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("40 vectors of ") == 1
    two = open_vectors(tmp_path / "two")
    assert two.card == vectors.card
    np.testing.assert_allclose(two[0:40], vectors[0:40], atol=1e-5)
    assert (tmp_path / "two" / "00004.json").exists()


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A file of so many passages that there is time to kill who encodes them."""
    path = tmp_path_factory.mktemp("many") / "corpus.jsonl"
    rows = ({"_id": f"p{i}", "text": f"the {i}th of {'many ' * (i % 9)}rows"} for i in range(9000))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_encoding_that_is_killed_goes_on_after_the_shards_that_are_done(
    finished, many, cache, tmp_path
):
    def flags(output):
        return [f"--model={finished}", f"--corpus={many}", f"--output={output}", "--shard_rows=30"]

    def done_shards(output):
        """{file: when it was written, and as which file of the disk}."""
        found = (note.with_suffix(".bin").stat() for note in sorted(output.glob("0*.json")))
        return [(shard.st_ino, shard.st_mtime_ns) for shard in found]

    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert launch("encode", *flags(straight), cache=cache).returncode == 0
    run = Started(flags(killed), cache, script="encode")
    run.wait_until(lambda: len(done_shards(killed)) >= 5)
    run.send(signal.SIGKILL)
    done = done_shards(killed)
    assert 5 <= len(done) < 300
    with pytest.raises(UserError, match=f"lacks {300 - len(done)} of 300 shards"):
        open_vectors(killed)
    again = launch("encode", *flags(killed), cache=cache)
    assert again.returncode == 0, again.stderr
    assert done_shards(killed)[: len(done)] == done
    whole, resumed = open_vectors(straight), open_vectors(killed)
    assert resumed.card == whole.card and resumed.ids(range(9000)) == whole.ids(range(9000))
    np.testing.assert_array_equal(resumed[0:9000], whole[0:9000])


def test_mistakes_are_one_line(finished, collection, vectors, cache):
    done = launch("encode", cache=cache)
    assert done.returncode == 2
    assert done.stderr.strip().startswith("error: --model, --corpus and --output are all needed")
    done = encode(finished, collection, vectors.directory, cache, "--dtype=float16")
    assert done.returncode == 2
    assert "holds other vectors: dtype 'float32', not 'float16'; name another" in done.stderr
    done = launch("search", cache=cache)
    assert done.returncode == 2
    assert done.stderr.strip().startswith("error: --model, --vectors and --queries are all needed")
    done = launch("mine", cache=cache)
    assert done.returncode == 2
    assert done.stderr.strip().startswith("error: --data and --output are both needed")
    done = launch("export", "--workdir=x", "--output=y", "--push=not a name", cache=cache)
    assert done.returncode == 2
    assert "'not a name' cannot name a repository of the hub; expected --push=" in done.stderr
