"""What benchmarks/gpu_program.py reads out of a compiled step."""

import pytest

from tests.helpers import benchmark_module

PROGRAM = """HloModule step

%scaled (x: f32[80,4]) -> f32[80,4] {
  %x = f32[80,4]{1,0} parameter(0)
  ROOT %y = f32[80,4]{1,0} multiply(%x, %x)
}

%turn (at: (f32[80,4], s32[])) -> (f32[80,4], s32[]) {
  %at = (f32[80,4]{1,0}, /*index=1*/s32[]) parameter(0)
  %x.1 = f32[80,4]{1,0} get-tuple-element(%at), index=0
  %mul = f32[80,4]{1,0} fusion(%x.1), kind=kLoop, calls=%scaled, metadata={op_name="step/mul"}
  %i = s32[] get-tuple-element(%at), index=1
  ROOT %next = (f32[80,4]{1,0}, s32[]) tuple(%mul, %i)
}

ENTRY %main (a: bf16[16,32], b: bf16[32,64], c: f32[80,4], n: f32[20,4]) -> f32[80,4] {
  %a = bf16[16,32]{1,0} parameter(0)
  %b = bf16[32,64]{1,0} parameter(1)
  %c = f32[80,4]{1,0} parameter(2)
  %n = f32[20,4]{1,0} parameter(3)
  %dot = (bf16[16,64]{1,0}, s8[33554432]{0}) custom-call(%a, %b), \
custom_call_target="__cublas$lt$matmul", metadata={op_name="step/dot"}, \
backend_config={"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}
  %began = (f32[80,4]{1,0}, s32[]) tuple(%c, %c)
  %loop = (f32[80,4]{1,0}, /*index=1*/s32[]) while(%began), condition=%more, body=%turn, \
backend_config={"known_trip_count":{"n":"3"}}
  %whole = f32[80,4]{1,0} get-tuple-element(%loop), index=0
  ROOT %kept = f32[80,4]{1,0} fusion(%whole, %n), kind=kLoop, calls=%scaled, \
metadata={op_name="step/dynamic_update_slice"}, control-predecessors={%cublas-lt-matmul.1}
}
""".replace("\\\n", "")


@pytest.fixture(scope="module")
def module():
    return benchmark_module("gpu_program")


@pytest.fixture(scope="module")
def found(module):
    return {kernel.part: kernel for kernel in module.kernels(PROGRAM)}


def test_a_kernel_in_a_loop_counts_as_often_as_the_loop_turns(module, found):
    assert {part: kernel.times for part, kernel in found.items()} == {
        "step/dot": 1,
        "step/mul": 3,
        "step/dynamic_update_slice": 1,
    }
    assert module.summary(list(found.values()))["kernels"] == 5


def test_a_product_has_operations_and_its_work_space_is_not_moved(found):
    assert found["step/dot"].operations == 2 * 16 * 64 * 32
    assert found["step/dot"].bytes == 2 * (16 * 32 + 32 * 64 + 16 * 64)
    assert [part for part, kernel in found.items() if kernel.is_product] == ["step/dot"]


def test_an_update_in_place_moves_what_is_new_and_not_the_whole(found):
    assert found["step/mul"].bytes == 2 * 80 * 4 * 4
    assert found["step/dynamic_update_slice"].bytes == 2 * 20 * 4 * 4


def test_the_floor_is_the_larger_of_two_times(module):
    moving = module.Kernel("", False, 2, int(module.BANDWIDTH), 0.0)
    counting = module.Kernel("", True, 1, 8, 3 * module.PRODUCTS)
    assert moving.seconds == 2.0
    assert counting.seconds == 3.0


def test_a_kernel_of_a_kind_that_nobody_foresaw_is_counted(module):
    program = PROGRAM.replace(
        "ROOT %kept = f32[80,4]{1,0} fusion(", "ROOT %kept = f32[80,4] brand-new("
    )
    assert module.summary(list(module.kernels(program)))["kernels"] == 5


def test_without_the_plugin_of_jax_the_remedy_is_told(module, monkeypatch):
    def missing(*_, **__):
        raise NotImplementedError("topology not implemented for cuda")

    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv(module.WITHOUT_DEVICE, "1")
    monkeypatch.setattr(module.topologies, "get_topology_desc", missing)
    with pytest.raises(SystemExit, match=r'no CUDA plugin \(.*\); pip install -e ".\[cuda\]"'):
        module.h100()
