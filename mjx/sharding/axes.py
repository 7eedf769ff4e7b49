"""The vocabulary of axes: where arrays can live (mesh axes) and what their dimensions mean (logical axes)."""

MESH_AXES = ("data", "fsdp", "pipeline", "context", "expert", "tensor")
"""Mesh axes, outermost first. Always all of them, size 1 when unused, so that every program and every
checkpoint speaks of the same mesh. `tensor` is innermost: its traffic is the heaviest, so it gets the
devices that are closest to each other."""

LOGICAL_AXES = {
    "batch": "samples",
    "sequence": "token axis inside attention, MLP and head",
    "residual_sequence": "token axis of the residual stream, where norms, dropout and residual adds act",
    "embed": "features of the residual stream",
    "streams": "residual streams that are read side by side",
    "heads": "query heads",
    "kv_heads": "key and value heads",
    "head_dim": "features of one head",
    "mlp": "hidden features of an MLP",
    "vocab": "token ids",
    "positions": "rows of a table of learned positions",
    "axes": "time, height and width of a position",
    "pixels": "numbers of a flattened patch of a picture",
    "made": "embeddings that are made elsewhere, of a row",
    "chunks": "parts of a row of tokens, for each of which something is retrieved",
    "neighbours": "texts that are retrieved for a chunk",
    "retrieved": "tokens of a text that is retrieved",
    "grid": "where a patch is in its picture",
    "channels": "colours of a picture",
    "height": "rows of pixels of a picture",
    "width": "columns of pixels of a picture",
    "token_types": "rows of a table of token types",
    "classes": "what a classifier tells apart",
    "buckets": "rows of a table of relative positions",
    "experts": "experts of a mixture",
    "expert_mlp": "hidden features of an expert",
    "expert_scores": "a token's scores of all experts",
    "latent": "features between two projections, whole on every device",
    "layers": "the repeats of a scanned unit of sub-layers",
    "stages": "pipeline stages",
    "state": "state features of a state-space model",
    "groups": "heads of a state-space model that share what they read and write",
    "inner": "inner channels of a state-space model",
    "conv": "taps of a convolution",
}
"""Logical axis → meaning. An array dimension is annotated with one of these names everywhere: in the
jaxtyping shape, in the parameter's `out_sharding`, in `shard()`, in the rules and in the docs."""
