"""Factors and divisors: which float32 can compute with."""

import math

import pytest

from mjx.bounds import LEAST, MOST, check_scale
from mjx.errors import InputError


@pytest.mark.parametrize("value", [LEAST, 1e-8, 1, 1.0, 1e5, MOST])
def test_ordinary_numbers_are_taken(value):
    check_scale("x", value)


@pytest.mark.parametrize("value", [0, -0.0, -1e-8, -math.inf, math.nan])
def test_what_is_not_positive_is_refused(value):
    with pytest.raises(InputError, match=r"x = .* must be positive, or null for none$"):
        check_scale("x", value, ", or null for none")


@pytest.mark.parametrize("value", [5e-324, 1e-45, 1e-38, 0.9e-30, 1.1e30, 3e38, 1e308, math.inf])
def test_what_float32_would_make_0_or_infinite_is_refused(value):
    with pytest.raises(InputError, match=r"x = .* must be from 1e-30 to 1e\+30"):
        check_scale("x", value)
