"""Pattern strings as Megatron reads them, and what is said of bad ones."""

import re

import pytest

from mjx.errors import InputError
from mjx.models.common.attention import AttentionConfig
from mjx.models.common.mlp import MLPConfig
from mjx.models.common.norm import NormConfig
from mjx.models.common.parameter import parameters_of
from mjx.models.common.pattern import find_segments
from mjx.models.common.rope import RoPEConfig
from mjx.models.common.state_space import SelectiveScanConfig, SSDConfig
from mjx.models.family import abstract_model
from mjx.models.gpt import GPTConfig
from mjx.models.mamba import MambaConfig
from mjx.models.mamba.hybrid_pattern import by_ratios, check_length, symbols_of
from mjx.trees import flatten

SSD = SSDConfig(state=8, head_dim=8, groups=2)
ATTENTION = AttentionConfig(num_heads=4, qkv_bias=True, output_bias=True)


def hybrid(pattern: str, **mixers) -> MambaConfig:
    return MambaConfig(hybrid_pattern=pattern, hidden_size=32, vocab_size=61, **mixers)


def test_each_symbol_is_a_sub_layer_and_what_repeats_is_scanned():
    config = hybrid(
        "M-M-M-M*-|m",
        ssd=SSD,
        selective_scan=SelectiveScanConfig(),
        attention=ATTENTION,
        mlp=MLPConfig(features=48),
    )
    names = [sublayer.mixer.name for sublayer in config.pattern]
    assert names == ["ssd", "mlp"] * 3 + ["ssd", "attention", "mlp", "selective_scan"]
    segments = find_segments(config.pattern)
    assert [(len(segment.unit), segment.repeats) for segment in segments] == [(2, 3), (4, 1)]


@pytest.mark.parametrize(
    ("pattern", "message", "caret"),
    [
        ("M-X*", "'X', which is no symbol (choose from M, m, *, -, E, S)", 2),
        ("MM*-+", "'+' together with '*', another kind of attention", 4),
        ("MD*", "'*' together with 'D', another kind of attention", 2),
        ("MG", "'G', a gated delta network, which mjx does not have yet", 1),
        ("M+", "'+', multi-head latent attention, which mjx does not have yet", 1),
        ("M-/MM", "'/', multi-token prediction, which mjx does not have yet", 2),
        ("M||M", "an empty segment beside '|'", 2),
        ("|M", "an empty segment beside '|'", 0),
        ("M|", "an empty segment beside '|'", 1),
        ("(M*-", "'(' without a ')'", 0),
        ("M(*)-", "')' without a '(' and two sub-layers in front of it", 3),
        ("M*)", "')' without a '(' and two sub-layers in front of it", 2),
        ("(M(*-))", "'(' within brackets", 2),
        ("MS", "'S' with nothing behind it that reads it", 1),
        ("(SM)-", "'S' within brackets", 1),
        ("(M|*)", "'|' between sub-layers that read the same", 2),
    ],
)
def test_a_caret_stands_under_what_is_wrong(pattern, message, caret):
    with pytest.raises(InputError) as raised:
        hybrid(pattern, ssd=SSD, attention=ATTENTION, mlp=MLPConfig(features=48))
    said, written, mark = str(raised.value).split("\n")
    assert said == f"model.hybrid_pattern has {message}:"
    assert written == f"  {pattern}"
    assert mark == "  " + " " * caret + "^"


def test_those_in_brackets_read_the_same_behind_one_norm():
    config = hybrid("M(M*)-", ssd=SSD, attention=ATTENTION, mlp=MLPConfig(features=48))
    assert [(one.parallel, one.shares_norm, one.norm is None) for one in config.pattern] == [
        *[(False, False, False)] * 2,
        (True, True, True),
        (False, False, False),
    ]
    assert config.symbols == "MM*-"
    repeated = hybrid("(M*)-" * 3, ssd=SSD, attention=ATTENTION, mlp=MLPConfig(features=48))
    assert [(len(each.unit), each.repeats) for each in find_segments(repeated.pattern)] == [(3, 3)]


def test_a_symbol_without_a_description_and_no_symbol_at_all_are_refused():
    with pytest.raises(InputError, match=re.escape("'E', which needs model.moe; that is null:\n  ME\n   ^")):
        hybrid("ME", ssd=SSD)
    with pytest.raises(InputError, match="is empty; it needs a symbol for every sub-layer"):
        hybrid("")
    said = "3 sub-layers, where num_layers says 4:\n  M|*-\n      ^"
    with pytest.raises(InputError, match=re.escape(said)):
        check_length("M|*-", 4, "args.json")
    with pytest.raises(InputError, match=r"ssd\.groups = 3 does not divide ssd\.heads = 8"):
        hybrid("M", ssd=SSDConfig(state=8, head_dim=8, groups=3))
    assert symbols_of("M|*|-") == "M*-"


@pytest.mark.parametrize(
    ("layers", "attention", "mlp"), [(30, 0.0, 0.0), (8, 0.25, 0.25), (8, 0.5, 0.25), (48, 0.5, 0.2)]
)
def test_ratios_give_so_many_of_each_evenly_spread(layers, attention, mlp):
    pattern = by_ratios(layers, attention, mlp)
    counts = {symbol: pattern.count(symbol) for symbol in "*-M"}
    assert counts["*"] == int(layers * attention + 0.5)
    assert counts["-"] == int(layers * mlp + 0.5)
    assert sum(counts.values()) == layers
    assert pattern[0] == "M"
    stretches = [len(stretch) for stretch in re.split(r"\*", pattern)]
    assert max(stretches) - min(stretches) <= 1 or not attention


def test_a_pattern_of_attention_and_mlps_is_the_gpt_of_these_layers():
    """The same parameters at the same paths, and the same stack: one loads the other's checkpoint."""
    shared = {
        "hidden_size": 32,
        "vocab_size": 61,
        "attention": AttentionConfig(num_heads=4, rope=RoPEConfig()),
        "mlp": MLPConfig(features=48),
        "norm": NormConfig(),
    }
    gpt, mamba = GPTConfig(num_layers=3, **shared), MambaConfig(hybrid_pattern="*-*-*-", **shared)
    assert gpt.pattern == mamba.pattern
    ours, theirs = (
        {path: leaf.shape for path, leaf in flatten(parameters_of(abstract_model(config))).items()}
        for config in (mamba, gpt)
    )
    assert ours == theirs


def test_the_count_is_that_of_megatrons_own_test():
    """`M*-` of width 256 with 4 heads and a vocabulary of 100, norms and all but Mamba-2 with biases."""
    config = MambaConfig(
        hybrid_pattern="M*-",
        hidden_size=256,
        vocab_size=100,
        norm=NormConfig(),
        ssd=SSDConfig(),
        attention=ATTENTION,
        mlp=MLPConfig(features=1024, bias=True),
    )
    assert config.num_parameters() == 1_774_872
