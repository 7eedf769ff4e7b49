"""tiktoken files: lines of a token in base64 and its rank (GPT-2 to GPT-4o, Llama 3, Qwen)."""

import base64
import dataclasses
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from mjx.data.tokenizers.protocol import checked, known_ids, optional_package
from mjx.errors import InputError

_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_WORD = "|".join(
    [
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}%s",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_O200K = "|".join(
    [
        rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)

_LONGEST_SPACE = 500_000
_LONG_SPACE = re.compile(rf"(?<!\s)\s{{{_LONGEST_SPACE},}}")


@dataclasses.dataclass(frozen=True)
class _Encoding:
    """What a tiktoken file does not say: how text is cut before merging, and the special tokens behind the
    ranks."""

    pattern: str
    special_tokens: dict[str, int]
    eod: str
    bos: str | None = None


_ENCODINGS = {
    50256: _Encoding(_GPT2, {"<|endoftext|>": 50256}, "<|endoftext|>"),  # GPT-2, r50k
    100256: _Encoding(  # cl100k
        _WORD % "{1,3}",
        {
            "<|endoftext|>": 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
        "<|endoftext|>",
    ),
    199998: _Encoding(_O200K, {"<|endoftext|>": 199999, "<|endofprompt|>": 200018}, "<|endoftext|>"),  # o200k
    128000: _Encoding(  # Llama 3
        _WORD % "{1,3}",
        {
            "<|begin_of_text|>": 128000,
            "<|end_of_text|>": 128001,
            "<|start_header_id|>": 128006,
            "<|end_header_id|>": 128007,
            "<|eom_id|>": 128008,
            "<|eot_id|>": 128009,
            # The 256 special tokens are part of the published vocabulary, most without a use.
            "<|reserved_special_token_247|>": 128255,
        },
        "<|end_of_text|>",
        "<|begin_of_text|>",
    ),
    151643: _Encoding(  # Qwen
        _WORD % "", {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645}, "<|endoftext|>"
    ),
}
"""Number of ranks → the published encoding that has so many."""


class TiktokenTokenizer:
    """A published tiktoken encoding, known by the number of its ranks."""

    def __init__(self, file: Path) -> None:
        self._file_name, self._content = file.name, file.read_bytes()
        ranks = _parse(file, self._content)
        if len(ranks) not in _ENCODINGS:
            known = ", ".join(str(count) for count in sorted(_ENCODINGS))
            raise InputError(
                f"{file} has {len(ranks)} ranks; the pattern and special tokens are known of encodings with "
                f"{known} (GPT-2, cl100k, Llama 3, Qwen, o200k). Convert another one to tokenizer.json."
            )
        encoding = _ENCODINGS[len(ranks)]
        self._ranks = len(ranks)
        self._special = {token_id: token for token, token_id in encoding.special_tokens.items()}
        package = optional_package("tiktoken", file)
        self._encoding = package.Encoding(
            file.stem, pat_str=encoding.pattern, mergeable_ranks=ranks, special_tokens=encoding.special_tokens
        )
        self.vocab_size: int = self._encoding.n_vocab
        self.eod_id: int | None = encoding.special_tokens[encoding.eod]
        self.bos_id: int | None = None if encoding.bos is None else encoding.special_tokens[encoding.bos]
        self.pad_id: int | None = None
        self.cls_id: int | None = None
        self.sep_id: int | None = None
        self.mask_id: int | None = None
        self.separators = 1

    def encode(self, text: str) -> list[int]:
        return [token for part in _parts(checked(text)) for token in self._encoding.encode_ordinary(part)]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        parts = [_parts(checked(text)) for text in texts]
        encoded = iter(self._encoding.encode_ordinary_batch([part for each in parts for part in each]))
        return [[token for _ in each for token in next(encoded)] for each in parts]

    def encode_prompt(self, text: str) -> list[int]:
        return self.encode_chat(text)

    def encode_prompts(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode_prompt(text) for text in texts]

    def encode_chat(self, text: str) -> list[int]:
        parts = _parts(checked(text))
        return [token for part in parts for token in self._encoding.encode(part, allowed_special="all")]

    def decode(self, ids: Sequence[int]) -> str:
        return self._encoding.decode(known_ids(ids, self._ranks))

    def token(self, token_id: int) -> str | None:
        if token_id in self._special:
            return self._special[token_id]
        if not 0 <= token_id < self._ranks:
            return None
        return self._encoding.decode_single_token_bytes(token_id).decode(errors="backslashreplace")

    def token_id(self, token: str) -> int | None:
        try:
            return self._encoding.encode_single_token(token)
        except KeyError:
            return None

    def save(self, folder: str | Path) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, self._file_name).write_bytes(self._content)


def _parts(text: str) -> list[str]:
    """The text, cut within runs of white space on which tiktoken's regular expressions overflow a stack."""
    if len(text) <= _LONGEST_SPACE:
        return [text]
    cuts = [
        cut
        for run in _LONG_SPACE.finditer(text)
        for cut in range(run.start() + _LONGEST_SPACE, run.end(), _LONGEST_SPACE)
    ]
    return [text[begin:end] for begin, end in itertools.pairwise([0, *cuts, len(text)])]


def is_tiktoken(content: bytes) -> bool:
    """Whether a file begins like a tiktoken file; Llama 3 calls its own `tokenizer.model`, as SentencePiece
    does."""
    line = content[:256].split(b"\n", 1)[0].split()
    try:
        return len(line) == 2 and line[1].isdigit() and bool(base64.b64decode(line[0], validate=True))
    except ValueError:
        return False


def _parse(file: Path, content: bytes) -> dict[bytes, int]:
    ranks = {}
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip():
            try:
                token, rank = line.split()
                ranks[base64.b64decode(token, validate=True)] = int(rank)
            except ValueError as error:
                raise InputError(f"{file}, line {number}: not a token in base64 and its rank.") from error
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise InputError(f"{file} has {len(ranks)} tokens, whose ranks are not 0 to {len(ranks) - 1}.")
    return ranks
