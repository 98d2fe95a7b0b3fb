"""torch's files are read as torch reads them, and nothing that a file says is ever run."""

import collections
import io
import pickle
import zipfile

import numpy as np
import pytest

from condenser_jax.errors import UserError
from condenser_jax.hf.torch_files import read_torch_file


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="compares with torch, which is not installed")


def _archive(path, content: bytes, **files: bytes):
    """A zip archive as torch.save writes it, around any pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", content)
        for name, data in files.items():
            archive.writestr(f"archive/{name}", data)
    return path


class _Refer(pickle.Pickler):
    """Pickles `_Storage` as torch refers to a storage."""

    def persistent_id(self, obj):
        return ("storage", *obj.reference) if isinstance(obj, _Storage) else None


class _Storage:
    def __init__(self, *reference):
        self.reference = reference


def _pickled(obj) -> bytes:
    buffer = io.BytesIO()
    _Refer(buffer, protocol=2).dump(obj)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64", "int64", "bool"])
def test_tensors_equal_those_of_torch(torch, tmp_path, dtype):
    base = (torch.arange(24).reshape(4, 6) - 7.25).to(getattr(torch, dtype))
    tensors = {
        "plain": base.clone(),
        "transposed": base.T,
        "columns": base[:, 1::2],
        "shared": base[2:],
        "scalar": base[1, 1].clone(),
        "empty": base[:0].clone(),
        "expanded": base[:1].expand(3, 6),
    }
    torch.save(tensors, tmp_path / "model.bin")
    read = read_torch_file(tmp_path / "model.bin")
    assert set(read) == set(tensors)
    for name, tensor in tensors.items():
        assert str(read[name].dtype) == dtype
        expected = tensor.double().numpy()
        np.testing.assert_array_equal(read[name].astype(np.float64), expected, err_msg=name)


def test_a_state_dict_of_a_module_and_bare_parameters_are_read(torch, tmp_path):
    module = torch.nn.Linear(3, 2)
    torch.save(module.state_dict(), tmp_path / "module.bin")
    torch.save({"weight": module.weight, "epoch": 3}, tmp_path / "parameter.bin")
    for name in ("module.bin", "parameter.bin"):
        weight = read_torch_file(tmp_path / name)["weight"]
        np.testing.assert_array_equal(weight, module.weight.detach().numpy())
    assert "epoch" not in read_torch_file(tmp_path / "parameter.bin")


def test_changing_one_tensor_does_not_change_another_of_the_same_storage(torch, tmp_path):
    base = torch.zeros(4)
    torch.save({"a": base, "b": base[1:]}, tmp_path / "model.bin")
    read = read_torch_file(tmp_path / "model.bin")
    read["a"][:] = 1
    assert not read["b"].any()


class _Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return open, (str(self.victim), "w")


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path):
    victim = tmp_path / "victim"
    content = pickle.dumps({"weight": _Payload(victim)}, protocol=2)
    pickle.loads(content)["weight"].close()
    assert victim.exists()  # the payload is a real one
    victim.unlink()
    with pytest.raises(UserError, match=r"asks for (io|_io)\.open, which is refused .* save the w"):
        read_torch_file(_archive(tmp_path / "model.bin", content))
    assert not victim.exists()


def test_a_name_inside_an_allowed_module_is_refused_too(tmp_path):
    content = b"\x80\x02ctorch\nload\nU\x01x\x85R."
    with pytest.raises(UserError, match=r"asks for torch\.load, which is refused"):
        read_torch_file(_archive(tmp_path / "model.bin", content))


def test_a_pickle_cannot_alter_what_it_is_given(tmp_path):
    # BUILD with a pair of states sets attributes: here, on the function that rebuilds tensors.
    content = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}U\x01aK\x01s\x86b."
    with pytest.raises(UserError, match="is no readable state dict"):
        read_torch_file(_archive(tmp_path / "model.bin", content))


def test_the_format_before_torch_1_6_is_refused_with_the_remedy(torch, tmp_path):
    old = {"_use_new_zipfile_serialization": False}
    torch.save({"weight": torch.ones(2)}, tmp_path / "model.bin", **old)
    with pytest.raises(UserError, match="format before 1.6, which is not read; save the weights"):
        read_torch_file(tmp_path / "model.bin")


def test_a_truncated_file_is_refused(torch, tmp_path):
    path = tmp_path / "model.bin"
    torch.save({"weight": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"model\.bin is broken or in torch's format before 1\.6"):
        read_torch_file(path)


def test_a_zip_archive_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.bin", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(UserError, match="is a zip archive but not one of torch.save; save"):
        read_torch_file(tmp_path / "model.bin")


def test_a_file_without_a_dict_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds a list, not a state dict; save the weights again"):
        read_torch_file(_archive(tmp_path / "model.bin", pickle.dumps([1], protocol=2)))


def test_a_big_endian_file_is_refused(tmp_path):
    content = pickle.dumps({}, protocol=2)
    with pytest.raises(UserError, match="was saved by a big-endian machine; save"):
        read_torch_file(_archive(tmp_path / "model.bin", content, byteorder=b"big"))


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (3,), (1,)), (1, (2,), (1,)), (-1, (1,), (1,)), (1, (2,), (-1,))],
)
def test_a_tensor_that_reaches_outside_its_storage_is_refused(tmp_path, offset, shape, strides):
    path = _write_tensor(tmp_path / "model.bin", offset, shape, strides)
    with pytest.raises(UserError, match=r"no readable state dict \(a tensor of shape .* outside"):
        read_torch_file(path)


def test_a_tensor_inside_its_storage_is_read_by_the_same_road(tmp_path):
    path = _write_tensor(tmp_path / "model.bin", 0, (2,), (1,))
    np.testing.assert_array_equal(read_torch_file(path)["weight"], [1.0, 2.0])


def _write_tensor(path, offset, shape, strides):
    """A hand-made file with one tensor over a storage of two floats."""
    arguments = (offset, shape, strides, False, collections.OrderedDict())
    body = _pickled((_Storage("FLOAT", "0", "cpu", 2), *arguments))
    return _archive(path, _call(body), **{"data/0": np.array([1, 2], np.float32).tobytes()})


def _call(arguments: bytes) -> bytes:
    """The pickle of {"weight": torch._utils._rebuild_tensor_v2(*arguments)}."""
    # A storage's class is a global in torch's files; here a placeholder is swapped for it.
    arguments = arguments.removeprefix(b"\x80\x02").removesuffix(b".")
    placeholder = b"X\x05\x00\x00\x00FLOAT"
    assert placeholder in arguments
    arguments = arguments.replace(placeholder, b"ctorch\nFloatStorage\n")
    return b"\x80\x02}U\x06weightctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."
