"""How far from a graphics card's limit is the work of the published studies?

python benchmarks/gpu.py               # random weights, the sizes of those studies; needs about 130 GiB, 20 minutes
python benchmarks/gpu.py --minutes 1   # a shorter pass of reading
python benchmarks/gpu.py --compile     # the models' blocks compiled
python benchmarks/gpu.py --small       # seconds on a CPU: shows that the script works, its figures mean nothing

Reading: two models of the architecture of Qwen2-1.5B at layers 15, 20 and 25, for `--minutes`. Transcoders: one such
model, all 28 layers, expansion 32, k 64. Crosscoders: the two models at the three layers, 49,152 latents, BatchTopK
with k 50, 100 and 200 from one stream, and L1 by itself. Context 1,024 and models in bfloat16 throughout. Reported are
tokens/s, peak memory, the share of the card's matrix rate (measured by one large product in the same run) that the
work's own products make up, and the hours that the published number of tokens would take.
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


K_OF_POINTS = {"btk50": 50, "btk100": 100, "btk200": 200}
L1_FIRING = 500  # latents of a token that take part in sums while an L1 dictionary learns, about
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


def open_stream(infos: list, sizes: Sizes, layers: tuple[int, ...], place: str, device: str, compiled: bool):
    import numpy as np

    from reasondiff.config import Stream
    from reasondiff.models.stream import ActivationStream
    from reasondiff.text.tokens import TokenTable

    documents = (sizes.warm_up + sizes.steps + 4) * sizes.batch_tokens // sizes.context + 4 * sizes.rows
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
        compile=compiled,
        calibration_tokens=2 * sizes.context * sizes.rows,
    )
    return ActivationStream(infos, layers, table, [], settings, sizes.context, device, "bfloat16", place=place)


def schedule_of(sizes: Sizes, steps: int) -> dict:
    return dict(
        tokens=steps * sizes.batch_tokens, batch_tokens=sizes.batch_tokens, buffer_tokens=2 * sizes.batch_tokens,
        warmup_share=0.05, decay_share=0.2, gradient_clip=1.0, checkpoint_minutes=1000.0,
    )  # fmt: skip


def reading(folder: str, sizes: Sizes, device: str, compiled: bool) -> tuple[Callable[[int], None], float]:
    """(reading of so many batches, FLOPs per token of the work's own products)."""
    from itertools import cycle, islice

    from reasondiff.text.tokens import pack

    stream = open_stream(make_models(folder, sizes, 2), sizes, sizes.sites, "block", device, compiled)
    rows = list(pack(stream.table, stream.table.documents_of("train"), sizes.context, sizes.rows))

    def read(steps: int) -> None:
        for some in islice(cycle(rows), max(1, steps * sizes.batch_tokens // (sizes.rows * sizes.context))):
            stream.read(some)

    return read, reading_flops(sizes)


def reading_flops(sizes: Sizes) -> float:
    """Of two models, up to the deepest site."""
    return 2 * (max(sizes.sites) + 1) / sizes.layers * model_flops(sizes.model(), sizes.context)


def transcoders(folder: str, sizes: Sizes, device: str, compiled: bool) -> tuple[Callable[[int], None], float]:
    """(training of so many steps, FLOPs per token of the work's own products)."""
    from reasondiff.config import Schedule, TranscoderPoint
    from reasondiff.dictionaries.bank import BankTraining
    from reasondiff.dictionaries.transcoder_trainer import Recipe
    from reasondiff.dictionaries.transcoding import best_maps, trainers
    from reasondiff.models.stream import calibrate

    layers = tuple(range(sizes.layers))
    stream = open_stream(make_models(folder, sizes, 1), sizes, layers, "mlp", device, compiled)
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


def batch_topk(folder: str, sizes: Sizes, device: str, compiled: bool) -> tuple[Callable[[int], None], float]:
    """(training of so many steps, FLOPs per token of the work's own products)."""
    scarce = dict(
        method="batch_topk", auxiliary_weight=0.03125, stale_after_tokens=10**7, learning_rate=1e-4, seeds=[0]
    )
    points = {name: {**scarce, "k": min(k, sizes.latents // 4)} for name, k in K_OF_POINTS.items()}
    return crosscoders(folder, sizes, device, compiled, points, [point["k"] for point in points.values()])


def l1(folder: str, sizes: Sizes, device: str, compiled: bool) -> tuple[Callable[[int], None], float]:
    """(training of so many steps, FLOPs per token of the work's own products)."""
    point = dict(
        method="l1", reconstruction="norm", sparsity=3.6e-2, sparsity_warmup_share=0.0, learning_rate=1e-4, seeds=[0]
    )
    return crosscoders(folder, sizes, device, compiled, {"l1": point}, [min(L1_FIRING, sizes.latents)])


def crosscoders(
    folder: str, sizes: Sizes, device: str, compiled: bool, points: dict[str, dict], firing: list[int]
) -> tuple[Callable[[int], None], float]:
    """(training of so many steps of all points at all sites, FLOPs per token of the work's own products)."""
    from reasondiff.config import Bank
    from reasondiff.dictionaries.bank import BankTraining
    from reasondiff.dictionaries.sweep import crosscoder_trainers
    from reasondiff.models.stream import calibrate

    stream = open_stream(make_models(folder, sizes, 2), sizes, sizes.sites, "block", device, compiled)
    documents = stream.table.documents_of("train")
    statistics = calibrate(stream, stream.table.documents_of("calibrate"), stream.settings.calibration_tokens)

    def train(steps: int) -> None:
        bank = Bank.model_validate(
            schedule_of(sizes, steps)
            | dict(pairs=["pair"], layers=sizes.sites, latents=sizes.latents, decoder_norm=0.1)
            | dict(independent_halves=False, points=points)
        )
        make = crosscoder_trainers(bank, "pair", 0, stream)
        todo = {layer: list(points) for layer in sizes.sites}
        BankTraining(bank, 0, todo, stream, statistics, make, lambda *_: None).run(documents)

    dense = encoder_flops(2 * sizes.width, sizes.latents)
    per_site = sum(dense + sparse_flops(2 * sizes.width, k) for k in firing)
    return train, reading_flops(sizes) + len(sizes.sites) * per_site


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


def report(name: str, work: Callable, tokens: float, minutes: float, sizes: Sizes, device: str, compiled: bool) -> None:
    """One row: what `work` reached in `minutes`, or in the sizes' own number of steps where that takes longer."""
    import tempfile

    import torch

    with tempfile.TemporaryDirectory() as folder:
        do, flops = work(folder, sizes, device, compiled)
        rate = matrix_rate(device)
        started = now(device)
        do(sizes.warm_up)
        steps = max(sizes.steps, round(60 * minutes / (now(device) - started) * sizes.warm_up))
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        started = now(device)
        do(steps)
        tokens_per_second = steps * sizes.batch_tokens / (now(device) - started)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else math.nan
    print(
        f"| {name} | {tokens_per_second:,.0f} | {peak:.1f} | {flops / 1e9:.2f} | {rate / 1e12:.0f} "
        f"| {tokens_per_second * flops / rate:.1%} | {tokens / tokens_per_second / 3600:.2f} |",
        flush=True,
    )


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--minutes", type=float, default=10.0, help="of reading")
    wanted = parser.parse_args()
    if not wanted.small and not torch.cuda.is_available():
        raise SystemExit("no graphics card is visible to torch: run it where one is, or with --small")
    sizes, device = (SMALL, "cpu") if wanted.small else (LARGE, "cuda")
    minutes = 0.0 if wanted.small else wanted.minutes
    how = ", blocks compiled" if wanted.compile else ""
    card = machine() if device == "cpu" else torch.cuda.get_device_name()
    print(f"{card}, torch {torch.__version__}{how}\n")
    print("| | tokens/s | peak GiB | GFLOP per token | bfloat16 matrix rate, TFLOP/s | share of it | hours |")
    print("|---|---|---|---|---|---|---|")
    for name, work, tokens, lasting in (
        ("reading two models, 150M tokens", reading, 150e6, minutes),
        ("transcoders of 28 layers, 200M tokens", transcoders, 200e6, 0.0),
        ("crosscoders, 3 layers x BatchTopK 50/100/200, 150M tokens", batch_topk, 150e6, 0.0),
        ("crosscoders, 3 layers x L1, 150M tokens", l1, 150e6, 0.0),
    ):
        report(name, work, tokens, lasting, sizes, device, wanted.compile)
        if device == "cuda":
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
