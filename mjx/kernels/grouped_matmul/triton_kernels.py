"""The Triton kernels of grouped matmul. Importing this imports Triton; `triton` launches them.

A program makes one tile, sums it in registers in float32, and writes it once. Only rows are masked that are
of another group, or of none, and what lies beyond the ends of the other axes where tiles do not divide them.
"""

import triton.language as tl  # type: ignore[import-not-found]
from triton import jit  # type: ignore[import-not-found]


@jit
def _place(number, down: tl.constexpr, across: tl.constexpr, panel: tl.constexpr):
    """Row and column of a tile among `down` × `across`, which are walked in panels of so many rows."""
    first = number // (panel * across) * panel
    height = tl.minimum(down - first, panel)
    inside = number % (panel * across)
    return first + inside % height, inside // height


@jit
def _products(
    rows_ptr,
    kernels_ptr,
    group_ptr,
    start_ptr,
    stop_ptr,
    out_ptr,
    summed: tl.constexpr,
    made: tl.constexpr,
    summed_stride,
    made_stride,
    blocks: tl.constexpr,
    panel: tl.constexpr,
    block_rows: tl.constexpr,
    block_summed: tl.constexpr,
    block_made: tl.constexpr,
):
    """Rows [rows, summed] with their groups' kernels, read by strides as [groups, summed, made]."""
    columns: tl.constexpr = (made + block_made - 1) // block_made
    block, column = _place(tl.program_id(0), blocks, columns, panel)
    start = tl.load(start_ptr + block)
    stop = tl.load(stop_ptr + block)
    if start < stop:
        row = start + tl.arange(0, block_rows)
        out = column * block_made + tl.arange(0, block_made)
        step = tl.arange(0, block_summed)
        own = (row < stop)[:, None]
        inside = (out < made)[None, :]
        here = row.to(tl.int64)[:, None]
        there = out.to(tl.int64)[None, :]
        group = tl.load(group_ptr + block).to(tl.int64)
        a_ptr = rows_ptr + here * summed + step[None, :]
        b_ptr = kernels_ptr + group * (summed * made) + step[:, None] * summed_stride + there * made_stride
        total = tl.zeros((block_rows, block_made), tl.float32)
        for done in range(0, summed, block_summed):
            if summed % block_summed == 0:
                a = tl.load(a_ptr, mask=own, other=0.0)
                b = tl.load(b_ptr) if made % block_made == 0 else tl.load(b_ptr, mask=inside, other=0.0)
            else:
                left = step < summed - done
                a = tl.load(a_ptr, mask=own & left[None, :], other=0.0)
                b = tl.load(b_ptr, mask=left[:, None] & inside, other=0.0)
            total = tl.dot(a, b, total, input_precision="ieee")
            a_ptr += block_summed
            b_ptr += block_summed * summed_stride
        tl.store(out_ptr + here * made + there, total.to(out_ptr.dtype.element_ty), mask=own & inside)


@jit
def forward_kernel(
    rows_ptr,
    kernels_ptr,
    group_ptr,
    start_ptr,
    stop_ptr,
    out_ptr,
    inner: tl.constexpr,
    outer: tl.constexpr,
    blocks: tl.constexpr,
    panel: tl.constexpr,
    block_rows: tl.constexpr,
    block_inner: tl.constexpr,
    block_outer: tl.constexpr,
):
    """A program has a block of rows of one group, and some of their outputs."""
    _products(
        rows_ptr,
        kernels_ptr,
        group_ptr,
        start_ptr,
        stop_ptr,
        out_ptr,
        inner,
        outer,
        outer,
        1,
        blocks,
        panel,
        block_rows,
        block_inner,
        block_outer,
    )


@jit
def rows_gradient_kernel(
    d_out_ptr,
    kernels_ptr,
    group_ptr,
    start_ptr,
    stop_ptr,
    d_rows_ptr,
    inner: tl.constexpr,
    outer: tl.constexpr,
    blocks: tl.constexpr,
    panel: tl.constexpr,
    block_rows: tl.constexpr,
    block_inner: tl.constexpr,
    block_outer: tl.constexpr,
):
    """The same, with transposed kernels."""
    _products(
        d_out_ptr,
        kernels_ptr,
        group_ptr,
        start_ptr,
        stop_ptr,
        d_rows_ptr,
        outer,
        inner,
        1,
        outer,
        blocks,
        panel,
        block_rows,
        block_outer,
        block_inner,
    )


@jit
def kernels_gradient_kernel(
    rows_ptr,
    d_out_ptr,
    first_ptr,
    last_ptr,
    d_kernels_ptr,
    inner: tl.constexpr,
    outer: tl.constexpr,
    panel: tl.constexpr,
    block_rows: tl.constexpr,
    block_inner: tl.constexpr,
    block_outer: tl.constexpr,
):
    """A program has a part of one group's gradient, and goes over all rows of the group."""
    down: tl.constexpr = (inner + block_inner - 1) // block_inner
    across: tl.constexpr = (outer + block_outer - 1) // block_outer
    number = tl.program_id(0)
    group = number // (down * across)
    tile_inner, tile_outer = _place(number % (down * across), down, across, panel)
    first = tl.load(first_ptr + group)
    last = tl.load(last_ptr + group)
    above = tile_inner * block_inner + tl.arange(0, block_inner)
    beside = tile_outer * block_outer + tl.arange(0, block_outer)
    step = tl.arange(0, block_rows)
    row = (first + step).to(tl.int64)
    a_ptr = rows_ptr + row[None, :] * inner + above[:, None]
    b_ptr = d_out_ptr + row[:, None] * outer + beside[None, :]
    total = tl.zeros((block_inner, block_outer), tl.float32)
    for begin in range(first, last, block_rows):
        own = step < last - begin
        a_mask = own[None, :]
        if inner % block_inner != 0:
            a_mask = a_mask & (above < inner)[:, None]
        b_mask = own[:, None]
        if outer % block_outer != 0:
            b_mask = b_mask & (beside < outer)[None, :]
        a = tl.load(a_ptr, mask=a_mask, other=0.0)
        b = tl.load(b_ptr, mask=b_mask, other=0.0)
        total = tl.dot(a, b, total, input_precision="ieee")
        a_ptr += block_rows * inner
        b_ptr += block_rows * outer
    here = group.to(tl.int64) * (inner * outer) + above.to(tl.int64)[:, None] * outer + beside[None, :]
    inside = (above < inner)[:, None] & (beside < outer)[None, :]
    tl.store(d_kernels_ptr + here, total.to(d_kernels_ptr.dtype.element_ty), mask=inside)
