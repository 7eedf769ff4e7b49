"""What Hugging Face's config.json of encoder-decoders says in ways that no `Key` can."""

import dataclasses
import math
from collections.abc import Collection, Sequence
from typing import Any

from mjx.errors import InputError
from mjx.models.interop.architecture import ACTIVATIONS
from mjx.models.interop.config_map import Fields, Key, Theirs, shown
from mjx.models.t5.config import T5Config


@dataclasses.dataclass(frozen=True)
class EncoderLayers(Key):
    """The encoder's depth, which is written where ours leaves it to be the decoder's, too."""

    def theirs(self, config: T5Config) -> dict[str, Any]:
        return {self.name: config.encoder_layers or config.num_layers}


@dataclasses.dataclass(frozen=True)
class DecoderLayers:
    """The decoder's depth; where it is missing, that of the encoder if `like` names its key."""

    name: str
    default: int
    like: str | None = None

    def names(self) -> Sequence[str]:
        return (self.name,) if self.like is None else (self.name, self.like)

    def ours(self, theirs: Theirs) -> Fields:
        given = theirs.get(self.name)
        if given is None and self.like is not None:
            given = theirs.get(self.like)
        return {"num_layers": self.default if given is None else given}

    def theirs(self, config: T5Config) -> dict[str, Any]:
        return {self.name: config.num_layers}


@dataclasses.dataclass(frozen=True)
class FeedForward:
    """`feed_forward_proj`: an activation, behind `gated-` where it is gated. What transformers derives of it
    (`dense_act_fn`, `is_gated_act`) is read where a config.json has it, as transformers does."""

    default: str

    def names(self) -> Sequence[str]:
        return ("feed_forward_proj", "dense_act_fn", "is_gated_act")

    def ours(self, theirs: Theirs) -> Fields:
        written = theirs.get("feed_forward_proj", self.default)
        first, *rest = written.split("-")
        if len(rest) > 1 or (rest and first != "gated"):
            raise InputError(
                f'{theirs.where} has "feed_forward_proj": {shown(written)}, which should be an activation, '
                "or gated- and an activation"
            )
        name = "gelu_new" if written == "gated-gelu" else (first, *rest)[-1]
        name = theirs.get("dense_act_fn", name)
        if name not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise InputError(f"{theirs.where} has the activation {shown(name)}; known are {known}")
        gated = theirs.get("is_gated_act", bool(rest))
        return {"mlp.activation": ACTIVATIONS[name], "mlp.gated": gated}

    def theirs(self, config: T5Config) -> dict[str, Any]:
        gated, activation = config.mlp.gated, config.mlp.activation
        names = [theirs for theirs, ours in ACTIVATIONS.items() if ours == activation]
        if not names:
            return {"feed_forward_proj": activation}  # refused where it is read back
        if gated and activation == "gelu-tanh":
            return {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new", "is_gated_act": True}
        name = next(name for name in names if not gated or name != "gelu")  # gated-gelu is another
        written = f"gated-{name}" if gated else name
        return {"feed_forward_proj": written, "dense_act_fn": name, "is_gated_act": gated}


@dataclasses.dataclass(frozen=True)
class ScaledHead:
    """T5's head is the token table, its input scaled by 1/√d_model, or not scaled, and a table of its own
    where a checkpoint has one.

    transformers says so by `tie_word_embeddings`; from its version 5 on, which ties whatever a file does not
    have, by `scale_decoder_outputs`.
    """

    def names(self) -> Sequence[str]:
        return ("tie_word_embeddings", "scale_decoder_outputs")

    def ours(self, theirs: Theirs) -> Fields:
        scaled = theirs.get("scale_decoder_outputs")
        if scaled is None:
            scaled = theirs.get("tie_word_embeddings") is not False
        width = theirs.get("d_model") or theirs.get("hidden_size") or 512
        return {"tie_embeddings": scaled, "logit_scale": width**-0.5 if scaled else 1.0}

    def theirs(self, config: T5Config) -> dict[str, Any]:
        return {
            "tie_word_embeddings": config.tie_embeddings,
            "scale_decoder_outputs": config.logit_scale != 1,
        }


@dataclasses.dataclass(frozen=True)
class UnscaledHead:
    """mT5's, whatever `tie_word_embeddings` is: a table of its own where a checkpoint has one."""

    def names(self) -> Sequence[str]:
        return ("tie_word_embeddings",)

    def ours(self, theirs: Theirs) -> Fields:
        return {"tie_embeddings": False, "logit_scale": 1.0}

    def theirs(self, config: T5Config) -> dict[str, Any]:
        return {"tie_word_embeddings": config.tie_embeddings}


def tied_without_head(config: T5Config, tensors: Collection[str]) -> T5Config:
    """The token table is the head where a checkpoint has no other."""
    return config if "lm_head.weight" in tensors else dataclasses.replace(config, tie_embeddings=True)


@dataclasses.dataclass(frozen=True)
class OffsetPositions:
    """The rows of tokens' positions; so many more stand in front of them, unused."""

    offset: int
    default: int

    def names(self) -> Sequence[str]:
        return ("max_position_embeddings",)

    def ours(self, theirs: Theirs) -> Fields:
        rows = theirs.get("max_position_embeddings", self.default)
        return {"max_positions": rows + self.offset, "first_position": self.offset}

    def theirs(self, config: T5Config) -> dict[str, Any]:
        return {} if config.max_positions is None else {self.names()[0]: config.max_positions - self.offset}


@dataclasses.dataclass(frozen=True)
class EmbeddingScale:
    """`scale_embedding`: tokens' embeddings are multiplied by the root of the width."""

    def names(self) -> Sequence[str]:
        return ("scale_embedding",)

    def ours(self, theirs: Theirs) -> Fields:
        width = theirs.get("d_model") or theirs.get("hidden_size") or 1024
        return {"embedding_scale": math.sqrt(width) if theirs.get("scale_embedding") else 1.0}

    def theirs(self, config: T5Config) -> dict[str, Any]:
        return {"scale_embedding": config.embedding_scale != 1}
