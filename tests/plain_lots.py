"""The lots by which firings are drawn, by whole Python numbers: what the vector code must agree with."""

from __future__ import annotations

MASK = 2**64 - 1


def plain_scramble(number: int) -> int:
    """SplitMix64, as a signed number."""
    mixed = (int(number) + 0x9E3779B97F4A7C15) & MASK
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & MASK
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & MASK
    mixed ^= mixed >> 31
    return mixed - 2**64 if mixed >= 2**63 else mixed


def plain_lot(seed: int, layer: int, latent: int, token: int) -> int:
    """The lot of a latent's firing on a token."""
    start = plain_scramble(plain_scramble(seed) ^ layer)
    return plain_scramble(plain_scramble(start ^ int(latent)) ^ int(token))
