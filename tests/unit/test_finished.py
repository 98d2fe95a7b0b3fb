"""What a finished run says of itself is what was found, and when."""

from types import SimpleNamespace

import pytest

from condenser_jax.finished import Finished, model_facts, without_folders
from condenser_jax.methods import configure


def test_the_model_card_says_after_which_step_its_figures_were_found():
    run = SimpleNamespace(
        config=configure({"objective": {"name": "mlm"}}),
        facts={"data": [], "versions": {}},
        step=30,
        record={"history": {"last": {"heldout/late_loss": 2.0}, "evaluated": 20}},
    )
    assert set(vars(run)) <= set(Finished._fields)
    assert model_facts(run, "").evaluation == {"after step": 20, "heldout/late_loss": 2.0}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/me/runs/condenser", "runs/condenser"),
        ("runs/condenser", "runs/condenser"),
        ("tevatron:/home/me/my/train.jsonl.gz", "tevatron:my/train.jsonl.gz"),
        (
            "0.8 text:/home/me/*.txt + 0.2 jsonl:a/*.jsonl",
            "0.8 text:me/*.txt + 0.2 jsonl:a/*.jsonl",
        ),
        ("hf:wikimedia/wikipedia:20231101.en", "hf:wikimedia/wikipedia:20231101.en"),
        ("bert-base-uncased", "bert-base-uncased"),
        ("", ""),
    ],
)
def test_a_model_card_does_not_tell_where_things_lie_on_this_machine(text, expected):
    assert without_folders(text) == expected
