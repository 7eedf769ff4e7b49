"""`mjx generate --image` says what transformers says, with the model's own processor."""

import numpy as np
import pytest

from mjx.models.huggingface import from_pretrained, save_pretrained

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5")
tokenizers = pytest.importorskip("tokenizers")
Image = pytest.importorskip("PIL.Image")

WORDS = ("what", "is", "this", "red", "blue", "cat", "dog", "and", "user", "answer", "a", "the")
SPECIAL = ("<pad>", "</s>", "<s>", "<image>", "<img>", "</img>", "<video>")
VISION = {
    **{"model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 24},
    **{"num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 7},
}
TEXT = {
    **{"model_type": "llama", "vocab_size": 32, "hidden_size": 16, "intermediate_size": 24},
    **{"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1},
    **{"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2},
}
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }} "
    "{% for one in message['content'] | selectattr('type', 'equalto', 'image') %}<image> {% endfor %}"
    "{% for one in message['content'] | selectattr('type', 'equalto', 'text') %}{{ one['text'] }} "
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}answer {% endif %}"
)
SQUARE = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}}


def tokenizer():
    names = [*SPECIAL, *WORDS, *(f"word{number}" for number in range(32 - len(SPECIAL) - len(WORDS)))]
    words = tokenizers.models.WordLevel({name: at for at, name in enumerate(names)}, unk_token="<pad>")
    made = tokenizers.Tokenizer(words)
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        **{"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<pad>"},
        extra_special_tokens={
            **{"image_token": "<image>", "context_image_token": "<image>", "video_token": "<video>"},
            **{"start_image_token": "<img>", "end_image_token": "</img>"},
        },
        padding_side="left",
    )


def llava():
    config = transformers.LlavaConfig(text_config=TEXT, vision_config=VISION, image_token_index=3)
    processor = transformers.LlavaProcessor(
        transformers.LlavaImageProcessorPil(do_pad=True, **SQUARE),
        tokenizer(),
        patch_size=7,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    return transformers.LlavaForConditionalGeneration(config), processor


def llava_next():
    pinpoints = [[28, 56], [56, 28], [56, 56]]
    config = transformers.LlavaNextConfig(
        **{"text_config": TEXT, "vision_config": VISION, "image_token_index": 3},
        image_grid_pinpoints=pinpoints,
    )
    processor = transformers.LlavaNextProcessor(
        transformers.LlavaNextImageProcessorPil(image_grid_pinpoints=pinpoints, **SQUARE),
        tokenizer(),
        patch_size=7,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    return transformers.LlavaNextForConditionalGeneration(config), processor


def internvl():
    vision = {**VISION, "model_type": "internvl_vision"}
    config = transformers.InternVLConfig(
        text_config={**TEXT, "model_type": "qwen2"}, vision_config=vision, image_token_id=3
    )
    # Its processor of videos needs a library that is not here.
    checks = {"check_argument_for_proper_class": lambda self, name, argument: type(argument)}
    kind = type("InternVLProcessor", (transformers.InternVLProcessor,), checks)
    processor = kind(
        transformers.GotOcr2ImageProcessorPil(size={"height": 28, "width": 28}, max_patches=4),
        tokenizer(),
        transformers.GotOcr2ImageProcessorPil(),
        image_seq_length=4,
        chat_template=TEMPLATE,
    )
    return transformers.InternVLForConditionalGeneration(config), processor


def qwen2_vl():
    vision = {"depth": 2, "embed_dim": 16, "hidden_size": 16, "mlp_ratio": 2, "num_heads": 2, "patch_size": 7}
    vision |= {"spatial_merge_size": 2, "temporal_patch_size": 2}
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    config = transformers.Qwen2VLConfig(
        text_config={**TEXT, "model_type": "qwen2_vl_text", "rope_parameters": rope},
        vision_config=vision,
        **{"image_token_id": 3, "video_token_id": 6, "vision_start_token_id": 4, "vision_end_token_id": 5},
    )
    # Its processor of videos needs a library that is not here.
    checks = {"check_argument_for_proper_class": lambda self, name, argument: type(argument)}
    kind = type("Qwen2VLProcessor", (transformers.Qwen2VLProcessor,), checks)
    size = {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
    pictures = transformers.Qwen2VLImageProcessorPil(size=size, patch_size=7)
    return transformers.Qwen2VLForConditionalGeneration(config), kind(
        # Pictures that follow each other without a token between are one to transformers.
        *(pictures, tokenizer(), pictures),
        chat_template=TEMPLATE.replace("<image>", "<img> <image> </img>"),
    )


MODELS = {"qwen2_vl": qwen2_vl, "internvl": internvl, "llava": llava, "llava_next": llava_next}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    made = []
    for number, size in enumerate([(57, 91), (64, 30), (40, 40)]):
        colors = np.random.default_rng(number).integers(0, 256, (4, 5, 3), np.uint8)
        made.append(folder / f"{number}.png")
        Image.fromarray(colors).resize(size, Image.Resampling.BICUBIC).save(made[-1])
    return made


@pytest.fixture(scope="module", params=MODELS)
def theirs(request, tmp_path_factory):
    torch.manual_seed(3)
    model, processor = MODELS[request.param]()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    folder = tmp_path_factory.mktemp(request.param)
    model.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return model, processor, folder


def answers(model, processor, texts, pictures):
    """What is said behind each text."""
    said = []
    for text, files in zip(texts, pictures, strict=True):
        opened = [Image.open(file) for file in files]
        inputs = processor(images=opened or None, text=text, return_tensors="pt")
        with torch.no_grad():
            found = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        behind = found[0, inputs["input_ids"].shape[1] :]
        said.append(processor.tokenizer.decode(behind, skip_special_tokens=True))
    return said


GREEDY = ("sampling.temperature=0", "sampling.max_new_tokens=8")


def test_texts_with_pictures_are_continued_as_transformers_continues_them(main_here, theirs, files, capsys):
    model, processor, folder = theirs
    texts = ["what is <image> and <image> this", "the cat", "<image> is"]
    pictures = [files[:2], [], files[2:]]
    main_here(
        *("generate", folder, "--raw", *GREEDY),
        *(word for text in texts for word in ("--prompt", text)),
        *(word for file in files for word in ("--image", file)),
    )
    printed = capsys.readouterr().out.strip().split("\n\n")
    expected = answers(model, processor, texts, pictures)
    assert len({*expected}) > 1
    assert [one.split() for one in printed] == [
        [*text.split(), *answer.split()] for text, answer in zip(texts, expected, strict=True)
    ]


def test_a_chat_template_places_pictures(main_here, theirs, files, capsys):
    model, processor, folder = theirs
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "what is this"}]
    chat = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    assert chat.count("<image>") == 2
    images = ("--image", files[1], "--image", files[0])
    main_here("generate", folder, "--prompt", "what is this", *images, *GREEDY)
    inputs = processor(
        images=[Image.open(files[1]), Image.open(files[0])],
        text=chat,
        return_tensors="pt",
        add_special_tokens=False,
    )
    with torch.no_grad():
        found = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    expected = processor.tokenizer.decode(found[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert capsys.readouterr().out.split() == expected.split()


def test_what_cannot_be_seen_is_refused(refused, theirs, files, tmp_path):
    _, _, folder = theirs
    begin = ("generate", folder, "--raw", *GREEDY)
    (tmp_path / "text.png").write_text("no picture")
    image = ("--image", files[0])
    assert "1 marks <image>, but there are 0 --image" in refused(*begin, "--prompt", "<image> this")
    assert "1 marks <image>, but there are 2" in refused(*begin, "--prompt", "<image>", *image, *image)
    many = ("--prompt", "a", "--prompt", "b", "--prompt", "c")
    assert "2 --image for 3 prompts" in refused(*begin, *many, *image, *image)
    assert "No such file" in refused(*begin, "--prompt", "a", "--image", tmp_path / "none.png")
    assert "not a picture" in refused(*begin, "--prompt", "a", "--image", tmp_path / "text.png")


def test_a_folder_that_does_not_say_how_is_refused(refused, theirs, files, tmp_path):
    _, _, folder = theirs
    for file in folder.iterdir():
        if "processor" not in file.name:
            (tmp_path / file.name).symlink_to(file)
    asked = ("generate", tmp_path, "--prompt", "a", "--image", files[0])
    assert "no preprocessor_config.json" in refused(*asked)


@pytest.mark.parity
def test_verify_looks_at_pictures(main_here, refused, theirs, capsys):
    model, _, folder = theirs
    if model.config.model_type == "qwen2_vl":
        assert "sizes of their own" in refused("verify", folder, "--rows", 3, "--length", 9)
        return
    main_here("verify", folder, "--rows", 3, "--length", 9, "--new-tokens", 4, "--padding-side", "left")
    said = capsys.readouterr().out
    assert said.count(" ok ") == 5
    assert "differs" not in said


def test_the_processor_goes_where_the_weights_go(main_here, theirs, files, tmp_path, capsys):
    _, _, folder = theirs
    save_pretrained(from_pretrained(folder), tmp_path / "saved")
    asked = ("--raw", "--prompt", "what is this", "--image", files[0], *GREEDY)
    said = []
    for each in (folder, tmp_path / "saved"):
        main_here("generate", each, *asked)
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
