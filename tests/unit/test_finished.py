"""What a finished run says of itself is what was found, and when."""

from types import SimpleNamespace

from condenser_jax.finished import Finished, model_facts
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
