"""How fast are the strongest firings of every latent kept, and does memory grow with the number of tokens?

python benchmarks/examples.py [--threads 2] [--batches 16]

Three ways on the same made-up activations, each with the same encoder product: a Python heap per latent over dense
activations, as both published studies did it; a dense `topk` per batch; and ours, which keeps one firing of a document
only, draws a uniform sample of all firings besides, and counts how often and how strongly each latent fires.
"""

from __future__ import annotations

import argparse
import time

from measure import measure, table, timed

WIDTH, MODELS, LATENTS, L0 = 512, 2, 8192, 32
DOCUMENTS, CONTEXT = 8, 256  # of a batch
BATCH = DOCUMENTS * CONTEXT
STRONGEST, SAMPLED = 12, 64


def make_crosscoder():
    """A random one with biases of its own for each latent, so that rates differ widely; L0 is that of the title."""
    import torch

    from reasondiff.dictionaries.crosscoder import Crosscoder

    draw = torch.Generator().manual_seed(0)
    encoder = torch.randn(LATENTS, MODELS * WIDTH, generator=draw) / (MODELS * WIDTH) ** 0.5
    bias = 0.3 * torch.randn(LATENTS, generator=draw)
    responses = torch.addmm(bias, batch_of(10**6).flatten(1), encoder.T).relu_().flatten()
    threshold = float(responses.kthvalue(len(responses) - L0 * BATCH).values)
    norm = torch.full((MODELS, LATENTS), 1 / MODELS)
    zeros = torch.zeros(MODELS * WIDTH)
    return Crosscoder(encoder, bias, encoder, zeros, norm, torch.ones(MODELS), threshold, L0, {})


def batch_of(number: int):
    """The activations of a batch [token, model, unit]."""
    import torch

    return torch.randn(BATCH, MODELS, WIDTH, generator=torch.Generator().manual_seed(number))


def make_table(batches: int):
    """Documents that fill the batches one after the other; half of them correct."""
    import numpy as np

    from reasondiff.text.tokens import TokenTable

    documents = batches * DOCUMENTS
    tokens = documents * CONTEXT
    numbers = np.arange(documents)
    return TokenTable(
        ids=np.zeros(tokens, np.int32), phases=(np.arange(tokens) % CONTEXT // 64).astype(np.uint8),
        starts=np.arange(documents + 1) * CONTEXT, part=np.zeros(documents, np.uint8), problem=numbers.astype(np.int32),
        correct=(numbers % 2).astype(np.int8), source=np.zeros(documents, np.uint8), bytes=np.ones(documents, np.int32),
    )  # fmt: skip


class Product:
    """The encoder's product, and the seconds that it and the making of its input took."""

    def __init__(self):
        self.crosscoder, self.seconds = make_crosscoder(), 0.0

    def __call__(self, number: int):
        """Activations of a batch before the threshold [token, latent]."""
        started = time.perf_counter()
        activations = self.crosscoder.activations(batch_of(number))
        self.seconds += time.perf_counter() - started
        return activations


def timed_with(product: Product, work, batches: int, whole: bool) -> tuple[int, float]:
    """(tokens, seconds) of `work(batches)`; those of the product left out unless `whole`."""
    work(1)
    product.seconds = 0.0
    tokens, seconds = timed(lambda: work(batches))
    return tokens, seconds if whole else seconds - product.seconds


def ours(batches: int, whole: bool) -> tuple[int, float]:
    """The first reading as the workflow does it, the choice of examples included."""
    import torch

    from reasondiff.config import Examples
    from reasondiff.dictionaries.code import active
    from reasondiff.latents.collection import FirstReading
    from reasondiff.models.stream import Block

    product, token_table, rows = Product(), make_table(batches), torch.arange(BATCH)
    settings = Examples(
        tokens=1, strongest=STRONGEST, sampled=SAMPLED, quantiles=4, per_quantile=3, before=20, after=8, negatives=0,
        pool_windows=1, logits=1, seed=0,
    )  # fmt: skip

    def work(count: int) -> int:
        reading = FirstReading(LATENTS, 0, token_table, CONTEXT, settings, "cpu")
        for number in range(count):
            code = active(product(number), product.crosscoder.threshold)  # as Crosscoder.encode
            token = rows + number * BATCH
            block = Block({}, token, token // CONTEXT, rows % CONTEXT, torch.ones(BATCH, dtype=torch.bool))
            reading.add(block, code, rows)
        reading.end_part("choose")
        return count * BATCH

    return timed_with(product, work, batches, whole)


def heap(batches: int, whole: bool) -> tuple[int, float]:
    """A heap per latent of (value, number, document, the document's activations), document by document.

    Source: the crosscoder study of docs/methods.md §8, which keeps whole documents in this way.
    """
    import heapq

    product = Product()

    def work(count: int) -> int:
        kept, entries = [[] for _ in range(LATENTS)], 0
        for number in range(count):
            dense = product(number).view(DOCUMENTS, CONTEXT, LATENTS)
            maxima = dense.amax(1)
            for latent in range(LATENTS):
                found = zip(maxima[:, latent].tolist(), [document[:, latent] for document in dense], strict=True)
                full = len(kept[latent]) == STRONGEST
                floor = kept[latent][0][0] if full else product.crosscoder.threshold
                for document, (value, activations) in enumerate(found):
                    if value <= floor:
                        continue
                    entry = (value, entries, number * DOCUMENTS + document, activations.tolist())
                    push = heapq.heappush if len(kept[latent]) < STRONGEST else heapq.heappushpop
                    push(kept[latent], entry)
                    entries += 1
        return count * BATCH

    return timed_with(product, work, batches, whole)


def dense_topk(batches: int, whole: bool) -> tuple[int, float]:
    """The strongest tokens of each batch by a dense `topk`, merged with those so far."""
    import torch

    product = Product()

    def work(count: int) -> int:
        values, tokens = torch.zeros(STRONGEST, LATENTS), torch.zeros(STRONGEST, LATENTS, dtype=torch.int64)
        for number in range(count):
            best = product(number).topk(STRONGEST, dim=0)
            values, tokens = torch.cat([values, best.values]), torch.cat([tokens, best.indices + number * BATCH])
            values, order = values.topk(STRONGEST, dim=0)
            tokens = tokens.gather(0, order)
        return count * BATCH

    return timed_with(product, work, batches, whole)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batches", type=int, default=16, help=f"of {BATCH} tokens")
    wanted = parser.parse_args()
    threads, batches = wanted.threads, wanted.batches
    ways = {"a Python heap per latent": heap, "a dense topk per batch": dense_topk, "ours": ours}
    title = f"{STRONGEST} strongest firings of {LATENTS} latents (2 models of width {WIDTH}, L0 {L0})"
    for whole, what in ((False, "the encoder's product left out"), (True, "the encoder's product included")):
        rows = [measure(name, way, batches, whole, threads=threads) for name, way in ways.items()]
        rows.append(measure("ours, four times the tokens", ours, 4 * batches, whole, threads=threads))
        print(table(f"{title}, {batches * BATCH:,} tokens, {what}, {threads} threads", rows, rows[0].name), flush=True)


if __name__ == "__main__":
    main()
