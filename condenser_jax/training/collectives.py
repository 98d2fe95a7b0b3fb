"""What a compiled step sends between devices, read out of the compiler's own text.

A compiled module is a list of computations. The body of a loop is one of them, so what stands in it
happens as often as the loop turns, if the compiler says how often that is. The payload of a
collective is what it combines: its operands on one device, times the group for an all-gather. On
the wire, a ring of n devices carries (n - 1) / n of the payload over each link, twice that for an
all-reduce.
"""

import math
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
REDUCE_SCATTER = "all-reduce-scatter"  # how the TPU compiler names one, which it builds of others

_HEADER = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^ +(?:ROOT )?%?([\w.-]+) = (.+?) ([a-z][a-z0-9-]*)\((.*)$")
_ARRAY = re.compile(r"\b([a-z]+)(\d+)?\[([\d,]*)\]")
_CALLED = re.compile(r"\b(?:calls|body|to_apply|\w+_computations?)=\{?((?:%[\w.-]+(?:, )?)+)")
_CONDITION = re.compile(r"\bcondition=%([\w.-]+)")
_BODY = re.compile(r"\bbody=%([\w.-]+)")
_INDEX = re.compile(r"\bindex=(\d+)")  # of an element of a tuple
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
# Three notations: [groups,size]<=..., {{0,1},{2,3}} and mesh['a'=2,'b'=4] {'b'}.
_GROUPS = re.compile(
    r"replica_groups=(?:\[\d+,(\d+)\]|\{\{([\d,]*)\}|mesh\[([^\]]*)\] \{([^}]*)\})"
)


class Collective(NamedTuple):
    """One instruction that sends, and how often a step does it."""

    kind: str  # one of KINDS
    name: str  # in the compiler's text
    payload: int  # bytes, of one execution
    devices: int  # that take part in one exchange
    times: int  # executions per step
    loops: int  # how many loops it stands in
    counted: bool  # False where a loop does not say how often it turns: `times` counts it once

    @property
    def bytes(self) -> int:
        """Payload of a whole step."""
        return self.payload * self.times


class _Instruction(NamedTuple):
    name: str
    type: str
    opcode: str
    rest: str  # operands and attributes


def collectives(text: str) -> list[Collective]:
    """What a module (`compiled.as_text()`) sends between devices, instruction by instruction."""
    computations, entry = _parse(text)
    return list(_walk(computations, entry, times=1, loops=0, counted=True))


class Total(NamedTuple):
    """All collectives of a kind in one step."""

    times: int
    bytes: int
    in_loops: int  # bytes of those that stand in loops
    counted: bool


def by_kind(found: Iterable[Collective]) -> dict[str, Total]:
    """Sums per kind, in the order of KINDS; a kind that does not occur is left out."""
    found = list(found)
    totals = {}
    for kind in KINDS:
        own = [one for one in found if one.kind == kind]
        if own:
            totals[kind] = Total(
                sum(one.times for one in own),
                sum(one.bytes for one in own),
                sum(one.bytes for one in own if one.loops),
                all(one.counted for one in own),
            )
    return totals


def _parse(text: str) -> tuple[dict[str, list[_Instruction]], str]:
    """The instructions of every computation, and the name of the one that is run."""
    computations: dict[str, list[_Instruction]] = {}
    current, entry = "", ""
    for line in text.splitlines():
        if header := _HEADER.match(line):
            current = header[2]
            computations[current] = []
            entry = current if header[1] else entry
        elif instruction := _INSTRUCTION.match(line):
            computations[current].append(_Instruction(*instruction.groups()))
    return computations, entry


def _walk(
    computations: dict[str, list[_Instruction]],
    computation: str,
    times: int,
    loops: int,
    counted: bool,
) -> Iterator[Collective]:
    """The collectives of a computation that is run `times` times, and of all that it calls."""
    if _goes_on(computation, computations[computation]):
        return
    types = {one.name: one.type for one in computations[computation]}
    for one in computations[computation]:
        kind = one.opcode.removesuffix("-start")
        if kind in KINDS:
            devices = _devices(one)
            payload = sum(_bytes(types[name]) for name in _operands(one))
            payload *= devices if kind == "all-gather" else 1
            scatters = REDUCE_SCATTER in computation
            kind = "reduce-scatter" if scatters and kind == "all-reduce" else kind
            yield Collective(kind, one.name, payload, devices, times, loops, counted)
            continue
        turns, inner, known = times, loops, counted
        if one.opcode == "while":
            trips = _trips(one, computations)
            turns, inner, known = times * (trips or 1), loops + 1, counted and trips is not None
        if one.opcode not in ("async-update", "async-done"):  # these name the computation again
            for called in _called(one):
                yield from _walk(computations, called, turns, inner, known)


def _goes_on(name: str, instructions: list[_Instruction]) -> bool:
    """Whether a computation goes on with what another one, which counts, has started.

    The TPU compiler shows a collective that it runs beside products in each of its pieces.
    """
    ends = any('custom_call_target="AsyncCollectiveDone"' in one.rest for one in instructions)
    return ends or name.startswith("async_collective_fusion")


def _operands(one: _Instruction) -> list[str]:
    """Names of the operands, which end before the first attribute."""
    return re.findall(r"%([\w.-]+)", re.split(r"\), [a-z_]+=", one.rest, maxsplit=1)[0])


def _called(one: _Instruction) -> list[str]:
    return [
        name for names in _CALLED.findall(one.rest) for name in re.findall(r"%([\w.-]+)", names)
    ]


def _bytes(type_text: str) -> int:
    """Size of an array, or of all arrays of a tuple, as the compiler writes its type."""
    total = 0
    for family, bits, shape in _ARRAY.findall(type_text):
        width = 8 if family == "pred" else int(bits or 0)
        elements = 1
        for size in filter(None, shape.split(",")):
            elements *= int(size)
        total += elements * width // 8
    return total


def _trips(one: _Instruction, computations: dict[str, list[_Instruction]]) -> int | None:
    """How often a loop turns: as the compiler states, else what its counter is compared with.

    A loop counts up from 0 while it is less than a constant: by 1 if jax makes it of a scan, by 2
    where the TPU compiler does two turns of a ring at a time.
    """
    if stated := _TRIPS.search(one.rest):
        return int(stated[1])
    condition = _CONDITION.search(one.rest)
    if condition is None:
        return None
    steps = {step.name: step for step in computations[condition[1]]}
    compared = [step for step in steps.values() if step.opcode == "compare"]
    if len(compared) != 1 or "direction=LT" not in compared[0].rest:
        return None
    counter, limit = (steps.get(name) for name in _operands(compared[0])[:2])
    if limit is None or limit.opcode != "constant":
        return None
    return -(-_constant(limit) // _increment(one, counter, computations))


def _constant(one: _Instruction) -> int:
    return int(one.rest.split(")")[0])


def _increment(
    loop: _Instruction, counter: _Instruction | None, computations: dict[str, list[_Instruction]]
) -> int:
    """What a loop's body adds to its counter in a turn, if a plain addition of a constant shows."""
    index, name = _INDEX.search(counter.rest if counter else ""), _BODY.search(loop.rest)
    body = computations[name[1]] if name else []
    if index is None or not body:
        return 1
    steps, state = {step.name: step for step in body}, _operands(body[-1])
    number = int(index[1])
    added = steps.get(state[number]) if number < len(state) else None
    if added is None or added.opcode != "add":
        return 1
    constants = [steps[term] for term in _operands(added) if steps[term].opcode == "constant"]
    return _constant(constants[0]) if len(constants) == 1 else 1


def _devices(one: _Instruction) -> int:
    """How many devices exchange with each other."""
    groups = _GROUPS.search(one.rest)
    if groups is None:
        return 2 if one.opcode.startswith("collective-permute") else 1
    size, listed, axes, used = groups.groups()
    if size:
        return int(size)
    if listed is not None:
        return len(listed.split(","))
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", axes))
    return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", used))
