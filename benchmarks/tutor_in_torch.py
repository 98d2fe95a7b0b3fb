"""A joint round of Tutor-KD in PyTorch, on models of transformers: the same mathematics, every pass
once, logits at the masked tokens only. What a careful user would write; nobody has published one
that runs.
"""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import nn
from torch.nn import functional
from tutor_job import LEARNING_RATE, WEIGHT_DECAY, Contender, Job, make_batch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Head(nn.Module):
    """Dense, GELU, LayerNorm, linear."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.transform, self.norm = nn.Linear(width, width), nn.LayerNorm(width, eps=1e-12)
        self.out = nn.Linear(width, out)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.out(self.norm(functional.gelu(self.transform(states))))


class Scores:
    """Keeps Q K^T / sqrt(d) of every layer of a BertModel: transformers returns only softmax.

    While `wanted` is False nothing is computed.
    """

    def __init__(self, model: nn.Module) -> None:
        self.kept: list[torch.Tensor] = []
        self.wanted = True
        for layer in model.encoder.layer:
            attention = layer.attention.self
            attention.query.register_forward_hook(self._remember("query"))
            attention.key.register_forward_hook(self._remember("key"))
        self.heads, self._query = model.config.num_attention_heads, None

    def _remember(self, name: str):
        def hook(module, inputs, output):
            if not self.wanted:
                return
            parts = output.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            if name == "query":
                self._query = parts
            else:
                self.kept.append(self._query @ parts.transpose(-1, -2) * parts.shape[-1] ** -0.5)

        return hook


def drawn(log_pi: torch.Tensor) -> torch.Tensor:
    """Samples [B, M] of a policy [B, M, V]."""
    return torch.multinomial(log_pi.exp().flatten(0, 1), 1).view(log_pi.shape[:-1])


class Round(nn.Module):
    """Teacher, student and tutor, and both losses of a round on one batch of full rows.

    `draw` gives what is put in. tests/parity/test_torch_tutor.py holds the losses and all gradients
    against ours.
    """

    def __init__(
        self,
        job: Job,
        dropout: float = 0.1,
        draw: Callable[[torch.Tensor], torch.Tensor] = drawn,
    ) -> None:
        super().__init__()

        def bert(layers: int, width: int, dropout: float) -> transformers.BertConfig:
            return transformers.BertConfig(
                vocab_size=job.vocabulary,
                hidden_size=width,
                num_hidden_layers=layers,
                num_attention_heads=job.heads,
                intermediate_size=4 * width,
                hidden_dropout_prob=dropout,
                attention_probs_dropout_prob=dropout,
            )

        self.job, self.draw, self.stride = job, draw, job.teacher_layers // job.student_layers
        of_teacher = bert(job.teacher_layers, job.teacher_width, 0.0)
        self.teacher = transformers.BertForMaskedLM(of_teacher).to(DTYPES[job.dtype])
        self.teacher.eval().requires_grad_(False)
        of_student = bert(job.student_layers, job.student_width, dropout)
        self.student = transformers.BertModel(of_student, add_pooling_layer=False).train()
        self.ratio_head = Head(job.student_width, 1)
        self.fit = nn.Linear(job.student_width, job.teacher_width)
        self.tutor = Head(job.teacher_width, job.vocabulary)
        self.theirs, self.ours = Scores(self.teacher.bert), Scores(self.student)

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The losses of minimise and maximise."""
        teacher, theirs, ours = self.teacher, self.theirs, self.ours
        mask, places, original = (
            batch[name] for name in ("attention_mask", "masked_positions", "masked_ids")
        )
        masked, rows = batch["input_ids"], batch["rows"]
        theirs.kept.clear()
        ours.kept.clear()
        with torch.no_grad():
            theirs.wanted = False
            states = teacher.bert(masked, mask).last_hidden_state[rows, places]
            on_masked = teacher.cls(states).float()
            theirs.wanted = True
        with self._narrow():
            policy = self.tutor(states)
        log_pi = functional.log_softmax(policy.float(), -1)
        replaced = self.draw(log_pi.detach())
        text = masked.clone()
        text[rows, places] = replaced
        with torch.no_grad():
            read = teacher.bert(text, mask, output_hidden_states=True)
            on_text = teacher.cls(read.last_hidden_state[rows, places]).float()
            ratio = (at(on_masked, replaced) - at(on_masked, original)).clamp(max=0).exp()
        with self._narrow():
            seen = self.student(text, mask, output_hidden_states=True)
            logits = self.ratio_head(seen.last_hidden_state)[..., 0].float()
            fitted = [self.fit(h) for h in seen.hidden_states]
        target = torch.ones_like(logits)
        target[rows, places] = ratio
        logit = functional.binary_cross_entropy_with_logits(logits, target)
        pairs = zip(fitted, read.hidden_states[:: self.stride], strict=True)
        hidden = sum(functional.mse_loss(a.float(), b.float()) for a, b in pairs)
        pairs = zip(ours.kept, theirs.kept[self.stride - 1 :: self.stride], strict=True)
        attention = sum(functional.mse_loss(a.float(), b.float()) for a, b in pairs)
        log_p = functional.log_softmax(on_masked, -1)
        kl = (log_p.exp() * (log_p - log_pi)).sum(-1).mean()
        with torch.no_grad():
            total = on_text.logsumexp(-1)
            reward = (at(on_text, original) - total).exp() - (at(on_text, replaced) - total).exp()
            reward += (ratio - logits[rows, places].sigmoid()).abs()
        maximise = -(at(log_pi, replaced) * reward).mean()
        return 25 * logit + 0.5 * hidden + 0.5 * attention + kl, maximise

    def _narrow(self) -> torch.autocast:
        """Products in the dtype of the job, of everything that is trained: as ours."""
        device = next(self.parameters()).device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.job.dtype == "bfloat16")


def at(values: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """values [..., V] at ids [...]."""
    return values.gather(-1, ids[..., None])[..., 0]


def placed(batch: dict[str, Any], device: torch.device) -> dict[str, torch.Tensor]:
    """A batch as `Round` reads it."""
    rows = torch.arange(len(batch["input_ids"]), device=device)[:, None]
    return {k: torch.tensor(v, device=device).long() for k, v in batch.items()} | {"rows": rows}


def make(job: Job, compiled: bool = False) -> Contender:
    """The round as a function of nothing, eager or compiled."""
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    losses = Round(job).to(device)
    trained = [parameter for parameter in losses.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    batch = placed(make_batch(job), device)
    function = torch.compile(losses) if compiled else losses

    def run(steps: int) -> float:
        for _ in range(steps):
            minimise, maximise = function(batch)
            optimizer.zero_grad()
            (minimise + maximise).backward()
            optimizer.step()
        return float(minimise)  # waits for the device

    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return Contender(run, versions, str(device))
