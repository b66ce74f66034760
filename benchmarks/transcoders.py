"""How fast are transcoders of all layers trained beside sparsify's own Trainer, and how good are they?

python benchmarks/transcoders.py [--threads 2] [--width 96] [--batch 2048]

Both train on the MLPs of the same random Qwen2 model and on the same documents, with the same layers, k, expansion,
batch and number of tokens; sparsify with its default optimiser and learning rate. Both are then judged from disk on
the same held-out tokens.
"""

from __future__ import annotations

import argparse

from measure import Measured, machine, measure, timed

CONTEXT, VOCABULARY, LAYERS = 256, 4000, 6
DEFAULT_BATCH = 32 * CONTEXT  # sparsify's default: 32 sequences
SIZES = {96: (8, 16, 409_600), 512: (16, 32, 65_536)}  # width: (expansion, k, tokens)
SWEEP = {f"x{expansion}k{k}": (expansion, k) for expansion in (4, 8, 16) for k in (8, 16, 32)}
SWEEP_LAYERS, SWEEP_TOKENS = (0, 2, 5), 81_920
HELD_OUT_TOKENS, CALIBRATION = 8192, 2048


def make_model(folder: str, width: int):
    """A random Qwen2 model whose MLPs matter: their weights are drawn wider than usual."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from reasondiff.models.load import describe_model

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=8 * width // 3, num_hidden_layers=LAYERS,
        num_attention_heads=4 if width < 256 else 8, num_key_value_heads=2, max_position_embeddings=1024,
        tie_word_embeddings=True, initializer_range=2.0 / width**0.5,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return describe_model("model", folder)


def make_table(training_tokens: int):
    """A token table to train on, with held-out documents at the end and some to calibrate on behind them.

    Random documents fill whole rows, so that both ways read the same tokens; ids have Zipf's frequencies.
    """
    import numpy as np

    from reasondiff.text.tokens import TokenTable

    documents = (training_tokens + HELD_OUT_TOKENS + CALIBRATION) // CONTEXT
    chances = 1 / np.arange(1, VOCABULARY + 1)
    ids = np.random.default_rng(0).choice(VOCABULARY, documents * CONTEXT, p=chances / chances.sum()).astype(np.int32)
    zeros = np.zeros(documents, np.int32)
    part = np.arange(documents) >= documents - CALIBRATION // CONTEXT  # the last ones are to calibrate on
    return TokenTable(
        ids=ids, phases=np.full(len(ids), 4, np.uint8), starts=np.arange(documents + 1) * CONTEXT,
        part=part.astype(np.uint8), problem=np.arange(documents, dtype=np.int32), correct=zeros.astype(np.int8),
        source=zeros.astype(np.uint8), bytes=zeros,
    )  # fmt: skip


def open_stream(info, table, layers):
    from reasondiff.config import Stream
    from reasondiff.models.stream import ActivationStream

    settings = Stream(batch_rows=8, first_positions=0, norm_factor=1e9, calibration_tokens=CALIBRATION, compile=False)
    return ActivationStream([info], layers, table, [], settings, CONTEXT, "cpu", "float32", place="mlp")


def ours(
    folder: str, width: int, points: dict, layers: tuple, batch: int, steps: int, selection: str
) -> tuple[int, float]:
    """All points and layers from one pass; `selection` is the precision in which latents are picked."""
    from reasondiff.config import Schedule, TranscoderPoint
    from reasondiff.dictionaries.bank import BankTraining
    from reasondiff.dictionaries.transcoder import hookpoint, save_transcoder
    from reasondiff.dictionaries.transcoder_trainer import Recipe
    from reasondiff.dictionaries.transcoding import best_maps, trainers
    from reasondiff.models.stream import calibrate

    info, token_table = (
        make_model(f"{folder}/model", width),
        make_table((steps + 2) * batch),
    )
    stream = open_stream(info, token_table, layers)
    documents = token_table.documents_of("train")[: -HELD_OUT_TOKENS // CONTEXT]
    chosen = {n: TranscoderPoint(expansion=e, k=k, learning_rate=5e-3) for n, (e, k) in points.items()}

    def train(count: int) -> int:
        schedule = Schedule(
            tokens=count * batch, batch_tokens=batch, buffer_tokens=2 * batch, warmup_share=0.05, decay_share=0.2,
            gradient_clip=1.0, checkpoint_minutes=1000.0,
        )  # fmt: skip
        statistics = calibrate(stream, token_table.documents_of("calibrate"), CALIBRATION)
        maps = best_maps(stream, statistics)
        make = trainers(chosen, schedule, Recipe(0.03125, 30_000, selection), "model", 0, {}, maps)
        todo = {layer: list(chosen) for layer in layers}
        training = BankTraining(schedule, 0, todo, stream, statistics, make, lambda *_: None)
        training.run(documents)
        for layer, site in training.sites.items():
            for name, trainer in site.trainers.items():
                save_transcoder(f"{folder}/{selection}/{name}/{hookpoint(layer)}", trainer.finish({}))
        return count * batch

    train(2)
    return timed(lambda: train(steps))


def peer(folder: str, width: int, points: dict, layers: tuple, batch: int, steps: int) -> tuple[int, float]:
    """sparsify's Trainer: all layers from one pass, a pass for each point."""
    import contextlib
    import io

    import torch
    from sparsify import SparseCoderConfig, TrainConfig, Trainer

    from reasondiff.models.load import load_model

    info, token_table = (
        make_model(f"{folder}/model", width),
        make_table((steps + 2) * batch),
    )
    model = load_model(info, "cpu", "float32")
    rows = torch.from_numpy(token_table.ids[: -HELD_OUT_TOKENS - CALIBRATION].astype("int64")).view(-1, CONTEXT)

    class Rows(torch.utils.data.Dataset):
        def __init__(self, count: int):
            self.count = count

        def __len__(self) -> int:
            return self.count

        def __getitem__(self, index: int) -> dict:
            return {"input_ids": rows[index]}

    def train(name: str, expansion: int, k: int, count: int) -> None:
        config = TrainConfig(
            SparseCoderConfig(expansion_factor=expansion, k=k, transcode=True, skip_connection=True),
            batch_size=batch // CONTEXT, hookpoints=[f"layers.{layer}.mlp" for layer in layers],
            log_to_wandb=False, save_dir=f"{folder}/peer", run_name=name, save_every=10**9,
        )  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()):
            Trainer(config, Rows(count * batch // CONTEXT), model).fit()

    def work() -> int:
        for name, (expansion, k) in points.items():
            train(name, expansion, k, steps)
        return steps * batch

    train("warm-up", *next(iter(points.values())), 2)
    return timed(work)


def judge(folder: str, width: int, layers: tuple, name: str, batch: int, steps: int) -> dict[str, tuple[float, float]]:
    """{whose: (FVU, dead share)} over the layers, from disk, on tokens that neither was trained on."""
    import torch

    from reasondiff.dictionaries.transcoder import hookpoint, load_transcoder

    info, token_table = (
        make_model(f"{folder}/model", width),
        make_table((steps + 2) * batch),
    )
    stream = open_stream(info, token_table, layers)
    held_out = token_table.documents_of("train")[-HELD_OUT_TOKENS // CONTEXT :]
    blocks = list(stream(held_out))
    found = {}
    for whose in ("peer", "float32", "bfloat16"):
        shares = []
        for layer in layers:
            x = torch.cat([block.activations[layer] for block in blocks])
            transcoder = load_transcoder(f"{folder}/{whose}/{name}/{hookpoint(layer)}")
            given, wanted = x.unbind(1)
            code = transcoder.encode(given)
            error = transcoder.decode(code, given) - wanted
            fvu = error.square().sum() / (wanted - wanted.mean(0)).square().sum()
            fired = torch.zeros(transcoder.n_latents, dtype=torch.bool)
            fired[code.latents] = True
            shares.append((float(fvu), float(1 - fired.float().mean())))
        found[whose] = tuple(sum(column) / len(layers) for column in zip(*shares, strict=True))
    return found


def rows_of(folder: str, width: int, points: dict, layers: tuple, batch: int, steps: int, threads: int) -> list[dict]:
    arguments = (folder, width, points, layers, batch, steps)
    measured = {
        "peer": measure("eai-sparsify", peer, *arguments, threads=threads),
        "float32": measure("ours", ours, *arguments, "float32", threads=threads),
        "bfloat16": measure("ours, latents picked in bfloat16", ours, *arguments, "bfloat16", threads=threads),
    }
    quality = judge(folder, width, layers, list(points)[-1], batch, steps)
    return [_row(row, measured["peer"], *quality[whose]) for whose, row in measured.items()]


def _row(row: Measured, reference: Measured, fvu: float, dead: float) -> dict:
    return {
        "": row.name,
        "tokens/s": f"{row.tokens_per_second:,.0f}",
        "ratio": f"{row.tokens_per_second / reference.tokens_per_second:.2f}",
        "peak memory, GiB": f"{row.peak_memory_gib:.2f}",
        "FVU": f"{fvu:.4f}",
        "dead": f"{dead:.1%}",
    }


def show(title: str, rows: list[dict]) -> None:
    import pandas as pd

    print(f"**{title}** ({machine()})\n\n{pd.DataFrame(rows).to_markdown(index=False)}\n", flush=True)


def main() -> None:
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--width", type=int, choices=sorted(SIZES), action="append")
    parser.add_argument("--no-sweep", action="store_true")
    parser.add_argument("--batch", type=int, default=DEFAULT_BATCH, help="tokens; sparsify's default: 32 sequences")
    wanted = parser.parse_args()
    batch = wanted.batch
    for width in wanted.width or sorted(SIZES):
        expansion, k, tokens = SIZES[width]
        steps = tokens // batch
        with tempfile.TemporaryDirectory() as folder:
            point = {f"x{expansion}k{k}": (expansion, k)}
            rows = rows_of(folder, width, point, tuple(range(LAYERS)), batch, steps, wanted.threads)
        show(f"{LAYERS} layers, width {width} x {expansion}, k {k}, batch {batch:,}, {steps * batch:,} tokens", rows)
    if not wanted.no_sweep:
        with tempfile.TemporaryDirectory() as folder:
            rows = rows_of(folder, 96, SWEEP, SWEEP_LAYERS, batch, SWEEP_TOKENS // batch, wanted.threads)
        show(f"Nine sweep points on three layers, width 96, batch {batch:,} (FVU and dead of the largest point)", rows)


if __name__ == "__main__":
    main()
