"""What a folder says must be in texts, as fields of `SamplingConfig`."""

import json

import pytest

from mjx.errors import InputError
from mjx.models.huggingface.folder import HuggingFaceFolder
from mjx.models.huggingface.generation import sampling_of, start_token_of

BART_LARGE_CNN = {
    **{"bos_token_id": 0, "decoder_start_token_id": 2, "early_stopping": True, "eos_token_id": 2},
    **{"forced_bos_token_id": 0, "forced_eos_token_id": [2], "length_penalty": 2.0, "max_length": 142},
    **{"min_length": 56, "no_repeat_ngram_size": 3, "num_beams": 4, "pad_token_id": 1},
}
SAID = {
    **{"early_stopping": True, "forced_bos_token": 0, "forced_eos_token": 2},
    **{"min_length": 56, "no_repeat_ngram_size": 3},
}


def folder_of(path, config: dict, generation: dict | None = None) -> HuggingFaceFolder:
    (path / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (path / "generation_config.json").write_text(json.dumps(generation))
    return HuggingFaceFolder(path)


def test_generation_config_says_it_and_config_only_where_there_is_none(tmp_path):
    alone = folder_of(tmp_path, BART_LARGE_CNN)
    assert sampling_of(alone) == SAID
    assert start_token_of(alone) == 2
    other = folder_of(tmp_path, BART_LARGE_CNN, {"forced_bos_token_id": 7, "min_length": 0})
    assert sampling_of(other) == {"forced_bos_token": 7}
    assert start_token_of(other) == 2


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ({"min_length": -1}, '"min_length": -1, which should be a number from 0 on'),
        ({"no_repeat_ngram_size": "3"}, "\"no_repeat_ngram_size\": '3', which should be a number from 0 on"),
        ({"forced_eos_token_id": [2, 3]}, r'"forced_eos_token_id": [2, 3], which should be a token id'),
        ({"early_stopping": "soon"}, '"early_stopping": \'soon\', which should be true, false or "never"'),
    ],
)
def test_what_is_none_of_it_is_named(said, right, tmp_path):
    with pytest.raises(InputError) as refused:
        sampling_of(folder_of(tmp_path, {}, said))
    assert f"generation_config.json has {right}" in str(refused.value)
