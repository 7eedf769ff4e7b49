"""What layers with a state send, where a row lies on several devices."""

from mjx.models.common.pattern import Exchange
from mjx.models.common.share import Share


def left_by_parts(of_device: Share, convolved: float, states: float) -> tuple[Exchange, ...]:
    """Of a layer each of whose parts of a row leaves so many inputs of the convolution and float32 numbers of
    the state to the others."""
    step = of_device.step
    each = step.rows / of_device.rows * (convolved * step.itemsize + 4 * states)
    return of_device.gathered("states", of_device.parts * each)
