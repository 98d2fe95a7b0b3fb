"""The embedded corpus is prose, of our requirements alone, and the same every time."""

import ast
from pathlib import PurePosixPath

import pytest

from condenser_jax.data import docstrings
from condenser_jax.data.docstring_text import paragraphs
from condenser_jax.data.sources import open_source
from condenser_jax.errors import UserError

NUMPY_STYLE = """
    Return the :ref:`sorted <x>` ``array``.

    See :func:`~numpy.sort` and `list.sort` for
    the details [1]_.

    Parameters
    ----------
    a : array_like
        The array to be sorted.

    .. versionadded:: 1.0
    .. code-block:: python

        code = "dropped"

    For example::

        literal = "dropped"

    .. [1] A paper that nobody reads,
       in two lines.

    Examples
    --------
    >>> sort([2, 1])
    [1, 2]

    +-----+-----+
    | a b | c d |
    +-----+-----+
"""


def test_a_docstring_becomes_its_prose():
    assert paragraphs(NUMPY_STYLE) == [
        "Return the sorted array.",
        "See numpy.sort and list.sort for the details.",
        "a : array_like The array to be sorted.",
    ]


def test_fenced_code_and_section_names_are_dropped():
    text = (
        "Load a model from disk.\n\nArgs:\n    name (str): The name of it.\n\n```python\nx = 1\n```"
    )
    assert paragraphs(text) == ["Load a model from disk.", "name (str): The name of it."]


MODULE = b'''
"""A module that does this.

%s
"""
class Public:
    """A class with a summary.

    %s
    """
    def method(self):
        """Too short."""
        def inner():
            """A function that nobody can name.

            %s
            """
if True:
    def guarded():
        """A guarded function.

        %s
        """
''' % ((b"And a body of some length. " * 5,) * 4)


def test_every_public_definition_with_a_body_is_a_document():
    found = docstrings.module_documents(MODULE, "package.sub.module.deep")
    names = [d.key.removeprefix("package.sub.module.deep") for d in found]
    assert names == ["", ".Public", ".guarded"]
    assert found[1].summary == "A class with a summary."
    assert found[1].text.startswith("A class with a summary.\n\nAnd a body")
    assert {d.group for d in found} == {"package.sub.module"}


def test_a_module_for_another_python_is_left_out():
    assert docstrings.module_documents(b'print "old"', "old") == []


def test_code_is_never_imported(tmp_path):
    path = tmp_path / "trap.py"
    path.write_bytes(MODULE + b"raise SystemExit('imported')")
    assert len(docstrings.read_modules([("trap", str(path))])) == 3


def test_a_file_with_little_text_is_not_parsed(tmp_path, monkeypatch):
    path = tmp_path / "code.py"
    path.write_bytes(MODULE + b"x = 1\n" * 2000)

    def refuse(source):
        raise AssertionError("parsed")

    monkeypatch.setattr(ast, "parse", refuse)
    assert docstrings.read_modules([("code", str(path))]) == []


@pytest.mark.parametrize("name", ["a/tests/b.py", "a/test_b.py", "a/modular_b.py", "a/b.pyc"])
def test_tests_and_generated_code_are_not_read(name):
    assert not docstrings._is_wanted(PurePosixPath(name))


def test_a_package_is_named_without_its_init():
    assert docstrings.module_name(PurePosixPath("a/b/__init__.py")) == "a.b"
    assert docstrings.module_name(PurePosixPath("a/b.py")) == "a.b"


def test_the_corpus_does_not_know_what_a_test_needs():
    found = docstrings.installed_requirements()
    assert {"jax", "numpy", "transformers"} <= set(found)
    assert not {"torch", "pytest", "sentence-transformers", "condenser-jax"} & set(found)
    assert list(found) == sorted(found)


def test_the_corpus_is_described_by_versions_and_a_hash():
    described = open_source("docstrings:").describe()
    assert described == open_source("docstrings:").describe()
    assert described["packages"]["numpy"] and len(described["hash"]) == 32


def test_a_package_that_is_not_ours_names_the_nearest():
    with pytest.raises(
        UserError, match="unknown package of docstrings: 'nunpy'; did you mean 'numpy'"
    ):
        open_source("docstrings:nunpy")


def test_documents_come_in_order_with_unique_names():
    documents = list(open_source("docstrings:optax").documents())
    keys = [d.key for d in documents]
    assert len(keys) == len(set(keys)) > 100
    assert documents == list(open_source("docstrings:optax").documents())
    assert all(d.text.split("\n\n")[0] == d.summary for d in documents)


@pytest.mark.slow
def test_the_whole_corpus_is_large_enough():
    documents = list(open_source("docstrings:").documents())
    assert len(documents) > 10_000
    assert sum(len(d.text) for d in documents) > 8e6
