"""Hours come from products, bytes and launches by the rates of a card."""

from __future__ import annotations

import pytest

from reasondiff.config import Card
from reasondiff.costs.work import Work, hours, products

CARD = Card(
    name="made up", memory_gib=10, bfloat16_tflops=100, float32_tflops=10, tf32_tflops=40,
    memory_tb_per_second=2, bfloat16_share=0.5, float32_share=0.25, memory_share=0.5, block_milliseconds=2,
)  # fmt: skip


def test_products_and_bytes_wait_for_one_another_by_hand():
    """An hour each: 1.8e17 at 50e12 a second, 9e15 at 2.5e12, 3.6e16 at 10e12, and 3.6e15 bytes at 1e12."""
    work = products(1.8e17, "bfloat16") + products(9e15, "float32") + products(3.6e16, "tf32")
    assert hours(work + Work(moved_bytes=3.6e15), CARD) == pytest.approx(4)


def test_launching_runs_ahead_and_counts_where_it_takes_longer():
    short = products(1.8e17, "bfloat16")
    assert hours(short + Work(block_calls=1_800_000), CARD) == pytest.approx(1)  # 3,600 s of launches beside 3,600 s
    assert hours(short + Work(block_calls=3_600_000), CARD) == pytest.approx(2)


def test_work_adds_up_and_is_repeated():
    one, other = Work(1, 2, 3, 4, 5), Work(10, 20, 30, 40, 50)
    assert one + 2 * other == Work(21, 42, 63, 84, 105) == other * 2 + one
    assert sum([one, one], Work()) == one * 2
