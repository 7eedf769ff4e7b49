"""What stands between `enter`, `run` and `leave`: a second stream, embeddings made elsewhere, shared tables,
losses and statistics of mixers, and what a model does to its own parameters."""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from reference import decoder as reference
from reference.norm import norm

from mjx.errors import InputError
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.attention.cross_attention import CrossAttentionConfig
from mjx.models.common.context import Context, Memory
from mjx.models.common.linear import Linear
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.parameter import bind, buffer, differentiated, logical_axes_of, parameters_of
from mjx.models.common.pattern import Lengths, Mixed, MixerConfig, SublayerConfig
from mjx.models.common.token_model.embedding import Embedding
from mjx.models.common.token_model.inputs import Inputs, Targets
from mjx.models.common.token_model.language_model import LanguageModelConfig
from mjx.models.family import abstract_model
from mjx.models.report import Statistic
from mjx.sharding import MeshConfig, build_mesh, use_mesh
from mjx.training.optimizer import OptimizerConfig, build_optimizer
from mjx.training.schedule import ScheduleConfig, build_schedule
from mjx.training.state import TrainState
from mjx.training.step import build_evaluation_step, build_train_step
from mjx.trees import flatten, split, unflatten

VOCAB, EMBED, MEMORY = 40, 16, 12
NORM = NormConfig(kind="rmsnorm")
ATTENTION = AttentionConfig(num_heads=4, num_query_groups=2)
CROSS = CrossAttentionConfig(num_heads=4, num_query_groups=2, head_dim=4, memory_size=MEMORY, bias=True)
RANDOM = np.random.RandomState(0)
TOKENS = RANDOM.randint(0, VOCAB, (2, 9)).astype(np.int32)
STATES = RANDOM.randn(2, 7, MEMORY).astype(np.float32)
ONE = {"tokens": jnp.ones(())}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatternConfig(LanguageModelConfig):
    """A decoder of any mixers, twice."""

    mixers: tuple[MixerConfig, ...]
    vocab_size: int = VOCAB
    hidden_size: int = EMBED
    vocab_divisor: int = 8
    final_norm: ClassVar[NormConfig] = NORM

    def sublayers(self):
        mixers = (m.resolve(EMBED) if isinstance(m, AttentionConfig) else m for m in self.mixers)
        return tuple(SublayerConfig(mixer=mixer, norm=NORM) for mixer in mixers) * 2


DECODER = PatternConfig(mixers=(ATTENTION, CROSS, MLPConfig(features=24)))


@functools.cache
def filled(config):
    """The model with random parameters, and these by path."""
    model, random = abstract_model(config), np.random.RandomState(1)
    values = {
        path: (0.4 * random.randn(*leaf.shape)).astype(np.float32)
        for path, leaf in flatten(parameters_of(model)).items()
    }
    return bind(model, unflatten(values)), values


def reference_logits(config, values, tokens, **around):
    x = reference.stack(
        config.sublayers(), reference.below(values, "decoder"), values["embedding.weight"][tokens], **around
    )
    return norm(NORM, reference.below(values, "final_norm"), x) @ values["head.weight"][:VOCAB].T


@jax.jit
def logits_of(values, inputs):
    model = bind(abstract_model(DECODER), values)
    return model.logits(model.hidden_states(inputs))


@pytest.mark.parametrize("mesh", [None, {"fsdp": 2, "tensor": 4}, {"context": 1, "data": 2, "tensor": 2}])
def test_a_decoder_that_looks_at_given_states_equals_the_reference_on_any_mesh(mesh):
    _, values = filled(DECODER)
    padding = np.array([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0]], np.int32)
    mask = np.broadcast_to(padding[:, None] > 0, (2, 9, 7))
    expected = reference_logits(DECODER, values, TOKENS, memory=STATES, memory_mask=mask)
    inputs = Inputs(TOKENS, memory=Memory(STATES, padding))
    if mesh is None:
        got = logits_of(unflatten(values), inputs)
    else:
        tokens, states, ids = (np.repeat(a, 4, axis=0) for a in (TOKENS, STATES, padding))
        inputs = Inputs(np.pad(tokens, ((0, 0), (0, 3))), memory=Memory(states, ids))
        devices = int(np.prod(list(mesh.values())))
        with use_mesh(build_mesh(MeshConfig(**mesh), devices=jax.devices()[:devices])):
            got = jax.jit(logits_of.__wrapped__)(unflatten(values), inputs)[::4, :9]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-5 * np.abs(expected).max())


def test_packed_rows_see_the_part_of_the_memory_with_their_own_id():
    _, values = filled(DECODER)
    of_tokens = np.array([[1] * 4 + [2] * 5, [1] * 7 + [2] * 2], np.int32)
    of_memory = np.array([[1] * 3 + [2] * 4, [1] * 2 + [2] * 4 + [0]], np.int32)
    got = logits_of(
        unflatten(values), Inputs(TOKENS, segment_ids=of_tokens, memory=Memory(STATES, of_memory))
    )
    mask = of_tokens[:, :, None] == of_memory[:, None]
    expected = reference_logits(
        DECODER, values, TOKENS, memory=STATES, memory_mask=mask, segment_ids=of_tokens
    )
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-5 * np.abs(expected).max())


def test_the_memory_has_a_gradient_and_padding_of_it_none():
    model, _ = filled(DECODER)
    ids = np.array([[1] * 7, [1] * 4 + [0] * 3], np.int32)

    def total(states):
        return jnp.sum(jnp.sin(model.hidden_states(Inputs(TOKENS, memory=Memory(states, ids)))))

    gradient = np.asarray(jax.jit(jax.grad(total))(STATES))
    assert (np.abs(gradient).sum(-1) > 0).tolist() == (ids > 0).tolist()


@pytest.mark.parametrize("padded", [False, True])
def test_keys_and_values_of_the_memory_are_made_once_and_decoding_gives_the_whole_rows_logits(padded):
    model, values = filled(DECODER)
    ids = np.array([[1] * 7, [1] * (4 if padded else 7) + [0] * (3 if padded else 0)], np.int32)
    memory = Memory(STATES, ids if padded else None)
    expected = np.asarray(logits_of(unflatten(values), Inputs(TOKENS, memory=memory)))
    decoding, lengths = model.unrolled(), np.array([3, 5])
    prompt = np.where(np.arange(6) < lengths[:, None], TOKENS[:, :6], 0)
    begin = jax.jit(lambda: decoding.begin_with(Inputs(prompt, memory=memory), jnp.asarray(lengths), 16))
    got, caches = begin()
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-5 * np.abs(expected).max())
    close(got, expected[np.arange(2), lengths - 1])
    several, _ = jax.jit(decoding.next)(  # two tokens at once, as a draft that is verified
        np.stack([TOKENS[row, at : at + 2] for row, at in enumerate(lengths)]), caches, jnp.asarray(lengths)
    )
    close(several, np.stack([expected[row, at : at + 2] for row, at in enumerate(lengths)]))
    step = jax.jit(decoding.next)
    for ahead in range(4):
        at = lengths + ahead
        got, caches = step(TOKENS[np.arange(2), at][:, None], caches, jnp.asarray(at))
        close(got[:, 0], expected[np.arange(2), at])


def test_cross_attention_without_a_memory_says_so():
    model, _ = filled(DECODER)
    with pytest.raises(ValueError, match="looks at a memory"):
        model(TOKENS)


def test_cross_attention_counts_the_memory_once_a_row():
    per_token = CROSS.flops_per_token(EMBED, Lengths(9, 7))
    query_and_output, of_memory = 4 * EMBED * 16, 4 * MEMORY * 8 * 7 / 9
    assert per_token == pytest.approx(query_and_output + of_memory + 4 * 16 * 7)


def test_embeddings_made_elsewhere_stand_in_the_place_of_tokens_on_any_mesh():
    config = PatternConfig(mixers=(ATTENTION, MLPConfig(features=24)), embedding_scale=3.0)
    model, values = filled(config)
    made = RANDOM.randn(8, 3, EMBED).astype(np.float32)
    at = np.tile(np.array([[4, 1, 99]], np.int32), (8, 1))  # the third has no place: padding
    tokens = np.tile(TOKENS[:1, :8], (8, 1))

    def enter(values, made):
        return bind(model, values).enter(Inputs(tokens, embeddings=made, at=at))[0]

    expected = 3.0 * values["embedding.weight"][tokens]
    expected[:, 4], expected[:, 1] = made[:, 0], made[:, 1]
    np.testing.assert_allclose(jax.jit(enter)(unflatten(values), made), expected, rtol=1e-6)
    with use_mesh(build_mesh(MeshConfig(data=2, tensor=4))):
        np.testing.assert_allclose(jax.jit(enter)(unflatten(values), made), expected, rtol=1e-6)
    gradient = jax.jit(jax.grad(lambda made: jnp.sum(enter(unflatten(values), made))))(made)
    assert np.asarray(gradient)[0, :, 0].tolist() == [1, 1, 0]


@dataclasses.dataclass(frozen=True)
class Bias:
    """A table that all layers read, with a gradient."""

    rows: int
    name: ClassVar[str] = "bias"

    def build(self, embed, std, output_std, rngs):
        return Embedding(self.rows, EMBED, axis="positions", std=1.0, rngs=rngs)

    def make(self, module, context: Context):
        return module(context.positions, jnp.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CountingConfig(MixerConfig):
    """Adds a shared table; says a loss and statistics; moves a buffer by them."""

    name: ClassVar[str] = "counting"
    global_loss: bool = False

    @property
    def shared(self):
        return (Bias(16),)

    def build(self, embed, *, std, output_std, rngs):
        return Counting(self, embed, std, rngs)

    def flops_per_token(self, embed, lengths):
        return 2 * embed * embed

    def after_step(self, parameters, statistics):
        moved = parameters["offset"] - 0.1 * jnp.sign(statistics["total"])
        return {**parameters, "offset": moved}

    def summary(self, statistics):
        return {"largest": Statistic(statistics["largest"], "max"), "rows": Statistic(statistics["rows"])}


class Counting(nnx.Module):
    def __init__(self, config, embed, std, rngs):
        self.mix = Linear({"embed": embed}, {"embed": embed}, std=std, rngs=rngs)
        self.offset = buffer(jnp.zeros((embed,)), "embed")
        self.config = config

    def __call__(self, x, context, cache=None):
        y = self.mix(x) + context.table(Bias(16)) + jax.lax.stop_gradient(self.offset[...])
        statistics = {
            "total": Statistic(jnp.sum(y, axis=(0, 1))),
            "largest": Statistic(jnp.max(jnp.abs(y)), "max"),
            "rows": Statistic(jnp.asarray(x.shape[0], jnp.float32)),
        }
        losses = {"size": 0.01 * jnp.mean(jnp.square(y))}
        if self.config.global_loss:  # of all rows so far: a nonlinear function of the whole batch's
            before = jnp.zeros(()) if context.so_far is None else context.so_far["rows"].array
            losses = {"rows_so_far": before + x.shape[0]}
        return Mixed(y, None, losses, statistics)


def counting(**options):
    return PatternConfig(mixers=(CountingConfig(**options), MLPConfig(features=24)), dtype="float32")


def batch_of(rows=4, *, even=False):
    """`even`: as many tokens count in each row, so that a mean over rows is the mean of their means."""
    random = np.random.RandomState(2)
    mask = (random.rand(rows, 9) < 0.7).astype(np.float32)
    mask = np.tile(mask[:1], (rows, 1)) if even else mask
    tokens = random.randint(0, VOCAB, (rows, 10)).astype(np.int32)
    return {"tokens": tokens[:, :-1], "labels": tokens[:, 1:], "loss_mask": mask}


def step_of(config, microbatches, **options):
    model = abstract_model(config)
    optimizer, schedule = OptimizerConfig(name="sgd", clip_norm=None), build_schedule(ScheduleConfig(), 10)
    trained = differentiated(model)
    transformation = build_optimizer(optimizer, schedule, split(logical_axes_of(model), trained)[0])
    step = build_train_step(model, transformation, optimizer, schedule, microbatches=microbatches)
    parameters = jax.tree.map(jnp.asarray, unflatten(dict(filled(config)[1])))
    state = TrainState(
        jnp.zeros((), jnp.int32), parameters, transformation.init(split(parameters, trained)[0])
    )
    return step(state, batch_of(**options))


def test_a_table_is_the_stacks_and_its_gradient_is_summed_over_the_layers():
    config = counting()
    model, values = filled(config)
    assert values["decoder.shared.bias.weight"].shape == (16, EMBED)
    assert sum("bias" in path for path in values) == 1
    batch = batch_of()
    targets = Targets(jnp.asarray(batch["labels"]), jnp.asarray(batch["loss_mask"]))

    def together(parameters):
        bound = bind(model, parameters)
        x, context = bound.enter(Inputs(batch["tokens"]))
        return bound.leave(bound.run(x, context).x, targets, ONE)[0]

    def apart(tables):  # each layer reads a table of its own
        bound = bind(model, unflatten(dict(values)))
        x, context = bound.enter(Inputs(batch["tokens"]))
        for unit, table in zip(bound.decoder.unrolled().segments, tables, strict=True):
            own = dataclasses.replace(context, tables=(table[None, :9],), table_keys=(Bias(16),))
            for sublayer in unit:
                one = jax.tree.map(lambda leaf: leaf[0], sublayer)
                x = one.join(x, one(one.read(x), own, None).y)
        return bound.leave(x, targets, ONE)[0]

    table = values["decoder.shared.bias.weight"]
    whole, gradients = jax.jit(jax.value_and_grad(together))(unflatten(dict(values)))
    same, each = jax.jit(jax.value_and_grad(apart))([table, table])
    gradient = flatten(gradients)["decoder.shared.bias.weight"]
    assert float(whole) == pytest.approx(float(same), rel=1e-6)
    np.testing.assert_allclose(gradient, each[0] + each[1], rtol=1e-4, atol=1e-5 * np.abs(gradient).max())
    assert np.abs(each[0]).max() > 0 < np.abs(each[1]).max()


@pytest.mark.parametrize("remat", ["none", "full"])
def test_microbatches_add_up_losses_statistics_and_what_moves_by_them(remat):
    config = dataclasses.replace(counting(), remat=remat)
    (whole, metrics), (parts, more) = (step_of(config, number, even=True) for number in (1, 4))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6),
        whole.parameters,
        parts.parameters,
    )
    for name in ("loss", "largest", "rows", "tokens", "grad_norm"):
        assert float(metrics[name]) == pytest.approx(float(more[name]), rel=1e-5), name
    assert float(metrics["rows"]) == 2 * 4, "of both layers"
    offset = whole.parameters["decoder"]["segments"]["0"]["0"]["counting"]["offset"]
    before = filled(config)[1]["decoder.segments.0.0.counting.offset"]
    assert np.abs(np.abs(np.asarray(offset) - before) - 0.1).max() < 1e-6, "moved by the rule, by no gradient"


def test_a_mixers_loss_is_part_of_what_is_differentiated_and_weighs_by_its_tokens():
    config = counting()
    model, values = filled(config)
    batch = batch_of()
    counts = model.counts(batch)

    def loss(parameters):
        return bind(model, parameters).loss(batch, counts)

    (total, report), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(unflatten(dict(values)))
    both = float(report.losses["loss"].total) + float(report.losses["size"].total)
    assert float(total) == pytest.approx(both, rel=1e-6)
    assert float(report.losses["size"].total) > 0.01
    offset = flatten(gradients)["decoder.segments.0.0.counting.offset"]
    assert np.abs(offset).max() == 0


def test_a_loss_over_the_whole_batch_knows_the_microbatches_before():
    _, whole = step_of(counting(global_loss=True), 1)
    _, parts = step_of(counting(global_loss=True), 4)
    tokens = batch_of()["loss_mask"].sum(1)  # microbatch i is row i
    seen = sum((i + 1) * count for i, count in enumerate(tokens)) / tokens.sum()
    assert float(whole["rows_so_far"]) == pytest.approx(2 * 4)
    assert float(parts["rows_so_far"]) == pytest.approx(2 * seen, rel=1e-6)


def test_evaluation_takes_each_loss_over_all_batches():
    model, values = filled(counting())
    losses, counts, rows = build_evaluation_step(model)(unflatten(dict(values)), batch_of())
    assert rows == {}
    whole = model.loss(batch_of(), model.counts(batch_of()))[1].losses
    for name, loss in losses.items():
        assert float(loss.total / counts[loss.count]) == pytest.approx(float(whole[name].total), rel=1e-5)


@pytest.mark.parametrize("groups", [0, 3])
def test_groups_of_queries_that_do_not_divide_the_heads_are_refused(groups):
    with pytest.raises(InputError, match=f"num_query_groups = {groups} does not divide num_heads = 4"):
        dataclasses.replace(CROSS, num_query_groups=groups)
