"""The tasks of launch/evaluate.py by name."""

from condenser_jax.evaluation.cls_attention_report import report_cls_attention
from condenser_jax.evaluation.contract import Task

TASKS: dict[str, Task] = {
    "cls_attention": report_cls_attention,
}
