"""How long does a graphics card take for a piece of work?

Work is counted in four ways, none of which depends on the card: products by precision, bytes that are moved to and from
the card's memory, and calls of a model's blocks, each of which the processor has to launch. What a card makes of them
rests on the rates that its maker states and on the shares of them that the study assumes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from reasondiff.config import Card

Number = float | int


@dataclass(frozen=True)
class Work:
    """A piece of work. Pieces add up and are repeated: `one + 3 * other`."""

    bfloat16_flops: Number = 0.0
    float32_flops: Number = 0.0
    tf32_flops: Number = 0.0
    moved_bytes: Number = 0.0
    block_calls: Number = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(Work)))

    def __mul__(self, times: Number) -> Work:
        return Work(*(times * getattr(self, one.name) for one in fields(Work)))

    __rmul__ = __mul__


def products(flops: Number, dtype: str) -> Work:
    """Products in one precision."""
    return Work(**{f"{dtype}_flops": flops})


def hours(work: Work, card: Card) -> Number:
    """Hours on a card. Products and memory wait for one another, while launching runs ahead of them: what takes longer
    counts."""
    seconds = (
        work.bfloat16_flops / (1e12 * card.bfloat16_tflops * card.bfloat16_share)
        + work.float32_flops / (1e12 * card.float32_tflops * card.float32_share)
        + work.tf32_flops / (1e12 * card.tf32_tflops * card.float32_share)
        + work.moved_bytes / (1e12 * card.memory_tb_per_second * card.memory_share)
    )
    return max(seconds, work.block_calls * card.block_milliseconds / 1e3) / 3600
