"""Bytes accessed, of compiled texts."""

import jax
import jax.numpy as jnp

from interestyle_jax.planning.hlo_text import bytes_of, read_instruction
from interestyle_jax.planning.traffic import bytes_accessed

LOOP = """
%cond (x: s32[]) -> pred[] {
  %limit = s32[] constant(5)
  ROOT %lt = pred[] compare(%i, %limit), direction=LT
}
%read (p0: f32[5,100], p1: s32[]) -> f32[100] {
  %p0 = f32[5,100]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  ROOT %ds = f32[1,100]{1,0} dynamic-slice(%p0, %p1, %p1), dynamic_slice_sizes={1,100}
}
%write (q0: f32[5,100], q1: f32[1,100], q2: s32[]) -> f32[5,100] {
  %q0 = f32[5,100]{1,0} parameter(0)
  %q1 = f32[1,100]{1,0} parameter(1)
  %q2 = s32[] parameter(2)
  %dus = f32[5,100]{1,0} dynamic-update-slice(%q0, %q1, %q2, %q2)
  ROOT %cast = f32[5,100]{1,0} bitcast(%dus)
}
%body (x: (f32[5,100])) -> (f32[5,100]) {
  %a = f32[5,100]{1,0} get-tuple-element(%x), index=0
  %i = s32[] get-tuple-element(%x), index=1
  %row = f32[1,100]{1,0} fusion(%a, %i), kind=kLoop, calls=%read
  %new = f32[5,100]{1,0} fusion(%a, %row, %i), kind=kLoop, calls=%write
}
ENTRY %main (p: f32[5,100]) -> f32[5,100] {
  %p = f32[5,100]{1,0} parameter(0)
  %w = (f32[5,100]) while(%t), condition=%cond, body=%body
  %start = (f32[5,100]{1,0}, f32[5,100]{1,0:S(1)}, u32[]) copy-start(%p)
  %done = f32[5,100]{1,0:S(1)} copy-done(%start)
  %two = f32[100]{0} add(%p.1, %p.2), metadata={op_name="a(%p)"}
}
"""


def test_what_a_line_holds():
    line = "  ROOT %a.1 = (f32[8]{0}, u8[2]{0}) fusion(%b, %c.2), kind=kLoop, calls=%d"
    found = read_instruction(line)
    assert found.name == "a.1" and found.opcode == "fusion" and found.is_root
    assert found.operands == ["b", "c.2"] and bytes_of(found.shape) == 34
    assert found.rest == ", kind=kLoop, calls=%d"
    assert read_instruction("ENTRY %main (p: f32[2]) -> f32[2] {") is None


def test_a_loop_counts_every_turn_and_slices_their_own_size():
    row, index = 400, 4
    read = row + row + index
    written = row + row + index
    # The copy moves the array, from and to; the operands of the sum are not in the text.
    assert bytes_accessed(LOOP) == 5 * (read + written) + 2 * 2000 + 400


def test_a_compiled_product_reads_and_writes_its_arrays():
    n = 256
    square = jax.ShapeDtypeStruct((n, n), jnp.float32)
    once = jax.jit(lambda a, b: a @ b).lower(square, square).compile().as_text()
    assert bytes_accessed(once) == 3 * 4 * n * n
    seven = jax.jit(lambda a: jax.lax.scan(lambda x, _: (x @ a, None), a, None, length=7)[0])
    repeated = bytes_accessed(seven.lower(square).compile().as_text())
    assert 7 * 3 * 4 * n * n <= repeated < 7 * 6 * 4 * n * n
