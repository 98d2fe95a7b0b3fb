"""Reads what `torch.save` writes, without torch and without running anything that a file says.

A file of `torch.save` (since torch 1.6) is a zip archive: `data.pkl` is a pickle of the structure,
`data/<key>` are the bytes of the storages. The unpickler knows a handful of names and refuses all
others.
"""

import collections
import io
import math
import pickle
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from condenser_jax.errors import UserError

_STORAGES = {
    "FloatStorage": np.float32,
    "DoubleStorage": np.float64,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_REMEDY = (
    "save the weights again in torch with safetensors.torch.save_file(model.state_dict(), ...) "
    "or torch.save(model.state_dict(), ...)"
)


def read_torch_file(path: str | Path) -> dict[str, np.ndarray]:
    """Returns {name: array} of a state dict saved by `torch.save`; what is no tensor is dropped.

    Raises UserError for the format before torch 1.6, for a broken file, and for a pickle that asks
    for anything but tensors: nothing of the kind is ever run.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            content = _Unpickler(archive, path).load()
    except zipfile.BadZipFile:
        raise UserError(
            f"{path} is broken or in torch's format before 1.6, which is not read; {_REMEDY}"
        ) from None
    except UserError:
        raise
    except Exception as e:  # a broken pickle may raise anything
        raise UserError(f"{path} is no readable state dict ({e}); {_REMEDY}") from e
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}, not a state dict; {_REMEDY}")
    return {name: value for name, value in content.items() if isinstance(value, np.ndarray)}


class _Unpickler(pickle.Unpickler):
    """An unpickler to which only tensors and dicts are known.

    `find_class` hands out bound methods, dtypes and a class in C: a pickle cannot alter them.
    """

    def __init__(self, archive: zipfile.ZipFile, path: Path):
        names = archive.namelist()
        found = [name for name in names if name.endswith("data.pkl") and name.count("/") <= 1]
        if not found:
            raise UserError(f"{path} is a zip archive but not one of torch.save; {_REMEDY}")
        root = found[0].removesuffix("data.pkl")
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
            raise UserError(f"{path} was saved by a big-endian machine; {_REMEDY} on a common one")
        super().__init__(io.BytesIO(archive.read(found[0])))
        self._archive, self._path, self._root = archive, path, root
        self._storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch._utils" and name == "_rebuild_tensor_v2":
            return self._rebuild_tensor
        if module == "torch._utils" and name == "_rebuild_parameter":
            return self._rebuild_parameter
        if module == "torch" and name in _STORAGES:
            return np.dtype(_STORAGES[name])
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        raise UserError(
            f"{self._path} asks for {module}.{name}, which is refused because it could run code; "
            f"{_REMEDY}"
        )

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, dtype, key, _, size = pid
        if kind != "storage":
            raise ValueError(f"unknown reference {kind!r}")
        if key not in self._storages:
            content = self._archive.read(f"{self._root}data/{key}")
            self._storages[key] = np.frombuffer(content, dtype, size)
        return self._storages[key]

    def _rebuild_tensor(
        self, storage: np.ndarray, offset: int, shape: tuple, strides: tuple, *_: Any
    ) -> np.ndarray:
        last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
        is_inside = offset >= 0 and min((*shape, *strides), default=0) >= 0
        if not is_inside or (math.prod(shape) and last >= storage.size):
            raise ValueError(f"a tensor of shape {list(shape)} reaches outside its storage")
        if not math.prod(shape):
            return np.zeros(shape, storage.dtype)
        steps = [stride * storage.itemsize for stride in strides]
        return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps).copy()

    def _rebuild_parameter(self, tensor: np.ndarray, *_: Any) -> np.ndarray:
        return tensor
