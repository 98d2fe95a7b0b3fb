"""The recipe of launch/export.py: a run's checkpoint becomes a directory for others to load, which
must give the vectors of the run, whoever loads it, or it is not written.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from condenser_jax.data.hashing import integers_below
from condenser_jax.encoder import Encoder
from condenser_jax.encoder_source import KINDS, PASSAGE, QUERY, card_of, source_of_run
from condenser_jax.errors import RunFailed, UserError
from condenser_jax.finished import Finished, model_facts, read_run
from condenser_jax.glue.tasks import find_task
from condenser_jax.hf.classifier_export import Head, export_classifier, logits_of
from condenser_jax.hf.export import export
from condenser_jax.hf.load import QUERY_ENCODER
from condenser_jax.hf.onnx_file import ONNX_FILE, check_packages, run_onnx
from condenser_jax.models.config import BackboneConfig

TOLERANCE = 1e-4  # between vectors of the run and of the directory, in float32
SENTENCES = (
    "The Condenser skips early states to its head.",
    "",
    "Dense retrieval compares vectors, not words; words that are never seen together may be near.",
)
OF_TOKENS = (5, 40, 2000)  # lengths of texts of arbitrary tokens; the last one is cut
Encode = Callable[[list[str], str], np.ndarray]  # texts and their kind -> vectors [n, D]


class Exported(NamedTuple):
    """What was written, and how far its vectors are from those of the run, by who loads it."""

    directory: Path
    differences: dict[str, float]


def export_run(
    path: str | Path, output: str | Path, step: str, licence: str = "", with_onnx: bool = False
) -> Exported:
    """Writes the Hugging Face directory of a run's checkpoint, and checks it first.

    Args:
      path: the work directory.
      output: what `Encoder`, `AutoModel` and `SentenceTransformer` load.
      step: "last", "best" or a step's number.
      licence: SPDX name for the model card.
      with_onnx: adds an ONNX graph.

    Raises UserError for what `export` and `read_run` refuse, and for `with_onnx` without its
    packages; RunFailed if the vectors differ by TOLERANCE or more, and then nothing is written.
    """
    from transformers.utils.logging import disable_progress_bar

    if with_onnx:
        check_packages()
    disable_progress_bar()  # of the weights that are loaded for the check
    run = read_run(path, step)
    if "classifier" in run.params:
        return _export_classifier(run, output, licence, with_onnx)
    source = source_of_run(str(path), run)
    ours = Encoder(source, card_of(source))
    differences: dict[str, float] = {}

    def check(directory: Path) -> None:
        differences.update(differences_of(ours, directory))

    directory = export(
        run.params,
        run.backbone,
        run.workdir.tokenizer,
        output,
        run.card,
        model_facts(run, licence),
        early_layer=run.early_layer,
        with_onnx=with_onnx,
        check=check,
    )
    return Exported(directory, differences)


def _export_classifier(
    run: Finished, output: str | Path, licence: str, with_onnx: bool
) -> Exported:
    """A fine-tuned classifier, whose logits are compared where torch is installed."""
    if with_onnx:
        raise UserError(
            f"{run.workdir.root} is a classifier, and --onnx writes encoders; leave it out"
        )
    options, differences = run.config.objective, dict[str, float]()
    task = find_task(options.task)
    ids = sample_ids(run.backbone)
    batch = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": 0 * ids}

    def check(directory: Path) -> None:
        theirs = logits_of(directory, ids)
        if theirs is None:
            return
        ours = run.objective.predict["logits"](run.params, {}, batch)
        differences["transformers"] = float(np.abs(theirs - np.asarray(ours)).max())
        _check_difference("transformers", differences["transformers"], "logits")

    directory = export_classifier(
        run.params,
        run.backbone,
        Head(task.name, task.labels, options.head_dropout),
        run.workdir.tokenizer,
        output,
        run.card,
        model_facts(run, licence),
        check,
    )
    return Exported(directory, differences)


def sample_ids(backbone: BackboneConfig) -> np.ndarray:
    """Token ids [1, L] to compare by: words alone, for transformers gives padding in a text another
    position than we do (of a RoBERTa, it counts what is none).
    """
    words = np.delete(np.arange(backbone.vocab_size), backbone.pad_token_id)
    return np.resize(words, (1, OF_TOKENS[1]))


def _check_difference(name: str, difference: float, what: str) -> None:
    if not difference < TOLERANCE:
        raise RunFailed(
            f"the export is not written: loaded by {name} its {what} differ by {difference:.1e} "
            f"from those of the run, allowed {TOLERANCE:.0e}; are the tokenizer and the card those "
            "of the run?"
        )


def differences_of(ours: Encoder, directory: Path) -> dict[str, float]:
    """How far the vectors of an exported directory are from ours, by who loads it: `Encoder`,
    sentence-transformers where it is installed, ONNX Runtime where there is a graph.

    Raises RunFailed for TOLERANCE or more.
    """
    texts = sample_texts(ours.source.tokenizer)
    found = {}
    expected = {kind: ours.encode(texts, kind) for kind in KINDS}
    for name, encode in _readers(directory).items():
        apart = (np.abs(encode(texts, kind) - expected[kind]).max() for kind in KINDS)
        found[name] = float(max(apart))
    for name, difference in found.items():
        _check_difference(name, difference, "vectors")
    return found


def sample_texts(tokenizer: Any) -> list[str]:
    """A few sentences, and texts of arbitrary tokens: short, long and too long."""
    texts = list(SENTENCES)
    for length in OF_TOKENS:
        ids = integers_below(len(tokenizer), length, np.arange(length))
        texts.append(tokenizer.decode(ids, skip_special_tokens=True))
    return texts


def _readers(directory: Path) -> dict[str, Encode]:
    encoder = Encoder.load(directory)
    found: dict[str, Encode] = {"condenser_jax": encoder.encode}
    if theirs := _sentence_transformers(directory, encoder):
        found["sentence-transformers"] = theirs
    if (directory / ONNX_FILE).is_file():
        found["ONNX Runtime"] = _onnx_runtime(directory, encoder)
    return found


def _sentence_transformers(directory: Path, encoder: Encoder) -> Encode | None:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        return None
    models = {
        kind: SentenceTransformer(str(where), device="cpu", trust_remote_code=False)
        for kind, where in _directories(directory).items()
    }

    def encode(texts: list[str], kind: str) -> np.ndarray:
        model = models[kind]
        # Its files have one length, that of passages; versions before 6 refuse a second one.
        model.max_seq_length = getattr(encoder.card, f"{kind}_max_length")
        run = model.encode_query if kind == QUERY else model.encode_document
        return run(texts, show_progress_bar=False)

    return encode


def _directories(directory: Path) -> dict[str, Path]:
    """Where the encoder of each kind of text lies."""
    own = directory / QUERY_ENCODER
    return {PASSAGE: directory, QUERY: own if own.is_dir() else directory}


def _onnx_runtime(directory: Path, encoder: Encoder) -> Encode:
    """Tokens as transformers makes them."""
    tokenizer = encoder.source.tokenizer

    def encode(texts: list[str], kind: str) -> np.ndarray:
        prefix = getattr(encoder.card, f"{kind}_prefix")
        length = getattr(encoder.card, f"{kind}_max_length")
        tokens = tokenizer(
            [prefix + text for text in texts],
            truncation=True,
            max_length=length,
            padding=True,
            return_tensors="np",
        )
        graph = _directories(directory)[kind] / ONNX_FILE
        return run_onnx(graph, tokens["input_ids"], tokens["attention_mask"])

    return encode
