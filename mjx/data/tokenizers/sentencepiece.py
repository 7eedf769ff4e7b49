"""SentencePiece models (Llama 1 and 2, Mistral, T5, Gemma)."""

from collections.abc import Sequence
from pathlib import Path

from mjx.data.tokenizers.protocol import optional_package
from mjx.errors import InputError

MODEL_FILE = "tokenizer.model"


class SentencePieceTokenizer:
    """A SentencePiece model; its end of sentence ends a document."""

    def __init__(self, file: Path) -> None:
        package = optional_package("sentencepiece", file)
        self._model = file.read_bytes()
        try:
            self._processor = package.SentencePieceProcessor(model_proto=self._model)
        except RuntimeError as error:
            raise InputError(f"{file} is not a SentencePiece model: {error}.") from error

        def known(token: int) -> int | None:
            return token if token >= 0 else None

        self.vocab_size: int = self._processor.vocab_size()
        self.eod_id = known(self._processor.eos_id())
        self.bos_id = known(self._processor.bos_id())
        self.pad_id = known(self._processor.pad_id())

    def encode(self, text: str) -> list[int]:
        return self._processor.encode(text)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return self._processor.encode(list(texts))

    def decode(self, ids: Sequence[int]) -> str:
        return self._processor.decode(list(ids))

    def save(self, folder: str | Path) -> None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, MODEL_FILE).write_bytes(self._model)
