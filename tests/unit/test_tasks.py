"""Tasks of launch/evaluate.py: their figures are those of the parts, and results can be kept."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from condenser_jax import Encoder, vectors
from condenser_jax.dense import encode_corpus, open_texts
from condenser_jax.encoder_source import Usage
from condenser_jax.errors import UserError, choose
from condenser_jax.hf.card import CARD_FILE
from condenser_jax.retrieval import metrics, sentence_sources
from condenser_jax.retrieval.collection import CollectionOptions
from condenser_jax.retrieval.docstring_pairs import DocstringPair
from condenser_jax.retrieval.trec import read_run, write_run
from condenser_jax.tasks import models as opened
from condenser_jax.tasks import ranking
from condenser_jax.tasks.contract import Options
from condenser_jax.tasks.models import name_models, usage_of
from condenser_jax.tasks.table import TASKS, check_flags, write_files
from tests.encoders import export_tiny
from tests.hf_models import WORDS

_random = np.random.default_rng(0)
PASSAGES = [" ".join(_random.choice(WORDS, 4 + i % 9)) for i in range(40)]  # one bucket for all
TRIPLETS = [(PASSAGES[i], PASSAGES[i + 1], PASSAGES[-1 - i]) for i in range(20)]
FIRST, SECOND = "first", "second"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two directories, of other weights and pooling."""
    folder = tmp_path_factory.mktemp("models")
    for seed, (name, pooling) in enumerate([(FIRST, "mean"), (SECOND, "cls")]):
        made = export_tiny(tmp_path_factory.mktemp(name), seed=seed, pooling=pooling)
        shutil.move(made, folder / name)
    return folder


@pytest.fixture(scope="module")
def bare(models, tmp_path_factory):
    """A directory that does not say how its encoder pools."""
    folder = shutil.copytree(models / FIRST, tmp_path_factory.mktemp("silent") / "bare")
    for name in (CARD_FILE, "modules.json"):
        (folder / name).unlink()
    return folder


@pytest.fixture(scope="module")
def encoder(models):
    return Encoder.load(models / FIRST)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with a collection, sentence pairs and triplets."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "qrels").mkdir()
    corpus = [{"_id": f"p{i}", "text": text} for i, text in enumerate(PASSAGES)]
    queries = [{"_id": f"q{i}", "text": " ".join(PASSAGES[i].split()[:3])} for i in range(12)]
    answers = [{"_id": f"q{i}", "answers": ["condenser"]} for i in range(12)]
    for name, rows in (("corpus", corpus), ("queries", queries), ("answers", answers)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = "".join(f"q{i}\tp{i}\t1\n" for i in range(12))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    pairs = "".join(f"{i % 11 / 2.2:.3f}\t{a}\t{b}\n" for i, (a, b, _) in enumerate(TRIPLETS))
    (folder / "sts").mkdir()
    (folder / "sts" / "dev.tsv").write_text("score\tsentence1\tsentence2\n" + pairs)
    triplets = "".join("\t".join(row) + "\n" for row in TRIPLETS)
    (folder / "triplets.tsv").write_text("anchor\tpositive\tnegative\n" + triplets)
    return folder


@pytest.fixture(autouse=True, scope="module")
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONDENSER_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def options(models, *names, **flags):
    return Options(tuple(str(models / name) for name in names), **flags)


@pytest.fixture(scope="module")
def searched(models, data, tmp_path_factory):
    """The report of both models and BM25, and what was written."""
    prefix = tmp_path_factory.mktemp("out") / "new" / "found"
    flags = {"data": f"beir:{data}", "trec": True}
    report = TASKS["retrieval"].report(options(models, FIRST, SECOND, **flags))
    return report, {path.name: path for path in write_files(report, prefix)}


def test_models_and_bm25_stand_in_one_table_with_a_paired_test(searched):
    report, files = searched
    assert list(report.figures["systems"]) == [FIRST, SECOND, "BM25"]
    assert report.figures["compared"] == [FIRST, SECOND]
    lines = report.table.splitlines()
    assert lines[0].endswith("test: 12 queries, 40 passages")
    assert [line.split()[0] for line in lines[2:6]] == ["system", FIRST, SECOND, "BM25"]
    assert "first minus second, paired test:" in lines
    assert "difference +" in report.table or "difference -" in report.table
    markdown = files["found.md"].read_text()
    assert "| system | MRR@10 | nDCG@10 |" in markdown and "- MRR@10: difference" in markdown
    assert json.loads(files["found.json"].read_text()) == report.figures


def test_figures_are_those_of_the_run_that_is_written(searched, encoder, data):
    report, files = searched
    run = read_run(files[f"found.{FIRST}.trec"])
    qrels = {f"q{i}": {f"p{i}": 1} for i in range(12)}
    for metric, value in metrics.means(metrics.evaluate(run, qrels)).items():
        assert report.figures["systems"][FIRST][metric] == pytest.approx(value, abs=1e-6)
    ids, scores = encoder.search([" ".join(PASSAGES[0].split()[:3])], PASSAGES, 5)
    best = sorted(run["q0"].values(), reverse=True)[:5]
    np.testing.assert_allclose(best, scores[0], atol=1e-5)


def test_queries_that_are_passages_do_not_find_themselves(models, data, encoder, tmp_path):
    """As BEIR's evaluation has it: the best k without the passage of the query's id."""
    folder = shutil.copytree(data, tmp_path / "own")
    shutil.copy(folder / "corpus.jsonl", folder / "queries.jsonl")
    judged = "".join(f"p{i}\tp{i + 1}\t1\n" for i in range(12))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    vectors = encoder.encode(PASSAGES)
    scores = (vectors @ vectors.T).tolist()
    raw = {f"p{i}": {f"p{j}": scores[i][j] for j in range(40)} for i in range(12)}
    write_run(tmp_path / "raw.trec", raw, "raw")  # each finds itself
    flags = {"data": f"beir:{folder}", "k": 5, "trec": True, "run": [str(tmp_path / "raw.trec")]}
    report = TASKS["retrieval"].report(options(models, FIRST, **flags))
    runs = {path.name: read_run(path) for path in write_files(report, tmp_path / "x")[-2:]}
    for query, found in runs[f"x.{FIRST}.trec"].items():
        ranks = [f"p{row}" for row in np.argsort(-(vectors @ vectors[int(query[1:])]))]
        assert set(found) == set([name for name in ranks if name != query][:5])
    assert all(query not in found for query, found in runs["x.BM25.trec"].items())
    qrels = {f"p{i}": {f"p{i + 1}": 1} for i in range(12)}
    expected = metrics.means(metrics.evaluate(runs[f"x.{FIRST}.trec"], qrels, [1], best=5))
    assert {"MRR@5", "nDCG@5"} < expected.keys()  # as many as were asked for
    for name in (FIRST, "raw.trec"):
        assert report.figures["systems"][name] == pytest.approx(expected, abs=1e-6)


def test_a_run_on_disk_stands_beside_models_and_in_the_paired_test(searched, models, data):
    report, files = searched
    run = files[f"found.{FIRST}.trec"]
    flags = {"data": f"beir:{data}", "run": [str(run)], "trec": True}
    again = TASKS["retrieval"].report(options(models, SECOND, **flags))
    assert list(again.figures["systems"]) == [SECOND, run.name, "BM25"]
    assert again.figures["compared"] == [SECOND, run.name]
    expected = report.figures["systems"][FIRST]
    assert again.figures["systems"][run.name] == pytest.approx(expected, abs=1e-6)
    written = [ending for ending in again.files if ending.endswith(".trec")]
    assert written == [f".{SECOND}.trec", ".BM25.trec"]  # the run itself is there


def test_runs_need_no_model_and_are_compared_with_earlier_results(searched, data, tmp_path, caplog):
    report, files = searched
    run = read_run(files[f"found.{SECOND}.trec"])
    unjudged = {"nobody's": run.pop("q3")}
    write_run(tmp_path / "mine.trec.gz", run | {"other": unjudged["nobody's"]}, "mine")
    flags = {"data": f"beir:{data}", "run": [str(tmp_path / "mine.trec.gz")], "bm25": False}
    flags["baseline"] = str(files["found.per_query.json"])
    figures = TASKS["retrieval"].report(Options(**flags)).figures
    assert list(figures["systems"]) == ["mine.trec.gz", FIRST, SECOND, "BM25"]
    assert figures["compared"] == ["mine.trec.gz", FIRST] and "MRR@10" in figures["tests"]
    assert "mine.trec.gz finds nothing for 1 of 12 queries: they count as 0" in caplog.text
    answered = TASKS["open_qa"].report(Options(**flags | {"baseline": ""})).figures
    assert answered["systems"]["mine.trec.gz"]["Accuracy@100"] == pytest.approx(11 / 12)


@pytest.fixture
def no_work(monkeypatch):
    """What is refused is refused before a model is read."""

    def read(*_):
        raise AssertionError("a model was read")

    monkeypatch.setattr(opened, "open_encoder", read)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("q1 Q0 p1 1 0.5 a\nq1 Q0 x9 2 0.4 a\n", "1 of 2 .* finds document 'x9', which does not e"),
        (
            "q99 Q0 p1 1 0.5 a\n",
            r"nothing for any of the 12 queries of beir:.* \(test\); check --d",
        ),
        (None, "mine.trec is not a file; check the path"),
    ],
)
def test_a_run_of_something_else_is_refused_before_the_work(
    models, data, tmp_path, no_work, lines, message
):
    if lines:
        (tmp_path / "mine.trec").write_text(lines)
    flags = {"data": f"beir:{data}", "run": [str(tmp_path / "mine.trec")]}
    with pytest.raises(UserError, match=message):
        TASKS["retrieval"].report(options(models, FIRST, **flags))


def test_ids_that_no_run_can_hold_are_refused_before_the_work(models, data, tmp_path, no_work):
    folder = shutil.copytree(data, tmp_path / "blank")
    with open(folder / "corpus.jsonl", "a") as file:
        file.write('{"_id": "p 40", "text": "one more"}\n')
    with pytest.raises(UserError, match="the id or tag 'p 40' holds white space"):
        TASKS["retrieval"].report(options(models, FIRST, data=f"beir:{folder}", trec=True))


def test_a_stemmer_that_is_not_there_is_missed_before_the_work(models, data, no_work, monkeypatch):
    monkeypatch.setitem(sys.modules, "Stemmer", None)
    with pytest.raises(UserError, match="BM25 with stemming needs PyStemmer; pip install PyStemme"):
        TASKS["retrieval"].report(options(models, FIRST, data=f"beir:{data}", english=True))


@pytest.mark.parametrize(
    ("task", "where", "split"), [("retrieval", "beir:{}", "test"), ("sts", "{}/sts", "dev")]
)
def test_a_mistake_in_the_last_model_is_told_before_the_first_encodes(
    models, bare, data, monkeypatch, task, where, split
):
    monkeypatch.setattr(Encoder, "encode", None)
    flags = {"data": where.format(data), "split": split, "bm25": False}
    with pytest.raises(UserError, match="typo' is neither a directory here nor a hub id that can"):
        TASKS[task].report(options(models, FIRST, SECOND, "typo", **flags))
    with pytest.raises(UserError, match="bare says how this encoder pools .* name it: cls for a"):
        TASKS[task].report(options(models, FIRST, bare, **flags))


def test_results_of_queries_are_kept_and_read_back_to_compare_with(searched, models, data):
    report, files = searched
    kept = files["found.per_query.json"]
    rows = json.loads(kept.read_text())["systems"]
    for name, figures in report.figures["systems"].items():
        assert figures == pytest.approx(metrics.means(rows[name]))
    flags = {"data": f"beir:{data}", "bm25": False, "baseline": str(kept)}
    again = TASKS["retrieval"].report(options(models, SECOND, **flags)).figures
    earlier = f"{SECOND} ({kept})"
    assert list(again["systems"]) == [SECOND, FIRST, earlier, "BM25"]
    assert again["compared"] == [SECOND, FIRST]
    for metric, test in again["tests"].items():
        assert test["difference"] == pytest.approx(-report.figures["tests"][metric]["difference"])
        assert test["p"] == pytest.approx(report.figures["tests"][metric]["p"])
    assert again["systems"][earlier] == pytest.approx(again["systems"][SECOND])


def test_vectors_are_kept_where_the_user_says_and_used_again(models, data, tmp_path, monkeypatch):
    flags = {"data": f"beir:{data}", "vectors": str(tmp_path / "vectors"), "bm25": False, "k": 10}
    first = TASKS["retrieval"].report(options(models, FIRST, **flags)).figures
    assert (tmp_path / "vectors" / FIRST / "card.json").is_file() and not first["compared"]
    assert "Recall@10" in first["systems"][FIRST] and "Recall@100" not in first["systems"][FIRST]
    monkeypatch.setattr(vectors, "write_shard", None)
    assert TASKS["retrieval"].report(options(models, FIRST, **flags)).figures == first


def test_vectors_that_encode_wrote_are_those_of_the_one_model(
    models, encoder, data, tmp_path, monkeypatch
):
    """In whatever form, and by whatever spelling of the source."""
    corpus, where = open_texts(f"beir:{data}"), tmp_path / "v"
    encode_corpus(encoder, corpus, where, source="beir:x/", dtype="bfloat16", shard_rows=16)
    flags = {"data": f"beir:{data}", "vectors": str(where), "bm25": False}
    there = sorted(where.iterdir())
    monkeypatch.setattr(vectors, "write_shard", None)
    figures = TASKS["retrieval"].report(options(models, FIRST, **flags)).figures
    assert list(figures["systems"]) == [FIRST] and sorted(where.iterdir()) == there
    with pytest.raises(UserError, match="v holds other vectors: .*weights_hash"):
        TASKS["retrieval"].report(options(models, SECOND, **flags))
    monkeypatch.setattr(Encoder, "encode", None)
    with pytest.raises(UserError, match="v holds the vectors of one model, and there are 2; name"):
        TASKS["retrieval"].report(options(models, FIRST, SECOND, **flags))


def test_an_answer_counts_wherever_it_stands(models, data):
    report = TASKS["open_qa"].report(options(models, FIRST, data=f"beir:{data}"))
    assert list(report.figures["systems"][FIRST]) == ["Accuracy@5", "Accuracy@20", "Accuracy@100"]
    assert report.figures["systems"][FIRST]["Accuracy@100"] == 1
    assert 0 < report.figures["systems"]["BM25"]["Accuracy@5"] <= 1
    assert "12 questions, 40 passages" in report.table


def test_sts_correlates_cosines_with_scores(models, encoder, data):
    flags = {"data": str(data / "sts"), "split": "dev"}
    figures = TASKS["sts"].report(options(models, FIRST, SECOND, **flags)).figures
    left, right = (encoder.encode([row[column] for row in TRIPLETS]) for column in (0, 1))
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines, scores = (left * right).sum(1) / lengths, [i % 11 / 2.2 for i in range(20)]
    got = figures["systems"][FIRST]
    assert got["Spearman"] == pytest.approx(metrics.spearman(cosines, scores), abs=1e-3)
    assert got["Pearson"] == pytest.approx(metrics.pearson(cosines, scores), abs=1e-3)
    assert figures["tests"]["Spearman"]["queries"] == 20


def test_sections_count_the_triplets_whose_positive_is_nearer(models, encoder, data):
    where = str(data / "triplets.tsv")
    report = TASKS["sections"].report(options(models, FIRST, data=where))
    columns = [encoder.encode([row[column] for row in TRIPLETS]) for column in range(3)]
    expected = metrics.triplet_hits(*columns).mean()
    assert report.figures["systems"] == {FIRST: {"accuracy": pytest.approx(expected)}}
    assert 0 < expected < 1 and "paired" not in report.table
    assert report.table.startswith(f"sections: {where}: 20 triplets\n")  # a file has no split


def test_models_of_the_same_name_go_by_their_paths_and_are_taken_once():
    assert name_models(["a/x", "a/x", "b/y"]) == {"x": "a/x", "y": "b/y"}
    assert name_models(["a/x", "b/x"]) == {"a/x": "a/x", "b/x": "b/x"}
    assert name_models(["a/BM25"], ["BM25"]) == {"a/BM25": "a/BM25"}
    assert ranking.file_name("/my models/a") == "my_models_a"


def test_usage_is_told_of_the_models_that_do_not_say_it(models, bare):
    paths, told = [str(models / FIRST), str(bare)], Usage("cls", "query: ", None)
    assert usage_of(paths, told) == {paths[0]: Usage(), paths[1]: told}
    assert usage_of(paths[:1], told) == {paths[0]: told}  # which its card will refuse
    assert usage_of(paths, Usage()) == {paths[0]: Usage(), paths[1]: Usage()}


def test_a_prefix_changes_what_a_model_finds(bare, data):
    """Of a model whose files name none, as those of E5 and BGE."""
    found = [
        TASKS["retrieval"].report(
            Options((str(bare),), data=f"beir:{data}", pooling="mean", bm25=False, **prefixes)
        )
        for prefixes in ({}, {"query_prefix": ""}, {"query_prefix": f"{PASSAGES[0]} "})
    ]
    assert [report.figures.get("query_prefix") for report in found[:2]] == [None, ""]
    assert found[0].figures["systems"] == found[1].figures["systems"]
    assert found[0].figures["systems"] != found[2].figures["systems"]


def test_the_help_names_the_flags_that_each_task_reads():
    import launch.evaluate as script

    lines = [line.split() for line in script.__doc__.splitlines() if " --data" in line[:40]]
    shared = [f"--{name}" for name in script.READING]
    assert f"(*) and {' '.join(shared)}: how the data are read." in script.__doc__
    usage = [f"--{name}" for name in script.USAGE]
    assert f"(+) and {' '.join(usage)}: what the files of a model do not say." in script.__doc__
    meant = {"(*)": shared, "(+)": usage}
    documented = {
        name: {flag.removeprefix("--") for f in flags for flag in meant.get(f, [f])}
        for name, *flags in lines
    }
    assert documented.pop("Evaluates:", None) is None
    assert documented == {name: set(task.flags) for name, task in TASKS.items()}
    assert {flag for task in TASKS.values() for flag in task.flags} == {
        *script.READ,
        *script.READING,
    }


@pytest.mark.parametrize("name", ["evaluate", "mine", "encode", "search"])
def test_every_command_reads_a_collection_as_its_flags_say(name):
    """In a process of its own: flags are declared once."""
    code = (
        f"import sys; import launch.{name} as script; from absl import flags; "
        "flags.FLAGS(['x', '--bad_share=0.2', '--heldout_share=0.3', '--split_seed=4']); "
        "print(script.command.reading_options(script.READING))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = CollectionOptions(bad_share=0.2, heldout_share=0.3, split_seed=4)
    assert done.stdout.strip() == str(expected)


def test_the_split_of_docstrings_reaches_reader_table_and_files(models, monkeypatch, tmp_path):
    asked = []

    def read(rest, split, reading):
        asked.append((rest, split, reading))
        return iter([DocstringPair(text, text, "module") for text in PASSAGES[:6]])

    monkeypatch.setattr(sentence_sources, "read_pairs", read)
    reading = CollectionOptions(heldout_share=0.2, split_seed=3)
    flags = {"data": "docstrings:jax", "reading": reading}
    report = TASKS["sections"].report(options(models, FIRST, **flags))
    assert asked == [("jax", "test", reading)]
    where = "docstrings:jax, test (heldout_share 0.2, split_seed 3): 5 triplets"
    assert report.table.startswith(f"sections: {where}")
    assert (report.figures["heldout_share"], report.figures["split_seed"]) == (0.2, 3)
    write_files(report, tmp_path / "x")
    flags |= {"baseline": str(tmp_path / "x.per_query.json")}
    TASKS["sections"].report(options(models, SECOND, **flags))
    flags["reading"] = CollectionOptions(heldout_share=0.2)
    with pytest.raises(UserError, match="of split_seed 3, not 0; use --split_seed=3, or evaluate"):
        TASKS["sections"].report(options(models, SECOND, **flags))


def test_broken_records_of_an_evaluation_are_fatal_above_the_share_that_is_asked_for(
    models, data, tmp_path
):
    broken = tmp_path / "dev.tsv"
    broken.write_text((data / "sts" / "dev.tsv").read_text() + "7\ta\tb\n")
    with pytest.raises(UserError, match="1 of 21 records are broken, above bad_share 0.01; .*:22 "):
        TASKS["sts"].report(options(models, FIRST, data=str(broken)))
    reading = CollectionOptions(bad_share=0.1)
    report = TASKS["sts"].report(options(models, FIRST, data=str(broken), reading=reading))
    assert ": 20 pairs" in report.table


@pytest.mark.parametrize(
    ("task", "flags", "message"),
    [
        ("sts", {"data": ""}, "nothing is neither a file of sentences nor a folder of them; name"),
        ("sts", {"data": "{}/sts"}, "has no split 'test' .test.tsv.; it has: dev"),
        ("sections", {"data": "{}/absent"}, "absent is neither a file of sentences nor a folder"),
        ("retrieval", {"data": "beir:{}", "k": 0}, "--k=0 asks for no passage; use 1 or more"),
        ("retrieval", {"data": ""}, "collection '' names no kind; write KIND:WHERE"),
        ("sts", {"data": "{}/sts/dev.tsv", "baseline": "absent.json"}, "absent.json cannot be rea"),
        ("sts", {"data": "{}/sts/dev.tsv", "baseline": "{}/corpus.jsonl"}, "holds no results of q"),
    ],
)
def test_a_mistake_in_the_data_is_one_line(models, data, no_work, task, flags, message):
    flags = {n: v.format(data) if isinstance(v, str) else v for n, v in flags.items()}
    with pytest.raises(UserError, match=message):
        TASKS[task].report(options(models, FIRST, **flags))


def test_results_of_other_queries_are_refused_before_the_work(searched, models, data, no_work):
    kept = searched[1]["found.per_query.json"]
    folder = shutil.copytree(data, kept.parent / "fewer")
    judged = (folder / "qrels" / "test.tsv").read_text().splitlines(True)
    (folder / "qrels" / "test.tsv").write_text("".join(judged[:-2]))
    flags = {"data": f"beir:{folder}", "baseline": str(kept)}
    with pytest.raises(
        UserError, match=r"other queries: 2 are in .* \(12 then, 10 now\); evaluate"
    ):
        TASKS["retrieval"].report(options(models, FIRST, **flags))


def test_results_of_other_texts_by_the_same_names_are_refused(searched, models, data, tmp_path):
    folder = shutil.copytree(data, tmp_path / "other")
    queries = (folder / "queries.jsonl").read_text()
    (folder / "queries.jsonl").write_text(queries.replace('"text": "', '"text": "the ', 1))
    flags = {"baseline": str(searched[1]["found.per_query.json"]), "bm25": False}
    TASKS["retrieval"].report(options(models, FIRST, data=f"beir:{data}", **flags))
    with pytest.raises(UserError, match=f"asked other texts, of beir:{data}; name results of the"):
        TASKS["retrieval"].report(options(models, FIRST, data=f"beir:{folder}", **flags))


@pytest.mark.parametrize(("task", "file"), [("sts", "sts/dev.tsv"), ("sections", "triplets.tsv")])
def test_results_of_as_many_other_texts_are_refused(models, data, tmp_path, task, file):
    flags = {"data": str(data / file)}
    report = TASKS[task].report(options(models, FIRST, **flags))
    write_files(report, tmp_path / "x")
    flags["baseline"] = str(tmp_path / "x.per_query.json")
    again = TASKS[task].report(options(models, SECOND, **flags)).figures["systems"]
    assert again[FIRST] == report.figures["systems"][FIRST]
    heading, *rows = (data / file).read_text().splitlines(True)
    flags["data"] = str(tmp_path / "turned.tsv")
    (tmp_path / "turned.tsv").write_text(heading + "".join(rows[::-1]))
    with pytest.raises(UserError, match=f"asked other texts, of {data}.*; name results of the sam"):
        TASKS[task].report(options(models, SECOND, **flags))


def test_results_of_another_task_are_refused(searched, models, data, no_work):
    kept = str(searched[1]["found.per_query.json"])
    with pytest.raises(UserError, match="is of task retrieval, not sts; name one of sts"):
        TASKS["sts"].report(options(models, FIRST, data=str(data / "sts/dev.tsv"), baseline=kept))


def test_judgements_and_answers_that_are_not_there_are_missed(models, data, tmp_path):
    bare = shutil.copytree(data, tmp_path / "bare")
    (bare / "answers.jsonl").unlink()
    with pytest.raises(UserError, match="has no answers for test; expected answers.jsonl in a BE"):
        TASKS["open_qa"].report(options(models, FIRST, data=f"beir:{bare}"))
    (bare / "psgs_w100.tsv").write_text("id\ttext\ttitle\n1\tone\ttwo\n")
    (bare / "test.qa.csv").write_text("what is it\t['one']\n")
    with pytest.raises(UserError, match="has no judgements of test; answers alone are for --task"):
        TASKS["retrieval"].report(options(models, FIRST, data=f"dpr:{bare}"))


def test_no_model_an_unknown_task_and_a_flag_of_another_task_are_one_line():
    with pytest.raises(UserError, match="--model is missing; name a work directory, a Hugging"):
        name_models([])
    with pytest.raises(UserError, match="unknown task 'retreival'; did you mean 'retrieval'"):
        choose("task", "retreival", TASKS)
    with pytest.raises(UserError, match="--limit means nothing to task sts; it reads --data, --sp"):
        check_flags("sts", ["data", "limit"])
