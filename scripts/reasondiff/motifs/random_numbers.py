"""How does compiled code draw random numbers, from as many independent streams as it likes?

Compiled functions of other files call these, and numba's cache does not see a change here: after one, delete the
`__pycache__` beside this file.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from jaxtyping import UInt64
from numba import njit


def number_stream(seed: int, *which: int) -> UInt64[np.ndarray, "1"]:
    """The state of a stream of random numbers of its own for each combination of `which`."""
    return np.random.SeedSequence([seed, *which]).generate_state(1, np.uint64)


@njit(cache=True, nogil=True)
@no_type_check
def next_bits(state):
    """64 random bits (splitmix64: Steele, Lea and Flood 2014)."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True)
@no_type_check
def below(state, n):
    """A whole number from 0 to n - 1, for n up to 2^32; no two differ in probability by more than 2^-32."""
    return np.int64(((next_bits(state) >> np.uint64(32)) * np.uint64(n)) >> np.uint64(32))
