"""What does it take to run a model over text, or to let it answer?"""

from __future__ import annotations

import math
from dataclasses import dataclass

from reasondiff.config import ModelSize
from reasondiff.costs.sizes import NUMBER_BYTES, weights
from reasondiff.costs.work import Number, Work, products

TARGETS_AT_ONCE = 4096  # whose logits are made together
LOGIT_PASSES = 6  # over float32 logits: made, cast, normalised, compared


@dataclass(frozen=True)
class Rows:
    """How text is read: packed rows of `context` tokens, so many at a time, in one precision."""

    context: int
    at_once: int
    dtype: str

    @property
    def tokens(self) -> int:
        return self.context * self.at_once


def block_flops(size: ModelSize, context: Number) -> Number:
    """Products of one block per token, attention over half a context included."""
    head_width = size.hidden // size.heads
    attention = 2 * size.hidden**2 + 2 * size.hidden * size.kv_heads * head_width
    scores = 2 * 2 * size.hidden * context / 2
    return 2 * (attention + 3 * size.hidden * size.mlp) + scores


def model_flops(size: ModelSize, context: Number) -> Number:
    """Products of one forward pass per token, the head apart."""
    return size.layers * block_flops(size, context)


def read(size: ModelSize, tokens: Number, rows: Rows, blocks: Number | None = None) -> Work:
    """A pass over so many tokens through the first `blocks` blocks (all of them)."""
    blocks = size.layers if blocks is None else blocks
    work = products(tokens * blocks * block_flops(size, rows.context), rows.dtype)
    return work + Work(block_calls=blocks * math.ceil(tokens / rows.tokens))


def predict(size: ModelSize, tokens: Number, rows: Rows) -> Work:
    """The logits of so many tokens, and losses made of them."""
    work = products(2 * size.hidden * size.vocabulary * tokens, rows.dtype)
    return work + Work(moved_bytes=LOGIT_PASSES * 4 * size.vocabulary * tokens)


def answer(size: ModelSize, answers: int, new_tokens: int, prompt_tokens: int, at_once: int, dtype: str) -> Work:
    """Answers of the greatest length: at each step all weights are read, and what is kept of the tokens before."""
    number = NUMBER_BYTES[dtype]
    steps = math.ceil(answers / at_once) * new_tokens
    kept = 2 * size.layers * size.kv_heads * (size.hidden // size.heads) * number  # bytes of a token
    length = prompt_tokens + new_tokens / 2
    flops = model_flops(size, 2 * length) + 2 * size.hidden * size.vocabulary
    work = products(answers * (new_tokens + prompt_tokens) * flops, dtype)
    moved = steps * number * weights(size) + answers * new_tokens * length * kept
    return work + Work(moved_bytes=moved, block_calls=steps * size.layers)


# ------------------------------------------------------------------------------------------------ memory


def model_bytes(size: ModelSize, dtype: str, blocks: int | None = None) -> int:
    """A model on its device."""
    return NUMBER_BYTES[dtype] * weights(size, blocks)


def reading_bytes(size: ModelSize, rows: Rows, sites: int = 0) -> int:
    """What a pass holds besides the weights: one block at work, the mask, and activations of so many (layer, side)."""
    number = NUMBER_BYTES[rows.dtype]
    at_work = rows.tokens * (3 * size.mlp + 8 * size.hidden) * number
    mask = rows.at_once * rows.context**2 * (1 + number)
    return at_work + mask + sites * rows.tokens * size.hidden * number


def logit_bytes(size: ModelSize, rows: Rows) -> int:
    """Logits that are compared at a time, before and after, and a copy."""
    return 3 * 4 * min(TARGETS_AT_ONCE, rows.tokens) * size.vocabulary


def cache_bytes(size: ModelSize, answers: int, length: int, dtype: str) -> int:
    """Keys and values of so many answers, and their last logits."""
    head_width = size.hidden // size.heads
    kept = 2 * size.layers * size.kv_heads * head_width * NUMBER_BYTES[dtype] * answers * length
    return kept + 3 * 4 * answers * size.vocabulary
