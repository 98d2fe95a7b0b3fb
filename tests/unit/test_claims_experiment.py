"""benchmarks/claims.py compares arms at their own best rates, query by query, and says what its
figures are.
"""

import dataclasses
import json
import types
from pathlib import Path

import numpy as np
import pytest

from condenser_jax.errors import UserError
from condenser_jax.pipeline.steps import Pipeline, Step
from condenser_jax.retrieval.collection import Collection
from condenser_jax.retrieval.texts import Text, Texts
from tests.helpers import benchmark_module

QUERIES = ("q0", "q1", "q2", "q3")


@pytest.fixture(scope="module")
def measures():
    return benchmark_module("claims_measures")


@pytest.fixture(scope="module")
def report():
    return benchmark_module("claims_report")


@pytest.fixture(scope="module")
def claims():
    return benchmark_module("claims_flags")


def chosen(claims, monkeypatch, *flags):
    monkeypatch.setattr("sys.argv", ["claims.py", *flags])
    return claims.flags("")


def test_what_is_given_beside_smoke_is_not_ignored(claims, monkeypatch):
    given = chosen(claims, monkeypatch, "--smoke", "--steps=20", "--labels=7", "--batches=8")
    assert (given.steps, given.labels, given.batches) == (20, (7,), (8,))
    assert (given.seeds, given.source, given.collection) == (1, "docstrings:jax", "docstrings:jax")
    assert chosen(claims, monkeypatch, "--smoke").labels == (50, claims.ALL)


def test_another_collection_or_a_checkpoint_has_a_section_of_its_own(report):
    def asked(init, collection):
        return report.section_of(types.SimpleNamespace(init=init, collection=collection))

    spec = ("docstrings:", "beir:data/squad", "beir:data/medquad")
    names, titles = zip(*(asked(init, one) for init in ("", "bert") for one in spec), strict=True)
    assert len(set(names)) == len(set(titles)) == 6
    assert asked("", "docstrings:jax") == asked("", "docstrings:")


@pytest.mark.parametrize("first", [3e-4, 1e-4])
@pytest.mark.parametrize("peak", range(6))
def test_the_best_rate_is_one_whose_neighbours_score_no_better(measures, peak, first):
    asked = []

    def score(rate):
        asked.append(rate)
        return -abs(measures.RATES.index(rate) - peak)

    assert measures.best_rate(score, first) == measures.RATES[peak]
    assert first in asked[:2]
    assert len(asked) == len(set(asked))


def test_equal_scores_do_not_move_the_rate(measures):
    assert measures.best_rate(lambda rate: 0.5) == measures.FIRST_RATE


@pytest.fixture
def cells(monkeypatch):
    """claims_cells with a training that leaves its rate as weights, a dev set that loves 1e-4, and
    a search that may be interrupted.
    """
    module = benchmark_module("claims_cells")
    module.trained, module.searched, module.interrupted_at = [], [], None

    def train(config, directory, began):
        module.trained.append((config.optimizer.learning_rate, config.seed))
        directory.mkdir()
        (directory / "weights").write_text(f"{config.optimizer.learning_rate}")
        return None, {"last": {"heldout/mrr@10": -abs(config.optimizer.learning_rate - 1e-4)}}

    def search(encoder, collection):
        if len(module.searched) == module.interrupted_at:
            raise KeyboardInterrupt
        module.searched.append(encoder)
        return {"MRR@10": {"q0": 0.5}}

    def load(where, dtype):
        return float((Path(where) / "weights").read_text())

    monkeypatch.setattr(module, "train", train)
    monkeypatch.setattr(module, "search", search)
    monkeypatch.setattr(module, "opened", lambda where: None)
    monkeypatch.setattr(module, "Encoder", types.SimpleNamespace(load=load))
    return module


def measured(cells, claims, report, monkeypatch, root):
    args = chosen(claims, monkeypatch, "--seeds=3")
    words = Step("mlm", lambda directory, earlier: {}, {})
    cell = report.Cell("mlm", labels=500)
    return cells.measure(args, Pipeline(root), cell, words, words)


def test_the_test_queries_are_asked_at_the_chosen_rate_alone(
    cells, claims, report, monkeypatch, tmp_path
):
    found = measured(cells, claims, report, monkeypatch, tmp_path)
    assert {(cell.rate, cell.seed) for cell in found} == {(1e-4, 0), (1e-4, 1), (1e-4, 2)}
    assert cells.searched == [1e-4] * 3
    assert len(cells.trained) == len(set(cells.trained)) > 3
    assert not list(tmp_path.rglob("weights"))


def test_an_interrupted_setting_trains_nothing_twice(cells, claims, report, monkeypatch, tmp_path):
    cells.interrupted_at = 1
    with pytest.raises(KeyboardInterrupt):
        measured(cells, claims, report, monkeypatch, tmp_path)
    cells.interrupted_at = None
    assert len(measured(cells, claims, report, monkeypatch, tmp_path)) == 3
    assert cells.searched == [1e-4] * 3
    assert len(cells.trained) == len(set(cells.trained))
    assert not list(tmp_path.rglob("weights"))


def test_queries_that_are_passages_do_not_find_themselves(measures):
    """Neither by an encoder, nor by BM25, as in every other evaluation."""
    texts = Texts.of(Text(f"p{n}", f"word{n} other{n - n % 2}") for n in range(4))
    qrels = {f"p{n}": {f"p{n ^ 1}": 1} for n in range(4)}
    plain = Collection("beir:own", "test", texts, texts, qrels)
    own = Collection("beir:own", "test", texts, texts, qrels, own=frozenset(texts.ids))
    scores = np.full((4, 4), 1.0) + np.eye(4) + np.eye(4)[[1, 0, 3, 2]] / 2

    def search(asked, passages, k):
        best = np.argsort(-scores, 1)[:, :k]
        return best, np.take_along_axis(scores, best, 1)

    encoder = types.SimpleNamespace(search=search)
    for found in (measures.search(encoder, own), measures.bm25(own)):
        assert set(found["MRR@10"].values()) == {1.0}
    assert set(measures.search(encoder, plain)["MRR@10"].values()) == {0.5}


def test_a_collection_without_a_split_is_refused_before_anything_is_trained(
    measures, tmp_path, monkeypatch
):
    monkeypatch.setenv("CONDENSER_JAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "qrels").mkdir()
    for name in ("corpus", "queries"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"_id": "a", "text": "a text"}))
    for split in ("train", "dev"):
        (tmp_path / "qrels" / f"{split}.tsv").write_text("a\ta\t1\n")
    with pytest.raises(UserError, match="has no split 'test' .*; it has: dev, train"):
        measures.check_collection(f"beir:{tmp_path}")
    (tmp_path / "psgs_w100.tsv").write_text("1\ta text\ta title\n")
    (tmp_path / "train.qa.tsv").write_text("a question\t['an answer']\n")
    with pytest.raises(UserError, match="has no judgements of train; expected those of train, dev"):
        measures.check_collection(f"dpr:{tmp_path}")


@pytest.fixture
def found(report):
    """Two arms, three seeds; the second arm has the better answer for every query."""
    cells = {}
    for arm, base in ((report.START, 0.0), ("mlm", 0.5)):
        for seed in range(3):
            values = {query: base + 0.1 * seed for query in QUERIES}
            cell = report.Cell(arm, seed, rate=1e-3, labels=500)
            cells[cell] = {"MRR@10": values, "Recall@100": dict.fromkeys(QUERIES, 1.0)}
        nothing = report.Cell(arm, labels=report.NO_LABELS)
        cells[nothing] = {name: dict.fromkeys(QUERIES, base) for name in ("MRR@10", "Recall@100")}
    return cells


@pytest.fixture
def figures(report, found):
    bm25 = {"MRR@10": dict.fromkeys(QUERIES, 0.4)}
    return report.figures_of(found, bm25, {"init": ""})


def test_arms_are_compared_query_by_query_by_the_mean_over_seeds(figures):
    setting = "500 labels, batch 32, 0% wrong"
    assert figures.means["mlm"][setting] == pytest.approx((0.6, 0.1))
    assert figures.tests == {
        "mlm - start": {
            setting: pytest.approx([0.5, 2 / 2 ** len(QUERIES)]),
            "nothing: no labels": pytest.approx([0.5, 2 / 2 ** len(QUERIES)]),
        }
    }
    assert (figures.queries, figures.bm25) == (4, pytest.approx(0.4))


def test_the_section_says_what_its_deviations_are_of(report, found, figures):
    lines = list(report.section_lines(found, figures))
    assert "standard deviation over 3 seeds of fine-tuning; in brackets Recall@100" in lines[0]
    assert "pre-trained once" in lines[0] and "BM25, which needs no labels: **0.400**" in lines[0]
    assert "| fine-tuned with | random start | mlm |" in lines
    assert (
        "| 500 labels, batch 32, 0% wrong | 0.100 ± 0.100 (1.00) | 0.600 ± 0.100 (1.00) |" in lines
    )
    assert "| nothing: no labels | 0.000 (0.00) | 0.500 (0.50) |" in lines  # one seed: no deviation
    assert "| 500 labels, batch 32, 0% wrong | +0.5000, 0.12 |" in lines
    rates = lines[
        lines.index("Learning rates of fine-tuning, chosen on dev queries with the first seed:") :
    ]
    assert "| 500 labels, batch 32, 0% wrong | 0.001 | 0.001 |" in rates
    assert not any("no labels" in line for line in rates)


def test_a_panel_changes_one_thing_and_is_left_out_where_nothing_changes(report):
    picture = benchmark_module("claims_picture")
    cells = [report.Cell("mlm", labels=n) for n in (report.ALL, 500, 2000, report.NO_LABELS)]
    (few,) = picture.panels(cell.setting for cell in cells)
    assert list(few.ticks) == ["none", "500", "2,000", "all"]
    cells += [report.Cell("mlm", batch=n) for n in (128, 8)] + [report.Cell("mlm", wrong=0.4)]
    _, batches, wrong = picture.panels(cell.setting for cell in cells)
    assert list(batches.ticks) == ["8", "32", "128"]
    assert wrong.ticks == {"0%": (report.ALL, 32, 0.0), "40%": (report.ALL, 32, 0.4)}


def test_the_picture_has_a_line_of_every_arm(report, found, figures, tmp_path, monkeypatch):
    picture, drawn = benchmark_module("claims_picture"), []
    monkeypatch.setattr(picture, "draw_panel", lambda axes, title, lines: drawn.append(lines))
    picture.draw(found, figures, tmp_path / "x.png")
    ((first, second),) = drawn
    assert first.curve == ([0, 1], pytest.approx([0.0, 0.1]))
    assert second.curve == ([0, 1], pytest.approx([0.5, 0.6]))
    assert first.look["color"] != second.look["color"]
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_last_values_stand_at_the_ends_of_their_lines_in_panels_that_share_their_heights(
    report, tmp_path, monkeypatch
):
    cells = [report.Cell("mlm", labels=n) for n in (report.NO_LABELS, report.ALL)]
    cells += [report.Cell("mlm", batch=128)]
    heights = dict(zip(cells, (0.1, 0.2, 0.9), strict=True))
    means = {"mlm": {report.words(cell.setting): (heights[cell], None) for cell in cells}}
    figures = report.Figures({"init": ""}, 4, 0.4, means, {}, {})
    picture, panels = benchmark_module("claims_picture"), []
    draw_panel = picture.draw_panel
    monkeypatch.setattr(
        picture, "draw_panel", lambda axes, *rest: panels.append(axes) or draw_panel(axes, *rest)
    )
    picture.draw(cells, figures, tmp_path / "x.png")
    for axes, last in zip(panels, (0.2, 0.9), strict=True):
        to_panel = axes.transScale + axes.transLimits
        (label,) = axes.texts
        assert label.get_position()[1] == pytest.approx(to_panel.transform((0, last))[1])


def test_the_legend_stays_within_a_picture_of_one_panel(report, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    cells = [report.Cell("a", labels=n) for n in (report.NO_LABELS, report.ALL)]
    points = {report.words(cell.setting): (0.5, None) for cell in cells}
    means = {f"{name}: the checkpoint as it is": points for name in "abcd"}
    drawn, save = [], Figure.savefig

    def saved(figure, *where, **how):
        drawn.append(figure)
        save(figure, *where, **how)

    monkeypatch.setattr(Figure, "savefig", saved)
    figures = report.Figures({"init": ""}, 4, 0.4, means, {}, {})
    benchmark_module("claims_picture").draw(cells, figures, tmp_path / "x.png")
    (figure,) = drawn
    assert figure.legends[0].get_window_extent().x1 <= figure.bbox.x1


@pytest.mark.parametrize(("bm25", "lines"), [(0.3, 1), (0.9, 0)])
def test_bm25_is_a_line_where_it_lies_among_the_arms(
    report, found, figures, tmp_path, monkeypatch, bm25, lines
):
    picture, panels = benchmark_module("claims_picture"), []
    monkeypatch.setattr(picture, "draw_panel", lambda axes, title, lines: panels.append(axes))
    picture.draw(found, dataclasses.replace(figures, bm25=bm25), tmp_path / "x.png")
    heights = [line.get_ydata() for axes in panels for line in axes.get_lines()]
    assert heights == [[bm25, bm25]] * lines


def test_arms_and_settings_can_be_chosen(claims, monkeypatch):
    few = ("--arms=start,mlm", "--labels=500", "--batches=8,32", "--wrong=0,0.4")
    cells = claims.settings(chosen(claims, monkeypatch, *few))
    assert len(cells) == 2 * 4 and {cell.arm for cell in cells} == {"start", "mlm"}
    everything = claims.settings(chosen(claims, monkeypatch))
    assert len(everything) == 4 * 8 + 2 * 4 and set(cells) <= set(everything)


def test_without_labels_only_a_random_start_depends_on_the_seed(claims, report, monkeypatch):
    args = chosen(claims, monkeypatch)
    nothing = [report.Cell(arm, labels=report.NO_LABELS) for arm in ("start", "mlm")]
    assert [len(claims.seeds_of(args, cell)) for cell in nothing] == [3, 1]
    assert len(claims.seeds_of(args, report.Cell("mlm"))) == 3
    continued = chosen(claims, monkeypatch, "--init=mini/model")
    assert [len(claims.seeds_of(continued, cell)) for cell in nothing] == [1, 1]


@pytest.mark.parametrize(("layers", "init"), [(2, ""), (6, "mini/model"), (12, "bert")])
def test_arms_differ_in_their_method_alone_and_heads_read_tokens_half_way_up(
    claims, monkeypatch, layers, init
):
    arms = benchmark_module("claims_arms")
    backbone = types.SimpleNamespace(num_layers=layers)
    found = types.SimpleNamespace(config=backbone) if init else None
    monkeypatch.setattr(arms, "initial_checkpoint", {init: found}.__getitem__)
    monkeypatch.setattr(arms, "training_step", lambda name, config, init=None: (config, init))
    made = arms.arms(chosen(claims, monkeypatch, f"--init={init}", "--steps=50"))
    assert made.pop("start") is None
    (contrast, (half, _)) = made.pop("cocondenser")
    configs = {name: config for name, (config, _) in made.items()} | {"half": half}
    assert half.training.steps + contrast.training.steps == 100
    assert contrast.optimizer.learning_rate == half.optimizer.learning_rate / 2
    for name, config in configs.items():
        assert (config.data, config.model) == (half.data, half.model), name
        assert config.training.steps == (50 if name == "half" else 100)
    early = {name: getattr(c.objective, "early_layer", None) for name, c in configs.items()}
    assert early == {
        "mlm": None,
        "condenser": layers // 2,
        "half": layers // 2,
        "condenser-early-layer-0": 0,
        "condenser-no-late-MLM": layers // 2,
    }
    assert contrast.objective.early_layer == layers // 2
    late = {name for name, c in configs.items() if getattr(c.objective, "late_mlm", True)}
    assert configs.keys() - late == {"condenser-no-late-MLM"}


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--seeds=0", "argument --seeds: 0 is no count; expected a whole number from 1"),
        ("--arms=mlm,condensor", "argument --arms: unknown 'condensor'; expected some of start, "),
        ("--labels=few", "argument --labels: few is no count; expected a whole number from 0"),
        ("--labels=-1", "argument --labels: -1 is no count"),
        ("--wrong=0,1.5", "argument --wrong: 1.5 is no share; expected 0 or more, and under 1"),
        ("--wrong=some", "argument --wrong: some is no list of shares"),
        ("--examples=100", "--examples=100 is less than a batch of 128"),
        ("--batches=8,0", "argument --batches: 0 is no count"),
    ],
)
def test_flags_that_fit_nothing_are_refused(claims, monkeypatch, capsys, flag, message):
    with pytest.raises(SystemExit) as refused:
        chosen(claims, monkeypatch, flag)
    assert refused.value.code == 2 and message in capsys.readouterr().err
