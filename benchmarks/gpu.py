"""How far from a graphics card's limit are the two big trainings?

python benchmarks/gpu.py            # random weights, the sizes of the published studies; needs about 130 GiB
python benchmarks/gpu.py --small    # seconds on a CPU: shows that the script works, its figures mean nothing

Transcoders: one model of the architecture of Qwen2-1.5B, all 28 layers, expansion 32, k 64. Crosscoders: two such
models, layers 15, 20 and 25, 49,152 latents. Both with context 1,024 and the model in bfloat16. Reported are tokens/s,
peak memory, the share of the card's matrix rate (measured by one large product in the same run) that the work's own
products make up, and the hours that the published number of tokens would take.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from measure import machine

from reasondiff.config import ModelSize
from reasondiff.costs.forward import model_flops
from reasondiff.costs.learning import encoder_flops, skip_flops, sparse_flops


@dataclass(frozen=True)
class Sizes:
    """One benchmark's sizes; `steps` are measured after `warm_up` ones."""

    width: int
    mlp: int
    heads: int
    layers: int
    vocabulary: int
    context: int
    rows: int
    expansion: int
    k: int
    latents: int
    sites: tuple[int, ...]
    batch_tokens: int
    warm_up: int
    steps: int

    def model(self) -> ModelSize:
        return ModelSize(
            hidden=self.width, layers=self.layers, mlp=self.mlp, heads=self.heads, kv_heads=2,
            vocabulary=self.vocabulary, tied=True,
        )  # fmt: skip


LARGE = Sizes(1536, 8960, 12, 28, 151_936, 1024, 16, 32, 64, 49_152, (15, 20, 25), 16_384, 3, 12)
SMALL = Sizes(64, 128, 4, 4, 500, 64, 4, 8, 8, 512, (1, 2), 256, 1, 3)


def make_models(folder: str, sizes: Sizes, count: int) -> list:
    """Random Qwen2 models in bfloat16."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from reasondiff.models.load import describe_model

    config = Qwen2Config(
        vocab_size=sizes.vocabulary, hidden_size=sizes.width, intermediate_size=sizes.mlp,
        num_hidden_layers=sizes.layers, num_attention_heads=sizes.heads, num_key_value_heads=2,
        max_position_embeddings=2 * sizes.context, tie_word_embeddings=True,
    )  # fmt: skip
    infos = []
    for seed in range(count):
        torch.manual_seed(seed)
        Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(f"{folder}/model{seed}")
        infos.append(describe_model(f"model{seed}", f"{folder}/model{seed}", revision=f"random{seed}"))
    return infos


def open_stream(infos: list, sizes: Sizes, layers: tuple[int, ...], steps: int, place: str, device: str):
    import numpy as np

    from reasondiff.config import Stream
    from reasondiff.models.stream import ActivationStream
    from reasondiff.text.tokens import TokenTable

    documents = (steps + 4) * sizes.batch_tokens // sizes.context + 4 * sizes.rows
    ids = np.random.default_rng(0).integers(0, sizes.vocabulary, documents * sizes.context).astype(np.int32)
    zeros = np.zeros(documents, np.int32)
    part = np.arange(documents) >= documents - 2 * sizes.rows  # the last ones are to calibrate on
    table = TokenTable(
        ids=ids, phases=np.full(len(ids), 4, np.uint8), starts=np.arange(documents + 1) * sizes.context,
        part=part.astype(np.uint8), problem=np.arange(documents, dtype=np.int32), correct=zeros.astype(np.int8),
        source=zeros.astype(np.uint8), bytes=zeros,
    )  # fmt: skip
    settings = Stream(
        batch_rows=sizes.rows,
        first_positions=2,
        norm_factor=10.0,
        compile=False,
        calibration_tokens=2 * sizes.context * sizes.rows,
    )
    return ActivationStream(infos, layers, table, [], settings, sizes.context, device, "bfloat16", place=place)


def schedule_of(sizes: Sizes, steps: int) -> dict:
    return dict(
        tokens=steps * sizes.batch_tokens, batch_tokens=sizes.batch_tokens, buffer_tokens=2 * sizes.batch_tokens,
        warmup_share=0.05, decay_share=0.2, gradient_clip=1.0, checkpoint_minutes=1000.0,
    )  # fmt: skip


def transcoders(folder: str, sizes: Sizes, device: str) -> tuple[Callable[[int], None], float]:
    """(training of so many steps, FLOPs per token of the work's own products)."""
    from reasondiff.config import Schedule, TranscoderPoint
    from reasondiff.dictionaries.bank import BankTraining
    from reasondiff.dictionaries.transcoder_trainer import Recipe
    from reasondiff.dictionaries.transcoding import best_maps, trainers
    from reasondiff.models.stream import calibrate

    layers = tuple(range(sizes.layers))
    stream = open_stream(make_models(folder, sizes, 1), sizes, layers, sizes.warm_up + sizes.steps, "mlp", device)
    documents = stream.table.documents_of("train")
    statistics = calibrate(stream, stream.table.documents_of("calibrate"), stream.settings.calibration_tokens)
    maps = best_maps(stream, statistics)
    points = {"p": TranscoderPoint(expansion=sizes.expansion, k=sizes.k, learning_rate=2e-4)}
    recipe = Recipe(auxiliary_weight=0.03125, stale_after_tokens=10**7, selection="bfloat16")

    def train(steps: int) -> None:
        schedule = Schedule(**schedule_of(sizes, steps))
        make = trainers(points, schedule, recipe, "model", 0, {}, maps)
        todo = {layer: ["p"] for layer in layers}
        BankTraining(schedule, 0, todo, stream, statistics, make, lambda *_: None).run(documents)

    encoder = encoder_flops(sizes.width, sizes.expansion * sizes.width)
    one = encoder + sparse_flops(sizes.width, sizes.k) + skip_flops(sizes.width)
    return train, model_flops(sizes.model(), sizes.context) + sizes.layers * one


def crosscoders(folder: str, sizes: Sizes, device: str) -> tuple[Callable[[int], None], float]:
    """(training of so many steps, FLOPs per token of the work's own products)."""
    from reasondiff.config import Bank
    from reasondiff.dictionaries.bank import BankTraining
    from reasondiff.dictionaries.sweep import crosscoder_trainers
    from reasondiff.models.stream import calibrate

    stream = open_stream(
        make_models(folder, sizes, 2), sizes, sizes.sites, sizes.warm_up + sizes.steps, "block", device
    )
    documents = stream.table.documents_of("train")
    statistics = calibrate(stream, stream.table.documents_of("calibrate"), stream.settings.calibration_tokens)
    point = dict(
        method="batch_topk", k=sizes.k, auxiliary_weight=0.03125, stale_after_tokens=10**7, learning_rate=1e-4,
        seeds=[0],
    )  # fmt: skip

    def train(steps: int) -> None:
        bank = Bank.model_validate(
            schedule_of(sizes, steps)
            | dict(pairs=["pair"], layers=sizes.sites, latents=sizes.latents, decoder_norm=0.1)
            | dict(independent_halves=False, points={"p": point})
        )
        make = crosscoder_trainers(bank, "pair", 0, stream)
        todo = {layer: ["p"] for layer in sizes.sites}
        BankTraining(bank, 0, todo, stream, statistics, make, lambda *_: None).run(documents)

    per_site = encoder_flops(2 * sizes.width, sizes.latents) + sparse_flops(2 * sizes.width, sizes.k)
    deepest = (max(sizes.sites) + 1) / sizes.layers
    return train, 2 * deepest * model_flops(sizes.model(), sizes.context) + len(sizes.sites) * per_site


def matrix_rate(device: str) -> float:
    """FLOP/s of one large bfloat16 product."""
    import torch

    size = 8192 if device == "cuda" else 512
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(3):
        a @ b
    started = now(device)
    for _ in range(10):
        a @ b
    return 10 * 2 * size**3 / (now(device) - started)


def now(device: str) -> float:
    import torch

    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def report(name: str, work: Callable, published_tokens: float, folder: str, sizes: Sizes, device: str) -> None:
    """One row: what `work` reached."""
    import torch

    train, flops = work(folder, sizes, device)
    rate = matrix_rate(device)
    train(sizes.warm_up)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = now(device)
    train(sizes.steps)
    seconds = now(device) - started
    tokens_per_second = sizes.steps * sizes.batch_tokens / seconds
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else math.nan
    print(
        f"| {name} | {tokens_per_second:,.0f} | {peak:.1f} | {flops / 1e9:.2f} | {rate / 1e12:.0f} "
        f"| {tokens_per_second * flops / rate:.1%} | {published_tokens / tokens_per_second / 3600:.2f} |",
        flush=True,
    )


def main() -> None:
    import tempfile

    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    small = parser.parse_args().small
    if not small and not torch.cuda.is_available():
        raise SystemExit("no graphics card is visible to torch: run it where one is, or with --small")
    sizes, device = (SMALL, "cpu") if small else (LARGE, "cuda")
    print(f"{machine() if device == 'cpu' else torch.cuda.get_device_name()}, torch {torch.__version__}\n")
    print("| | tokens/s | peak GiB | GFLOP per token | matrix rate, TFLOP/s | share of it | hours |")
    print("|---|---|---|---|---|---|---|")
    for name, work, tokens in (("transcoders", transcoders, 200e6), ("crosscoders", crosscoders, 150e6)):
        with tempfile.TemporaryDirectory() as folder:
            report(name, work, tokens, folder, sizes, device)
        if device == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
