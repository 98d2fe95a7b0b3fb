"""Prepares data: python launch/prepare.py --config=configs/condenser.py
[--config.data.source=jsonl:my/*.jsonl.gz]

Text to memory-mapped spans of token ids, with statistics and a preview. `launch/train.py` does the
same by itself and reuses what is prepared.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from condenser_jax import command  # noqa: E402

CONFIG = command.config_flag()


def main() -> None:
    """Prepares every source of the configuration and reports on each."""
    from condenser_jax.data.report import report
    from condenser_jax.feeds.corpus import check_spans
    from condenser_jax.methods import METHODS, configure

    config = configure(CONFIG.value.to_dict())
    check_spans(config)
    material = METHODS[config.objective.name].feed.open(config)  # as training does
    for prepared, weight in material.corpus.sources:
        print(f"\n{report(prepared.card)}\n\nweight {weight:g}, prepared in {prepared.directory}")


if __name__ == "__main__":
    command.run(main)
