"""The random numbers of C++'s `std::mt19937_64`, and what a Fisher–Yates shuffle makes of them."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int64, UInt64

_WORDS, _HALF = 312, 156
_TWIST = np.uint64(0xB5026F5AA96619E9)
_UPPER, _LOWER = np.uint64(0xFFFFFFFF80000000), np.uint64(0x7FFFFFFF)
_ONE = np.uint64(1)


def mt19937_64(seed: int, count: int) -> UInt64[np.ndarray, "count"]:
    """The first `count` numbers of the generator (Nishimura and Matsumoto, 2004) with this seed."""
    state = np.empty(_WORDS, np.uint64)
    word = seed % 2**64
    for place in range(_WORDS):
        state[place] = word
        word = (6364136223846793005 * (word ^ (word >> 62)) + place + 1) % 2**64
    numbers = np.empty(-(-count // _WORDS) * _WORDS, np.uint64)
    for first in range(0, len(numbers), _WORDS):
        _twist(state)
        numbers[first : first + _WORDS] = state
    step = 1 << 20  # so that the temporaries stay small
    for first in range(0, len(numbers), step):
        _temper(numbers[first : first + step])
    return numbers[:count]


def _twist(state: UInt64[np.ndarray, "312"]) -> None:
    """The next words of the state, in place: each of a word, its neighbour and the word half a state on."""
    for begin, end, other in ((0, _HALF, _HALF), (_HALF, _WORDS - 1, 0), (_WORDS - 1, _WORDS, _HALF - 1)):
        after = state[begin + 1 : end + 1] if end < _WORDS else state[:1]
        mixed = (state[begin:end] & _UPPER) | (after & _LOWER)
        state[begin:end] = state[other : other + end - begin] ^ (mixed >> _ONE) ^ (mixed & _ONE) * _TWIST


def _temper(words: UInt64[np.ndarray, "words"]) -> None:
    words ^= (words >> np.uint64(29)) & np.uint64(0x5555555555555555)
    words ^= (words << np.uint64(17)) & np.uint64(0x71D67FFFEDA60000)
    words ^= (words << np.uint64(37)) & np.uint64(0xFFF7EEE000000000)
    words ^= words >> np.uint64(43)


def shuffled(count: int, seed: int) -> Int64[np.ndarray, "count"]:
    """The places 0, 1, …, count - 1 in the order that a shuffle by `mt19937_64(seed)` gives them.

    The shuffle goes from the last place i down to the second and exchanges what is at i with what is at
    j = number % (i + 1). Nothing is exchanged here one by one: place i is final after its turn, and until
    then what is at any place c came there at the last turn i' before with j = c, from place i'; so from
    where it came to where it started is a chain of ever later places, which all places follow together.
    """
    order = np.arange(count, dtype=np.int64)
    if count < 2:
        return order
    turns = np.arange(count - 1, 0, -1, dtype=np.uint64)
    partner = np.zeros(count, np.int64)
    partner[1:] = (mt19937_64(seed, count - 1) % (turns + _ONE)).astype(np.int64)[::-1]
    # Turns sorted by partner, then by place: the next of a group is the turn that came just before.
    if count <= 1 << 31:
        keys = (partner << 31) | order
        keys.sort()
        by_partner = keys & ((1 << 31) - 1)
        del keys
    else:
        by_partner = np.argsort(partner, kind="stable")
    by_partner = by_partner[by_partner != 0]  # place 0 has no turn
    partners = partner[by_partner]
    # From which turn came what is at a place when its own turn comes: the first of its group but itself.
    came = order.copy()
    others = by_partner > partners
    firsts = np.flatnonzero(others)
    firsts = firsts[np.diff(partners[firsts], prepend=-1) != 0]
    came[partners[firsts]] = by_partner[firsts]
    # And what is at the partner when a turn comes: of the next turn in the group, else what was there.
    last = np.diff(partners, append=-1) != 0
    after = np.append(by_partner[1:], 0)
    source = np.where(last, partners, after)
    started = _follow(came)
    order[by_partner] = np.where(last, source, started[source])
    order[0] = started[0]
    return order


def _follow(came: Int64[np.ndarray, "count"]) -> Int64[np.ndarray, "count"]:
    """Where the chain from each place ends: at the place that comes from itself."""
    while True:
        further = came[came]
        if np.array_equal(further, came):
            return came
        came = further


def raw_numbers(seed: int, at_once: int) -> Iterator[Int64[np.ndarray, "numbers"]]:
    """The numbers of `std::mt19937` with this seed, so many at a time."""
    random = np.random.RandomState(seed)
    while True:
        yield random.randint(0, 2**32, at_once, np.uint32).astype(np.int64)
