"""Every configuration loads, says what its keys mean, and refuses what nobody knows in one line."""

import ast
import dataclasses
import importlib
import io
import json
import math
import re
import tokenize
from dataclasses import fields
from pathlib import Path

import jax
import pytest

from condenser_jax.config import SECTIONS
from condenser_jax.errors import UserError
from condenser_jax.methods import METHODS, configure
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.objectives.distillation import Teacher
from configs import distill

ROOT = Path(__file__).parents[2]
FILES = sorted(path for path in (ROOT / "configs").glob("*.py") if path.stem != "common")
PRETRAINING = ("mlm", "condenser", "cocondenser")
VARIANTS = {f.stem: importlib.import_module(f"configs.{f.stem}").VARIANTS for f in FILES}
OF_SEVERAL_RUNS = ("pipeline", "glue_suite")
RUNS = [name for name in VARIANTS if name not in OF_SEVERAL_RUNS]
EVERY = [(name, variant) for name in RUNS for variant in VARIANTS[name]]
PAGE = ROOT / "docs" / "configuration.md"


def load(name="condenser", variant=""):
    """The ConfigDict of a file in configs/, as a nested dict."""
    return importlib.import_module(f"configs.{name}").get_config(variant).to_dict()


def flat(config):
    """{"section.key": value} of a frozen configuration."""
    values = dataclasses.asdict(config)
    return {
        f"{section}.{key}" if key else section: value
        for section, content in values.items()
        for key, value in (content.items() if isinstance(content, dict) else [("", content)])
    }


def refusal(config):
    """The text with which `read_config` refuses."""
    with pytest.raises(UserError) as error:
        configure(config)
    return str(error.value)


@pytest.mark.parametrize(("name", "variant"), EVERY)
def test_every_variant_of_every_config_loads(name, variant):
    config = configure(load(name, variant))
    feed = METHODS[config.objective.name].feed
    feed.check(config)
    assert feed.longest(config) <= config.model.max_positions


@pytest.mark.parametrize("name", PRETRAINING)
def test_a_config_of_pre_training_is_called_as_its_method(name):
    assert configure(load(name)).objective.name == name


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_header_of_a_config_has_the_command_of_every_variant(file):
    header = ast.get_docstring(ast.parse(file.read_text()))
    for variant in VARIANTS[file.stem]:
        ending = f":{variant}" if variant else ""
        command = rf"python launch/\w+\.py --config=configs/{file.name}{ending}\s"
        assert re.search(command, header), command


def test_a_smoke_run_is_smaller_than_the_default_and_the_papers_run_is_larger():
    small, default, large = (configure(load(variant=v)) for v in ("smoke", "", "paper"))
    sizes = [
        c.training.steps * c.training.batch_size * c.data.max_length
        for c in (small, default, large)
    ]
    assert sizes == sorted(sizes) and len(set(sizes)) == 3


def test_mlm_and_condenser_differ_in_their_objective_alone():
    mlm, condenser = load("mlm"), load("condenser")
    del mlm["objective"], condenser["objective"]
    assert mlm == condenser


@pytest.mark.parametrize(
    ("variant", "split", "queries", "epochs", "expected"),
    [
        ("msmarco", "dev.small", 400_782, 3, (8, 8, 32, 128, True, "global")),
        ("nq", "dev", 58_880, 40, (128, 2, 256, 256, False, "32")),
        ("triviaqa", "dev", 60_413, 40, (128, 2, 256, 256, False, "32")),
    ],
)
def test_retrievers_are_trained_as_published(variant, split, queries, epochs, expected):
    config = configure(load("retrieval", variant))
    data, options, training = config.data, config.objective, config.training
    lengths = data.query_length, data.passage_length
    batch = training.batch_size, data.group
    assert (*batch, *lengths, options.tied, options.negatives) == expected
    assert training.steps * training.batch_size / queries == pytest.approx(epochs, rel=1e-3)
    assert (config.optimizer.learning_rate, config.optimizer.decay) == (5e-6, "linear")
    assert (options.pooling, options.normalise, options.temperature) == ("cls", False, 1.0)
    assert (data.split, config.model.num_layers, config.model.hidden_size) == (split, 12, 768)


def test_the_split_of_ms_marco_is_one_of_its_own_files():
    data, folder = configure(load("retrieval", "msmarco")).data, "msmarco:"
    assert data.collection.startswith(folder)
    released = {"qrels.dev.small.tsv", "qrels.train.tsv"} | {  # collectionandqueries.tar.gz
        f"queries.{split}.tsv" for split in ("dev.small", "dev", "eval.small", "eval", "train")
    }
    assert {f"queries.{data.split}.tsv", f"qrels.{data.split}.tsv"} <= released


def test_published_baselines_differ_from_tutor_kd_in_their_objective_alone():
    tutored = load("tutor_kd", "paper")
    teacher = tutored.pop("objective")["teacher"]
    for name in distill.METHODS:
        baseline = load("distill", f"{name}-paper")
        options = baseline.pop("objective")
        assert (options["name"], options["teacher"]) == (name, teacher)
        assert baseline == tutored
    assert load("distill", "distilbert-paper")["objective"]["student_layers"][-1] == 12


@pytest.mark.parametrize(
    ("variant", "millions"),
    [("paper", 66), ("half", 66), ("ext12", 14), ("ext6", 9), ("ext2", 5.7)],
)
def test_published_students_have_the_published_sizes_and_go_with_a_bert_base(variant, millions):
    config = configure(load("tutor_kd", variant))
    sizes = ("hidden_size", "num_layers", "num_heads", "intermediate_size", "embedding_size")
    chosen = {name: getattr(config.model, name) for name in sizes}
    words = {"vocab_size": 30522, "type_vocab_size": 2}
    is_narrow = chosen["embedding_size"] is not None
    student = BackboneConfig(model_type="electra" if is_narrow else "bert", **words, **chosen)
    teacher = Teacher(BackboneConfig(**words))
    objective = METHODS["tutor_kd"].build(student, ComputeConfig(), config.objective, teacher)
    backbone = jax.eval_shape(lambda: objective.init(jax.random.key(0), {}))["backbone"]
    assert sum(x.size for x in jax.tree.leaves(backbone)) / 1e6 == pytest.approx(millions, rel=0.03)


def test_a_work_directory_s_config_is_read_back_unchanged():
    config = configure(load() | {"seed": 3})
    stored = json.loads(json.dumps(dataclasses.asdict(config)))
    assert configure(stored) == config


def test_an_unknown_variant_names_the_nearest():
    with pytest.raises(
        UserError, match=r"^unknown variant 'papr'; did you mean 'paper'\? known: paper, smoke$"
    ):
        load(variant="papr")


def test_an_unknown_section_names_the_nearest():
    text = refusal(load() | {"optimiser": {}})
    assert text.startswith(
        "unknown configuration key 'optimiser'; did you mean 'optimizer'? known: compute, "
    )


def test_an_unknown_key_names_the_nearest():
    config = load()
    config["mesh"]["tensr"] = 2
    assert refusal(config) == (
        "unknown key in 'mesh' 'tensr'; did you mean 'tensor'? known: data, fsdp, tensor"
    )


def test_a_key_of_another_method_is_unknown():
    config = load("mlm")
    config["objective"]["head_layers"] = 2
    known = "frozen_backbone, name"
    assert refusal(config) == f"unknown key in 'objective' 'head_layers'; known: {known}"


def test_an_unknown_method_names_the_nearest():
    config = load()
    config["objective"]["name"] = "condensor"
    assert refusal(config).startswith(
        "unknown objective 'condensor'; did you mean 'condenser'? known: "
    )


def test_a_method_has_to_be_named():
    config = load()
    del config["objective"]["name"]
    known = ", ".join(sorted(METHODS))
    assert refusal(config) == f"objective.name is missing; known: {known}"


@pytest.mark.parametrize(
    ("section", "key", "value", "text"),
    [
        ("training", "steps", "many", "training.steps is 'many'; expected int."),
        ("training", "steps", True, "training.steps is True; expected int."),
        ("training", "batch_size", 8.5, "training.batch_size is 8.5; expected int."),
        ("training", "profile", (3, "end"), "an item of training.profile is 'end'; expected int."),
        ("optimizer", "clip_norm", "off", "optimizer.clip_norm is 'off'; expected float or None."),
        ("optimizer", "b2", math.nan, "optimizer.b2 is nan; expected a finite number."),
        (
            "optimizer",
            "clip_norm",
            math.inf,
            "optimizer.clip_norm is inf; expected a finite number.",
        ),
        ("model", "unigram_bias", 1, "model.unigram_bias is 1; expected bool."),
        ("data", "source", None, "data.source is None; expected str."),
        ("training", "profile", 7, "training.profile is 7; expected tuple."),
    ],
)
def test_a_value_of_another_type_is_refused(section, key, value, text):
    config = load()
    config[section][key] = value
    assert refusal(config) == text


def test_whole_numbers_stand_for_floats_and_lists_for_tuples():
    config = load()
    config["optimizer"]["learning_rate"] = 1
    config["training"]["profile"] = [10, 12]
    read = configure(config)
    assert read.optimizer.learning_rate == 1.0 and isinstance(read.optimizer.learning_rate, float)
    assert read.training.profile == (10, 12)


def documented():
    """Of docs/configuration.md, {key: (value of the default, of `:paper`)} of its tables for
    condenser, and of the table of what cocondenser sets otherwise.
    """
    parts = PAGE.read_text().split("\n## What `configs/cocondenser.py` sets otherwise\n")
    row = re.compile(r"^\| `([\w.]+)` \| (.+?) \| (.+?) \| \S.* \|$", re.MULTILINE)
    condenser, cocondenser = ({k: (a, b) for k, a, b in row.findall(part)} for part in parts)
    return condenser, cocondenser


def values_of(name):
    """{key: (value of the default, of `:paper`)} of a configuration, as the page writes them."""
    default, paper = (flat(configure(load(name, v))) for v in ("", "paper"))
    return {key: (f"`{default[key]!r}`", f"`{paper[key]!r}`") for key in default}


def test_every_key_is_explained_in_docs_configuration_with_its_values():
    assert documented()[0] == values_of("condenser")


def test_what_cocondenser_sets_otherwise_is_explained_with_its_values():
    condenser, cocondenser = values_of("condenser"), values_of("cocondenser")
    differing = {k: values for k, values in cocondenser.items() if condenser.get(k) != values}
    assert documented()[1] == differing


@pytest.mark.parametrize("name", ["retrieval", "sts", "sections", "glue"])
def test_the_sections_of_a_fine_tuning_are_explained_with_their_values(name):
    part = PAGE.read_text().split(f"\n## What `configs/{name}.py` has of its own\n")[1]
    rows = re.findall(r"^\| `([\w.]+)` \| (.+?) \| \S.* \|$", part.split("\n## ")[0], re.MULTILINE)
    config = flat(configure(load(name)))
    own = {k: f"`{v!r}`" for k, v in config.items() if k.startswith(("data", "obj", "eval"))}
    assert dict(rows) == own


def test_what_tutor_kd_has_of_its_own_is_explained_with_its_values():
    part = PAGE.read_text().split("\n## What `configs/tutor_kd.py` has of its own\n")[1]
    table = part.split("\nThe methods of `configs/distill.py`")[0]
    rows = re.findall(r"^\| `([\w.]+)` \| (.+?) \| \S.* \|$", table, re.MULTILINE)
    config = flat(configure(load("tutor_kd")))
    assert dict(rows) == {k: f"`{v!r}`" for k, v in config.items() if k.startswith(("obj", "eval"))}


def test_every_method_s_keys_are_explained():
    text = PAGE.read_text()
    taught = [name for name, method in METHODS.items() if method.taught]
    names = {f.name for name in (*PRETRAINING, *taught) for f in fields(METHODS[name].options)}
    assert [name for name in sorted(names) if f"`objective.{name}`" not in text] == []


def assigned_keys(file):
    """{key: line} where a config file first assigns a field, such as `data.source = ...`."""
    found = {}
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            is_section = (
                isinstance(node.value, ast.Call) and ast.unparse(node.value) == "ConfigDict()"
            )
            key = ast.unparse(node.targets[0]).removeprefix("config.")
            if not is_section:
                found[key] = min(node.lineno, found.get(key, node.lineno))
    return found


def commented_lines(file):
    """Numbers of the lines that end in a comment."""
    tokens = tokenize.generate_tokens(io.StringIO(file.read_text()).readline)
    return {token.start[0] for token in tokens if token.type == tokenize.COMMENT}


@pytest.mark.parametrize(
    "file", [*FILES, ROOT / "configs" / "common.py"], ids=lambda file: file.stem
)
def test_every_field_of_a_config_has_a_comment_beside_it(file):
    comments = commented_lines(file)
    assert [key for key, line in assigned_keys(file).items() if line not in comments] == []


@pytest.mark.parametrize("name", RUNS)
def test_every_key_can_be_overridden_on_the_command_line(name):
    """A locked ConfigDict refuses keys that its file does not state, so the file states all."""
    method = METHODS[configure(load(name)).objective.name]
    sections = SECTIONS | {"data": method.feed.data, "evaluation": method.feed.evaluation}
    known = {f"{s}.{field.name}" for s, kind in sections.items() for field in fields(kind)}
    stated = {
        f"{s}.{key}"
        for s, content in load(name).items()
        if isinstance(content, dict)
        for key in content
    }
    assert known <= stated


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_hash_takes_is_refused(seed):
    config = load() | {"seed": seed}
    assert refusal(config) == f"seed is {seed}; expected 0 to 4294967295."
