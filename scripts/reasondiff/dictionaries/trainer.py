"""How does one crosscoder learn from one batch?

The gradients are written out by hand, since almost all of them are zero: only active entries of the code carry any.
`tests/dictionaries` holds them against autograd on the dense formulas.

Source: docs/methods.md §3; Lindsey et al. 2024; Bussmann et al. 2024, arXiv 2412.06410; arXiv 2504.02922.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from reasondiff.config import Bank, BatchTopKPoint, L1Point
from reasondiff.dictionaries.code import (
    ByLatent,
    SparseCode,
    active,
    decode,
    entry_products,
    largest,
    per_latent_sum,
    topk,
)
from reasondiff.dictionaries.crosscoder import Crosscoder, fold
from reasondiff.dictionaries.schedule import rate_factor

THRESHOLD_MEMORY = 0.99  # of the running mean of the training threshold, per step


class Trainer:
    """Weights, optimiser and counters of one sweep point; `step` learns from one batch of normalised activations.

    Invariant: `state()` and `load_state()` carry everything that the next `step` depends on.
    """

    def __init__(
        self,
        point: L1Point | BatchTopKPoint,
        bank: Bank,
        n_models: int,
        width: int,
        total_steps: int,
        seed: int,
        device: str,
    ):
        self.point, self.bank, self.total_steps = point, bank, total_steps
        self.n_models, self.width = n_models, width
        self.steps = 0
        self.threshold = 0.0
        generator = torch.Generator().manual_seed(seed)
        decoder = initial_decoder(bank, n_models, width, generator).to(device)
        self.decoder = decoder.requires_grad_()
        self.encoder = decoder.detach().clone().requires_grad_()
        self.encoder_bias = torch.zeros(bank.latents, device=device).requires_grad_()
        self.decoder_bias = torch.zeros(n_models * width, device=device).requires_grad_()
        self.idle_tokens = torch.zeros(bank.latents, dtype=torch.int64, device=device)
        fused = device != "mps"
        self.optimizer = torch.optim.Adam(self.parameters(), lr=point.learning_rate, betas=(0.9, 0.999), fused=fused)

    def parameters(self) -> list[Tensor]:
        return [self.encoder, self.encoder_bias, self.decoder, self.decoder_bias]

    def start_at(self, mean: Float[Tensor, "model unit"]) -> None:
        """Sets the decoder bias to the mean normalised activation, so that latents need not learn it."""
        with torch.no_grad():
            self.decoder_bias.copy_(mean.flatten())

    # ------------------------------------------------------------------------------------------- a step

    @torch.no_grad()
    def step(self, x: Float[Tensor, "token model unit"], measured: bool = True) -> dict[str, float]:
        """One optimiser step on normalised activations of the pair; returns figures of this batch if they are to be
        `measured`.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        if self.point.sides is not None:
            x = x[:, list(self.point.sides)]
        flat = x.flatten(1)
        norms = self.decoder_norms()
        responses = torch.addmm(self.encoder_bias, flat, self.encoder.T)  # before the ReLU
        code = self._choose(responses, norms.sum(1))
        error = decode(code, self.decoder) + self.decoder_bias - flat
        loss, output_gradient = self._reconstruction(error)
        penalty = self._backward(code, flat, output_gradient, norms)
        auxiliary = self._revive(responses, flat, error)
        total = float(loss + penalty + auxiliary)
        if not math.isfinite(total):
            raise FloatingPointError(
                f"the loss is {total} at step {self.steps}; lower `learning_rate` (now {self.point.learning_rate})"
            )
        torch.nn.utils.clip_grad_norm_(self.parameters(), self.bank.gradient_clip)
        self._set_learning_rate()
        self.optimizer.step()
        self.steps += 1
        self._count_idle(code, len(x))
        return self._measure(total, penalty, auxiliary, flat, error, code) if measured else {}

    def _measure(
        self, total: float, penalty: Tensor, auxiliary: Tensor, flat: Tensor, error: Tensor, code: SparseCode
    ) -> dict[str, float]:
        """Loss and its parts, explained share and L0 of this batch, share of stale latents."""
        variance = (flat - flat.mean(0)).square().sum().clamp_min(1e-12)
        return {
            "loss": total,
            "penalty": float(penalty),
            "auxiliary": float(auxiliary),
            "fve": 1 - float(error.square().sum() / variance),
            "l0": code.l0(),
            "stale": float(self._stale().float().mean()),
        }

    def decoder_norms(self) -> Float[Tensor, "latent model"]:
        """|d_j^m| of each latent in each model, in normalised units."""
        return self.decoder.detach().view(-1, self.n_models, self.width).norm(dim=2)

    def _choose(self, responses: Tensor, total_norms: Tensor) -> SparseCode:
        """The active entries of the code."""
        if self.point.method == "l1":
            return active(responses)
        code, smallest = largest(responses, total_norms, self.point.k * len(responses), hint=self.threshold)
        kept = THRESHOLD_MEMORY if self.steps else 0.0
        self.threshold = kept * self.threshold + (1 - kept) * smallest
        return code

    def _reconstruction(self, error: Tensor) -> tuple[Tensor, Tensor]:
        """The reconstruction loss and its gradient with respect to the reconstruction."""
        tokens = len(error)
        if self.point.method == "l1" and self.point.reconstruction == "norm":
            sizes = error.view(tokens, self.n_models, self.width).norm(dim=2, keepdim=True).clamp_min(1e-8)
            gradient = error.view(tokens, self.n_models, self.width) / sizes / (tokens * self.n_models)
            return sizes.mean(), gradient.flatten(1)
        return error.square().sum(1).mean(), error * (2 / tokens)

    def _backward(self, code: SparseCode, flat: Tensor, output_gradient: Tensor, norms: Tensor) -> Tensor:
        """Writes all gradients of reconstruction and sparsity penalty; returns the penalty."""
        by_latent = ByLatent(code)
        value_gradient = entry_products(code, output_gradient, self.decoder)
        self.decoder.grad = by_latent.sum(code.values, output_gradient)
        self.decoder_bias.grad = output_gradient.sum(0)
        penalty = flat.new_zeros(())
        if self.point.method == "l1":
            weight = self._sparsity() / len(flat)
            total_norms = norms.sum(1)
            value_gradient += weight * total_norms[code.latents]
            mass = per_latent_sum(code, code.values)  # (latent,): sum of activations over the batch
            penalty = weight * (mass * total_norms).sum()
            rows = self.decoder.grad.view(-1, self.n_models, self.width)
            direction = self.decoder.view_as(rows) / norms.clamp_min(1e-8)[:, :, None]
            rows += weight * mass[:, None, None] * direction
        self.encoder.grad = by_latent.sum(value_gradient, flat)
        self.encoder_bias.grad = per_latent_sum(code, value_gradient)
        return penalty

    def _sparsity(self) -> float:
        ramp = self.point.sparsity_warmup_share * self.total_steps
        return self.point.sparsity * min(1.0, (self.steps + 1) / max(1.0, ramp))

    def _revive(self, responses: Tensor, flat: Tensor, error: Tensor) -> Tensor:
        """The auxiliary loss: the d/2 stale latents that respond most reconstruct what the others left over."""
        stale = self._stale()
        if self.point.method == "l1" or not self.point.auxiliary_weight or not bool(stale.any()):
            return flat.new_zeros(())
        latents = stale.nonzero().squeeze(1)
        code = topk(responses.index_select(1, latents), min(self.width // 2, len(latents)))
        decoder = self.decoder[latents]
        left_over = decode(code, decoder) + error  # target is -error: what the reconstruction lacks
        gradient = left_over * (2 * self.point.auxiliary_weight / len(flat))
        by_latent = ByLatent(code)
        value_gradient = entry_products(code, gradient, decoder)
        self.decoder.grad.index_add_(0, latents, by_latent.sum(code.values, gradient))
        self.encoder.grad.index_add_(0, latents, by_latent.sum(value_gradient, flat))
        self.encoder_bias.grad.index_add_(0, latents, per_latent_sum(code, value_gradient))
        return self.point.auxiliary_weight * left_over.square().sum(1).mean()

    def _stale(self) -> Tensor:
        limit = getattr(self.point, "stale_after_tokens", None)
        return self.idle_tokens >= limit if limit is not None else torch.zeros_like(self.idle_tokens, dtype=torch.bool)

    def _count_idle(self, code: SparseCode, tokens: int) -> None:
        self.idle_tokens += tokens
        self.idle_tokens[code.latents] = 0

    def _set_learning_rate(self) -> None:
        factor = rate_factor(self.bank, self.total_steps, self.steps)
        self.optimizer.param_groups[0]["lr"] = self.point.learning_rate * factor

    # ------------------------------------------------------------------------------------------- results

    def finish(self, scale: Float[Tensor, " model"], threshold: float, card: dict[str, Any]) -> Crosscoder:
        """The trained crosscoder, folded; `threshold` is in normalised units (docs/methods.md §3)."""
        return fold(
            self.encoder.detach(),
            self.encoder_bias.detach(),
            self.decoder.detach(),
            self.decoder_bias.detach(),
            scale,
            threshold,
            self.point.k if self.point.method == "batch_topk" else None,
            {**card, "training_threshold": self.threshold, "steps": self.steps},
        )

    def state(self) -> dict[str, Any]:
        return {
            "parameters": [parameter.detach() for parameter in self.parameters()],
            "optimizer": self.optimizer.state_dict(),
            "idle_tokens": self.idle_tokens,
            "steps": self.steps,
            "threshold": self.threshold,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            for parameter, saved in zip(self.parameters(), state["parameters"], strict=True):
                parameter.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])
        self.idle_tokens.copy_(state["idle_tokens"])
        self.steps, self.threshold = state["steps"], state["threshold"]


def initial_decoder(
    bank: Bank, n_models: int, width: int, generator: torch.Generator
) -> Float[Tensor, "latent model_unit"]:
    """Random directions of norm `decoder_norm` in each model: the same for all models, so that a latent starts as
    shared, unless the bank asks for independent halves (a null)."""
    shape = (bank.latents, n_models if bank.independent_halves else 1, width)
    rows = torch.randn(shape, generator=generator)
    rows = rows / rows.norm(dim=2, keepdim=True) * bank.decoder_norm
    return rows.expand(-1, n_models, -1).reshape(bank.latents, n_models * width).clone()
