"""Tensors in narrower types: refused by name, clipped, or as NumPy casts them."""

import logging

import ml_dtypes
import numpy as np
import pytest

from mjx.errors import InputError
from mjx.models.interop.narrow import in_dtype, is_finite, warn_of_non_finite

NARROW = [
    np.dtype(kind)
    for kind in (np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)
]


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_numbers_within_the_range_are_cast_as_ever(dtype):
    largest = float(ml_dtypes.finfo(dtype).max)
    array = np.array([[0, -0.0, 1e-30, 0.1], [1, -largest, largest, -1]], np.float32)
    np.testing.assert_array_equal(in_dtype(array, dtype, "w"), array.astype(dtype))
    assert in_dtype(array, np.dtype(np.float32), "w") is array
    assert in_dtype(array[:0], dtype, "w").dtype == dtype


def test_what_rounds_to_the_largest_number_is_not_beyond_it():
    array = np.array([65504, 65519], np.float32)
    assert in_dtype(array, np.dtype(np.float16), "w").tolist() == [65504, 65504]
    with pytest.raises(InputError, match="w has 1 of 1 numbers beyond float16, whose largest is 65504"):
        in_dtype(np.array([65520], np.float32), np.dtype(np.float16), "w")


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_what_would_become_infinite_is_refused_or_clipped(dtype):
    largest = float(ml_dtypes.finfo(dtype).max)
    array = np.array([1, 3.4e38, -3.4e38], np.float32)
    with pytest.raises(InputError, match=rf"^w has 2 of 3 numbers beyond {dtype.name}.* go up to 3\.4e\+38"):
        in_dtype(array, dtype, "w")
    assert in_dtype(array, dtype, "w", clip=True).astype(np.float64).tolist() == [1, largest, -largest]


def test_what_is_not_finite_already_stays_and_hides_nothing():
    array = np.array([np.nan, np.inf, 2, -1e6], np.float32)
    with pytest.raises(InputError, match="w has 1 of 4 numbers beyond float16"):
        in_dtype(array, np.dtype(np.float16), "w")
    np.testing.assert_array_equal(
        in_dtype(array, np.dtype(np.float16), "w", clip=True), [np.nan, np.inf, 2, -65504]
    )
    np.testing.assert_array_equal(in_dtype(array[:3], np.dtype(np.float16), "w"), [np.nan, np.inf, 2])


def test_tensors_that_are_not_finite_are_warned_of_by_name(caplog):
    assert is_finite(np.zeros((0, 3), np.float32))
    assert is_finite(np.array([1, -2], ml_dtypes.bfloat16))
    for bad in (np.nan, np.inf, -np.inf):
        assert not is_finite(np.array([1, bad, -2], ml_dtypes.bfloat16))
    with caplog.at_level(logging.WARNING, logger="mjx"):
        warn_of_non_finite("the written", [])
        warn_of_non_finite("the written", list("abcdef"))
    (record,) = caplog.records
    assert record.getMessage() == (
        "6 of the written tensors hold numbers that are not finite (NaN or infinity): a, b, c, d, e …"
    )
