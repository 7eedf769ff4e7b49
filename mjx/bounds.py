"""Numbers that float32 can multiply with and divide by."""

from mjx.errors import InputError

LEAST, MOST = 1e-30, 1e30
"""Far from float32's own 1e-38 and 3e38, so that what is computed with them and with ordinary numbers is
neither flushed to 0 nor infinite. No model is known with a factor anywhere near: what is beyond is a slip."""


def check_scale(name: str, value: float, otherwise: str = "", *, least: float = LEAST) -> None:
    """Raise unless `value` is positive, and one that float32 can compute with.

    `otherwise` says what else is allowed: ", or null for none".
    """
    if not value > 0:
        raise InputError(f"{name} = {value} must be positive{otherwise}")
    if not least <= value <= MOST:
        raise InputError(
            f"{name} = {value} must be from {least:g} to {MOST:g}{otherwise}: float32 cannot compute with it"
        )
