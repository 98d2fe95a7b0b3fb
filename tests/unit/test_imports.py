"""The import rule of docs/design.md, section 2, enforced by reading the imports."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# A part imports itself and what stands in lines above; parts of one line do not know each other.
ORDER = (
    ("types", "errors", "environment"),
    ("axes", "cluster", "precision", "supervisor", "whole_files"),
    ("models", "losses", "data", "plotting", "search"),
    ("retrieval",),
    ("glue",),
    ("hf", "objectives"),
    ("health", "vectors"),
    ("training",),
    ("config", "evaluation"),
    ("feeds", "chunking"),
    ("methods",),
    ("glue_plan",),
    ("finished",),
    ("warm_start", "encoder_source"),
    ("teachers",),
    ("build", "encoder"),
    ("run", "command", "dense", "exporting"),
    ("tasks", "mine", "glue_suite"),
    ("pipeline",),
)
RANKS = {part: rank for rank, parts in enumerate(ORDER) for part in parts}
WITHOUT_JAX = ("data", "retrieval", "glue")
ARCHITECTURE = "condenser_jax.models.config"  # a record of sizes: no model code
LATE = (
    "bm25s",
    "datasets",
    "faiss",
    "matplotlib",
    "onnxruntime",
    "sentence_transformers",
    "tensorflow_datasets",
    "torch",
    "transformers",
    "wandb",
)


def read_package() -> dict[str, str]:
    """{dotted name: source} of the package."""
    files = sorted((ROOT / "condenser_jax").rglob("*.py"))
    return {".".join(f.relative_to(ROOT).with_suffix("").parts): f.read_text() for f in files}


def imported(source: str, top_level_only: bool = False) -> Iterator[str]:
    """Dotted names of what a source imports; `from a import b` gives a.b."""
    tree = ast.parse(source)
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = "." * node.level + (node.module or "")
            yield from (f"{start}.{alias.name}" for alias in node.names)


def part_of(module: str) -> str:
    """condenser_jax.training.loop belongs to training, condenser_jax.build to build."""
    return module.split(".")[1]


def violations(modules: dict[str, str]) -> list[str]:
    """Every import that breaks the rule, as "importer: imported"."""
    found = []
    for module, source in modules.items():
        for target in imported(source):
            if _is_foreign(target) or _is_upward(module, target) or _reaches_models(module, target):
                found.append(f"{module}: {target}")
    return found


def _is_foreign(target: str) -> bool:
    return target.startswith(".") or target.split(".")[0] in (
        "launch",
        "configs",
        "tests",
        "benchmarks",
    )


def _is_upward(module: str, target: str) -> bool:
    if not target.startswith("condenser_jax.") or module == "condenser_jax.__init__":
        return False
    mine, other = part_of(module), part_of(target)
    return mine != other and RANKS.get(other, 0) >= RANKS.get(mine, 0)


def _reaches_models(module: str, target: str) -> bool:
    without_models = part_of(module) in WITHOUT_JAX or module == "condenser_jax.hf.names"
    return (
        without_models and target.startswith("condenser_jax.models") and ARCHITECTURE not in target
    )


def test_imports_go_one_way():
    assert violations(read_package()) == []


def test_every_module_has_its_place_in_the_order():
    parts = {part_of(module) for module in read_package()} - {"__init__"}
    assert parts <= set(RANKS), "name the new part in ORDER, and in docs/design.md"


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("condenser_jax.objectives.new", "from condenser_jax.training import loop"),
        ("condenser_jax.training.new", "def f():\n    import condenser_jax.build"),
        ("condenser_jax.models.new", "from condenser_jax.losses.masked_lm import masked_lm"),
        ("condenser_jax.models.new", "from condenser_jax import build"),
        ("condenser_jax.data.new", "from condenser_jax.models import bert"),
        ("condenser_jax.retrieval.new", "from condenser_jax.models import bert"),
        ("condenser_jax.data.new", "from condenser_jax.retrieval import texts"),
        ("condenser_jax.hf.names", "from condenser_jax.models.bert import Backbone"),
        ("condenser_jax.run", "from configs import condenser"),
        ("condenser_jax.run", "import launch.train"),
        ("condenser_jax.run", "from . import build"),
    ],
)
def test_an_import_against_the_rule_is_found(module, source):
    assert len(violations({module: source})) == 1


def test_an_import_within_the_rule_is_not_reported():
    fine = {
        "condenser_jax.training.new": "from condenser_jax.objectives.base import Loss\nimport jax",
        "condenser_jax.hf.names": "from condenser_jax.models.config import BackboneConfig",
    }
    assert violations(fine) == []


def test_launch_and_configs_are_not_imported_by_each_other():
    for file in sorted((ROOT / "launch").glob("*.py")):
        assert not any(map(_is_foreign, imported(file.read_text()))), file.name
    for file in sorted((ROOT / "configs").glob("*.py")):
        assert not any(name.startswith("launch") for name in imported(file.read_text())), file.name


def test_slow_packages_are_imported_where_they_are_used():
    found = [
        f"{module}: {name}"
        for module, source in read_package().items()
        for name in imported(source, top_level_only=True)
        if name.split(".")[0] in LATE
    ]
    assert found == []


def test_the_package_imports_torch_for_onnx_and_to_check_classifiers_alone():
    found = {
        m for m, s in read_package().items() for n in imported(s) if n.split(".")[0] == "torch"
    }
    assert found == {"condenser_jax.hf.onnx_file", "condenser_jax.hf.classifier_export"}


def test_data_and_metrics_do_without_jax():
    found = [
        f"{module}: {name}"
        for module, source in read_package().items()
        if part_of(module) in WITHOUT_JAX
        for name in imported(source)
        if name.split(".")[0] in ("jax", "flax", "optax")
    ]
    assert found == []
