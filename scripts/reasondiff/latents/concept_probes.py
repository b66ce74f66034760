"""How well can concepts be told from activations by a weighted sum of all units? The ceiling for single latents.

Logistic regression for all concepts at once. The units are whitened first: then the fit does not depend on how strongly
they are correlated, and takes few steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

SMALLEST_VARIANCE = 1e-6  # of the largest: directions below it are left out
STEPS = 200  # at most
TOLERANCE = 1e-6  # of the mean gradient


@dataclass(frozen=True)
class LogisticProbes:
    """`weights` [unit, concept] and `bias` [concept], to be applied to the activations that they were fitted on."""

    weights: Float[Tensor, "unit concept"]
    bias: Float[Tensor, " concept"]

    def __call__(self, x: Float[Tensor, "token unit"]) -> Float[Tensor, "token concept"]:
        """Log odds that a token belongs to each concept."""
        return torch.addmm(self.bias, x, self.weights)


def fit_probes(x: Float[Tensor, "token unit"], marks: Bool[Tensor, "token concept"], ridge: float) -> LogisticProbes:
    """The probes with the smallest mean log loss (nats per token) plus ridge / 2 times the squared weights, in whitened
    units (mean 0, identity covariance); the bias is free.

    By L-BFGS, all concepts together: their losses add up, and each depends on its own weights alone.
    """
    mean, whiten = _whitening(x)
    z = (x - mean) @ whiten
    y = marks.to(z.dtype)
    share = y.mean(0).clamp(1e-6, 1 - 1e-6)
    weights = torch.zeros(z.shape[1], y.shape[1], dtype=z.dtype, device=z.device)
    bias = (share / (1 - share)).log()  # what is right before anything else is known
    optimizer = torch.optim.LBFGS(
        [weights, bias], max_iter=STEPS, history_size=10, tolerance_grad=TOLERANCE, line_search_fn="strong_wolfe"
    )

    @torch.no_grad()
    def loss() -> Tensor:
        odds = torch.addmm(bias, z, weights)
        error = (odds.sigmoid() - y) / len(z)
        weights.grad = z.T @ error + ridge * weights
        bias.grad = error.sum(0)
        fit = torch.nn.functional.softplus(odds).mean(0).sum() - (odds * y).mean(0).sum()
        return fit + ridge / 2 * weights.square().sum()

    if y.shape[1]:
        optimizer.step(loss)
    own = whiten @ weights
    return LogisticProbes(own, bias - mean @ own)


def _whitening(x: Float[Tensor, "token unit"]) -> tuple[Float[Tensor, " unit"], Float[Tensor, "unit direction"]]:
    """(mean, map to directions of variance 1 that are uncorrelated)."""
    mean = x.double().mean(0)
    centred = x - mean.to(x.dtype)
    variances, directions = torch.linalg.eigh((centred.T @ centred).double() / len(x))
    kept = variances > SMALLEST_VARIANCE * variances.max()
    return mean.to(x.dtype), (directions[:, kept] / variances[kept].sqrt()).to(x.dtype)
