"""From which random numbers does a dictionary start, and how does its learning rate rise and fall?"""

from __future__ import annotations

import hashlib

from reasondiff.config import Schedule


def point_seed(seed: int, of: str, layer: int, point: str) -> int:
    """The seed of one dictionary of a pair or model: independent of which others share its bank."""
    text = f"{seed}/{of}/layer{layer}/{point}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def total_steps(schedule: Schedule) -> int:
    """Optimiser steps of a training."""
    return max(1, schedule.tokens // schedule.batch_tokens)


def rate_factor(schedule: Schedule, steps: int, done: int) -> float:
    """What the learning rate is multiplied by after `done` of `steps`: linear warm-up, a plateau, linear decay."""
    warmup = max(1.0, schedule.warmup_share * steps)
    decay = max(1.0, schedule.decay_share * steps)
    return max(0.0, min(1.0, (done + 1) / warmup, (steps - done) / decay))
