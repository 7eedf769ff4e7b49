"""The forward pass of attention for Hopper: one warpgroup loads, the others compute."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float

from mjx.kernels.flash_attention.blocks import MASKED, Options
from mjx.kernels.flash_attention.mosaic import blocks as parts
from mjx.kernels.flash_attention.mosaic.config import BlockSizes


def forward(
    options: Options,
    shift: int,
    keys: int,
    sizes: BlockSizes,
    q: Float[Array, "batch query heads head_dim"],
    k: Float[Array, "batch key kv_heads head_dim"],
    v: Float[Array, "batch key kv_heads value_dim"],
    interpret: Any = None,
) -> tuple[Float[Array, "batch query heads value_dim"], Float[Array, "batch heads padded_query"]]:
    """The output, and log2 of the softmax's sums (-infinity: nothing seen), of queries up to a whole block.

    `shift` is the position of the first query less that of the first key; keys from `keys` on
    are none.
    """
    batch, queries, heads, head_dim = q.shape
    kv_heads, value_dim = k.shape[2], v.shape[3]
    block_q, block_kv, workers, stages = sizes.query, sizes.key, sizes.compute, sizes.stages
    tile = workers * block_q
    count = -(-queries // tile)
    unit, ragged = parts.unit(options), keys % block_kv > 0

    def flash_attention_mosaic_forward(q_ref, k_ref, v_ref, out_ref, log_sum_ref, *scratch):
        q_smem, k_smem, v_smem, log_sum_smem, q_ready, k_ready, v_ready, k_free, v_free, own_out = scratch
        row, head, worker = (parts.int_axis(name) for name in ("batch", "head", "warpgroup"))
        tile_index = parts.int_axis("tile")
        if options.causal:
            tile_index = jnp.int32(count - 1) - tile_index  # the longest first
        # One span for all the warpgroups, so that each buffer is released by each.
        of = parts.span(tile_index * tile, tile, shift, parts.reach(options), block_kv, keys)

        @pl.when(worker < workers)
        def compute():
            plgpu.set_max_registers(parts.COMPUTE_REGISTERS[workers], action="increase")
            first = tile_index * tile + worker * block_q
            mine, my_log_sum = q_smem.at[worker], log_sum_smem.at[worker]
            own = (row, pl.ds(first, block_q), head)
            plgpu.copy_gmem_to_smem(q_ref.at[own], mine, q_ready.at[worker])
            plgpu.barrier_wait(q_ready.at[worker])  # wgmma reads q from the first step on

            def step(block, carry, masked):
                out, maximum, total = carry
                slot = parts.ring(block - of.low, stages).slot
                plgpu.barrier_wait(k_ready.at[slot])  # the copy of this block of keys has landed
                products = parts.multiply(mine, k_smem.at[slot], transpose_b=True)
                plgpu.barrier_arrive(k_free.at[slot])  # multiply() has waited for wgmma: the keys are read
                mask = None
                if masked:
                    begin = block * block_kv
                    left = keys - begin if ragged else None
                    mask = parts.visible(
                        options, products.shape, first + shift - begin, left, queries_down=True
                    )
                s, _ = parts.scores(options, products, mask)
                new = jnp.maximum(maximum, s.max(axis=1) * unit)
                decay = jnp.exp2(maximum - new)
                p = jnp.exp2(s * unit - parts.over_columns(new, s.shape))
                total = total * decay + p.sum(axis=1)
                out = out * parts.over_columns(decay, out.shape)
                plgpu.barrier_wait(v_ready.at[slot])
                out = parts.accumulate(out, p.astype(v.dtype), v_smem.at[slot])
                plgpu.barrier_arrive(v_free.at[slot])  # accumulate() has waited for wgmma
                return out, new, total

            # Scores that are masked lie at MASKED: from here they weigh nothing, even before one is seen.
            start = parts.zeros(block_q, value_dim), parts.full(block_q, 0.5 * MASKED), parts.full(block_q, 0)
            bounded = (options.window is not None, options.causal or options.window is not None)
            out, maximum, total = parts.loop(of, step, start, ragged=ragged, bounded=bounded)
            seen = total > 0
            total = jnp.where(seen, total, 1.0)
            out = out * parts.over_columns(1 / total, out.shape)
            # Nobody reads the queries any more: every product with them has been waited for.
            out_smem = mine if own_out is None else own_out.at[worker]
            out_smem[...] = out.astype(v.dtype)
            my_log_sum[...] = jnp.where(seen, maximum + jnp.log2(total), -jnp.inf)
            plgpu.commit_smem()  # TMA sees what was written
            plgpu.copy_smem_to_gmem(out_smem, out_ref.at[own])  # writes nothing beyond the last query
            plgpu.copy_smem_to_gmem(my_log_sum, log_sum_ref.at[row, head, pl.ds(first, block_q)])
            plgpu.wait_smem_to_gmem(0)  # shared memory lives no longer than its block

        @pl.when(worker == workers)
        def load():
            plgpu.set_max_registers(parts.PRODUCER_REGISTERS, action="decrease")
            kv_head = lax.div(head, jnp.int32(heads // kv_heads))

            @pl.loop(of.low, of.high)
            def _(block):
                at = parts.ring(block - of.low, stages)
                # Beyond the last key TMA fills with zeros.
                source = (row, pl.ds(block * block_kv, block_kv), kv_head)
                parts.refill(at, k_free, (k_ref.at[source], k_smem, k_ready))
                parts.refill(at, v_free, (v_ref.at[source], v_smem, v_ready))

    landed = plgpu.Barrier(num_arrivals=1, num_barriers=stages)
    read = plgpu.Barrier(num_arrivals=workers, num_barriers=stages)
    return plgpu.kernel(
        flash_attention_mosaic_forward,
        out_type=(
            jax.ShapeDtypeStruct((batch, queries, heads, value_dim), v.dtype),
            jax.ShapeDtypeStruct((batch, heads, count * tile), jnp.float32),
        ),
        scratch_types=(
            parts.tiles(workers, block_q, head_dim, dtype=q.dtype),
            parts.tiles(stages, block_kv, head_dim, dtype=k.dtype),
            parts.tiles(stages, block_kv, value_dim, dtype=v.dtype),
            plgpu.SMEM((workers, block_q), jnp.float32),
            plgpu.Barrier(num_arrivals=1, num_barriers=workers),
            landed,
            landed,
            read,
            read,
            None if value_dim == head_dim else parts.tiles(workers, block_q, value_dim, dtype=v.dtype),
        ),
        grid=(heads, count, batch),
        grid_names=("head", "tile", "batch"),
        num_threads=workers + 1,
        thread_name="warpgroup",
        compiler_params=parts.compiler_params(),
        interpret=interpret,
    )(q, k, v)
