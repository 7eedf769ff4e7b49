"""Qwen2-VL and Qwen2.5-VL against transformers: pictures and videos of any size, positions, decoding."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import jax.numpy as jnp  # noqa: E402

from mjx.models.common.parameter import bind  # noqa: E402
from mjx.models.huggingface import from_pretrained, save_pretrained  # noqa: E402
from mjx.models.multimodal.interface import INTERFACE  # noqa: E402

IMAGE, VIDEO, START, END = 60, 59, 57, 58
TEXT = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 256,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
}
SHARED = {"depth": 4, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}


def _theirs(kind):
    tokens = {"image_token_id": IMAGE, "video_token_id": VIDEO}
    tokens |= {"vision_start_token_id": START, "vision_end_token_id": END}
    if kind == "qwen2_vl":
        vision = {**SHARED, "embed_dim": 24, "hidden_size": 32, "mlp_ratio": 2, "num_heads": 2}
        config, model = transformers.Qwen2VLConfig, transformers.Qwen2VLForConditionalGeneration
    else:
        vision = {**SHARED, "hidden_size": 24, "intermediate_size": 20, "out_hidden_size": 32}
        vision |= {"window_size": 16, "fullatt_block_indexes": [1, 2], "tokens_per_second": 3}
        config, model = transformers.Qwen2_5_VLConfig, transformers.Qwen2_5_VLForConditionalGeneration
    torch.manual_seed(0)
    made = model(config(text_config=TEXT, vision_config=vision, **tokens)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl"])
def both(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    theirs = _theirs(request.param)
    theirs.save_pretrained(folder)
    return theirs, from_pretrained(folder, dtype="float32"), folder


def _batch():
    """Two pictures of other sizes, a picture and a video, padding in front; windows that do not divide."""
    draw = np.random.default_rng(0)
    grids, films = np.array([[1, 4, 6], [1, 10, 6], [1, 2, 2]]), np.array([[3, 6, 4]])

    def of(token, grid):
        return [START, *[token] * (int(np.prod(grid)) // 4), END]

    rows = [
        [3, 4, *of(IMAGE, grids[0]), 5, *of(IMAGE, grids[1]), 7, 8, 9],
        [6, *of(IMAGE, grids[2]), 11, *of(VIDEO, films[0]), 12, 13],
    ]
    longest = max(map(len, rows))
    tokens = np.array([[0] * (longest - len(row)) + row for row in rows])
    mask = np.array([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    kinds = (tokens == IMAGE) + 2 * (tokens == VIDEO)
    pixels = 3 * 2 * 16
    return {
        "input_ids": tokens,
        "attention_mask": mask,
        "mm_token_type_ids": kinds,
        "pixel_values": draw.standard_normal((int(grids.prod(1).sum()), pixels)).astype(np.float32),
        "image_grid_thw": grids,
        "pixel_values_videos": draw.standard_normal((int(films.prod()), pixels)).astype(np.float32),
        "video_grid_thw": films,
    }


def _told(model, batch):
    with torch.no_grad():
        return model(**{name: torch.tensor(array) for name, array in batch.items()}).logits.numpy()


def test_logits_equal_transformers(both):
    theirs, ours, _ = both
    batch = _batch()
    real = batch["attention_mask"] > 0
    logits = np.asarray(ours.outputs(**batch)["logits"])
    np.testing.assert_allclose(logits[real], _told(theirs, batch)[real], atol=2e-5)


def test_positions_equal_transformers(both):
    theirs, ours, _ = both
    batch = _batch()
    names = ("input_ids", "mm_token_type_ids", "image_grid_thw", "video_grid_thw", "attention_mask")
    expected, _ = theirs.model.get_rope_index(**{name: torch.tensor(batch[name]) for name in names})
    made = INTERFACE.completed(ours.config, {}, batch)["position_ids"]
    real = batch["attention_mask"] > 0
    np.testing.assert_array_equal(made[real], expected.numpy().transpose(1, 2, 0)[real])


def test_texts_without_pictures_equal_transformers(both):
    theirs, ours, _ = both
    batch = {"input_ids": np.array([[3, 4, 5, 9], [9, 1, 2, 8]])}
    np.testing.assert_allclose(np.asarray(ours.outputs(**batch)["logits"]), _told(theirs, batch), atol=2e-5)


def test_too_few_tokens_are_refused(both):
    _, ours, _ = both
    batch = _batch()
    batch["image_grid_thw"] = np.array([[1, 10, 6], [1, 4, 6], [1, 2, 2]])
    with pytest.raises(Exception, match="which makes 15 features"):
        ours.outputs(**batch)


def test_it_is_written_as_it_was_read(both, tmp_path):
    theirs, ours, _ = both
    save_pretrained(ours, tmp_path)
    again = type(theirs).from_pretrained(tmp_path).eval()
    own = theirs.state_dict()
    assert own.keys() == again.state_dict().keys()
    assert all(torch.equal(own[name], array) for name, array in again.state_dict().items())
    np.testing.assert_array_equal(_told(again, _batch()), _told(theirs, _batch()))


@pytest.mark.parametrize("first", [None, 9])
def test_greedy_generation_equals_transformers(both, first):
    """Prompts that are read whole, or in parts that end within a picture."""
    theirs, ours, _ = both
    batch = _batch()
    own = {
        n: torch.tensor(a[:1] if n in ("input_ids", "attention_mask", "mm_token_type_ids") else a)
        for n, a in batch.items()
        if "video" not in n
    }
    own["image_grid_thw"], own["pixel_values"] = own["image_grid_thw"][:2], own["pixel_values"][: 24 + 60]
    new = 6
    expected = theirs.generate(**own, max_new_tokens=new, min_new_tokens=new, do_sample=False)
    given = {name: array.numpy() for name, array in own.items()}
    made = INTERFACE.completed(ours.config, {}, given)
    prompt = {
        ours_: jnp.asarray(made[n])
        for n, ours_ in INTERFACE.inputs.items()
        if n in made and n != "attention_mask"
    }
    model = bind(ours.definition, ours.parameters)
    tokens = prompt["tokens"]
    length = jnp.array([tokens.shape[1]])
    prompt["tokens"] = tokens[:, :first]
    logits, caches = model.begin(prompt, length, tokens.shape[1] + new)
    if first is not None:
        rest = tokens[:, first:]
        logits, caches = model.read_on(rest, caches, jnp.array([first]), length)
    found, offset = [], length
    for _ in range(new):
        token = jnp.argmax(logits, -1)
        found.append(int(token[0]))
        step, caches = model.next(token[:, None], caches, offset)
        logits, offset = step[:, 0], offset + 1
    assert found == expected[0, tokens.shape[1] :].tolist()


def test_older_files_say_the_text_around_the_encoder(both):
    """As config.json of the published checkpoints does."""
    from mjx.models.interop.architectures import find_architecture

    _, ours, _ = both
    written = dict(ours.source.config)
    text = dict(written.pop("text_config"))
    parameters = text.pop("rope_parameters")
    text.pop("model_type")
    text |= {"rope_theta": parameters["rope_theta"]}
    text["rope_scaling"] = {"type": "mrope", "mrope_section": parameters["mrope_section"]}
    vision = dict(written["vision_config"])
    vision |= {"model_type": written["model_type"], "in_chans": vision.pop("in_channels")}
    vision["spatial_patch_size"] = vision["patch_size"]
    flat = {**text, **written, "vision_config": vision}
    _, architecture = find_architecture(flat)
    canonical = architecture.canonical
    assert canonical(architecture.config.to_ours(flat, "config.json")) == canonical(ours.config)


def test_rows_of_samples_are_seen_as_transformers_would_each(both):
    """Two samples in a row, and one with two pictures: pixels, places and positions are those of the samples
    alone."""
    from mjx.models.multimodal.frames import with_frames

    config = both[1].definition.config
    draw = np.random.default_rng(1)
    pictures = [
        draw.standard_normal((3, 8 * high, 8 * wide)).astype(np.float32) for high, wide in ((2, 3),) * 3
    ]
    made = 6

    def text(numbers):
        return np.concatenate([np.full(made, IMAGE) if n == IMAGE else [n] for n in numbers]).astype(np.int32)

    one, other = text([1, IMAGE, 5, 6]), text([7, 8, IMAGE, 9])
    both_pictures = text([2, IMAGE, IMAGE, 3])
    tokens, segments = np.zeros((2, 20), np.int32), np.zeros((2, 20), np.int32)
    for row, start, sample, number in ((0, 0, one, 1), (0, len(one), other, 2), (1, 0, both_pictures, 1)):
        tokens[row, start : start + len(sample)] = sample
        segments[row, start : start + len(sample)] = number
    given = [pictures[:2], [pictures[2], pictures[0]]]
    seen = config.sight.seen(tokens, segments, given, 2 * made * config.merged)
    for start, sample, of_sample, row in (
        (0, one, [0], 0),
        (len(one), other, [1], 0),
        (0, both_pictures, [2, 0], 1),
    ):
        flat = np.concatenate([_flat(pictures[number]) for number in of_sample])
        grids = np.array([[1, 4, 6]] * len(of_sample))
        alone = with_frames(
            config, {"input_ids": sample[None], "pixel_values": flat, "image_grid_thw": grids}
        )
        here = slice(start, start + len(sample))
        np.testing.assert_array_equal(seen["positions"][row, here], alone["position_ids"][0])
        taken = [at for at in seen["image_at"][row].tolist() if here.start <= at < here.stop]
        assert [at - start for at in taken] == alone["image_at"][0].tolist()
    np.testing.assert_array_equal(seen["patches"][1], alone["patches"][0])
    np.testing.assert_array_equal(seen["grid"][1], alone["grid"][0])


def _flat(picture):
    """As transformers' processor writes a picture: two frames that are the same, 2 × 2 patches together."""
    channels, high, wide = picture.shape
    shape = (2, channels, high // 8, 2, 4, wide // 8, 2, 4)
    parts = np.stack([picture, picture]).reshape(shape)
    return parts.transpose(2, 5, 3, 6, 1, 0, 4, 7).reshape(high * wide // 16, -1)
