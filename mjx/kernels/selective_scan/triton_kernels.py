"""The selective scan's two Triton kernels. Importing this imports Triton; `triton` launches them.

A program has a row and a block of channels, goes over time in chunks, and inside a chunk over the states: a
tile is [channels, time], with time last in memory, so that the scan over time stays within a warp. Arrays
are padded to whole blocks, and nothing is masked. What passes from chunk to chunk (a state, or its gradient,
for each channel and state) passes through memory: a loop cannot index registers. No two programs write to
one element; sums over programs are the host's.
"""

import triton.language as tl  # type: ignore[import-not-found]
from triton import jit  # type: ignore[import-not-found]


@jit
def _compose(first_decay, first, then_decay, then):
    """Two steps of hₜ = aₜ hₜ₋₁ + bₜ as one (Blelloch 1990)."""
    return then_decay * first_decay, then_decay * first + then


@jit
def _add_pairs(left, right, more_left, more_right):
    """Two sums in one pass over shared memory."""
    return left + more_left, right + more_right


@jit
def _silu_and_slope(z):
    sigmoid = 1 / (1 + tl.exp(-z))
    return z * sigmoid, sigmoid * (1 + z * (1 - sigmoid))


@jit
def _decay(delta, A, start):
    """exp(delta A), and zero where a document begins: nothing of the state before reaches it."""
    return tl.where(start != 0, 0.0, tl.exp(delta * A))


@jit
def forward_kernel(
    u_ptr,
    delta_ptr,
    A_ptr,
    B_ptr,
    C_ptr,
    D_ptr,
    z_ptr,
    starts_ptr,
    initial_ptr,
    y_ptr,
    states_ptr,
    channels: tl.constexpr,
    length: tl.constexpr,
    state_size: tl.constexpr,
    block_channels: tl.constexpr,
    block_time: tl.constexpr,
    has_skip: tl.constexpr,
    has_gate: tl.constexpr,
    has_starts: tl.constexpr,
):
    """Outputs y [batch, channels, time], and the states before each chunk and after the last."""
    row = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(0) * block_channels + tl.arange(0, block_channels)[:, None]
    step = tl.arange(0, block_time)[None, :]
    chunks: tl.constexpr = length // block_time
    per_state = channels * state_size
    at_channel = channel * state_size
    states_ptr += row * (chunks + 1) * per_state
    for n in range(state_size):
        tl.store(states_ptr + at_channel + n, tl.load(initial_ptr + row * per_state + at_channel + n))
    skip = tl.zeros((block_channels, 1), tl.float32)
    if has_skip:
        skip = tl.load(D_ptr + channel)
    for chunk in range(chunks):
        tl.debug_barrier()  # other threads of the block have stored the states that are loaded here
        time = chunk * block_time + step
        here = (row * channels + channel) * length + time
        u = tl.load(u_ptr + here).to(tl.float32)
        delta = tl.load(delta_ptr + here)
        start = tl.zeros((1, block_time), tl.int32)
        if has_starts:
            start = tl.load(starts_ptr + row * length + time)
        drive = delta * u
        y = skip * u
        for n in range(state_size):
            A = tl.load(A_ptr + at_channel + n)
            now = (row * state_size + n) * length + time
            B = tl.load(B_ptr + now).to(tl.float32)
            C = tl.load(C_ptr + now).to(tl.float32)
            entering = tl.load(states_ptr + at_channel + n)
            passed, h = tl.associative_scan((_decay(delta, A, start), drive * B), 1, _compose)
            h += passed * entering
            y += h * C
            leaving = tl.sum(tl.where(step == block_time - 1, h, 0.0), 1, keep_dims=True)
            tl.store(states_ptr + per_state + at_channel + n, leaving)
        if has_gate:
            gate, _ = _silu_and_slope(tl.load(z_ptr + here).to(tl.float32))
            y *= gate
        tl.store(y_ptr + here, y.to(y_ptr.dtype.element_ty))
        states_ptr += per_state


@jit
def backward_kernel(
    u_ptr,
    delta_ptr,
    A_ptr,
    B_ptr,
    C_ptr,
    D_ptr,
    z_ptr,
    starts_ptr,
    states_ptr,
    d_y_ptr,
    d_final_ptr,
    d_u_ptr,
    d_delta_ptr,
    d_A_ptr,
    d_B_ptr,
    d_C_ptr,
    d_D_ptr,
    d_z_ptr,
    d_states_ptr,
    channels: tl.constexpr,
    length: tl.constexpr,
    state_size: tl.constexpr,
    padded_state: tl.constexpr,
    block_channels: tl.constexpr,
    block_time: tl.constexpr,
    has_skip: tl.constexpr,
    has_gate: tl.constexpr,
    has_starts: tl.constexpr,
):
    """Gradients: of A and D for each row, of B and C for each block of channels.

    `d_states` [batch, chunks + 1, channels, state] has the gradients of the states after each chunk's first
    token, and last that of the final state.
    """
    block, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    channel = block * block_channels + tl.arange(0, block_channels)[:, None]
    step = tl.arange(0, block_time)[None, :]
    chunks: tl.constexpr = length // block_time
    per_state = channels * state_size
    at_channel = channel * state_size
    states_ptr += (row * (chunks + 1) + chunks - 1) * per_state
    d_states_ptr += (row * (chunks + 1) + chunks - 1) * per_state
    partial = (row * tl.num_programs(0) + block) * state_size
    one_row = tl.broadcast_to(channel == block * block_channels, (block_channels, block_time))
    for n in range(state_size):
        final = tl.load(d_final_ptr + row * per_state + at_channel + n)
        tl.store(d_states_ptr + per_state + at_channel + n, final)
    skip = tl.zeros((block_channels, 1), tl.float32)
    if has_skip:
        skip = tl.load(D_ptr + channel)
    d_skip = tl.zeros((block_channels, 1), tl.float32)
    column = tl.arange(0, padded_state)[None, :]
    d_A_all = tl.zeros((block_channels, padded_state), tl.float32)
    for back in range(chunks):
        tl.debug_barrier()  # other threads of the block have stored the gradients that are loaded here
        time = (chunks - 1 - back) * block_time + step
        here = (row * channels + channel) * length + time
        u = tl.load(u_ptr + here).to(tl.float32)
        delta = tl.load(delta_ptr + here)
        d_y = tl.load(d_y_ptr + here).to(tl.float32)
        inside = time + 1 < length
        next_delta = tl.load(delta_ptr + here + 1, mask=inside & (channel >= 0), other=0.0)
        start = tl.zeros((1, block_time), tl.int32)
        next_start = start
        if has_starts:
            start = tl.load(starts_ptr + row * length + time)
            next_start = tl.load(starts_ptr + row * length + time + 1, mask=inside, other=0)
        y = skip * u  # before the gate
        d_out = d_y
        slope = d_y
        if has_gate:
            gate, slope = _silu_and_slope(tl.load(z_ptr + here).to(tl.float32))
            d_out = d_y * gate
        d_skip += tl.sum(d_out * u, 1, keep_dims=True)
        drive = delta * u
        d_drive = tl.zeros((block_channels, block_time), tl.float32)
        d_delta = tl.zeros((block_channels, block_time), tl.float32)
        first_all = tl.zeros((block_channels, padded_state), tl.float32)
        for n in range(state_size):
            A = tl.load(A_ptr + at_channel + n)
            now = (row * state_size + n) * length + time
            B = tl.load(B_ptr + now).to(tl.float32)
            C = tl.load(C_ptr + now).to(tl.float32)
            driven = drive * B
            passed, h = tl.associative_scan((_decay(delta, A, start), driven), 1, _compose)
            h += passed * tl.load(states_ptr + at_channel + n)
            # The transpose: g of a token is d_out C and, decayed by the next token, the g of the next.
            next_decay = _decay(next_delta, A, next_start)
            passed, g = tl.associative_scan((next_decay, d_out * C), 1, _compose, reverse=True)
            g += passed * tl.load(d_states_ptr + per_state + at_channel + n)
            d_exponent = g * (h - driven)  # h - driven is the decayed state
            if has_gate:
                y += h * C
            d_drive += g * B
            d_delta += d_exponent * A
            g_first = tl.where(step == 0, g, 0.0)
            d_A, first = tl.reduce((d_exponent * delta, g_first), 1, _add_pairs, keep_dims=True)
            # Stored with those of all other states: each by itself would be given another layout.
            d_A_all += tl.where(column == n, d_A, 0.0)
            first_all = tl.where(column == n, first, first_all)
            d_B, d_C = tl.reduce((g * drive, h * d_out), 0, _add_pairs, keep_dims=True)
            # Tiles, of which one row is stored, for the same reason.
            of_block = tl.broadcast_to((partial + n) * length + time, (block_channels, block_time))
            tl.store(d_B_ptr + of_block, tl.broadcast_to(d_B, (block_channels, block_time)), mask=one_row)
            tl.store(d_C_ptr + of_block, tl.broadcast_to(d_C, (block_channels, block_time)), mask=one_row)
        tl.store(d_states_ptr + at_channel + column, first_all, mask=column < state_size)
        tl.store(d_u_ptr + here, (d_drive * delta + d_out * skip).to(d_u_ptr.dtype.element_ty))
        tl.store(d_delta_ptr + here, d_delta + d_drive * u)
        if has_gate:
            tl.store(d_z_ptr + here, (d_y * y * slope).to(d_z_ptr.dtype.element_ty))
        states_ptr -= per_state
        d_states_ptr -= per_state
    tl.store(d_A_ptr + row * per_state + at_channel + column, d_A_all, mask=column < state_size)
    tl.store(d_D_ptr + row * channels + channel, d_skip)
