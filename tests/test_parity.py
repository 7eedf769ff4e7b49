"""parity.py finds what differs, names it, and says by its exit code what became of the cases."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import parity
import pytest
from oracles import huggingface, megatron
from oracles.difference import LIMITS
from safetensors.numpy import load_file, save_file

from mjx.models.gpt.huggingface import ARCHITECTURES
from mjx.models.huggingface import from_pretrained

LLAMA = Path(__file__).parent / "goldens" / "megatron" / "llama.npz"
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@pytest.fixture
def case(tmp_path):
    """Writes a golden with changes: `case(**{"g/…": array})`; None leaves an array out."""

    def write(**changes) -> Path:
        arrays = {**np.load(LLAMA), **changes}
        path = tmp_path / "case.npz"
        np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
        megatron.read.cache_clear()
        return path

    return write


@pytest.fixture
def folder(tmp_path):
    """A folder of a llama, with what mjx itself makes of some tokens as its outputs."""
    [llama] = [each for each in ARCHITECTURES if each.model_type == "llama"]
    shapes = llama.name_map(llama.config.to_ours(CONFIG, "config.json")).theirs
    draw = np.random.default_rng(0)
    weights = {name: draw.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "keys.txt").write_text("\n".join(weights))
    tokens = draw.integers(0, 61, (2, 9))
    mask = np.ones_like(tokens)
    mask[1, 6:] = 0
    inputs = {"input_ids": tokens, "attention_mask": mask}
    logits = from_pretrained(tmp_path)(tokens, attention_mask=mask)
    write_io(tmp_path, inputs, {"logits": np.array(logits)})
    return tmp_path


def write_io(path: Path, inputs, outputs) -> None:
    arrays = {f"in/{name}": array for name, array in inputs.items()}
    np.savez(path / "io.npz", **arrays, **{f"out/{name}": array for name, array in outputs.items()})


def config_with(**changes) -> np.ndarray:
    return np.array(json.dumps({**json.loads(str(np.load(LLAMA)["config"])), **changes}))


def test_a_case_that_is_equal_exits_with_0(case, capsys):
    assert parity.main(["megatron", str(case())]) == 0
    assert "1 equal" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "place", "sentence"),
    [
        (
            "g/decoder.layers.1.mlp.linear_fc2.weight",
            (3, 5),
            r"gradient of decoder\.layers\.1\.mlp\.linear_fc2",
        ),
        ("out/logits", (1, 4, 7), r"logits\[1, 4, 7\]"),
        ("out/loss", (), r"loss is .* and theirs"),
    ],
)
def test_a_number_that_is_off_is_found_and_its_place_named(name, place, sentence, case, capsys):
    array = np.load(LLAMA)[name].copy()
    array[place] += 0.01 * np.abs(array).max()
    path = case(**{name: array})
    [said] = megatron.compare(path).sentences()
    assert np.array(place).size == 0 or f"[{', '.join(map(str, place))}]" in said
    assert parity.main(["megatron", str(path)]) == 1
    out = capsys.readouterr().out
    assert "case: differs" in out
    assert re.search(sentence, out.replace("\n", " "))


def test_a_weight_that_is_off_changes_outputs_loss_and_gradients(case):
    name = "w/decoder.layers.0.self_attention.linear_qkv.weight"
    compared = megatron.compare(case(**{name: 1.001 * np.load(LLAMA)[name]})).compared
    assert not any(each.within for each in (*compared.outputs, *compared.losses))
    assert sum(not each.within for each in compared.gradients) > len(compared.gradients) / 2


def test_a_gradient_that_only_one_side_has_differs(case):
    name = "decoder.layers.0.mlp.linear_fc1.weight"
    [said] = megatron.compare(case(**{f"g/{name}": None})).sentences()
    assert f"gradient of {name}" in said
    [said] = megatron.compare(case(**{"g/decoder.extra": np.ones(3, np.float32)})).sentences()
    assert said == "mjx has no gradient of decoder.extra"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"config": config_with(mtp_num_layers=1)}, "mtp_num_layers"),
        ({"config": config_with(a_new_option=3)}, "a_new_option = 3"),
        ({"config": config_with(hidden_dropout=0.1)}, "dropout, which is random"),
        ({"in/images": np.zeros(3)}, "it has the inputs images"),
        ({"out/aux_loss": np.zeros(3)}, "it has the outputs aux_loss"),
    ],
)
def test_what_mjx_does_not_have_is_said_and_counts_apart(changes, sentence, case, capsys):
    path = str(case(**changes))
    assert parity.main(["megatron", path]) == 3
    assert parity.main(["megatron", path, "--allow-unsupported"]) == 0
    out = capsys.readouterr().out.replace("\n", " ")
    assert "case: not supported: " in out
    assert sentence in out


def test_tensors_that_do_not_fit_break_a_case(case, capsys):
    path = case(**{"w/decoder.final_layernorm.weight": None})
    assert parity.main(["megatron", str(path), str(LLAMA)]) == 1
    out = capsys.readouterr().out
    assert "case: broke: InputError: the tensors do not fit the model: 1 missing" in out
    assert "1 equal, 1 broke" in out


def test_rounding_excuses_no_more_than_it_explains(case):
    logits = np.load(LLAMA)["out/logits"]
    tiny = dataclasses.replace(LIMITS, outputs=1e-9)
    report = megatron.compare(case(), tiny)
    assert report.result == "equal"
    assert "within rounding: logits" in report.compared.notes[0]
    assert megatron.compare(case(), dataclasses.replace(tiny, rounding=0.0)).result == "differs"
    off = logits + np.float32(2e-5)
    assert megatron.compare(case(**{"out/logits": off})).result == "differs"


def test_a_limit_is_named_or_refused(case):
    assert parity.main(["megatron", str(case()), "--limit", "outputs=1e-12", "--limit", "rounding=0"]) == 1
    with pytest.raises(SystemExit) as ended:
        parity.main(["megatron", str(case()), "--limit", "logits=1"])
    assert ended.value.code == 2


def test_a_folder_s_outputs_count_where_there_is_no_padding(folder):
    assert parity.main(["huggingface", str(folder)]) == 0
    arrays = dict(np.load(folder / "io.npz"))
    for place, code in (((1, 7, 3), 0), ((1, 2, 3), 1)):
        changed = {**arrays, "out/logits": arrays["out/logits"].copy()}
        changed["out/logits"][place] += 0.01
        np.savez(folder / "io.npz", **changed)
        assert parity.main(["huggingface", f"{folder}/"]) == code


def test_a_folder_s_weight_and_its_keys_are_compared(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "keys.txt").write_text("\n".join([*weights, "model.extra"]))
    assert huggingface.compare(folder).sentences() == ["keys.txt and the weights differ in model.extra"]
    weights["model.layers.1.mlp.down_proj.weight"] *= 1.01
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert any("logits" in said for said in huggingface.compare(folder).sentences())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model_type": "unheard_of"}, "unheard_of"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "dynamic"),
        ({"a_new_option": 3}, "a_new_option"),
    ],
)
def test_a_folder_of_another_model_is_not_supported(changes, sentence, folder):
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    report = huggingface.compare(folder)
    assert report.result == "not supported"
    assert sentence in report.sentences()[0]
    assert parity.main(["huggingface", str(folder)]) == 3
