"""Beam search, and the texts of encoder-decoders, against those that transformers' `generate` makes."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mjx.errors import InputError
from mjx.inference import Generator, SamplingConfig
from mjx.models.common.parameter import bind
from mjx.models.family import abstract_model
from mjx.models.interop.architectures import find_architecture
from mjx.sharding import MeshConfig, ShardingConfig, build_mesh

GOLDENS = Path(__file__).parents[1] / "goldens" / "huggingface"


def script(name: str):
    """A module that stands beside the goldens."""
    spec = importlib.util.spec_from_file_location(name, GOLDENS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules.setdefault(name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)
    return module


variants, goldens = script("variants"), script("encoder_decoders")
with np.load(GOLDENS / "encoder_decoders.npz") as file:
    GOLDEN = dict(file)
STARTS = {"t5": 0, "mt5": 0, "bart": 2, "llama": None}


def model_of(case: str):
    """The definition and the parameters that the goldens are of."""
    theirs = goldens.config_of(case)
    _, architecture = find_architecture(theirs)
    config = dataclasses.replace(architecture.config.to_ours(theirs, "config.json"), dtype="float32")
    names = architecture.name_map(config)
    weights = variants.weights_of(theirs["model_type"], names.theirs, list(goldens.CASES).index(case))
    return abstract_model(config), names.to_ours(weights)


def prompts_of(case: str) -> list[list[int]]:
    tokens, mask, _ = goldens.inputs_of(case)
    return [row[:length].tolist() for row, length in zip(tokens, mask.sum(1), strict=True)]


def sampling_of(case: str, **options) -> SamplingConfig:
    return SamplingConfig(
        temperature=0.0,
        max_new_tokens=goldens.NEW_TOKENS,
        stop_tokens=goldens.STOPS,
        start_token=STARTS[case.partition(",")[0]],
        **options,
    )


def text_of(tokens: np.ndarray) -> list[int]:
    """Without the stop token, and what transformers pads with behind it."""
    stops = np.flatnonzero(np.isin(tokens, goldens.STOPS))
    return tokens[: stops[0] if len(stops) else None].tolist()


@pytest.mark.parametrize("case", [case for case in goldens.CASES if case not in goldens.LACKING])
def test_texts_and_scores_of_ragged_batches_equal_those_of_transformers(case):
    generator, prompts = Generator(*model_of(case)), prompts_of(case)
    for beams, penalty in goldens.BEAMS:
        names = [goldens.text_name(case, row, beams, penalty) for row in range(len(prompts))]
        expected = [text_of(GOLDEN[name]) for name in names]
        sampling = sampling_of(case, beams=beams, length_penalty=penalty)
        assert generator(prompts, sampling) == expected, sampling
        if beams == 1:
            continue
        found = generator.search(prompts, sampling)
        scores = [float(GOLDEN[f"score/{name}"]) for name in names]
        np.testing.assert_allclose([each[0].score for each in found], scores, rtol=1e-5)
        for each in found:
            assert sorted(each, key=lambda beam: -beam.score) == each
            assert 1 <= len(each) <= beams


@pytest.mark.parametrize("case", goldens.CONSTRAINED_CASES)
def test_texts_with_constraints_equal_those_of_transformers(case):
    """Each of the models with a third of them: every one is a program of its own."""
    generator, prompts = Generator(*model_of(case)), prompts_of(case)
    for options in goldens.CONSTRAINED[goldens.CONSTRAINED_CASES.index(case) :: 3]:
        ours = {name.removesuffix("_id"): value for name, value in options.items()}
        sampling = sampling_of(case, beams=ours.pop("num_beams"), **ours)
        names = [goldens.constrained_name(case, row, options) for row in range(len(prompts))]
        assert generator(prompts, sampling) == [text_of(GOLDEN[name]) for name in names], sampling
        if sampling.beams > 1:
            found = [each[0].score for each in generator.search(prompts, sampling)]
            np.testing.assert_allclose(found, [float(GOLDEN[f"score/{name}"]) for name in names], rtol=1e-5)


@pytest.fixture(scope="module")
def t5():
    return model_of("t5, gated")


def test_a_mesh_finds_the_same_texts(t5):
    mesh = build_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    on_mesh = Generator(*t5, mesh=mesh, rules=ShardingConfig().build())
    sampling = sampling_of("t5, gated", beams=4)
    prompts = prompts_of("t5, gated")
    names = [goldens.text_name("t5, gated", row, 4, 1.0) for row in range(len(prompts))]
    assert on_mesh(prompts, sampling) == [text_of(GOLDEN[name]) for name in names]


def test_a_prompt_in_parts_is_searched_behind_as_one_that_is_read_at_once():
    generator, prompts = Generator(*model_of("llama")), prompts_of("llama")
    found, parts = (
        generator.search(prompts, sampling_of("llama", beams=2, prefill_chunk=chunk)) for chunk in (64, 3)
    )
    assert [[beam.tokens for beam in each] for each in parts] == [[b.tokens for b in each] for each in found]


def test_an_encoder_reads_once_and_each_row_draws_its_own_text(t5):
    generator, prompts = Generator(*t5), prompts_of("t5, gated")
    drawn = dataclasses.replace(sampling_of("t5, gated"), temperature=2.0, stop_tokens=(), seed=5)
    whole = generator(prompts, drawn)
    assert [generator([prompt], drawn, row_seeds=[row])[0] for row, prompt in enumerate(prompts)] == whole
    blocks = []
    assert generator(prompts, drawn, on_tokens=blocks.append) == whole
    assert generator([prompts[0]] * 2, drawn)[0] == whole[0] != generator([prompts[0]] * 2, drawn)[1]


@pytest.mark.parametrize("case", ["t5", "bart"])
def test_logits_with_caches_are_those_of_the_whole_pass_at_every_position(case):
    definition, parameters = model_of(case)
    model = bind(definition, parameters).unrolled()
    tokens, mask, written = (array.astype(np.int32) for array in goldens.inputs_of(case))
    whole = np.asarray(bind(definition, parameters)(tokens, written, segment_ids=mask))
    prompt = {"tokens": tokens, "segment_ids": mask, "decoder_tokens": written[:, :1]}
    got, caches = jax.jit(lambda prompt: model.begin(prompt, jnp.ones(3, jnp.int32), 16))(prompt)
    follow = jax.jit(lambda tokens, caches, offset: model.next(tokens, caches, offset))
    for at in range(written.shape[1]):
        if at:
            got, caches = follow(written[:, at : at + 1], caches, jnp.full(3, at, jnp.int32))
        np.testing.assert_allclose(np.asarray(got).reshape(3, -1), whole[:, at], atol=1e-5)


@pytest.mark.parametrize("start", [None, 61, -1])
def test_a_decoder_without_a_start_token_is_refused(start, t5):
    sampling = dataclasses.replace(sampling_of("t5, gated"), start_token=start)
    with pytest.raises(InputError, match=r"sampling\.start_token = .*give its id, 0 to 60"):
        Generator(*t5)(prompts_of("t5, gated"), sampling)


@pytest.mark.parametrize(
    ("length", "new", "said"),
    [
        (25, 4, "prompt 0 has 25 tokens, but"),
        (20, 24, "max_new_tokens = 24 and the start token are 25 tokens"),
    ],
)
def test_what_is_beyond_the_positions_of_either_side_is_refused(length, new, said):
    sampling = dataclasses.replace(sampling_of("bart"), max_new_tokens=new)
    with pytest.raises(InputError, match=f"{said}.* only 24 learned positions"):
        Generator(*model_of("bart"))([[5] * length], sampling)


@pytest.mark.parametrize("name", ["forced_bos_token", "forced_eos_token"])
def test_a_forced_token_that_the_model_does_not_have_is_refused(name, t5):
    sampling = dataclasses.replace(sampling_of("t5, gated"), **{name: 61})
    with pytest.raises(InputError, match=rf"sampling\.{name} = 61: the model's token ids are 0 to 60"):
        Generator(*t5)(prompts_of("t5, gated"), sampling)


@pytest.mark.parametrize(
    "options",
    [
        *({"beams": 0}, {"length_penalty": float("nan")}, {"min_new_tokens": -1}, {"min_length": -1}),
        {"no_repeat_ngram_size": -1},
    ],
)
def test_what_is_no_search_is_refused(options):
    with pytest.raises(InputError, match=f"sampling.{next(iter(options))} = "):
        SamplingConfig(**options)


def test_no_prompts_have_no_texts(t5):
    assert Generator(*t5).search([], sampling_of("t5, gated", beams=2)) == []
