"""The embedded corpus: the documentation that our own requirements carry in their docstrings.

A fresh machine has no corpus and perhaps no network, but it has our dependencies, and these hold
over 20 MB of English prose. It is read by `ast`, never by import, in the order of names; nothing
is redistributed. The packages are those of REQUIREMENTS and what they require, whatever else is
installed, so that a test extra does not change the corpus.
"""

import ast
import gc
import hashlib
import importlib.metadata
import re
import warnings
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from condenser_jax.data.docstring_text import paragraphs
from condenser_jax.data.documents import BadRecords, Document, SourceOptions
from condenser_jax.data.parallel import ordered_map, usable_cores
from condenser_jax.errors import UserError, choose

REQUIREMENTS = (
    "absl-py datasets flax grain importlib_resources jax matplotlib ml_collections numpy optax "
    "orbax-checkpoint safetensors sentencex tensorboardX tensorflow-datasets tokenizers tqdm "
    "transformers"
).split()
READER_VERSION = 1  # raise it when the cleaning changes, so that prepared data are made anew
SKIPPED_FOLDERS = frozenset(
    "test tests testing _vendor vendor _vendored benchmarks conftest".split()
)
SKIPPED_FILES = ("test_", "modular_")  # transformers generates modeling_*.py from modular_*.py
QUOTED = re.compile(rb'"""(.*?)"""', re.DOTALL)
MIN_QUOTED = 150  # bytes of a docstring that may have a body
# Parsing costs most. Files with under 15 % of docstrings hold 40 % of the code, 10 % of the text.
MIN_QUOTED_SHARE = 0.15
MIN_WORDS = 20
GROUP_LEVELS = 3  # "scipy.stats._entropy", "transformers.models.bert"
FILES_PER_TASK = 48
MIN_PARALLEL_TASKS = 16  # about a second of parsing: what starting processes costs


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_requirements() -> dict[str, importlib.metadata.Distribution]:
    """Returns the installed distributions that REQUIREMENTS need, without extras, by canonical
    name.
    """
    from packaging.requirements import Requirement

    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [_canonical(name) for name in REQUIREMENTS]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        needs = map(Requirement, found[name].requires or [])
        waiting += [
            _canonical(need.name)
            for need in needs
            if need.marker is None or need.marker.evaluate({"extra": ""})
        ]
    return dict(sorted(found.items()))


def _is_wanted(path: PurePosixPath) -> bool:
    return (
        path.suffix == ".py"
        and ".." not in path.parts
        and not SKIPPED_FOLDERS.intersection(path.parts[:-1])
        and not path.name.startswith(SKIPPED_FILES)
    )


def module_name(path: PurePosixPath) -> str:
    """Returns the dotted name of a module's file: numpy/linalg/__init__.py is "numpy.linalg"."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _documented(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """Yields (qualified name, docstring) of a module and what it defines, in the source's order."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        docstring = ast.get_docstring(node, clean=False)
        if docstring:
            yield name, docstring
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return  # what a function defines inside has no public name
    for child in getattr(node, "body", []):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _documented(child, f"{name}.{child.name}")
        elif isinstance(child, ast.If | ast.Try):
            yield from _documented(child, name)


def module_documents(source: bytes, module: str) -> list[Document]:
    """Returns the documents of one module: docstrings with a summary and a body of some length."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's code
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return []  # written for another Python
    group = ".".join(module.split(".")[:GROUP_LEVELS])
    found: dict[str, Document] = {}
    for name, docstring in _documented(tree, module):
        parts = paragraphs(docstring)
        text = "\n\n".join(parts)
        if len(parts) >= 2 and len(text.split()) >= MIN_WORDS and name not in found:
            found[name] = Document(key=name, group=group, text=text, summary=parts[0])
    return list(found.values())


def read_modules(files: list[tuple[str, str]]) -> list[Document]:
    """Returns the documents of (module name, path) pairs; files with little text are not parsed."""
    documents: list[Document] = []
    was_enabled = gc.isenabled()
    gc.disable()  # a syntax tree is all small objects: collecting costs a third of the time
    try:
        for module, path in files:
            try:
                with open(path, "rb") as file:
                    source = file.read()
            except OSError:
                continue
            quoted = sum(len(text) for text in QUOTED.findall(source) if len(text) >= MIN_QUOTED)
            if quoted and quoted >= MIN_QUOTED_SHARE * len(source):
                documents += module_documents(source, module)
    finally:
        if was_enabled:
            gc.enable()
    return documents


class DocstringSource:
    """The docstrings of our requirements, or of some of them ("docstrings:jax,numpy")."""

    def __init__(self, rest: str, options: SourceOptions) -> None:
        self.bad = BadRecords(options.bad_share)
        self._parsed: list[Document] = []
        self.distributions = installed_requirements()
        if rest:
            names = [_canonical(name.strip()) for name in rest.split(",")]
            for name in names:
                choose("package of docstrings:", name, self.distributions)
            self.distributions = {name: self.distributions[name] for name in sorted(set(names))}
        if not self.distributions:
            raise UserError("no requirement of condenser_jax is installed; pip install -e . first")

    def _files(self) -> list[tuple[str, str]]:
        return [
            (module_name(path), str(distribution.locate_file(path)))
            for distribution in self.distributions.values()
            for path in sorted(map(PurePosixPath, distribution.files or []))
            if _is_wanted(path)
        ]

    def _parse(self) -> Iterator[Document]:
        files = self._files()
        tasks = [files[i : i + FILES_PER_TASK] for i in range(0, len(files), FILES_PER_TASK)]
        workers = min(4, usable_cores()) if len(tasks) >= MIN_PARALLEL_TASKS else 1
        keys: set[str] = set()
        for documents in ordered_map(read_modules, tasks, workers):
            for document in documents:
                if document.key not in keys:
                    keys.add(document.key)
                    yield document

    def documents(self) -> Iterator[Document]:
        """Streams the documents by distribution, file and place in the file.

        They are kept after the first pass: about 20 MB, and parsing is the larger cost.
        """
        self.bad = BadRecords(self.bad.bad_share)
        read: list[Document] = []
        for document in self._parsed or self._parse():
            self.bad.accept()
            read.append(document)
            yield document
        self._parsed = read

    def describe(self) -> dict[str, Any]:
        """Versions of the packages, and a hash of the lists of their files (which hold a hash per
        file).
        """
        digest = hashlib.blake2b(str(READER_VERSION).encode(), digest_size=16)
        for distribution in self.distributions.values():
            files = sorted(distribution.files or [], key=str)
            for file in files:
                if _is_wanted(PurePosixPath(file)):
                    digest.update(f"{file} {file.hash and file.hash.value} {file.size}\n".encode())
        versions = {name: found.version for name, found in self.distributions.items()}
        return {"kind": "docstrings", "packages": versions, "hash": digest.hexdigest()}
