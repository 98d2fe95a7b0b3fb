"""Classifiers compute what transformers' classes for sequence classification compute.

Reference: BertForSequenceClassification and the like, eager attention, float64: loss and gradient
of every parameter within 1e-9 of the largest element. Negative controls: another activation in the
head, token types that are left out.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="compares with torch, which is not installed")
transformers = pytest.importorskip("transformers")

from condenser_jax.hf import names  # noqa: E402
from condenser_jax.hf.config import config_to_hf  # noqa: E402
from condenser_jax.models import classifier as heads  # noqa: E402
from condenser_jax.models.config import ComputeConfig  # noqa: E402
from condenser_jax.objectives import classifier  # noqa: E402
from tests.helpers import (  # noqa: E402
    assert_close,
    compile_quickly,
    random_params,
    tiny_backbone,
)
from tests.parity.torch_reference import as_theirs  # noqa: E402
from tests.text_batches import labelled_batch  # noqa: E402

TYPES = {"bert": "Bert", "roberta": "Roberta", "electra": "Electra"}
LABELS = {
    "mnli": np.array([0, 2, 1, 1], np.int32),
    "stsb": np.array([0.0, 4.2, 2.5, 5.0], np.float64),
}


class Case:
    """A tiny classifier with random weights, ours and theirs, and what both make of a batch."""

    def __init__(self, model_type: str, task: str) -> None:
        is_roberta = model_type == "roberta"
        self.config = tiny_backbone(
            model_type=model_type,
            num_layers=1,
            type_vocab_size=1 if is_roberta else 2,
            pad_token_id=1 if is_roberta else 0,
            hidden_dropout=0.0,
            attention_dropout=0.0,
            embedding_size=8 if model_type == "electra" else None,
        )
        self.options = classifier.ClassifierConfig(task=task)
        self.batch = labelled_batch(self.config, LABELS[task])
        self.params = random_params(self._build(lean=True), "float64")

    def _build(self, lean: bool):
        compute = ComputeConfig(dtype="float64", lean=lean)
        return classifier.build(self.config, compute, self.options)

    def loss(self, params, batch, lean: bool = True):
        objective = self._build(lean)
        return objective.losses(params, {}, batch, objective.counts(batch), None)["train"].value

    def ours(self, lean: bool = True):
        """Loss, and {Hugging Face name: gradient}."""
        function = jax.value_and_grad(functools.partial(self.loss, lean=lean))
        run = compile_quickly(function, self.params, self.batch)
        value, gradients = jax.device_get(run(self.params, self.batch))
        return float(value), as_theirs(self.config, gradients)

    def our_loss(self, **changes):
        """The loss alone, of a batch with changes."""
        batch = self.batch | changes
        return float(compile_quickly(self.loss, self.params, batch)(self.params, batch))

    def theirs(self):
        """The same by transformers."""
        kind, outputs = TYPES[self.config.model_type], self.params["classifier"]["output"]["bias"]
        fields = config_to_hf(self.config, has_mlm_head=False) | {"attn_implementation": "eager"}
        hf_config = getattr(transformers, f"{kind}Config")(**fields, num_labels=len(outputs))
        model = getattr(transformers, f"{kind}ForSequenceClassification")(hf_config).double().eval()
        own, tensors = dict(model.named_parameters()), as_theirs(self.config, self.params)
        assert set(own) == set(tensors)
        with torch.no_grad():
            for name, tensor in tensors.items():
                own[name].copy_(torch.tensor(tensor))
        inputs = {n: torch.tensor(x) for n, x in self.batch.items() if n != "labels"}
        if self.config.type_vocab_size == 1:
            del inputs["token_type_ids"]
        labels = torch.tensor(self.batch["labels"])
        labels = labels if labels.dtype == torch.float64 else labels.long()
        loss = model(**{n: x.long() for n, x in inputs.items()}, labels=labels).loss
        loss.backward()
        return loss.item(), {name: p.grad.numpy() for name, p in own.items()}


CASES = [("bert", "mnli"), ("bert", "stsb"), ("roberta", "mnli"), ("electra", "mnli")]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request):
    with jax.enable_x64(True):
        return Case(*request.param)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def theirs(case):
    return case.theirs()


def test_loss_and_gradient_are_those_of_transformers(case, theirs):
    loss, gradients = case.ours()
    assert loss == pytest.approx(theirs[0], rel=1e-9)
    assert_close(gradients, theirs[1], 1e-9)


def test_the_plain_form_computes_the_same(case, theirs):
    assert case.loss(case.params, case.batch, lean=False) == pytest.approx(theirs[0], rel=1e-9)


def test_another_activation_in_the_head_is_noticed(case, theirs, monkeypatch):
    if case.config.has_pooler:
        monkeypatch.setattr(heads.jnp, "tanh", jax.nn.gelu)
    else:
        wrong = {"roberta": jax.nn.gelu, "electra": jnp.tanh}
        monkeypatch.setattr(heads, "ACTIVATIONS", wrong)
    assert abs(case.our_loss() - theirs[0]) > 1e-3


def test_token_types_count_where_there_are_two(case, theirs):
    without = case.our_loss(token_type_ids=np.zeros_like(case.batch["token_type_ids"]))
    difference = abs(without - theirs[0])
    assert (difference > 1e-3) == (case.config.type_vocab_size > 1)


def test_the_table_of_names_has_every_parameter(case):
    for group in ("pooler", "classifier"):
        if group in case.params:
            count = len(case.params["classifier"]["output"]["bias"])
            paths = {path for path, _ in names.flatten(case.params[group])}
            assert paths == {entry.path for entry in names.entries(case.config, group, count)}
