"""Every kind of teacher is found, predicts what transformers does, and teaches.

Reference: AutoModelForMaskedLM, torch on CPU, float32; logits within 1e-5 of the largest. Negative
control: another bias of the head's normalisation.
"""

import functools

import jax
import numpy as np
import pytest

from condenser_jax.build import build
from condenser_jax.finished import read_run
from condenser_jax.hf.card import EncoderCard
from condenser_jax.hf.export import export
from condenser_jax.hf.model_card import Facts
from condenser_jax.models.config import ComputeConfig
from condenser_jax.objectives.distillation import TEACHER
from condenser_jax.objectives.language_model import LanguageModel
from condenser_jax.teachers import find_teacher
from tests.distillation import documents, saved, small_run
from tests.helpers import QUICK
from tests.hf_models import WORDS
from tests.unit.test_unmaskable import byte_level_bpe, wordpiece

torch = pytest.importorskip("torch", reason="compares with torch, which is not installed")

SIZES = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)
KINDS = {  # what sets a type of transformers apart
    "roberta": {
        "vocab_size": 333,
        "type_vocab_size": 1,
        "pad_token_id": 1,
        "layer_norm_eps": 1e-5,
    },
    "electra": {"vocab_size": 203, "embedding_size": 8},
}
TOKENIZERS = {"roberta": byte_level_bpe, "electra": wordpiece}  # of at most 330 and 200 tokens


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """(method, overrides of sections) -> a small run."""
    return functools.partial(small_run, documents(tmp_path_factory.mktemp("taught"), WORDS))


def published(model_type, folder):
    """A masked language model of random weights, as transformers saves it."""
    from transformers import AutoConfig, AutoModelForMaskedLM

    torch.manual_seed(0)
    kind = AutoConfig.for_model(model_type, **SIZES, **KINDS[model_type])
    model = AutoModelForMaskedLM.from_config(kind)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    TOKENIZERS[model_type]([" ".join(WORDS)] * 9, folder)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def condenser(config, tmp_path_factory):
    """(work directory, export) of a Condenser."""
    folder = tmp_path_factory.mktemp("condenser")
    run = read_run(saved(config("condenser", objective={"early_layer": 1}), folder / "run"))
    card, facts = EncoderCard(passage_max_length=14, query_max_length=14), Facts("condenser")
    how = run.workdir.tokenizer, folder / "export", card, facts
    return run.workdir.root, export(run.params, run.backbone, *how, early_layer=1)


@pytest.fixture(
    scope="module", params=["roberta", "electra generator", "condenser run", "condenser export"]
)
def kinds(request, condenser, tmp_path_factory):
    """(where a teacher is, a directory of its weights for transformers)."""
    family, _, kind = request.param.partition(" ")
    if family == "condenser":
        return condenser[kind == "export"], condenser[1]
    folder = published(family, tmp_path_factory.mktemp(family) / "teacher")
    return folder, folder


def test_a_teacher_predicts_what_transformers_does(kinds):
    from transformers import AutoModelForMaskedLM

    where, directory = kinds
    found = find_teacher(str(where))
    size = found.config.vocab_size
    ids = np.random.default_rng(0).integers(5, size, (2, 9))
    teacher, mask = LanguageModel(found.config, ComputeConfig()), np.ones_like(ids)
    mask[1, 6:], ids[1, 6:] = 0, found.config.pad_token_id

    @jax.jit
    def predict(params):
        batch = {"input_ids": ids, "attention_mask": mask}
        return teacher.logits(params, teacher.encode(params, batch)[0])

    ours = np.asarray(predict(found.frozen("float32")[TEACHER]))[mask > 0]
    model, report = AutoModelForMaskedLM.from_pretrained(directory, output_loading_info=True)
    assert not report["missing_keys"] and not report["mismatched_keys"]
    inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
    with torch.no_grad():
        theirs = model.eval()(**inputs).logits.numpy()[mask > 0]
    largest = np.abs(theirs).max()
    assert np.abs(ours[:, :size] - theirs).max() < 1e-5 * largest
    assert ours[:, size:].max(initial=-1e9) < -1e8
    head = found.weights["mlm_head"]
    norm = head["layer_norm"] | {"bias": 1.0 + head["layer_norm"]["bias"]}
    others = np.asarray(predict(found.weights | {"mlm_head": head | {"layer_norm": norm}}))
    assert np.abs(others[mask > 0][:, :size] - theirs).max() > 1e-2 * largest


@pytest.mark.slow
def test_a_student_learns_of_it(kinds, config):
    sizes = {"hidden_size": 12, "num_layers": 1, "intermediate_size": 20}
    objective = {"teacher": str(kinds[0]), "least_accuracy": 0.0}
    fast = {"learning_rate": 0.03, "warmup": 0.0}
    run = build(config("kd", model=sizes, objective=objective, optimizer=fast)).run
    step, state = run.lower_step(("train",)).compile(QUICK), run.initial_state()
    batch, losses = run.batches.batch(0), []
    for _ in range(8):
        state, metrics = step(state, run.placed, batch, run.dials)
        losses.append(float(metrics["train/kd_loss"].total / metrics["train/kd_loss"].count))
    assert losses[-1] < 0.8 * losses[0]
