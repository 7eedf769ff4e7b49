"""Which layers of a model have something: a pattern that is repeated over its depth."""


def split_layers(layers: tuple[bool, ...]) -> tuple[int, tuple[bool, ...]]:
    """`dense_layers` and `moe_pattern` of the layers that have experts."""
    dense = next((at for at, routed in enumerate(layers) if routed), len(layers))
    if all(layers[dense:]):
        return dense, (True,)
    lengths = range(1, len(layers) + 1)
    return 0, next(
        layers[:n] for n in lengths if all(layers[at] == layers[at % n] for at in range(len(layers)))
    )
