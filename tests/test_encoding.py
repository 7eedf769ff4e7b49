"""Text is UTF-8 in files whatever the environment says, and can be printed on any terminal."""

import ast
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mjx.cli import main
from mjx.commands.generate import _text_of
from mjx.errors import InputError

ROOT = Path(__file__).parents[1]
FILES = [file for folder in ("mjx", "benchmarks", "examples") for file in (ROOT / folder).rglob("*.py")]


def leaves_encoding_open(call: ast.Call) -> bool:
    """Whether a call reads or writes text in the encoding of the environment."""
    function = ast.unparse(call.func)
    name, keywords = function.rpartition(".")[2], {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in keywords:
        return False
    if name in ("read_text", "write_text"):
        return True
    if any(
        ast.unparse(keywords.get(word, ast.Constant(0))) == "True" for word in ("text", "universal_newlines")
    ):
        return True
    if function in ("open", "io.open", "os.fdopen"):
        mode = keywords.get("mode", call.args[1] if len(call.args) > 1 else ast.Constant("r"))
    elif name == "open":  # of a path
        mode = keywords.get("mode", call.args[0] if call.args else None)
    else:
        return False
    text = mode.value if isinstance(mode, ast.Constant) else None
    return isinstance(text, str) and bool(text) and set(text) <= set("rwxat+")


@pytest.mark.parametrize(
    ("code", "open_"),
    [
        ("open(p)", True),
        ("open(p, 'w')", True),
        ("path.open('a')", True),
        ("path.write_text(x)", True),
        ("subprocess.run(c, text=True)", True),
        ("os.fdopen(f, 'w')", True),
        ("open(p, 'rb')", False),
        ("path.open('x', encoding='utf-8')", False),
        ("config.open()", False),
        ("os.open(path, flags)", False),
    ],
)
def test_calls_that_leave_the_encoding_open_are_recognised(code, open_):
    (call,) = (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call))
    assert leaves_encoding_open(call) is open_


def test_no_file_is_read_or_written_in_the_encoding_of_the_environment():
    left_open = [
        f"{file.relative_to(ROOT)}, line {node.lineno}: {ast.unparse(node)[:80]}"
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and leaves_encoding_open(node)
    ]
    assert not left_open


@pytest.mark.parametrize(
    "variables",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=lambda variables: "+".join(variables),
)
def test_a_terminal_of_ascii_gets_the_other_characters_escaped(tmp_path, variables):
    (tmp_path / "notes.txt").write_text("größer → kleiner", encoding="utf-8")
    command = [sys.executable, "-m", "mjx", "data", "build", str(tmp_path / "notes.txt")]
    ended = subprocess.run(
        [*command, "--tokenizer", "byte", "--output", "größe→"],
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        cwd=tmp_path,
        capture_output=True,
        encoding="ascii",
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("wrote 1 documents, 21 tokens to gr")
    assert (tmp_path / "größe→.bin").exists()


def test_what_is_printed_never_ends_a_command(monkeypatch, tmp_path):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    (tmp_path / "ä.txt").write_text("text", encoding="utf-8")
    main(["data", "build", str(tmp_path / "ä.txt"), "--output", str(tmp_path / "ä"), "--tokenizer", "byte"])
    stream.flush()
    assert raw.getvalue().endswith(rb"\xe4.bin and .idx" + b"\n")


def test_a_prompt_is_utf8_also_where_the_locale_knows_only_ascii():
    assert _text_of("größer") == "größer"
    assert _text_of(os.fsdecode("größer".encode())) == "größer"
    assert _text_of("größer".encode().decode("ascii", "surrogateescape")) == "größer"
    with pytest.raises(InputError, match=r"--prompt .* is not text: its bytes are not UTF-8"):
        _text_of("a\udcff")
