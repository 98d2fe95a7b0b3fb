"""Documents out of catalogues: Hugging Face datasets (`hf:`) and TensorFlow Datasets (`tfds:`).

Both are streamed record by record. TensorFlow is never needed: TFDS is read as a data source of
array_record files, whose texts come as bytes.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Any

from condenser_jax.data.documents import (
    BadRecords,
    Document,
    SourceOptions,
    Unreachable,
    field_text,
)
from condenser_jax.data.files import fingerprint
from condenser_jax.errors import UserError

SCRATCH = ("cache-", "tmp")  # files that `datasets` writes into a folder which it only reads


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _records_to_documents(
    records: Iterable[Any], prefix: str, field: str, bad: BadRecords
) -> Iterator[Document]:
    for index, record in enumerate(records):
        place = f"{prefix}:{index}"
        text = field_text(record, field, place, bad)
        if text is not None:
            yield Document(key=place, group=place, text=text)
    bad.check()


def _files_below(directory: str) -> list[dict[str, Any]]:
    """Returns name, size and fingerprint of every file below a folder, by name, but for what
    `datasets` keeps there of its own when somebody maps or filters.
    """
    paths = sorted(
        os.path.join(folder, name)
        for folder, _, names in os.walk(directory)
        for name in names
        if not name.startswith(SCRATCH)
    )
    return [
        {
            "name": os.path.relpath(path, directory),
            "bytes": os.path.getsize(path),
            "fingerprint": fingerprint(path),
        }
        for path in paths
    ]


class HuggingFaceSource:
    """A dataset of the hub (`hf:NAME` or `hf:NAME:CONFIG`), or a folder of `save_to_disk`."""

    def __init__(self, rest: str, options: SourceOptions) -> None:
        self.is_local = os.path.isdir(os.path.expanduser(rest))
        name, _, config = (
            (os.path.expanduser(rest), "", "") if self.is_local else rest.partition(":")
        )
        self.name, self.config, self.options = name, config or None, options
        self.bad = BadRecords(options.bad_share)
        self.records = self._load()

    def _load(self) -> Any:
        import datasets

        try:
            if not self.is_local:
                return datasets.load_dataset(
                    self.name, self.config, split=self.options.split, streaming=True
                )
            loaded = datasets.load_from_disk(self.name)
        except Exception as error:  # the library raises a dozen unrelated types
            raise self._unreachable(error) from error
        if isinstance(loaded, datasets.DatasetDict):
            if self.options.split not in loaded:
                known = ", ".join(loaded)
                raise UserError(f"{self.name} has no split {self.options.split!r}; it has: {known}")
            loaded = loaded[self.options.split]
        return loaded

    def _unreachable(self, error: Exception) -> UserError:
        kind = UserError if self.is_local else Unreachable
        return kind(
            f"hf dataset {self.name!r} (split {self.options.split!r}) cannot be loaded: "
            f"{_first_line(error)}; check the name, the split and the network, "
            "or give a folder written by save_to_disk"
        )

    def documents(self) -> Iterator[Document]:
        """Streams the records of the split; each document is its own group."""
        self.bad = BadRecords(self.options.bad_share)
        name = os.path.basename(self.name.rstrip("/")) if self.is_local else self.name
        yield from _records_to_documents(self.records, name, self.options.text_field, self.bad)

    def describe(self) -> dict[str, Any]:
        """The files of a folder; of a dataset of the hub its name and commit."""
        described: dict[str, Any] = {
            "kind": "hf",
            "split": self.options.split,
            "text_field": self.options.text_field,
        }
        if self.is_local:
            return described | {"files": _files_below(self.name)}
        return described | {"dataset": self.name, "config": self.config, "commit": self._commit()}

    def _commit(self) -> str | None:
        import huggingface_hub

        try:
            return huggingface_hub.HfApi().dataset_info(self.name).sha
        except Exception as error:  # as above
            raise self._unreachable(error) from error


class TfdsSource:
    """A dataset of the TFDS catalogue (`tfds:NAME/CONFIG`), or the folder of a builder."""

    def __init__(self, rest: str, options: SourceOptions) -> None:
        self.name, self.options = os.path.expanduser(rest), options
        self.bad = BadRecords(options.bad_share)
        self.builder = self._load()

    def _load(self) -> Any:
        import tensorflow_datasets as tfds

        try:
            if os.path.isdir(self.name):
                builder = tfds.builder_from_directory(self.name)
            else:
                builder = tfds.builder(self.name, file_format="array_record")
                builder.download_and_prepare()
        except Exception as error:  # a missing builder, a missing network, a missing file format
            raise UserError(
                f"tfds dataset {self.name!r} cannot be loaded: {_first_line(error)}; "
                "check the name and the network, or give a builder's folder of array_record files"
            ) from error
        parts = self.options.split.split("+")  # "train[:90%]+validation"
        if not all(part.partition("[")[0].strip() in builder.info.splits for part in parts):
            known = ", ".join(builder.info.splits)
            raise UserError(f"{self.name} has no split {self.options.split!r}; it has: {known}")
        return builder

    def documents(self) -> Iterator[Document]:
        """Streams the records of the split in the order of their files."""
        self.bad = BadRecords(self.options.bad_share)
        source = self.builder.as_data_source(self.options.split)
        records = (source[index] for index in range(len(source)))
        field = self.options.text_field
        yield from _records_to_documents(records, self.builder.info.name, field, self.bad)

    def describe(self) -> dict[str, Any]:
        """Name, version, split and number of examples, and the builder's files."""
        info = self.builder.info
        return {
            "kind": "tfds",
            "dataset": info.full_name,
            "split": self.options.split,
            "text_field": self.options.text_field,
            "files": _files_below(str(self.builder.data_path)),
        }
