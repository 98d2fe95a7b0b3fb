"""What a finished run says of itself is what was found, and when."""

from types import SimpleNamespace

import pytest

from condenser_jax.finished import Finished, model_facts, without_folders
from condenser_jax.methods import configure


def run(method="mlm", init="", **facts):
    """What a model card reads of a finished run."""
    found = SimpleNamespace(
        config=configure({"objective": {"name": method}, "model": {"init": init}}),
        facts={"data": [], "versions": {}, "weights": [], **facts},
        step=30,
        record={"history": {"last": {"heldout/late_loss": 2.0}, "evaluated": 20}},
    )
    assert set(vars(found)) <= set(Finished._fields)
    return found


def test_the_model_card_says_after_which_step_its_figures_were_found():
    assert model_facts(run(), "").evaluation == {"after step": 20, "heldout/late_loss": 2.0}


LAYERS = "layers 1, 3 of the teacher"


@pytest.mark.parametrize(
    ("init", "notes", "expected"),
    [
        ("", ["weights: backbone from scratch"], "random"),
        ("/home/me/runs/mlm", ["weights: backbone: from /home/me/runs/mlm"], "runs/mlm"),
        ("", [f"weights: backbone: {LAYERS} /home/me/runs/big"], f"{LAYERS} runs/big"),
        ("", ["weights: mlm_head: from the teacher a", f"weights: backbone: {LAYERS} a"], LAYERS),
    ],
)
def test_the_model_card_names_where_the_weights_began(init, notes, expected):
    assert model_facts(run(init=init, weights=notes), "").initial_weights.startswith(expected)


def test_the_model_card_of_a_student_names_its_teacher():
    config = {"num_layers": 12, "hidden_size": 768}
    taught = run("kd", teacher={"where": "/home/me/runs/big", "config": config})
    assert model_facts(taught, "").teacher == "runs/big (12 layers x 768)"
    assert model_facts(run(), "").teacher == ""


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
