"""Numbers and lists as people read them."""

import math

import pytest

from mjx.words import (
    all_of,
    count_words,
    divisors,
    duration,
    mesh_words,
    nearest,
    one_of,
    percent,
    readable_bytes,
    readable_gigabytes,
    readable_seconds,
    shape_words,
    short_count,
)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (readable_bytes, {0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 2**31: "2.0 GiB", 2**41: "2.0 TiB"}),
        (readable_gigabytes, {512: "512 bytes", 4e6: "4.00 MB", 9.9e7: "99.00 MB", 1.25e9: "1.25 GB"}),
        (readable_seconds, {1.254: "1.25 s", 0.0031: "3.1 ms"}),
        (percent, {0.254: "25 %", 1: "100 %"}),
        (short_count, {812.0: "812", 41234.0: "41.2k", 999.7e3: "1000k", 1.35e6: "1.35M", 2e9: "2G"}),
        (count_words, {950_000: "950,000", 8.03e9: "8.03 billion", 1.2e12: "1.2 trillion"}),
        (
            duration,
            {
                42: "0:42",
                751: "12:31",
                3 * 3600 + 245: "3:04:05",
                2 * 86400 + 3 * 3600 + 240: "2d 03:04",
                math.nan: "?",
            },
        ),
        (shape_words, {(8, 128): "8 × 128", (): "scalar"}),
        (all_of, {("A",): "A", ("A", "B"): "A and B", ("A", "B", "C"): "A, B and C"}),
        (one_of, {(1,): "1", (1, 2, 4): "1, 2 or 4"}),
        (divisors, {1: [1], 12: [1, 2, 3, 4, 6, 12]}),
    ],
    ids=lambda case: getattr(case, "__name__", ""),
)
def test_it_reads_as_people_write_it(word, said):
    assert {given: word(given) for given in said} == said


def test_a_mesh_is_told_by_the_axes_that_are_used():
    assert mesh_words({"data": 1, "fsdp": 64, "tensor": 8}) == "fsdp 64 × tensor 8"
    assert mesh_words({"data": 1}) == "one device"


def test_a_wrong_name_is_answered_by_the_nearest_or_by_all():
    assert nearest("step", {"steps": 1, "seed": 2}) == "did you mean steps?"
    assert nearest("zzz", ("steps", "seed")) == "known: steps, seed"
