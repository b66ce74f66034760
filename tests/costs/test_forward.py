"""Products and weights of models, by hand and beside real ones."""

from __future__ import annotations

import pytest
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from reasondiff.config import ModelSize
from reasondiff.costs.forward import Rows, answer, block_flops, model_flops, predict, read
from reasondiff.costs.sizes import weights

SMALL = ModelSize(hidden=8, layers=3, mlp=20, heads=4, kv_heads=2, vocabulary=50, tied=False)
QWEN = ModelSize(hidden=1536, layers=28, mlp=8960, heads=12, kv_heads=2, vocabulary=151936, tied=True)
ROWS = Rows(context=16, at_once=2, dtype="bfloat16")


def test_products_of_a_block_by_hand():
    """Queries and outputs 2 x 64, keys and values 2 x 8 x 4, MLP 3 x 160, each twice; scores 2 x 2 x 8 x 8 of 16."""
    assert block_flops(SMALL, 16) == 2 * (128 + 64 + 480) + 256
    assert model_flops(SMALL, 16) == 3 * block_flops(SMALL, 16)


def test_a_model_of_1_5_billion_weights_takes_about_two_products_a_weight():
    """The head apart, and the scores of 1,024 tokens."""
    inside = weights(QWEN) - QWEN.vocabulary * QWEN.hidden
    assert weights(QWEN) == pytest.approx(1.54e9, rel=0.01)
    assert 2 * inside < model_flops(QWEN, 1024) < 1.1 * 2 * inside


def test_reading_twice_the_tokens_takes_twice_the_work_and_half_the_blocks_half_of_it():
    whole = read(QWEN, 64, ROWS)
    assert read(QWEN, 128, ROWS) == 2 * whole and 2 * read(QWEN, 64, ROWS, 14) == whole
    assert whole.block_calls == 2 * 28 and whole.float32_flops == 0
    assert predict(SMALL, 10, ROWS).bfloat16_flops == 2 * 8 * 50 * 10


def test_answers_read_all_weights_at_each_step_whatever_the_batch():
    one, many = (answer(QWEN, number, 100, 10, 50, "bfloat16") for number in (1, 50))
    assert one.block_calls == many.block_calls == 100 * 28
    assert one.moved_bytes == pytest.approx(100 * 2 * weights(QWEN), rel=0.01)
    assert answer(QWEN, 51, 100, 10, 50, "bfloat16").block_calls == 2 * one.block_calls
    assert many.bfloat16_flops == 50 * one.bfloat16_flops


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(("config", "model"), [(LlamaConfig, LlamaForCausalLM), (Qwen2Config, Qwen2ForCausalLM)])
def test_weights_are_those_of_a_real_model_but_for_biases(config, model, tied):
    size = ModelSize(hidden=64, layers=3, mlp=160, heads=4, kv_heads=2, vocabulary=500, tied=tied)
    real = model(
        config(
            vocab_size=500, hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, tie_word_embeddings=tied,
        )
    )  # fmt: skip
    held = sum(one.numel() for name, one in real.named_parameters() if not name.endswith("bias"))
    assert weights(size) == held
    assert weights(size, 1) == held - sum(
        one.numel() for name, one in real.named_parameters() if ".layers." in name and ".0." not in name
        and not name.endswith("bias")
    )  # fmt: skip
