"""Documented commands name files, flags and keys that exist; Python compiles; links lead on."""

import ast
import dataclasses
import importlib
import re
import shlex
from pathlib import Path

import pytest

from condenser_jax.encoder_source import Usage
from condenser_jax.retrieval.collection import CollectionOptions

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
COMMANDS = {
    "train": "pip install -e . && python launch/train.py --config=configs/condenser.py",
    "test": 'pip install -e ".[test]" && pytest',
}
OTHER_FLAGS = {"pytest": {"-m"}, "pip": {"-e", "-U"}}
TPU_POD, SLURM = "launch/tpu_pod.sh", "launch/slurm.sbatch"
FIRST_WORDS = ("python", "pip", "pytest", "sbatch", TPU_POD)


def blocks(text):
    """(language, code) of fenced and of indented blocks; indented ones have no language."""
    fenced = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    yield from fenced.findall(text)
    indented = re.compile(r"(?:^|\n\n)((?:    .*\n)+)", re.MULTILINE)
    yield from (("", code) for code in indented.findall(fenced.sub("", text)))


def commands(text):
    """The commands of a page, each as a list of words."""
    for _, code in blocks(text):
        for line in code.replace("\\\n", " ").splitlines():
            for part in line.split("&&"):
                if part.lstrip().startswith(FIRST_WORDS):
                    words = shlex.split(part, comments=True)
                    if words[0] in FIRST_WORDS:
                        yield words


def flags_of(script):
    """Names of the flags that a script declares, by absl, by argparse or in a case of bash, there
    or in a file of its own (claims_flags.py).
    """
    beside = script.with_name(f"{script.stem}_flags.py")
    source = "".join(part.read_text() for part in (script, beside) if part.is_file())
    found = set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', source))
    found |= set(re.findall(r'add_argument\(\s*"--([\w-]+)"', source))
    found |= set(re.findall(r"\s--(\w+)(?:=\*)?\) ", source))
    if "reading_flags(" in source:
        found |= {field.name for field in dataclasses.fields(CollectionOptions)}
    if "usage_flags(" in source:
        found |= set(Usage._fields)
    return found | ({"config"} if "config_flag(" in source else set())


def mistakes(words):
    """What is wrong with a command, and with the one behind its `--`, if anything."""
    if "--" in words:
        end = words.index("--")
        return mistakes(words[:end]) + mistakes(words[end + 1 :])
    if words[0] == "sbatch":
        place = words.index(SLURM)
        return mistakes(["python", "launch/train.py", *words[place + 1 :]])
    if words[0] == TPU_POD:
        known = re.findall(r"^#   (\w+) ", (ROOT / TPU_POD).read_text(), re.MULTILINE)
        unknown = [f"command {words[1]}"] if words[1] not in known else []
        return unknown + script_mistakes(ROOT / TPU_POD, words[2:])
    if words[0] != "python":
        known = OTHER_FLAGS[words[0]]
        return [f"flag {word}" for word in words if word.startswith("-") and word not in known]
    script = ROOT / words[1]
    return script_mistakes(script, words[2:]) if script.is_file() else [f"file {words[1]}"]


def script_mistakes(script, words):
    """What is wrong with the flags of a script; values follow `=`, or a blank: -n 2 --devices 4."""
    names = flags_of(script)
    for short, value in re.findall(r"(-\w|--\w+) (\d+)", " ".join(words)):
        place = words.index(short)
        name = long_name(script, short)
        words = [*words[:place], f"--{name}={value}", *words[place + 2 :]]
    config = config_of(words)
    return [problem for word in words for problem in flag_mistakes(word, names, config)]


def config_of(words):
    """The module of configs/ that a command names; condenser where it names none that exists."""
    found = re.search(r"--config=configs/(\w+)\.py", " ".join(words))
    exists = found and (ROOT / "configs" / f"{found[1]}.py").is_file()
    return importlib.import_module(f"configs.{found[1] if exists else 'condenser'}")


def long_name(script, flag):
    """devices for --devices; processes for -n, where the script declares it so; else as it is."""
    declared = rf'DEFINE_\w+\(\s*"(\w+)",[^)]*short_name="{flag[1:]}"'
    found = re.search(declared, script.read_text())
    return found[1] if found else flag.lstrip("-")


def flag_mistakes(word, names, config):
    """What is wrong with one --flag=value of a script that declares the flags `names`."""
    name, _, value = word.removeprefix("--").partition("=")
    flag, _, key = name.partition(".")
    if not word.startswith("--") or flag not in names:
        return [f"flag {word}"]
    if key:
        return [] if key in keys(config) else [f"key {key}"]
    if flag == "config":
        file, _, variant = value.partition(":")
        known = (ROOT / file).is_file() and variant in config.VARIANTS
        return [] if known else [f"config {value}"]
    return []


def keys(module):
    """Every key of a configuration, such as data.train, however deep."""

    def below(values, name):
        if not isinstance(values, dict):
            return {name}
        return {key for part, value in values.items() for key in below(value, f"{name}.{part}")}

    return {key.removeprefix(".") for key in below(module.get_config().to_dict(), "")}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_documented_commands_name_files_flags_and_keys_that_exist(page):
    found = {" ".join(words): mistakes(words) for words in commands(page.read_text())}
    assert {command: wrong for command, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    "command",
    [
        "python launch/trian.py --config=configs/condenser.py",
        "python launch/train.py --conifg=configs/condenser.py",
        "python launch/train.py --config=configs/condensor.py",
        "python launch/train.py --config=configs/condenser.py:papr",
        "python launch/train.py --config=configs/condenser.py --config.mesh.fspd=4",
        "python launch/train.py runs/condenser",
        "pip instal --no",
        "python launch/local_cluster.py -m 2 -- python launch/train.py --config=configs/mlm.py",
        "python launch/local_cluster.py -n 2 -- python launch/train.py --wrokdir=runs/two",
        "launch/tpu_pod.sh rnu --name=pod",
        "launch/tpu_pod.sh run --nmae=pod -- python launch/train.py --config=configs/mlm.py",
        "sbatch --nodes=2 launch/slurm.sbatch --confg=configs/mlm.py",
    ],
)
def test_a_mistaken_command_is_found(command):
    (words,) = commands(f"A page.\n\n    {command}\n")
    assert len(mistakes(words)) == 1


def test_the_readme_has_many_commands():
    assert len(list(commands((ROOT / "README.md").read_text()))) > 10


@pytest.mark.parametrize("command", COMMANDS.values(), ids=list(COMMANDS))
def test_the_two_commands_stand_in_the_readme_word_for_word(command):
    assert f"\n    {command}\n" in (ROOT / "README.md").read_text()


def test_ci_runs_exactly_the_readme_s_test_command():
    install, test = COMMANDS["test"].split(" && ")
    script = (ROOT / ".ci" / "run").read_text()
    assert re.search(rf"^{re.escape(install)} .*&& {test}$", script, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_in_the_documentation_compiles(page):
    for language, code in blocks(page.read_text()):
        if language == "python":
            ast.parse(code)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_folders_and_files_that_are_named_exist(page):
    found = re.findall(
        r"`((?:condenser_jax|configs|launch|tests|benchmarks|docs)/[\w/.-]*)`", page.read_text()
    )
    assert [path for path in found if not (ROOT / path).exists()] == []
