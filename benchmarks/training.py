"""How fast do 3 layers x 3 points train from two models, and does memory grow with the number of tokens?

python benchmarks/training.py [--threads 2]
"""

from __future__ import annotations

import argparse

from measure import measure, table, timed
from streaming import CONTEXT, ROWS, VOCABULARY, WANTED, WIDTH, make_models, make_table, open_stream

LATENTS, K, BATCH, POINTS = 8192, 32, 2048, 3


def bank(steps: int):
    """Three BatchTopK points; the buffer holds two batches, so that training starts soon."""
    from reasondiff.config import Bank

    point = dict(
        method="batch_topk", k=K, auxiliary_weight=0.03125, stale_after_tokens=10**9, learning_rate=1e-3, seeds=[0]
    )
    return Bank.model_validate(
        dict(
            pairs=["pair"], layers=WANTED, latents=LATENTS, tokens=steps * BATCH, batch_tokens=BATCH,
            buffer_tokens=2 * BATCH, warmup_share=0.05, decay_share=0.2, gradient_clip=1.0, decoder_norm=0.1,
            checkpoint_minutes=1000.0, independent_halves=False, points={f"p{i}": point for i in range(POINTS)},
        )
    )  # fmt: skip


def ours(folder: str, steps: int) -> tuple[int, float]:
    """One bank: a shared pass, sparse codes. Two steps of warm-up are not counted."""
    from reasondiff.dictionaries.bank import BankTraining
    from reasondiff.dictionaries.sweep import crosscoder_trainers
    from reasondiff.models.stream import calibrate

    infos = make_models(folder)
    token_table = make_table((steps + 4) * BATCH + 4 * ROWS * CONTEXT)
    stream = open_stream(infos, token_table)
    documents = token_table.documents_of("train")
    statistics = calibrate(stream, documents, 4096)

    def train(count: int) -> int:
        todo = {layer: [f"p{i}" for i in range(POINTS)] for layer in WANTED}
        make = crosscoder_trainers(bank(count), "pair", 0, stream)
        training = BankTraining(bank(count), 0, todo, stream, statistics, make, lambda *_: None)
        training.run(documents)
        return count * BATCH

    train(2)
    return timed(lambda: train(steps))


def plain(folder: str, steps: int) -> tuple[int, float]:
    """One full pass per layer and point, [B, M, F] einsum, full sort, dense decode, autograd."""
    import torch
    from reference import PlainCrosscoder, plain_activations, plain_step

    from reasondiff.models.load import load_model

    models = [load_model(info, "cpu", "float32") for info in make_models(folder)]
    ids = torch.randint(0, VOCABULARY, (steps, BATCH // CONTEXT, CONTEXT))

    def train(layer: int, batches: torch.Tensor) -> None:
        crosscoder = PlainCrosscoder(2, WIDTH, LATENTS, K)
        optimizer = torch.optim.Adam(crosscoder.parameters(), lr=1e-3)
        for batch in batches:
            x = plain_activations(models, batch, layer)
            plain_step(crosscoder, optimizer, x * (WIDTH**0.5 / x.norm(dim=2).mean(0))[:, None])

    def work() -> int:
        for layer in WANTED:
            for _ in range(POINTS):
                train(layer, ids)
        return ids.numel()

    train(WANTED[0], ids[:1])
    return timed(work)


def main() -> None:
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    threads = parser.parse_args().threads
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            measure("plain reference", plain, folder, 2, threads=threads),
            measure("ours", ours, folder, 8, threads=threads),
            measure("ours, three times the tokens", ours, folder, 24, threads=threads),
        ]
    title = f"Training 3 layers x 3 points (width {WIDTH}, F {LATENTS}, k {K}, batch {BATCH}), {threads} threads"
    print(table(title, rows, rows[0].name))


if __name__ == "__main__":
    main()
