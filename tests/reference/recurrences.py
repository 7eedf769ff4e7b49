"""What goes over a row token by token: the causal convolution, and the scans of state spaces.

Where the segment id changes the past is forgotten; a token of segment 0 gives zero and changes nothing.
"""

from collections.abc import Iterator

import numpy as np

from reference.mlp import ACTIVATIONS

silu = ACTIVATIONS["silu"]


def tokens(segment_ids: np.ndarray | None, row: int, length: int) -> Iterator[tuple[int, bool]]:
    """The row's real tokens, and whether each begins a document after another."""
    before = None
    for at in range(length):
        now = 1 if segment_ids is None else segment_ids[row, at]
        if now > 0:
            yield at, before not in (None, now)
            before = now


def causal_conv1d(x, weight, bias=None, *, activation=None, initial_state=None, segment_ids=None):
    """Outputs, and the last width - 1 inputs; x is (batch, sequence, channels), weight (channels, width)."""
    (batch, length, channels), width = x.shape, weight.shape[1]
    y, finals = np.zeros(x.shape), []
    for row in range(batch):
        past = np.zeros((width - 1, channels)) if initial_state is None else initial_state[row]
        for at, begins in tokens(segment_ids, row, length):
            past = np.concatenate([np.zeros_like(past) if begins else past, x[row, at][None].astype(float)])
            summed = (past * weight.T).sum(0) + (0 if bias is None else bias)
            y[row, at] = silu(summed) if activation == "silu" else summed
            past = past[1:]
        finals.append(past)
    return y, np.stack(finals)


def _time_step(dt, bias, softplus):
    dt = dt.astype(np.float64) + (0 if bias is None else bias)
    return np.log1p(np.exp(dt)) if softplus else dt


def ssd(
    x, dt, A, B, C, *, D=None, z=None, dt_bias=None, dt_softplus=False, initial_state=None, segment_ids=None
):
    """hₜ = exp(dtₜ A) hₜ₋₁ + dtₜ xₜ Bₜᵀ, yₜ = (hₜ Cₜ + D xₜ) silu(zₜ), head by head (Dao and Gu 2024).

    Outputs, and the last states (batch, heads, head_dim, state)."""
    (batch, length, heads, head_dim), (groups, state) = x.shape, B.shape[2:]
    dt = _time_step(dt, dt_bias, dt_softplus)
    y, h = np.zeros(x.shape), np.zeros((batch, heads, head_dim, state))
    for row in range(batch):
        for head in range(heads):
            group = head // (heads // groups)
            now = h[row, head] if initial_state is None else initial_state[row, head]
            for at, begins in tokens(segment_ids, row, length):
                now = np.zeros_like(now) if begins else now
                entering = dt[row, at, head] * np.outer(x[row, at, head], B[row, at, group])
                now = np.exp(dt[row, at, head] * A[head]) * now + entering
                out = now @ C[row, at, group] + (0 if D is None else D[head] * x[row, at, head])
                y[row, at, head] = out if z is None else out * silu(z[row, at, head].astype(np.float64))
            h[row, head] = now
    return y, h


def selective_scan(
    u,
    delta,
    A,
    B,
    C,
    *,
    D=None,
    z=None,
    delta_bias=None,
    delta_softplus=False,
    initial_state=None,
    segment_ids=None,
):
    """hₜ = exp(deltaₜ A) hₜ₋₁ + deltaₜ uₜ Bₜ, yₜ = (hₜ · Cₜ + D uₜ) silu(zₜ) per channel (Gu and Dao 2023).

    Outputs, and the last states (batch, channels, state)."""
    (batch, length, channels), state = u.shape, A.shape[1]
    delta = _time_step(delta, delta_bias, delta_softplus)
    y, h = np.zeros(u.shape), np.zeros((batch, channels, state))
    for row in range(batch):
        for channel in range(channels):
            now = h[row, channel] if initial_state is None else initial_state[row, channel]
            for at, begins in tokens(segment_ids, row, length):
                now = np.zeros_like(now) if begins else now
                step = delta[row, at, channel]
                now = np.exp(step * A[channel]) * now + step * u[row, at, channel] * B[row, at]
                out = now @ C[row, at] + (0 if D is None else D[channel] * u[row, at, channel])
                y[row, at, channel] = out if z is None else out * silu(np.float64(z[row, at, channel]))
            h[row, channel] = now
    return y, h
