"""What is read out of compiled texts."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from interestyle_jax.planning.compiled import (
    Collectives,
    collectives,
    cycles_by_layer,
    layer,
    num_copies,
    num_zero_inserted,
    read_figures,
    up_convolutions,
)

BACKEND = 'backend_config={"estimated_cycles":"%s"}'
NAME = 'metadata={op_name="jit(step)/%s"}'
TEXT = "\n".join(
    [
        "HloModule step",
        "%condition (x: s32[]) -> pred[] {",
        "  %limit = s32[] constant(4)",
        "  ROOT %lt = pred[] compare(%i, %limit), direction=LT",
        "}",
        "%body (x: s32[]) -> s32[] {",
        "  %copy.8 = f32[3]{0} copy(%r), " + f"{NAME % 'jvp(Encoder)/head/add'}, {BACKEND % '5'}",
        "  %all-reduce.9 = f32[2]{0} all-reduce(%r), replica_groups={}, to_apply=%add",
        "}",
        "%inner (x: s32[]) -> s32[] {",
        "  %x = f32[2]{0} add(%a, %b), " + BACKEND % "9999",
        "}",
        "ENTRY %main (x: s32[]) -> s32[] {",
        "  %fusion.1 = bf16[8,4]{1,0:T(8,128)} fusion(%p), "
        + f"{NAME % 'jvp(Generator)/up_64/conv/add'}, {BACKEND % '300'}",
        "  %fusion.2 = bf16[8,4]{1,0} fusion(%p), "
        + f"{NAME % 'transpose(jvp(Generator))/up_64/conv/mul'}, {BACKEND % '500'}",
        "  %while.3 = (f32[8]{0}) while(%q), condition=%condition, body=%body, "
        + BACKEND % "9223372036854775807",
        "  %all-reduce.4 = f32[256,4]{1,0} all-reduce(%r), replica_groups={{0,1},{2,3}}",
        "  %all-reduce.5 = (f32[16]{0}, bf16[8]{0}) all-reduce(%r, %s), replica_groups=[1,4]<=[4]",
        "  %all-gather-start.6 = f32[64]{0} all-gather-start(%r), replica_groups={}",
        "  %copy.7 = f32[3]{0} copy(%r), " + BACKEND % "100",
        "}",
    ]
)


def test_cycles_are_the_entrys_by_layer():
    assert cycles_by_layer(TEXT) == {
        "Generator/up_64/conv, backward": 500,
        "Generator/up_64/conv": 300,
        "elsewhere": 100,
        # A loop of four turns.
        "Encoder/head": 20,
    }
    assert cycles_by_layer("ENTRY %main () -> f32[2] {\n  %x = f32[2] add(%a, %b)\n}") == {}


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("jit(step)/add", "elsewhere"),
        (
            "jit(step)/jvp(BackboneEncoder)/trunk/block_3/conv_1/conv",
            "BackboneEncoder/block_3/conv_1",
        ),
        (
            "jit(step)/while/body/transpose(jvp(Generator.draw))/up_8/add",
            "Generator/up_8, backward",
        ),
        ("jit(step)/ranger/mul", "ranger"),
    ],
)
def test_layers_are_named_without_the_functions_around_them(name, want):
    assert layer(name) == want


def test_collectives_by_kind_and_group():
    assert collectives(TEXT, 4) == [
        Collectives("all-gather", 4, 1, 256),
        Collectives("all-reduce", 2, 1, 4096),
        Collectives("all-reduce", 4, 5, 64 + 16 + 4 * 8),
    ]


def test_copies_are_counted_alone_and_fused():
    # One in a loop of four turns.
    assert num_copies(TEXT) == 5
    fused = "  %loop_transpose_fusion.3 = bf16[8,3]{1,0} fusion(%p), kind=kInput\n}"
    assert num_copies(TEXT.removesuffix("}") + fused) == 6


def test_maps_with_zeros_between_their_elements_are_counted():
    around = "%a = bf16[2,18,18,4] pad(%p, %z), padding=0_0x1_1x1_1x0_0\n"
    between = "%b = bf16[2,35,35,4] pad(%p, %z), padding=0_0_0x2_2_1x2_2_1x0_0_0, metadata={}\n"
    assert num_zero_inserted(around + between) == 1


def test_up_convolutions_are_told_apart():
    tail = 'metadata={op_name="jit(step)/Generator/up_32/conv/%s"}'
    dilated = "%a = bf16[1,9,9,4] convolution(%p, %k), window={size=3x3 lhs_dilate=2x2}, "
    plain = "%b = bf16[1,9,9,4] convolution(%p, %k), window={size=3x3 pad=1_1x1_1}, "
    call = '%c = (f32[1,9,9,4]) custom-call(%p, %k), custom_call_target="__cudnn$convForward", '
    lines = [line + tail % "conv_general_dilated" for line in (dilated, plain, call)]
    # A product with ones, and another layer.
    lines += [plain + tail % "dot_general", lines[1].replace("up_32", "conv_32")]
    assert up_convolutions("\n".join(lines)) == {"over zeros": 1, "plain": 1, "convForward": 1}


def test_figures_of_a_compiled_program():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("data"))
    x = jax.ShapeDtypeStruct((64, 32), jnp.float32, sharding=rows)
    compiled = jax.jit(lambda x: jnp.sum(x * x)).lower(x).compile()
    figures = read_figures(compiled, num_devices=8)
    assert figures.memory["arguments"] == 8 * 32 * 4
    assert 8 * 32 * 4 <= figures.bytes_accessed < 3 * 8 * 32 * 4
    assert figures.flops == pytest.approx(2 * 8 * 32, rel=0.05)
    (summed,) = figures.collectives
    assert (summed.kind, summed.devices, summed.bytes) == ("all-reduce", 8, 4)
    assert figures.cycles is None
    assert figures.num_instructions > 3
