"""How long does an attribution graph take, by length of its context, beside circuit-tracer's own `attribute`?

python benchmarks/attribution.py [--tokens 32 64 128 256] [--threads 1] [--layers 6] [--width 96] [--max-features 512]

Both attribute the same logit of the same random Qwen2 model with the same random transcoders of all layers, and follow
the same number of latents; circuit-tracer with its other defaults (`batch_size=512`) and with the batch size that we
use. Ours is the whole of `trace`: scores, the replaced model and the check against Hugging Face as well.
"""

from __future__ import annotations

import argparse
import warnings
from types import SimpleNamespace

from measure import machine, measure, timed

VOCABULARY, EXPANSION, K, BATCH = 800, 8, 8, 128
REPEATS = 3


def make_model(folder: str, layers: int, width: int):
    """A random Qwen2 model and random transcoders of all its layers."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from reasondiff.dictionaries.transcoder import Transcoder
    from reasondiff.models.load import describe_model

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=8 * width // 3, num_hidden_layers=layers,
        num_attention_heads=4 if width < 256 else 8, num_key_value_heads=2, max_position_embeddings=1024,
        tie_word_embeddings=True, initializer_range=2.0 / width**0.5,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    latents = EXPANSION * width

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape) / width**0.5

    transcoders = {
        layer: Transcoder(
            drawn(latents, width), drawn(latents), drawn(latents, width), drawn(width), drawn(width, width), K, {}
        )
        for layer in range(layers)
    }
    return describe_model("model", folder), transcoders


def opened(folder: str, layers: int, width: int, window: int):
    """(replacement model, subject) of a made-up model."""
    from reasondiff.graphs.replacement import open_replacement
    from reasondiff.graphs.tracing import Subject

    info, transcoders = make_model(folder, layers, width)
    tokenizer = SimpleNamespace(
        padding_side="right", all_special_ids=[], vocab_size=VOCABULARY, decode=lambda ids: str(ids)
    )
    subject = Subject(info, 0, transcoders, (), 1, "cpu")
    return open_replacement(info, transcoders, tokenizer, "cpu", window), subject


def contexts(tokens: int, count: int) -> list[tuple[int, ...]]:
    """Random ids, another context each time."""
    import numpy as np

    return [tuple(row) for row in np.random.default_rng(0).integers(0, VOCABULARY, (count, tokens)).tolist()]


def ours(folder: str, layers: int, width: int, tokens: int, max_features: int) -> tuple[int, float]:
    from reasondiff.graphs.targets import Target
    from reasondiff.graphs.tracing import trace

    model, subject = opened(folder, layers, width, tokens)
    settings = SimpleNamespace(window=tokens, max_features=max_features, batch_size=BATCH, runners_up=0)

    def work(ids: tuple[int, ...]) -> None:
        target = Target("", "", "answer", "answer", "", "greedy", 0, ids, 5, "", 0.0, 0.0, 0, None)
        trace(model, subject, target, settings)

    return _timed(work, tokens)


def peer(
    folder: str, layers: int, width: int, tokens: int, max_features: int, batch_size: int | None
) -> tuple[int, float]:
    import torch
    from circuit_tracer import attribute

    model, _ = opened(folder, layers, width, tokens)
    batch = {} if batch_size is None else {"batch_size": batch_size, "update_interval": 1}

    def work(ids: tuple[int, ...]) -> None:
        attribute(list(ids), model, attribution_targets=torch.tensor([5]), max_feature_nodes=max_features, **batch)

    return _timed(work, tokens)


def _timed(work, tokens: int) -> tuple[int, float]:
    warnings.simplefilter("ignore")
    first, *others = contexts(tokens, REPEATS + 1)
    work(first)

    def all_others() -> int:
        for ids in others:
            work(ids)
        return len(others)

    return timed(all_others)


def main() -> None:
    import tempfile

    import pandas as pd

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--max-features", type=int, default=512)
    wanted = parser.parse_args()
    rows = []
    for tokens in wanted.tokens:
        with tempfile.TemporaryDirectory() as folder:
            sizes = (f"{folder}/model", wanted.layers, wanted.width, tokens, wanted.max_features)
            found = [
                measure("circuit-tracer, defaults", peer, *sizes, None, threads=wanted.threads),
                measure(f"circuit-tracer, batches of {BATCH}", peer, *sizes, BATCH, threads=wanted.threads),
                measure("ours", ours, *sizes, threads=wanted.threads),
            ]
        seconds = [one.seconds / one.tokens for one in found]  # `tokens` are graphs here
        rows += [
            {
                "tokens": tokens,
                "": one.name,
                "s per graph": f"{own:.2f}",
                "ratio": f"{seconds[0] / own:.1f}",
                "peak memory, GiB": f"{one.peak_memory_gib:.2f}",
            }
            for one, own in zip(found, seconds, strict=True)
        ]
    title = f"{wanted.layers} layers, width {wanted.width}, k {K}, {wanted.max_features} latents"
    print(f"**{title}** ({machine()})\n\n{pd.DataFrame(rows).to_markdown(index=False)}\n", flush=True)


if __name__ == "__main__":
    main()
