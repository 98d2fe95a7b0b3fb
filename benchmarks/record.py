"""What every benchmark appends to its results: a line of JSON that says where it was run."""

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "benchmarks"


def cpu_model() -> str:
    """The processor's name, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")


def append(output: Path, figures: dict[str, Any]) -> None:
    """Appends `figures`, with date, processor and Python, to `output`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    record = {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": f"{cores} cores, {cpu_model()}",
        "python": platform.python_version(),
        **figures,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    with open(output, "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
