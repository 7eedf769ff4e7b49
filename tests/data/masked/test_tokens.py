"""Rows with hidden tokens: bit for bit those of Megatron-Core 0.16.1."""

import numpy as np
import pytest
from masked_goldens import GOLDENS, META, ROWS, dataset, fields, write_corpus

from mjx.data.masked.tokens import MaskedTokensConfig
from mjx.data.text import SourceConfig

CASES = [case for case in META["datasets"] if case["kind"] == "bert"]


def config(tmp_path, **choices):
    return MaskedTokensConfig(
        sources=(SourceConfig(path=str(tmp_path / "text")),),
        vocab_size=160,
        cache_dir=str(tmp_path / "cache"),
        **choices,
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_rows_equal_megatrons(tmp_path, case):
    source = write_corpus(tmp_path / "text")
    samples = dataset(config(tmp_path, **fields(case)), source, case["num_samples"])
    ours = samples.read(ROWS)
    theirs = {
        key: GOLDENS[f"{case['name']}/{key}"]
        for key in ("text", "types", "labels", "is_random", "padding_mask", "loss_mask")
    }
    masked = theirs["loss_mask"] == 1
    np.testing.assert_array_equal(ours["tokens"], theirs["text"])
    np.testing.assert_array_equal(ours["segment_ids"], theirs["padding_mask"])
    np.testing.assert_array_equal(ours["loss_mask"], theirs["loss_mask"])
    np.testing.assert_array_equal(ours["labels"][masked], theirs["labels"][masked])
    assert masked.any(axis=1).mean() > 0.8
    if case["classification_head"]:
        np.testing.assert_array_equal(ours["token_types"], theirs["types"])
        np.testing.assert_array_equal(ours["is_random"], theirs["is_random"])
        assert 0 < ours["is_random"].sum() < len(ROWS)
    else:
        assert not theirs["types"].any()
        assert not {"is_random", "token_types"} & ours.keys()
