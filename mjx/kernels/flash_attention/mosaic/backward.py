"""The backward pass of attention for Hopper: a kernel for keys and values, one for queries, no atomics."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu
from jaxtyping import Array, Float

from mjx.kernels.flash_attention.blocks import Options
from mjx.kernels.flash_attention.mosaic import blocks as parts
from mjx.kernels.flash_attention.mosaic.config import BlockSizes

UNSEEN = 1e30
"""log2 of the sum for queries that see nothing, and beyond the last: their probabilities become zero."""


def gradient_of_queries(
    options: Options,
    shift: int,
    keys: int,
    sizes: BlockSizes,
    q: Float[Array, "batch query heads head_dim"],
    k: Float[Array, "batch key kv_heads head_dim"],
    v: Float[Array, "batch key kv_heads value_dim"],
    d_out: Float[Array, "batch query heads value_dim"],
    log_sum: Float[Array, "batch heads padded_query"],
    delta: Float[Array, "batch heads padded_query"],
    interpret: Any = None,
) -> Float[Array, "batch query heads head_dim"]:
    """Dao et al. 2022, algorithm 4, rows outside. `log_sum` in units of log 2, UNSEEN where nothing is."""
    batch, queries, heads, head_dim = q.shape
    kv_heads, value_dim = k.shape[2], v.shape[3]
    block_q, block_kv, workers, stages = sizes.query, sizes.key, sizes.compute, sizes.stages
    tile = workers * block_q
    count = -(-queries // tile)
    unit, ragged = parts.unit(options), keys % block_kv > 0

    def flash_attention_mosaic_queries(
        q_ref, k_ref, v_ref, d_out_ref, log_sum_ref, delta_ref, d_q_ref, *scratch
    ):
        q_smem, d_out_smem, k_smem, v_smem, log_sum_smem, delta_smem, own_ready, *barriers = scratch
        k_ready, v_ready, k_free, v_free = barriers
        row, head, worker = (parts.int_axis(name) for name in ("batch", "head", "warpgroup"))
        tile_index = parts.int_axis("tile")
        if options.causal:
            tile_index = jnp.int32(count - 1) - tile_index  # the longest first
        of = parts.span(tile_index * tile, tile, shift, parts.reach(options), block_kv, keys)

        @pl.when(worker < workers)
        def compute():
            plgpu.set_max_registers(parts.COMPUTE_REGISTERS[workers], action="increase")
            first = tile_index * tile + worker * block_q
            mine, my_d_out = q_smem.at[worker], d_out_smem.at[worker]
            own, ready = (row, pl.ds(first, block_q), head), own_ready.at[worker]
            plgpu.copy_gmem_to_smem(q_ref.at[own], mine, ready)
            plgpu.copy_gmem_to_smem(d_out_ref.at[own], my_d_out, ready)
            rows = (row, head, pl.ds(first, block_q))
            plgpu.copy_gmem_to_smem(log_sum_ref.at[rows], log_sum_smem.at[worker], ready)
            plgpu.copy_gmem_to_smem(delta_ref.at[rows], delta_smem.at[worker], ready)
            plgpu.barrier_wait(ready)  # one phase, which all four copies complete
            log_sums = plgpu.layout_cast(log_sum_smem[worker], parts.PER_ROW)
            deltas = plgpu.layout_cast(delta_smem[worker], parts.PER_ROW)

            def step(block, d_q, masked):
                slot = parts.ring(block - of.low, stages).slot
                plgpu.barrier_wait(k_ready.at[slot])
                products = parts.multiply(mine, k_smem.at[slot], transpose_b=True)
                shape, mask = products.shape, None
                if masked:
                    begin = block * block_kv
                    left = keys - begin if ragged else None
                    mask = parts.visible(options, shape, first + shift - begin, left, queries_down=True)
                s, slope = parts.scores(options, products, mask)
                p = jnp.exp2(s * unit - parts.over_columns(log_sums, shape))
                plgpu.barrier_wait(v_ready.at[slot])
                d_p = parts.multiply(my_d_out, v_smem.at[slot], transpose_b=True)
                plgpu.barrier_arrive(v_free.at[slot])  # multiply() has waited for wgmma: the values are read
                d_s = p * (d_p - parts.over_columns(deltas, shape))
                d_s = d_s if slope is None else d_s * slope
                d_q = parts.accumulate(d_q, d_s.astype(k.dtype), k_smem.at[slot])
                plgpu.barrier_arrive(k_free.at[slot])  # both products with these keys have been waited for
                return d_q

            bounded = (options.window is not None, options.causal or options.window is not None)
            d_q = parts.loop(of, step, parts.zeros(block_q, head_dim), ragged=ragged, bounded=bounded)
            mine[...] = (d_q * options.scale).astype(q.dtype)  # nobody reads the queries any more
            plgpu.commit_smem()  # TMA sees what was written
            plgpu.copy_smem_to_gmem(mine, d_q_ref.at[own])  # writes nothing beyond the last query
            plgpu.wait_smem_to_gmem(0)  # shared memory lives no longer than its block

        @pl.when(worker == workers)
        def load():
            plgpu.set_max_registers(parts.PRODUCER_REGISTERS, action="decrease")
            kv_head = lax.div(head, jnp.int32(heads // kv_heads))

            @pl.loop(of.low, of.high)
            def _(block):
                at = parts.ring(block - of.low, stages)
                source = (row, pl.ds(block * block_kv, block_kv), kv_head)
                parts.refill(at, k_free, (k_ref.at[source], k_smem, k_ready))
                parts.refill(at, v_free, (v_ref.at[source], v_smem, v_ready))

    landed = plgpu.Barrier(num_arrivals=1, num_barriers=stages)
    read = plgpu.Barrier(num_arrivals=workers, num_barriers=stages)
    return plgpu.kernel(
        flash_attention_mosaic_queries,
        out_type=jax.ShapeDtypeStruct(q.shape, q.dtype),
        scratch_types=(
            parts.tiles(workers, block_q, head_dim, dtype=q.dtype),
            parts.tiles(workers, block_q, value_dim, dtype=q.dtype),
            parts.tiles(stages, block_kv, head_dim, dtype=k.dtype),
            parts.tiles(stages, block_kv, value_dim, dtype=v.dtype),
            plgpu.SMEM((workers, block_q), jnp.float32),
            plgpu.SMEM((workers, block_q), jnp.float32),
            plgpu.Barrier(num_arrivals=4, num_barriers=workers),
            landed,
            landed,
            read,
            read,
        ),
        grid=(heads, count, batch),
        grid_names=("head", "tile", "batch"),
        num_threads=workers + 1,
        thread_name="warpgroup",
        compiler_params=parts.compiler_params(),
        interpret=interpret,
    )(q, k, v, d_out, log_sum, delta)


def gradients_of_keys(
    options: Options,
    shift: int,
    sizes: BlockSizes,
    q: Float[Array, "batch query heads head_dim"],
    k: Float[Array, "batch key kv_heads head_dim"],
    v: Float[Array, "batch key kv_heads value_dim"],
    d_out: Float[Array, "batch query heads value_dim"],
    log_sum: Float[Array, "batch heads padded_query"],
    delta: Float[Array, "batch heads padded_query"],
    interpret: Any = None,
) -> tuple[Float[Array, "batch key kv_heads head_dim"], Float[Array, "batch key kv_heads value_dim"]]:
    """Algorithm 4, columns outside; a block goes over the query heads of its group, so that no two add to one
    gradient."""
    batch, queries, heads, head_dim = q.shape
    keys, kv_heads, value_dim = k.shape[1], k.shape[2], v.shape[3]
    block_q, block_kv, workers, stages = sizes.query, sizes.key, sizes.compute, sizes.stages
    tile, group = workers * block_kv, heads // kv_heads
    unit = parts.unit(options)
    back, ahead = parts.reach(options)
    # Queries beyond the last are UNSEEN and need no mask: the last block counts as full.
    padded_queries = -(-queries // block_q) * block_q

    def flash_attention_mosaic_keys(
        q_ref, k_ref, v_ref, d_out_ref, log_sum_ref, delta_ref, d_k_ref, d_v_ref, *scratch
    ):
        k_smem, v_smem, q_smem, d_out_smem, log_sum_smem, delta_smem, own_ready, ready, free = scratch
        row, kv_head, worker = (parts.int_axis(name) for name in ("batch", "kv_head", "warpgroup"))
        tile_index = parts.int_axis("tile")  # of causal attention the first are the longest
        of = parts.span(tile_index * tile, tile, -shift, (ahead, back), block_q, padded_queries)

        @pl.when(worker < workers)
        def compute():
            plgpu.set_max_registers(parts.COMPUTE_REGISTERS[workers], action="increase")
            first = tile_index * tile + worker * block_kv
            my_keys, my_values = k_smem.at[worker], v_smem.at[worker]
            own, arrived = (row, pl.ds(first, block_kv), kv_head), own_ready.at[worker]
            plgpu.copy_gmem_to_smem(k_ref.at[own], my_keys, arrived)
            plgpu.copy_gmem_to_smem(v_ref.at[own], my_values, arrived)
            plgpu.barrier_wait(arrived)  # one phase, which both copies complete

            # One loop over the heads' blocks, masked throughout: a second loop's registers would spill.
            def step(turn, carry):
                block, d_k, d_v = carry
                slot = parts.ring(turn, stages).slot
                plgpu.barrier_wait(ready.at[slot])  # one phase, which all four copies complete
                products = parts.multiply(my_keys, q_smem.at[slot], transpose_b=True)
                shape, mask = products.shape, None
                if back is not None or ahead is not None:
                    # Rows beyond the last key hold what they like: they are not stored.
                    distance = block * block_q + shift - first
                    mask = parts.visible(options, shape, distance, None, queries_down=False)
                s, slope = parts.scores(options, products, mask)
                log_sums = plgpu.layout_cast(log_sum_smem[slot], parts.PER_COLUMN)
                p = jnp.exp2(s * unit - parts.over_rows(log_sums, shape))
                d_v = parts.accumulate(d_v, p.astype(v.dtype), d_out_smem.at[slot])
                d_p = parts.multiply(my_values, d_out_smem.at[slot], transpose_b=True)
                deltas = plgpu.layout_cast(delta_smem[slot], parts.PER_COLUMN)
                d_s = p * (d_p - parts.over_rows(deltas, shape))
                d_s = d_s if slope is None else d_s * slope
                d_k = parts.accumulate(d_k, d_s.astype(q.dtype), q_smem.at[slot])
                # Sums and deltas were read by ordinary loads, and TMA, another proxy, writes there next.
                plgpu.commit_smem()
                plgpu.barrier_arrive(free.at[slot])  # all four products waited for
                following = jnp.where(block + 1 == of.high, of.low, block + 1)  # of the next head
                return following, d_k, d_v

            start = of.low, parts.zeros(block_kv, head_dim), parts.zeros(block_kv, value_dim)
            _, d_k, d_v = lax.fori_loop(0, group * (of.high - of.low), step, start)
            # Nobody reads the keys and values any more: every product with them has been waited for.
            my_keys[...] = (d_k * options.scale).astype(k.dtype)
            my_values[...] = d_v.astype(v.dtype)
            plgpu.commit_smem()  # TMA sees what was written
            plgpu.copy_smem_to_gmem(my_keys, d_k_ref.at[own])  # writes nothing beyond the last key
            plgpu.copy_smem_to_gmem(my_values, d_v_ref.at[own])
            plgpu.wait_smem_to_gmem(0)  # shared memory lives no longer than its block

        @pl.when(worker == workers)
        def load():
            plgpu.set_max_registers(parts.PRODUCER_REGISTERS, action="decrease")

            @pl.loop(0, group)
            def _(member):
                head = kv_head * group + member

                @pl.loop(of.low, of.high)
                def _(block):
                    at = parts.ring(member * (of.high - of.low) + block - of.low, stages)
                    source = (row, pl.ds(block * block_q, block_q), head)
                    numbers = (row, head, pl.ds(block * block_q, block_q))
                    parts.refill(
                        at,
                        free,
                        (q_ref.at[source], q_smem, ready),
                        (d_out_ref.at[source], d_out_smem, ready),
                        (log_sum_ref.at[numbers], log_sum_smem, ready),
                        (delta_ref.at[numbers], delta_smem, ready),
                    )

    return plgpu.kernel(
        flash_attention_mosaic_keys,
        out_type=(jax.ShapeDtypeStruct(k.shape, k.dtype), jax.ShapeDtypeStruct(v.shape, v.dtype)),
        scratch_types=(
            parts.tiles(workers, block_kv, head_dim, dtype=k.dtype),
            parts.tiles(workers, block_kv, value_dim, dtype=v.dtype),
            parts.tiles(stages, block_q, head_dim, dtype=q.dtype),
            parts.tiles(stages, block_q, value_dim, dtype=q.dtype),
            plgpu.SMEM((stages, block_q), jnp.float32),
            plgpu.SMEM((stages, block_q), jnp.float32),
            plgpu.Barrier(num_arrivals=2, num_barriers=workers),
            # One for all that a step takes: there are no registers to keep the phases of more.
            plgpu.Barrier(num_arrivals=4, num_barriers=stages),
            plgpu.Barrier(num_arrivals=workers, num_barriers=stages),
        ),
        grid=(kv_heads, -(-keys // tile), batch),
        grid_names=("kv_head", "tile", "batch"),
        num_threads=workers + 1,
        thread_name="warpgroup",
        compiler_params=parts.compiler_params(),
        interpret=interpret,
    )(q, k, v, d_out, log_sum, delta)
