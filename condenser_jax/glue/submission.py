"""Files for GLUE's test server: a header, then a number and a prediction on each line."""

from pathlib import Path

import numpy as np

from condenser_jax.glue.metrics import predictions
from condenser_jax.glue.tasks import Task
from condenser_jax.whole_files import written_whole


def submission(task: Task, logits: np.ndarray) -> str:
    """The text of a file: ids of labels or their names, as the server wants them; scores within
    their range, to three places.
    """
    found = predictions(task, logits)
    if task.is_regression:
        values = [f"{value:.3f}" for value in np.clip(found, *task.scores)]
    elif task.server_names:
        values = [task.labels[number] for number in found]
    else:
        values = [str(number) for number in found]
    return "index\tprediction\n" + "".join(f"{i}\t{value}\n" for i, value in enumerate(values))


def write_submission(directory: Path, file: str, text: str) -> Path:
    """Writes `<file>.tsv`, whole or not at all."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{file}.tsv"
    with written_whole(path) as half:
        half.write_text(text, encoding="utf-8")
    return path
