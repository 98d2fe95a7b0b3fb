"""Results stand side by side, whatever each system has."""

from condenser_jax.retrieval.tables import as_markdown, as_text

RESULTS = {"BM25": {"MRR@10": 0.42, "queries": 1730}, "a|b": {"MRR@10": 0.5, "p": 0.0312}}


def test_text_is_aligned():
    assert as_text(RESULTS).splitlines() == [
        "system  MRR@10  queries       p",
        "BM25    0.4200    1,730       -",
        "a|b     0.5000        -  0.0312",
    ]


def test_markdown_keeps_its_columns():
    assert as_markdown(RESULTS).splitlines() == [
        "| system | MRR@10 | queries | p |",
        "| --- | ---: | ---: | ---: |",
        "| BM25 | 0.4200 | 1,730 | - |",
        "| a\\|b | 0.5000 | - | 0.0312 |",
    ]
