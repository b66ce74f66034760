"""What does a dictionary take: to learn, to read a text with, and to keep?"""

from __future__ import annotations

from dataclasses import dataclass

from reasondiff.config import Bank, Cost, Schedule, TranscoderPoint
from reasondiff.costs.work import Number, Work, products
from reasondiff.dictionaries.planning import Size, buffer_bytes, crosscoder_weights, transcoder_weights
from reasondiff.dictionaries.schedule import total_steps

RESPONSE_PASSES = 4  # over the responses of all latents: written, compared, ranked
SPARSE_SUMS = 4  # that gather a row for each latent that fires: code into output, and three gradients
STEP_BYTES = 48  # moved of a weight: gradient written and clipped (16), Adam (28), half of them once more for the norms
CHECKPOINT_BYTES = 12  # of a weight in a checkpoint: itself and Adam's two moments


@dataclass(frozen=True)
class Dictionary:
    """A crosscoder or transcoder of one layer. `width` numbers of each activation are read and written, `reads` says of
    which models of a pair; `firing` latents of a token take part in sums while it learns, `k` afterwards."""

    layer: int
    name: str
    width: int
    reads: tuple[int, ...]
    latents: int
    firing: Number
    k: Number
    has_skip: bool
    selection: str
    is_thresholded: bool

    @property
    def sides(self) -> int:
        return len(self.reads)

    @property
    def numbers(self) -> int:
        """Of a token, that the encoder reads."""
        return self.width * self.sides

    @property
    def weights(self) -> int:
        """As the training's plan counts them: biases apart."""
        if self.has_skip:
            return transcoder_weights(self.latents, self.width)
        return crosscoder_weights(self.latents, self.sides, self.width)

    @property
    def file_bytes(self) -> int:
        """Of its safetensors file, the header apart."""
        biases = self.latents + self.numbers
        if self.has_skip:
            return 4 * (self.weights + biases)
        constants = self.sides * self.latents + self.sides + 2 * self.is_thresholded  # norms, scales, k and threshold
        return 4 * (self.weights + biases + constants)


def crosscoders(bank: Bank, seed: int, width: int, models: int, cost: Cost) -> list[Dictionary]:
    """The dictionaries that one job trains for a bank."""
    found = []
    for layer in bank.layers:
        for name, point in bank.points_of(seed).items():
            k = getattr(point, "k", cost.l1_firing)
            stale = 0 if point.method == "l1" or not point.auxiliary_weight else min(cost.stale_latents, width // 2)
            reads = tuple(point.sides if point.sides is not None else range(models))
            is_thresholded = point.method == "batch_topk"
            one = (layer, name, width, reads, bank.latents, k + stale, k, False, "float32", is_thresholded)
            found.append(Dictionary(*one))
    return found


def transcoder(
    layer: int, name: str, point: TranscoderPoint, width: int, cost: Cost, selection: str, auxiliary_weight: Number
) -> Dictionary:
    """A transcoder of one layer of a model."""
    stale = min(cost.stale_latents, width // 2) if auxiliary_weight else 0
    latents = point.expansion * width
    return Dictionary(layer, name, width, (0,), latents, point.k + stale, point.k, True, selection, False)


def encoder_flops(numbers: int, latents: int) -> Number:
    """The one dense product of a step, per token."""
    return 2 * numbers * latents


def sparse_flops(numbers: int, firing: Number) -> Number:
    """Decoding, and the gradients of values, decoder and encoder, per token."""
    return SPARSE_SUMS * 2 * firing * numbers


def skip_flops(width: int) -> Number:
    """A linear skip and its gradient, per token."""
    return 2 * 2 * width**2


def learn(one: Dictionary, schedule: Schedule) -> Work:
    """A whole training; dense products of float32 numbers are those of TF32 (docs/methods.md §3)."""
    response, dense = (2, "bfloat16") if one.selection == "bfloat16" else (4, "tf32")  # bytes
    skip = skip_flops(one.width) if one.has_skip else 0
    moved = RESPONSE_PASSES * response * one.latents + SPARSE_SUMS * 4 * one.firing * one.numbers
    per_token = products(encoder_flops(one.numbers, one.latents), dense) + products(skip, "tf32")
    per_token += products(sparse_flops(one.numbers, one.firing), "float32") + Work(moved_bytes=moved)
    steps = total_steps(schedule)
    return steps * schedule.batch_tokens * per_token + steps * Work(moved_bytes=STEP_BYTES * one.weights, block_calls=1)


def encode(one: Dictionary, tokens: Number) -> Work:
    """Codes and reconstructions of so many tokens, in full precision."""
    flops = encoder_flops(one.numbers, one.latents) + (2 * one.width**2 if one.has_skip else 0)
    moved = RESPONSE_PASSES * 4 * one.latents + 2 * 4 * one.k * one.numbers
    return products(tokens * flops, "float32") + Work(moved_bytes=tokens * moved)


def planned(one: Dictionary, schedule: Schedule, buffered_sides: int, number_bytes: int) -> Size:
    """What the training's plan takes it for."""
    buffer = buffer_bytes(schedule.buffer_tokens, buffered_sides, one.width, number_bytes)
    return Size(one.layer, one.name, one.weights, one.latents, schedule.batch_tokens, buffer)


def checkpoint_bytes(dictionaries: list[Dictionary], sizes: list[Size]) -> int:
    """The checkpoint of dictionaries that are trained together, removed when they are done."""
    buffers = {size.layer: size.buffer_bytes for size in sizes}
    return sum(CHECKPOINT_BYTES * one.weights for one in dictionaries) + sum(buffers.values())
