"""Condenser composed of transformers' own layers, in float64: what parity tests compare with."""

from typing import Any

import numpy as np
import torch
import transformers
from transformers.models.bert.modeling_bert import BertLayer
from transformers.models.roberta.modeling_roberta import RobertaLayer

from condenser_jax.hf.config import config_to_hf
from condenser_jax.hf.names import entries, flatten
from condenser_jax.models.config import BackboneConfig

CLASSES = {
    "bert": (transformers.BertConfig, transformers.BertForMaskedLM, BertLayer),
    "roberta": (transformers.RobertaConfig, transformers.RobertaForMaskedLM, RobertaLayer),
}
NOT_ATTENDED = torch.finfo(torch.float64).min


class Reference:
    """transformers' masked-LM model and Condenser head layers with our parameters, no dropout."""

    def __init__(self, config: BackboneConfig, params: dict[str, Any]) -> None:
        config_class, model_class, layer_class = CLASSES[config.model_type]
        fields = config_to_hf(config, has_mlm_head=True) | {"attn_implementation": "eager"}
        hf_config = config_class(**fields)
        self.model = model_class(hf_config).double().eval()
        self.encoder = getattr(self.model, config.model_type)
        self.predict = self.model.cls if config.model_type == "bert" else self.model.lm_head
        layers = range(len(params.get("condenser_head", {})))
        self.head = torch.nn.ModuleList(layer_class(hf_config) for _ in layers).double().eval()
        self._load(config, params)

    def _load(self, config: BackboneConfig, params: dict[str, Any]) -> None:
        tensors = {name: torch.tensor(x) for name, x in as_theirs(config, params).items()}
        with torch.no_grad():
            own = self.parameters()
            for name, tensor in tensors.items():
                own[name].copy_(tensor)
        assert set(tensors) <= set(own)

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """{name: parameter}, tied ones under all of their names."""
        named = dict(self.model.named_parameters(remove_duplicate=False))
        return named | {f"c_head.{name}": p for name, p in self.head.named_parameters()}

    def hidden_states(self, batch: dict[str, np.ndarray]) -> list[torch.Tensor]:
        """The embedding output and the output of every layer, each [B, L, D]."""
        states = [self.encoder.embeddings(torch.tensor(batch["input_ids"]).long())]
        for layer in self.encoder.encoder.layer:
            states.append(layer(states[-1], additive_mask(batch)))
        return states

    def condenser_loss(
        self, batch, early_layer: int, late_mlm: bool, swapped: bool = False
    ) -> torch.Tensor:
        """The sum of head and late MLM means; `swapped` feeds [early CLS; late] to the head."""
        states = self.hidden_states(batch)
        late, early = states[-1], states[early_layer]
        if swapped:
            late, early = early, late
        head = torch.cat([late[:, :1], early[:, 1:]], dim=1)
        for layer in self.head:
            head = layer(head, additive_mask(batch))
        loss = self._masked_lm(head, batch)
        return loss + self._masked_lm(states[-1], batch) if late_mlm else loss

    def _masked_lm(self, states: torch.Tensor, batch) -> torch.Tensor:
        labels = np.full(batch["input_ids"].shape, -100)
        row, slot = np.nonzero(batch["masked_weights"])
        labels[row, batch["masked_positions"][row, slot]] = batch["masked_ids"][row, slot]
        logits = self.predict(states).flatten(0, 1)
        return torch.nn.functional.cross_entropy(logits, torch.tensor(labels).flatten())

    def gradients(self, loss: torch.Tensor, names) -> dict[str, np.ndarray]:
        """Gradients of `loss` by the named parameters."""
        self.model.zero_grad()
        self.head.zero_grad()
        loss.backward()
        return {name: self.parameters()[name].grad.numpy().copy() for name in names}


def additive_mask(batch: dict[str, np.ndarray]) -> torch.Tensor:
    """[B, 1, 1, L], what transformers adds to the attention scores."""
    return torch.tensor(1 - batch["attention_mask"])[:, None, None].double() * NOT_ATTENDED


def as_theirs(config: BackboneConfig, tree: dict[str, Any]) -> dict[str, np.ndarray]:
    """{Hugging Face name: float64 array} of parameters or gradients (`to_hf` rounds to float32)."""
    tensors = {}
    for group, subtree in tree.items():
        leaves = dict(flatten(subtree))
        for entry in entries(config, group, len(subtree)):
            array = np.asarray(leaves[entry.path], np.float64)[
                : config.vocab_size if entry.is_padded else None
            ]
            tensors[entry.name] = array.T.copy() if entry.is_transposed else array
    return tensors
