"""Condenser in PyTorch: as a user of transformers writes it, and as `pretense` has it.

sdpa attention, fused AdamW, clipping, autocast to bfloat16 on a GPU. "As shipped" means what the
masked-LM class of transformers does: logits at every position, labels of -100 where there is
nothing to predict.
"""

import resource
from collections.abc import Callable

import torch
import transformers
from condenser_job import (
    CLIP_NORM,
    DROPOUT,
    HEAD_LAYERS,
    LEARNING_RATE,
    VOCABULARY,
    WEIGHT_DECAY,
    Contender,
    Job,
    make_batch,
)
from torch.nn.functional import cross_entropy
from transformers.models.bert.modeling_bert import BertLayer

IGNORED = -100
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Condenser(torch.nn.Module):
    """BERT with its MLM head, and a Condenser head of transformers' own layers."""

    def __init__(self, job: Job, only_masked: bool) -> None:
        super().__init__()
        self.language_model = _language_model(job)
        config = self.language_model.config
        self.head = torch.nn.ModuleList(BertLayer(config) for _ in range(HEAD_LAYERS))
        self.early_layer, self.only_masked = job.early_layer, only_masked

    def forward(self, input_ids, positions, labels) -> torch.Tensor:
        """ids [B, L]; masked positions [B, M]; labels [B, L] (-100: none), or [B, M]."""
        states = self.language_model.bert(input_ids, output_hidden_states=True).hidden_states
        late, early = states[-1], states[self.early_layer]
        head = torch.cat([late[:, :1], early[:, 1:]], dim=1)
        for layer in self.head:
            head = layer(head)
        return self._masked_lm(head, positions, labels) + self._masked_lm(late, positions, labels)

    def _masked_lm(self, states, positions, labels) -> torch.Tensor:
        if self.only_masked:
            states = states.take_along_dim(positions[..., None], dim=1)
        logits = self.language_model.cls(states)
        return cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED)


def _language_model(job: Job) -> transformers.BertForMaskedLM:
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=job.width,
        num_hidden_layers=job.layers,
        num_attention_heads=job.heads,
        intermediate_size=job.inner,
        max_position_embeddings=max(512, job.length),
        hidden_dropout_prob=DROPOUT,
        attention_probs_dropout_prob=DROPOUT,
        attn_implementation="sdpa",
    )
    return transformers.BertForMaskedLM(config)


def make(job: Job, only_masked: bool = False, compiled: bool = False) -> Contender:
    """PyTorch's step; raises what torch raises where it cannot compile."""
    torch.manual_seed(0)
    batch = _batch(job)
    labels = batch["masked_ids"] if only_masked else batch["labels"]
    model = Condenser(job, only_masked).train().to(DEVICE)
    forward = torch.compile(model) if compiled else model
    return _contender(
        job, model, lambda: forward(batch["input_ids"], batch["masked_positions"], labels)
    )


def make_pretense(job: Job) -> Contender:
    """The step of `pretense`'s Condenser; its skip layer is by default our early layer."""
    import pretense

    torch.manual_seed(0)
    batch = _batch(job)
    method = pretense.MethodConfig(name="condenser", head_layers=HEAD_LAYERS)
    model = pretense.create_pretraining_model(method, _language_model(job)).train().to(DEVICE)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}
    contender = _contender(job, model, lambda: model(**inputs).loss)
    return contender._replace(versions=contender.versions | {"pretense": pretense.__version__})


def _batch(job: Job) -> dict[str, torch.Tensor]:
    numpy = make_batch(job)
    batch = {name: torch.as_tensor(values).long().to(DEVICE) for name, values in numpy.items()}
    labels = torch.full_like(batch["input_ids"], IGNORED)
    return batch | {"labels": labels.scatter(1, batch["masked_positions"], batch["masked_ids"])}


def _contender(job: Job, model: torch.nn.Module, forward: Callable) -> Contender:
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    narrow = job.dtype == "bfloat16"

    def run(steps: int) -> float:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(DEVICE, torch.bfloat16, enabled=narrow):
                loss = forward()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()
        return loss.item()

    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    name = torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu"
    return Contender(run, _peak_memory, versions, name)


def _peak_memory() -> int:
    if DEVICE == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
