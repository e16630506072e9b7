"""Randomness as a pure function of (seed, purpose, counters), without state.

Every draw names its purpose and its place in the run, so it does not depend on the number of loader workers, on earlier draws, or on whether
the run was resumed. No torch: numpy vectors of counters in, numpy vectors of numbers out.
"""

import hashlib

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def derive(seed: int, purpose: str, *counters: int) -> int:
    """A 63-bit seed of its own for `purpose` at `counters` (epoch, step, rank, ...); fits every library's `manual_seed`."""
    text = "/".join([str(seed), purpose, *map(str, counters)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def _mix(x: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser (Steele et al. 2014): a bijection of 64-bit words whose output bits look independent."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniforms(seed: int, purpose: str, epoch: int, indices: np.ndarray, count: int) -> np.ndarray:
    """float64 [len(indices), count] in [0, 1): `count` numbers for each sample index, the same whatever batch it comes in."""
    key = np.uint64(derive(seed, purpose, epoch))
    counters = np.asarray(indices, np.uint64)[:, None] * np.uint64(count) + np.arange(1, count + 1, dtype=np.uint64)
    return (_mix(_mix(counters * GOLDEN) ^ key) >> np.uint64(11)) * 2.0**-53


def keys(seed: int, purpose: str, epoch: int, indices: np.ndarray) -> np.ndarray:
    """int64 [n]: a key for each sample index, from which `keyed` derives further numbers later, on any device."""
    return (uniforms(seed, purpose, epoch, indices, 1)[:, 0] * 2.0**53).astype(np.int64)


def keyed(samples: np.ndarray, purpose: str, count: int) -> np.ndarray:
    """float64 [n, count] in [0, 1) for samples with these keys, the same whatever batch a sample is in."""
    return uniforms(0, purpose, 0, samples, count)


class Permutation:
    """A shuffled order of 0..n-1, computed for each position without storing it.

    A four-round Feistel network on the smallest even-width square domain that holds n, walked until it lands inside
    (Black and Rogaway 2002, "Ciphers with arbitrary finite domains"). Memory is O(1); a call costs O(len(positions)).
    """

    def __init__(self, n: int, seed: int, epoch: int) -> None:
        assert n > 0
        self.n = n
        self.half = np.uint64(max(1, ((n - 1).bit_length() + 1) // 2))
        self.mask = (np.uint64(1) << self.half) - np.uint64(1)
        self.keys = [np.uint64(derive(seed, "order", epoch, i)) for i in range(4)]

    def _walk(self, x: np.ndarray) -> np.ndarray:
        left, right = x >> self.half, x & self.mask
        for key in self.keys:
            left, right = right, left ^ (_mix((right + GOLDEN) ^ key) & self.mask)
        return (left << self.half) | right

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """int64 sample indices at `positions` (each in 0..n-1) of the order."""
        x = self._walk(np.asarray(positions, np.uint64))
        while (outside := x >= self.n).any():
            x[outside] = self._walk(x[outside])
        return x.astype(np.int64)
