"""What bounds a training step on a GPU that is not there: its kernels, as compiled for an H100.

    pip install -e ".[cuda]"
    python benchmarks/gpu_program.py                 # a Condenser at BERT-base, 64 x 128 tokens
    python benchmarks/gpu_program.py --method=tutor_kd
    python benchmarks/gpu_program.py --method=tutor_kd --batch=16 --length=64 --rows=10

Nothing is run and no device is needed, only the CUDA plugin of jax. Each kernel is charged the
larger of two times: its bytes (operands and results; of a slice or a look-up what is moved) over
the bandwidth of memory, its operations over the speed of matrix products, at the speeds that an
H200 reaches on large copies and products. The sum is a floor: launches cost nothing there and every
kernel is perfect, but for one thing: what a kernel leaves in the cache the next one reads faster,
which helps small steps most. A step far above it is bound by launches, one near it by memory.
Appends a line to docs/benchmarks/gpu_program.jsonl.
"""

import argparse
import math
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

import jax  # noqa: E402
import record  # noqa: E402
from flag_types import count  # noqa: E402
from jax.experimental import topologies  # noqa: E402

# Without a device nothing can be tried out, so products are the library's.
WITHOUT_TRYING = "--xla_gpu_autotune_level=0 --xla_gpu_enable_triton_gemm=false"
WITHOUT_DEVICE = "JAX_SKIP_CUDA_CONSTRAINTS_CHECK"  # whose versions could be looked at
OUTPUT = record.FOLDER / "gpu_program.jsonl"
BANDWIDTH, PRODUCTS = 4.3e12, 7.9e14  # bytes and bfloat16 operations per second of an H200
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448 threads_per_core_limit: 2048
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84929347584
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 7 }
runtime_version { major: 12 minor: 8 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8}
ARRAY = re.compile(rf"\b({'|'.join(BYTES)})\[([\d,]*)\]")
COMMENT = re.compile(r"/\*.*?\*/")
BEGINNING = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.-]+).*\{$")
INSTRUCTION = re.compile(
    r"^\s+(?:ROOT )?%(?P<name>[\w.-]+) = (?P<shape>\([^=]*?\)|\S+) (?P<kind>[\w-]+)\((?P<rest>.*)$"
)
LAUNCHES_NOTHING = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}
LIBRARY = 'custom_call_target="__cublas'
SMALL = 64  # bytes: an index, not what is written


class Kernel(NamedTuple):
    """A kernel, and how often a step launches it."""

    part: str  # of the step that it computes, as jax names it
    is_product: bool
    times: int
    bytes: int  # moved by each launch
    operations: float  # of a matrix product, else 0

    @property
    def seconds(self) -> float:
        """Of all launches, at the speeds above."""
        return self.times * max(self.bytes / BANDWIDTH, self.operations / PRODUCTS)


def kernels(program: str) -> Iterator[Kernel]:
    """The kernels of a compiled step, given as text; those of a loop count as often as it turns."""
    bodies: dict[str, list[re.Match[str]]] = {}
    entry = lines = None
    for line in COMMENT.sub("", program).splitlines():
        if begins := BEGINNING.match(line):
            lines = bodies.setdefault(begins["name"], [])
            entry = begins["name"] if begins["entry"] else entry
        elif lines is not None and (found := INSTRUCTION.match(line)):
            lines.append(found)
    assert entry, "no ENTRY in the program"
    yield from _launched(bodies, entry, 1)


def _launched(bodies: Mapping[str, list[re.Match[str]]], name: str, times: int) -> Iterator[Kernel]:
    shapes = {line["name"]: line["shape"] for line in bodies[name]}
    for line in bodies[name]:
        rest = line["rest"]
        if line["kind"] == "while":
            turns = int(_found(r'known_trip_count":\{"n":"(\d+)', rest))
            yield from _launched(bodies, _found(r"body=%?([\w.-]+)", rest), times * turns)
        elif line["kind"] == "call":
            yield from _launched(bodies, _found(r"to_apply=%?([\w.-]+)", rest), times)
        elif (inner := _product_inside(bodies, line)) is not None:
            yield from _launched(bodies, inner, times)
        elif line["kind"] not in LAUNCHES_NOTHING:
            assert line["kind"] != "conditional", "which branch is taken is not known before"
            read = [shapes[name] for name in re.findall(r"%([\w.-]+)", rest.partition("), ")[0])]
            is_product = LIBRARY in rest
            part = re.search(r'op_name="([^"]*)"', rest)
            said = part[1] if part else line["kind"]
            written = line["shape"]
            if is_product and (first := ARRAY.search(written)):
                written = first[0]  # beside it there is work space
            operations = _operations(written, read[0], rest) if is_product else 0.0
            yield Kernel(said, is_product, times, _moved(written, read, said), operations)


def _product_inside(bodies: Mapping[str, list[re.Match[str]]], line: re.Match[str]) -> str | None:
    """The body of a fusion that is a product of the library, of slices that are not copied."""
    called = re.search(r"kind=kCustom, calls=%?([\w.-]+)", line["rest"])
    is_product = called and any(LIBRARY in inner["rest"] for inner in bodies[called[1]])
    return called[1] if called and is_product else None


def _moved(written: str, read: list[str], part: str) -> int:
    """Bytes of a launch. What is updated in place moves as much as the update has, what is sliced
    or looked up as much as is taken.
    """
    result, operands = _size(written), [_size(shape) for shape in read]
    if "dynamic_update_slice" in part:
        return 2 * min((size for size in operands if size > SMALL), default=result)
    if any(word in part for word in ("dynamic_slice", "gather", "_take")):
        return 2 * result
    return result + sum(operands)


def _operations(written: str, left: str, rest: str) -> float:
    """2 for each element of the result and each term that is summed up in it."""
    places = re.findall(r"\d+", _found(r'"lhs_contracting_dimensions":\[([^\]]*)\]', rest))
    sizes = _sizes(left)[0][1]
    return 2.0 * math.prod(_sizes(written)[0][1]) * math.prod(sizes[int(n)] for n in places)


def _sizes(shape: str) -> list[tuple[str, list[int]]]:
    """(dtype, sizes) of each array of a shape."""
    return [(dtype, [int(n) for n in at.split(",") if n]) for dtype, at in ARRAY.findall(shape)]


def _size(shape: str) -> int:
    return sum(BYTES[dtype] * math.prod(sizes) for dtype, sizes in _sizes(shape))


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match, f"{pattern} is not in {text[:200]}"
    return match[1]


def summary(found: list[Kernel]) -> dict[str, Any]:
    """Launches and floor of a step, in all and of its products."""
    products = [kernel for kernel in found if kernel.is_product]
    return {
        "kernels": sum(kernel.times for kernel in found),
        "products": sum(kernel.times for kernel in products),
        "gigabytes": round(sum(kernel.times * kernel.bytes for kernel in found) / 1e9, 2),
        "teraflop": round(sum(kernel.times * kernel.operations for kernel in found) / 1e12, 3),
        "floor_ms": round(1e3 * sum(kernel.seconds for kernel in found), 2),
        "floor_of_products_ms": round(1e3 * sum(kernel.seconds for kernel in products), 2),
    }


def h100() -> jax.sharding.SingleDeviceSharding:
    """A place on an H100 that is not there. Ends the command where jax has no CUDA plugin."""
    os.environ.setdefault(WITHOUT_DEVICE, "1")
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {WITHOUT_TRYING}"
    try:
        target = topologies.get_topology_desc("H100", "cuda", topology="1x1x1", target_config=H100)
    except (NotImplementedError, RuntimeError) as error:
        sys.exit(f'jax {jax.__version__} has no CUDA plugin ({error}); pip install -e ".[cuda]"')
    return jax.sharding.SingleDeviceSharding(target.devices[0])


def compiled(
    method: str, batch: int, length: int, rows: int, scanned: bool, place: jax.sharding.Sharding
) -> tuple[str, int]:
    """The program of a step of [batch, length] tokens, of `rows` runs side by side, and the bytes
    that it needs beside its arguments.
    """
    if method == "condenser":
        import condenser_in_jax as ours
        from condenser_job import SIZES, Job, make_batch

        *shape, _ = SIZES["base"]
        job = Job(*shape, batch, length, "bfloat16")
        create, step = ours.build_step(job, scan_layers=scanned)
        frozen = {}
    else:
        import tutor_in_jax as ours
        from tutor_job import Job, make_batch

        job = Job(6, 384, 3, 384, 12, batch, 30_522, length, "bfloat16")
        create, freeze, step = ours.build_step(job, ours.JOINT, scan_layers=scanned)
        frozen = jax.eval_shape(freeze, jax.random.key(0))
    state, dials = jax.eval_shape(create, jax.random.key(0)), ours.DIALS
    if rows > 1:
        state, dials = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((rows, *jax.numpy.shape(x)), x.dtype), (state, dials)
        )
        mapped = jax.vmap(step, in_axes=(0, None, None, 0))
        step = jax.jit(mapped, donate_argnums=0)
    arguments = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(jax.numpy.shape(x), x.dtype, sharding=place),
        (state, frozen, make_batch(job), dials),
    )
    program = step.lower(*arguments).compile()
    return program.as_text(), program.memory_analysis().temp_size_in_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", choices=["condenser", "tutor_kd"], default="condenser")
    parser.add_argument("--batch", type=count, default=64, help="rows")
    parser.add_argument("--length", type=count, default=128, help="tokens of a row")
    parser.add_argument("--rows", type=count, default=1, help="runs side by side")
    parser.add_argument("--parts", type=count, default=12, help="parts of the step to print")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    place = h100()
    figures = {}
    for form in ("unrolled", "scanned"):
        began = time.monotonic()
        program, memory = compiled(
            *(arguments.method, arguments.batch, arguments.length, arguments.rows),
            form == "scanned",
            place,
        )
        found = list(kernels(program))
        seconds = round(time.monotonic() - began, 1)
        figures[form] = {**summary(found), "temporary_gb": round(memory / 1e9, 2)}
        print(f"{form}, compiled in {seconds} s: {figures[form]}")
        parts: dict[str, float] = {}
        for kernel in found:
            part = re.sub(r"\d+", "N", kernel.part)
            parts[part] = parts.get(part, 0.0) + 1e3 * kernel.seconds
        for part, spent in sorted(parts.items(), key=lambda item: -item[1])[: arguments.parts]:
            print(f"  {spent:8.3f} ms  {part[-100:]}")
    job = {name: vars(arguments)[name] for name in ("method", "batch", "length", "rows")}
    record.append(arguments.output, {"jax": jax.__version__, "job": job, "figures": figures})


if __name__ == "__main__":
    main()
