"""Hidden spans and their sentinels: bit for bit Megatron-Core 0.16.1's."""

import dataclasses

import numpy as np
import pytest
from masked_goldens import GOLDENS, META, ROWS, dataset, fields, write_corpus

from mjx.data.masked.spans import MaskedSpansConfig
from mjx.data.text import SourceConfig

CASES = [case for case in META["datasets"] if case["kind"] == "t5"]


def config(tmp_path, **choices):
    return MaskedSpansConfig(
        sources=(SourceConfig(path=str(tmp_path / "text")),),
        vocab_size=160,
        cache_dir=str(tmp_path / "cache"),
        **choices,
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_rows_equal_megatrons(tmp_path, case):
    source = write_corpus(tmp_path / "text")
    ours = dataset(config(tmp_path, **fields(case)), source, case["num_samples"]).read(ROWS)
    theirs = {
        "tokens": "text_enc",
        "decoder_tokens": "text_dec",
        "segment_ids": "enc_mask",
        "decoder_segment_ids": "dec_mask",
        "loss_mask": "loss_mask",
    }
    for name, key in theirs.items():
        np.testing.assert_array_equal(ours[name], GOLDENS[f"{case['name']}/{key}"], err_msg=name)
    learned = ours["loss_mask"] == 1
    np.testing.assert_array_equal(ours["labels"][learned], GOLDENS[f"{case['name']}/labels"][learned])
    assert np.isin(ours["tokens"], np.arange(7, 27)).sum() > len(ROWS)


def text_of(tokens, decoder_tokens, segment_ids, decoder_segment_ids, sentinels):
    """The text again: the sentinels of the encoder's row replaced by what the decoder's has behind them."""
    hidden, spans = decoder_tokens[1 : decoder_segment_ids.sum()].tolist(), {}
    for token in hidden:
        if token in sentinels:
            spans[token] = []
        else:
            spans[next(reversed(spans))].append(token)
    shown = tokens[: segment_ids.sum()].tolist()
    return [token for each in shown for token in (spans[each] if each in sentinels else [each])]


@pytest.mark.parametrize(("decoder_length", "sentinels"), [(64, 20), (12, 20), (64, 2), (4, 20)])
def test_spans_without_room_or_sentinel_stay_visible(tmp_path, decoder_length, sentinels):
    source = write_corpus(tmp_path / "text", least=27)  # no special token in the text
    chosen = config(tmp_path, sequence_length=128, decoder_length=64, seed=8)
    whole = dataset(chosen, source, 200)
    some = tuple(META["pieces"][7 : 7 + sentinels])
    limits = dataclasses.replace(chosen, decoder_length=decoder_length, sentinels=some)
    limited = dataset(limits, source, 200)
    batches = [samples.read(np.arange(200)) for samples in (whole, limited)]
    names = ("tokens", "decoder_tokens", "segment_ids", "decoder_segment_ids")
    counts = []
    for row in range(200):
        sides = [[batch[name][row] for name in names] for batch in batches]
        used = [set(side[1].tolist()) & set(range(7, 27)) for side in sides]
        assert text_of(*sides[0], used[0]) == text_of(*sides[1], used[1])
        counts.append([len(some) for some in used])
    assert all(fewer <= more for more, fewer in counts)
    assert (decoder_length, sentinels) == (64, 20) or any(fewer < more for more, fewer in counts)
    assert max(fewer for _, fewer in counts) <= sentinels


def test_a_decoder_that_starts_with_padding_reads_its_first_token(tmp_path):
    source = write_corpus(tmp_path / "text")
    batch = dataset(config(tmp_path, sequence_length=64, start="[PAD]"), source, 200).read(ROWS)
    assert not batch["decoder_tokens"][:, 0].any()
    assert batch["decoder_segment_ids"][:, 0].all()
    assert not batch["decoder_segment_ids"][:, -1].any()
