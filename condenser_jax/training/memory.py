"""What a compiled step needs of a device's memory, and what the device has."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax

from condenser_jax.errors import UserError

# What a TPU device holds, as on the data sheets, by its `device_kind`: a chip, whose two cores work
# as one device; of v2 and v3 a core.
GIGABYTES = {
    "TPU v2": 8,
    "TPU v3": 16,
    "TPU v4": 32,
    "TPU v5 lite": 16,
    "TPU v5": 95,
    "TPU v6 lite": 32,
}


class StepMemory(NamedTuple):
    """Bytes of one device."""

    arguments: int  # state and batch
    temporaries: int  # beside them, when the step needs most

    @property
    def peak(self) -> int:
        """The most that the step needs at a time."""
        return self.arguments + self.temporaries


def memory_of(step: jax.stages.Compiled) -> StepMemory:
    """What a compiled step takes of each device."""
    found = step.memory_analysis()
    assert found is not None, "backends for CPU, GPU and TPU tell"
    arguments = found.argument_size_in_bytes
    new = found.output_size_in_bytes - found.alias_size_in_bytes
    temporaries = found.temp_size_in_bytes + new
    # The TPU compiler states the peak, and temporaries only in part.
    return StepMemory(arguments, max(temporaries, found.peak_memory_in_bytes - arguments))


def device_memory(device: jax.Device) -> float:
    """Bytes of one device, told by one of this process if another process has it; the devices of a
    CPU share the memory that programs may still take.
    """
    if device.device_kind in GIGABYTES:
        return GIGABYTES[device.device_kind] * 2**30
    stats = jax.local_devices(backend=device.platform)[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    return _available() / max(1, jax.local_device_count())


def _available() -> float:
    """Bytes that programs may take: what is free, and what the kernel keeps of files meanwhile."""
    with contextlib.suppress(OSError):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        kilobytes = next((line.split()[1] for line in lines if line.startswith("MemAv")), None)
        if kilobytes:
            return int(kilobytes) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class DoesNotFit(UserError):
    """A step needs more memory than a device has."""


SMALLER = (
    "lower training.batch_size or compute.chunk_size, raise training.accumulate or mesh.fsdp, or "
    "set compute.remat=True"
)


@contextlib.contextmanager
def explained_if_too_large(
    device: jax.Device, what: str = "the step", remedy: str = SMALLER
) -> Iterator[None]:
    """Raises DoesNotFit, one clear line, where a step is refused for its memory.

    The compiler for TPUs does so; those for CPU and GPU refuse nothing: there it is said when the
    step is run.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).partition("\n")[0]
        if "RESOURCE_EXHAUSTED" not in reason:
            raise
        raise DoesNotFit(
            f"{what} does not fit the memory of a {device.device_kind}; {remedy} (XLA says: "
            f"{reason})"
        ) from error
