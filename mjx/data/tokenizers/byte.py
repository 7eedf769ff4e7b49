"""UTF-8 bytes as tokens: nothing to train, nothing to download."""

import json
from collections.abc import Sequence
from pathlib import Path

from mjx.data.tokenizers.protocol import checked, known_ids

BYTE_FILE = "byte_tokenizer.json"


class ByteTokenizer:
    """Ids 0 to 255 are the bytes, 256 ends a document."""

    vocab_size: int = 257
    eod_id: int | None = 256
    bos_id: int | None = None
    pad_id: int | None = None
    cls_id: int | None = None
    sep_id: int | None = None
    mask_id: int | None = None
    separators: int = 1

    def encode(self, text: str) -> list[int]:
        return list(checked(text).encode())

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]

    def encode_prompt(self, text: str) -> list[int]:
        return self.encode(text)

    def encode_prompts(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode_prompt(text) for text in texts]

    def encode_chat(self, text: str) -> list[int]:
        return self.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(known_ids(ids, 256)).decode(errors="replace")

    def token(self, token_id: int) -> str | None:
        if token_id == self.eod_id:
            return "end of document"
        return f"<0x{token_id:02X}>" if 0 <= token_id < 256 else None

    def token_id(self, token: str) -> int | None:
        return next((byte for byte in range(self.vocab_size) if self.token(byte) == token), None)

    def save(self, folder: str | Path) -> None:
        path = Path(folder, BYTE_FILE)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            json.dumps({"kind": "byte", "vocab_size": self.vocab_size, "eod_id": self.eod_id}) + "\n",
            encoding="utf-8",
        )
