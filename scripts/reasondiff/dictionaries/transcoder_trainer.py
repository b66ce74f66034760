"""How does one transcoder learn from one batch?

The gradients are written out by hand, since only active entries of the code carry any; no `[token, k, unit]` tensor is
made. `tests/dictionaries` holds them against autograd on the dense formulas.

Source: docs/methods.md §6; Gao et al. 2024, arXiv 2406.04093 (AuxK); Paulo et al. 2025, arXiv 2501.18823.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reasondiff.config import Schedule, TranscoderPoint
from reasondiff.dictionaries.code import (
    ByLatent,
    SparseCode,
    decode,
    entry_products,
    only,
    per_latent_sum,
    topk,
    topk_of_any_sign,
)
from reasondiff.dictionaries.replacements import AffineMap
from reasondiff.dictionaries.schedule import rate_factor, total_steps
from reasondiff.dictionaries.transcoder import Transcoder
from reasondiff.models.stream import SiteStatistics


@dataclass(frozen=True)
class Recipe:
    """What the training of all transcoders of a study has in common, the schedule apart.

    `auxiliary_weight` of the loss that revives stale latents; `stale_after_tokens` without firing a latent is stale;
    `selection`: the precision in which the k latents of a token are picked (their values are exact in any case).
    """

    auxiliary_weight: float | int
    stale_after_tokens: int
    selection: Literal["float32", "bfloat16"]


class Workspace:
    """Memory for the responses of whichever transcoder is stepping. On CPU, fresh memory for each step costs as much
    time as the product that fills it."""

    def __init__(self) -> None:
        self.buffer = torch.empty(0)

    def take(self, rows: int, columns: int, like: Tensor) -> Float[Tensor, "row column"]:
        """A matrix of whatever was in memory."""
        if self.buffer.numel() < rows * columns or self.buffer.device != like.device or self.buffer.dtype != like.dtype:
            self.buffer = like.new_empty(rows * columns)
        return self.buffer[: rows * columns].view(rows, columns)


class TranscoderTrainer:
    """Weights, optimiser and counters of one transcoder; `step` learns from one batch of normalised MLP inputs and
    outputs (mean norm sqrt(d) each).

    A latent is stale after so many tokens without a positive value in the code. Stale ones learn from an auxiliary
    loss: the d/2 of them that respond most, whatever the sign, fit what the others left over; its gradient reaches
    encoder and decoder. `start` is a transcoder to begin as.

    Invariant: `state()` and `load_state()` carry everything that the next `step` depends on.
    """

    def __init__(
        self,
        point: TranscoderPoint,
        schedule: Schedule,
        recipe: Recipe,
        statistics: SiteStatistics,
        seed: int,
        start: Transcoder | None = None,
        workspace: Workspace | None = None,
    ):
        self.point, self.schedule, self.recipe = point, schedule, recipe
        self.workspace = workspace or Workspace()
        self.scale = statistics.scale
        self.steps, self.total_steps = 0, total_steps(schedule)
        tensors = initial_weights(point.expansion, statistics, seed) if start is None else _in_units(start, self.scale)
        self.encoder, self.encoder_bias, self.decoder, self.decoder_bias, self.skip = (
            tensor.to(self.scale.device).requires_grad_() for tensor in tensors
        )
        self.width = self.encoder.shape[1]
        self.idle_tokens = torch.zeros(len(self.encoder), dtype=torch.int64, device=self.scale.device)
        fused = self.scale.device.type != "mps"
        self.optimizer = torch.optim.Adam(self.parameters(), lr=point.learning_rate, betas=(0.9, 0.999), fused=fused)

    def parameters(self) -> list[Tensor]:
        return [self.encoder, self.encoder_bias, self.decoder, self.decoder_bias, self.skip]

    def start_at(self, linear: AffineMap) -> None:
        """Sets skip and decoder bias to the best linear map, so that latents learn only what it leaves over: they die
        less and explain more after equal tokens (benchmarks/)."""
        read, write = self.scale
        with torch.no_grad():
            self.skip.copy_(linear.weight.T * (write / read))
            self.decoder_bias.copy_(linear.bias * write)

    # ------------------------------------------------------------------------------------------- a step

    @torch.no_grad()
    def step(self, x: Float[Tensor, "token 2 unit"], measured: bool = True) -> dict[str, float]:
        """One optimiser step; returns figures of this batch if they are to be `measured`.

        Raises:
            FloatingPointError: the loss is not finite (looked at when `measured`).
        """
        given, wanted = x[:, 0].contiguous(), x[:, 1]
        code = self._code(given)
        error = torch.addmm(decode(code, self.decoder), given, self.skip.T) + self.decoder_bias - wanted
        self._backward(code, given, error)
        stale = self.stale()
        auxiliary = self._revive(stale, given, error)
        metrics = self._measure(wanted, error, auxiliary, code, stale) if measured else {}
        torch.nn.utils.clip_grad_norm_(self.parameters(), self.schedule.gradient_clip)
        factor = rate_factor(self.schedule, self.total_steps, self.steps)
        self.optimizer.param_groups[0]["lr"] = self.point.learning_rate * factor
        self.optimizer.step()
        self.steps += 1
        self.idle_tokens += len(x)
        self.idle_tokens[code.latents] = 0
        return metrics

    def _code(self, given: Tensor) -> SparseCode:
        """TopK(ReLU(responses)), the responses ranked in the precision of the recipe."""
        if self.recipe.selection == "bfloat16":
            rough = (tensor.bfloat16() for tensor in (given, self.encoder, self.encoder_bias))
            picked = topk_of_any_sign(torch.nn.functional.linear(*rough), self.point.k)
            exact = entry_products(picked, given, self.encoder) + self.encoder_bias[picked.latents]
            return only(picked.with_values(exact), exact > 0)
        responses = self.workspace.take(len(given), len(self.encoder), like=given)
        return topk(torch.addmm(self.encoder_bias, given, self.encoder.T, out=responses), self.point.k)

    def _backward(self, code: SparseCode, given: Tensor, error: Tensor) -> None:
        """Writes the gradients of the loss, which is mean |error|^2 / d."""
        gradient = error * (2 / error.numel())
        by_latent = ByLatent(code)
        value_gradient = entry_products(code, gradient, self.decoder)
        self.decoder.grad = by_latent.sum(code.values, gradient)
        self.decoder_bias.grad = gradient.sum(0)
        self.skip.grad = gradient.T @ given
        self.encoder.grad = by_latent.sum(value_gradient, given)
        self.encoder_bias.grad = per_latent_sum(code, value_gradient)

    def _revive(self, stale: Bool[Tensor, " latent"], given: Tensor, error: Tensor) -> Tensor:
        """Adds the gradients of the auxiliary loss; returns it.

        The residual counts as a constant. With few stale latents the loss is scaled down, so that they do not fit
        noise.
        """
        recipe, wanted = self.recipe, self.width // 2
        never_yet = self.steps * len(given) < recipe.stale_after_tokens  # spares a look at the card
        if not recipe.auxiliary_weight or never_yet or not bool(stale.any()):
            return error.new_zeros(())
        latents = stale.nonzero().squeeze(1)
        weight = recipe.auxiliary_weight * min(1.0, len(latents) / wanted)
        decoder = self.decoder[latents]
        responses = torch.addmm(self.encoder_bias[latents], given, self.encoder[latents].T)
        code = topk_of_any_sign(responses, min(wanted, len(latents)))
        left_over = decode(code, decoder) + error  # target is -error: what the reconstruction lacks
        gradient = left_over * (2 * weight / error.numel())
        by_latent = ByLatent(code)
        value_gradient = entry_products(code, gradient, decoder)
        self.decoder.grad.index_add_(0, latents, by_latent.sum(code.values, gradient))
        self.encoder.grad.index_add_(0, latents, by_latent.sum(value_gradient, given))
        self.encoder_bias.grad.index_add_(0, latents, per_latent_sum(code, value_gradient))
        return weight * left_over.square().mean()

    def _measure(
        self, wanted: Tensor, error: Tensor, auxiliary: Tensor, code: SparseCode, stale: Tensor
    ) -> dict[str, float]:
        """Loss and its parts, explained share and L0 of this batch, share of stale latents."""
        loss = float(error.square().mean() + auxiliary)
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at step {self.steps}; lower `learning_rate` (now {self.point.learning_rate})"
            )
        variance = (wanted - wanted.mean(0)).square().sum().clamp_min(1e-12)
        return {
            "loss": loss,
            "auxiliary": float(auxiliary),
            "fve": 1 - float(error.square().sum() / variance),
            "l0": code.l0(),
            "stale": float(stale.float().mean()),
        }

    def stale(self) -> Bool[Tensor, " latent"]:
        """Which latents have not fired for `stale_after_tokens` tokens."""
        return self.idle_tokens >= self.recipe.stale_after_tokens

    # ------------------------------------------------------------------------------------------- results

    def finish(self, card: dict[str, Any]) -> Transcoder:
        """The trained transcoder in raw units, `card` with the steps taken."""
        read, write = self.scale
        return Transcoder(
            encoder=self.encoder.detach() * read,
            encoder_bias=self.encoder_bias.detach().clone(),
            decoder=self.decoder.detach() / write,
            decoder_bias=self.decoder_bias.detach() / write,
            skip=self.skip.detach() * (read / write),
            k=self.point.k,
            card={**card, "steps": self.steps},
        )

    def state(self) -> dict[str, Any]:
        return {
            "parameters": [parameter.detach() for parameter in self.parameters()],
            "optimizer": self.optimizer.state_dict(),
            "idle_tokens": self.idle_tokens,
            "steps": self.steps,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for parameter, saved in zip(self.parameters(), state["parameters"], strict=True):
                parameter.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        self.idle_tokens.copy_(state["idle_tokens"])
        self.steps = state["steps"]


def initial_weights(expansion: int, statistics: SiteStatistics, seed: int) -> tuple[Tensor, ...]:
    """(encoder, encoder bias, decoder, decoder bias, skip) in normalised units: a random encoder whose responses have
    mean 0, the mean output as bias, and nothing else yet."""
    mean_input, mean_output = (statistics.mean * statistics.scale[:, None]).cpu()
    width = len(mean_input)
    generator = torch.Generator().manual_seed(seed)
    encoder = (torch.rand(expansion * width, width, generator=generator) * 2 - 1) / width**0.5
    bias = -(encoder @ mean_input)
    return encoder, bias, torch.zeros_like(encoder), mean_output.clone(), torch.zeros(width, width)


def _in_units(start: Transcoder, scale: Float[Tensor, "2"]) -> tuple[Tensor, ...]:
    """The weights of a transcoder as they act on normalised inputs and outputs."""
    read, write = scale
    start = start.to(str(scale.device))
    skip = torch.zeros(start.width, start.width, device=scale.device) if start.skip is None else start.skip
    return (
        start.encoder / read,
        start.encoder_bias.clone(),
        start.decoder * write,
        start.decoder_bias * write,
        skip * (write / read),
    )
