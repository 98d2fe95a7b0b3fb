"""What condenser_jax is made of, and what it needs. The settings of tools are in pyproject.toml.

Every requirement is imported somewhere in condenser_jax, or says here why not. The corpus of the
embedded default is read out of these packages: REQUIRED agrees with data/docstrings.py, and
tests/unit/test_packaging.py sees to it.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

REQUIRED = [
    "absl-py>=2.1",  # the flags of every command
    "bm25s>=0.3",  # BM25, the baseline of every table
    "datasets>=4.0",  # hf: sources
    "flax>=0.12",
    "grain>=0.2.12",  # builds batches ahead of the step
    "huggingface_hub>=1.0",  # checkpoints by hub id
    "importlib_resources>=6.0",  # catalogues of tensorflow-datasets, which does not ask for it
    "jax>=0.10.2,<0.12",  # tested on 0.10.2 (Python 3.11) and 0.11.2 (Python 3.12)
    "matplotlib>=3.8",  # launch/plot.py
    "ml_collections>=1.0",
    "ml_dtypes>=0.5",  # bfloat16 weights in torch's files
    "numpy>=2.0",
    "optax>=0.2.5",
    "orbax-checkpoint>=0.11.20",
    "packaging>=24.0",
    "pyarrow>=17.0",  # parquet: sources; passages mapped from disk
    "pytrec_eval-terrier>=0.5.10",  # trec_eval's figures, by trec_eval
    "regex>=2024.5",  # where words end in any script: answers to open questions
    "safetensors>=0.5",
    "scipy>=1.13",  # correlations
    "sentencex>=1.0",  # where sentences end; downloads nothing
    "tensorboardX>=2.6",  # TensorBoard without TensorFlow
    "tensorflow-datasets>=4.9.8",  # tfds: sources; reads array_record files, without TensorFlow
    "tokenizers>=0.22",
    "tqdm>=4.66",
    "transformers>=5.0,<6",  # tokenizers; the models themselves are ours
]

EXTRAS = {
    "cuda": ["jax[cuda12]"],
    "faiss": ["faiss-cpu>=1.9"],  # launch/search.py --index
    "onnx": ["onnx>=1.19", "onnxruntime>=1.23", "onnxscript>=0.5", "torch>=2.9"],  # export --onnx
    "tpu": ["jax[tpu]"],
    "wandb": ["wandb"],
    "test": [
        "PyStemmer",
        "faiss-cpu>=1.9",
        "hypothesis",
        "ipykernel",  # runs notebooks/
        "nbclient",
        "onnx>=1.19",
        "onnxruntime>=1.23",
        "onnxscript>=0.5",
        "pytest>=8",
        "sentence-transformers>=5.4",
        "torch>=2.6",
        "zstandard",
    ],
    "dev": ["mypy", "pre-commit", "ruff"],
}


def read_version() -> str:
    """The version that condenser_jax/__init__.py states."""
    text = (ROOT / "condenser_jax" / "__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    assert found, "condenser_jax/__init__.py states no __version__"
    return found[1]


setup(
    name="condenser_jax",
    version=read_version(),
    description="Condenser pre-training of text encoders in JAX, from raw text to Hugging Face",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["condenser_jax", "condenser_jax.*"]),
    install_requires=REQUIRED,
    extras_require=EXTRAS,
)
