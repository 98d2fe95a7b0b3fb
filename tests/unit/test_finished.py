"""What a finished run says of itself is what was found, and when."""

from types import SimpleNamespace

from condenser_jax.config import read_config
from condenser_jax.finished import Finished, model_facts
from condenser_jax.methods import METHODS

OPTIONS = {name: method.options for name, method in METHODS.items()}


def test_the_model_card_says_after_which_step_its_figures_were_found():
    run = SimpleNamespace(
        config=read_config({"objective": {"name": "mlm"}}, OPTIONS),
        facts={"data": [], "versions": {}},
        step=30,
        record={"history": {"last": {"heldout/late_loss": 2.0}, "evaluated": 20}},
    )
    assert set(vars(run)) <= set(Finished._fields)
    assert model_facts(run, "").evaluation == {"after step": 20, "heldout/late_loss": 2.0}
