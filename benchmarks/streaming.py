"""How fast are the activations of two models at three layers, and how much memory do they take?

python benchmarks/streaming.py [--threads 2]
"""

from __future__ import annotations

import argparse

from measure import measure, table, timed

WIDTH, LAYERS, WANTED, VOCABULARY = 512, 8, (2, 4, 5), 4000
CONTEXT, ROWS, BLOCKS = 256, 8, 8


def make_models(folder: str) -> list:
    """Two random Qwen2 models of width 512, saved as Hugging Face folders."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from reasondiff.models.load import describe_model

    infos = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        config = Qwen2Config(
            vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_hidden_layers=LAYERS,
            num_attention_heads=8, num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True,
        )  # fmt: skip
        Qwen2ForCausalLM(config).save_pretrained(f"{folder}/model{seed}")
        infos.append(describe_model(f"model{seed}", f"{folder}/model{seed}"))
    return infos


def make_table(tokens: int):
    """A token table of random documents that fill whole rows, so that both ways read the same tokens."""
    import numpy as np

    from reasondiff.text.tokens import TokenTable

    documents = tokens // CONTEXT
    ids = np.random.default_rng(0).integers(0, VOCABULARY, tokens).astype(np.int32)
    zeros = np.zeros(documents, np.int32)
    return TokenTable(
        ids=ids, phases=np.full(tokens, 4, np.uint8), starts=np.arange(documents + 1) * CONTEXT,
        part=zeros.astype(np.uint8), problem=np.arange(documents, dtype=np.int32), correct=zeros.astype(np.int8),
        source=zeros.astype(np.uint8), bytes=zeros,
    )  # fmt: skip


def open_stream(infos: list, token_table):
    from reasondiff.config import Stream
    from reasondiff.models.stream import ActivationStream

    settings = Stream(batch_rows=ROWS, first_positions=2, norm_factor=10.0, calibration_tokens=4096, compile=False)
    return ActivationStream(infos, WANTED, token_table, [], settings, CONTEXT, "cpu", "float32")


def ours(folder: str, blocks: int) -> tuple[int, float]:
    """One truncated pass per model, three layers written side by side."""
    infos = make_models(folder)
    token_table = make_table((blocks + 1) * ROWS * CONTEXT)
    stream = open_stream(infos, token_table)
    documents = token_table.documents_of("train")
    next(iter(stream(documents)))  # warm-up
    return timed(lambda: sum(len(block.token) for block in stream(documents[: blocks * ROWS])))


def plain(folder: str, blocks: int) -> tuple[int, float]:
    """One full pass per model and layer, all hidden states."""
    import torch
    from reference import plain_activations

    from reasondiff.models.load import load_model

    models = [load_model(info, "cpu", "float32") for info in make_models(folder)]
    ids = torch.randint(0, VOCABULARY, (blocks, ROWS, CONTEXT))
    plain_activations(models, ids[0], WANTED[0])

    def work() -> int:
        for layer in WANTED:
            for batch in ids:
                plain_activations(models, batch, layer)
        return ids.numel()

    return timed(work)


def main() -> None:
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    threads = parser.parse_args().threads
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            measure("plain: one full pass per layer", plain, folder, BLOCKS, threads=threads),
            measure("ours", ours, folder, BLOCKS, threads=threads),
            measure("ours, four times the tokens", ours, folder, 4 * BLOCKS, threads=threads),
        ]
    print(table("Streaming two models (width 512, 8 layers) at three layers", rows, rows[0].name))


if __name__ == "__main__":
    main()
