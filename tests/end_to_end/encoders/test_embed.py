"""`mjx embed`: texts in, embeddings out; and all-MiniLM-L6-v2, a real model: MJX_MINILM names its folder."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from running import environment

from mjx.data.tokenizers import load_tokenizer
from mjx.models.huggingface import from_pretrained

FOLDERS = Path(__file__).parents[2] / "goldens" / "huggingface" / "sentence_folders"
MEAN, CUT = FOLDERS / "mean", FOLDERS / "local-cut"
TEXTS = ["the mesh of the model", "", "shard " * 30]
SENTENCES = ["A man is eating food.", "A man eats a meal.", "The stock market fell."]


@pytest.fixture
def lines(tmp_path) -> Path:
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(TEXTS) + "\n")
    return path


def test_files_of_texts_become_arrays_and_tables_in_their_order(main_here, lines, tmp_path, capsys, caplog):
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "more.jsonl").write_text('{"line": "a token"}\n')
    out = ("--output", tmp_path / "out.npy")
    main_here("embed", CUT, lines, *out, tmp_path / "more.jsonl", "--text-key=line")
    assert capsys.readouterr().out == f"wrote 4 embeddings of 16 features to {tmp_path}/out.npy\n"
    assert "1 of 4 texts have more than 24 tokens, and were cut" in caplog.text
    found = np.load(tmp_path / "out.npy")
    assert (found.shape, found.dtype) == ((4, 16), np.float32)
    # The same on a mesh, with blocks and batches of other sizes, into a table.
    main_here(
        *("embed", CUT, lines, "--output", tmp_path / "out.parquet", "--batch-tokens", 32, "--normalize"),
        *("mesh.data=2", "mesh.fsdp=2", "mesh.tensor=2"),
    )
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table.column("text").to_pylist() == TEXTS
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    embeddings = np.array(table.column("embedding").to_pylist())
    np.testing.assert_allclose(embeddings, (found / lengths)[:3], atol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("lines.txt", "more.jsonl", "out.npy", "out.parquet")
    ]


def test_standard_input_is_read_and_embeddings_are_printed(main_here, lines, tmp_path):
    said = subprocess.run(
        [sys.executable, "-m", "mjx", "embed", MEAN, "--pooling", "cls"],
        **{"input": lines.read_text(), "capture_output": True, "text": True, "env": environment()},
        check=True,
    )
    printed = np.array([json.loads(line) for line in said.stdout.splitlines()])
    main_here("embed", MEAN, lines, "--pooling", "cls", "--output", tmp_path / "out.npy")
    np.testing.assert_allclose(printed, np.load(tmp_path / "out.npy"), atol=1e-5)


def test_an_imported_model_and_its_export_embed_as_the_folder_did(main_here, lines, tmp_path):
    folder = FOLDERS / "cls-dense"
    main_here("import", folder, tmp_path / "run")
    main_here("export", tmp_path / "run", tmp_path / "back", "--format", "huggingface")
    found = []
    for each in (folder, tmp_path / "run", tmp_path / "back"):
        main_here("embed", each, lines, "--output", tmp_path / "out.npy")
        found.append(np.load(tmp_path / "out.npy"))
    assert found[0].shape == (3, 8)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


def test_what_cannot_be_embedded_is_refused_with_a_sentence(refused, lines, half, tmp_path):
    def says(*arguments: object) -> str:
        return refused("embed", *arguments)

    (tmp_path / "empty.txt").touch()
    out = ("--output", tmp_path / "out.npy")
    assert says(half[0], lines, *out).endswith("without an encoder, which sees no text whole: it embeds none")
    assert says(MEAN, tmp_path / "none.txt", *out) == f"{tmp_path}/none.txt does not exist."
    assert says(MEAN, tmp_path / "empty.txt", *out) == f"{tmp_path}/empty.txt: there is no text"
    assert "should end with .npy or .parquet" in says(MEAN, lines, "--output", tmp_path / "out.csv")
    assert "there is no folder" in says(MEAN, lines, "--output", tmp_path / "no" / "out.npy")
    assert says(MEAN, lines, *out, "--pooling", "median").startswith("pooling = median is not known")
    assert says(MEAN, lines, *out, "--max-length", "0") == "--max-length = 0 must be positive"
    assert "max_length = 2 leaves no room" in says(MEAN, lines, *out, "--max-length", "2")
    assert "the key mesh.dota does not exist" in says(MEAN, lines, *out, "mesh.dota=2")
    assert "is of no known kind" in says(MEAN, tmp_path / "lines.pdf", *out)
    bare = shutil.copytree(MEAN, tmp_path / "bare")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink()
    assert "holds no tokenizer" in says(bare, lines, *out)
    assert not (tmp_path / "out.npy").exists()
    assert not list(tmp_path.glob(".out*"))


@pytest.fixture(scope="module")
def embedded(minilm, tmp_path_factory) -> np.ndarray:
    """MiniLM's embeddings of the sentences."""
    folder = tmp_path_factory.mktemp("minilm")
    (folder / "texts.txt").write_text("\n".join(SENTENCES))
    command = [sys.executable, "-m", "mjx", "embed", minilm, folder / "texts.txt"]
    subprocess.run([*command, "--output", folder / "out.npy"], env=environment(), check=True)
    return np.load(folder / "out.npy")


def test_minilm_knows_what_means_the_same(embedded):
    assert embedded.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-6)
    assert embedded[0] @ embedded[1] == pytest.approx(0.908, abs=5e-4)
    assert embedded[0] @ embedded[2] == pytest.approx(-0.036, abs=5e-4)


def test_minilm_embeds_as_in_transformers(minilm, embedded):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm)
    inputs = tokenizer(SENTENCES, padding="longest", truncation=True, max_length=256, return_tensors="pt")
    with torch.inference_mode():
        states = transformers.AutoModel.from_pretrained(minilm)(**inputs).last_hidden_state
    real = inputs["attention_mask"][..., None]
    mean = (states * real).sum(1) / real.sum(1)
    theirs = torch.nn.functional.normalize(mean, dim=1).numpy()
    np.testing.assert_allclose(embedded, theirs, atol=1e-5)
    ids = load_tokenizer(minilm).encode_prompts(SENTENCES)
    assert ids == [row[row > 0].tolist() for row in inputs["input_ids"]]
    ours = from_pretrained(minilm).outputs(**{name: each.numpy() for name, each in inputs.items()})
    where = np.broadcast_to(real.numpy() > 0, states.shape)
    np.testing.assert_allclose(np.asarray(ours["last_hidden_state"])[where], states.numpy()[where], atol=1e-5)
