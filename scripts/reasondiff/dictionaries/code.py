"""How is a sparse code chosen, decoded, and differentiated without ever making it dense?

A batch of B tokens with L0 around k has B*k active entries out of B*F. Only those entries take part in the decoder,
in its gradient and in the encoder's weight gradient; the encoder's forward product is the one dense step left.

The bags below are `torch.nn.functional.embedding_bag`: a weighted sum of matrix rows per bag, threaded on CPU and
fused on GPU, so nothing of size [entries, d] is made. What each step costs is measured in benchmarks/.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Above this share of active entries dense products are faster (L1 early in training; measured in benchmarks/).
DENSE_ABOVE = 0.08


@dataclass(frozen=True)
class SparseCode:
    """The active entries of a code, ordered by token.

    `rows`, `latents` int64 [entry] and `values` [entry] say which token, which latent, how strongly.
    """

    rows: Int[Tensor, " entry"]
    latents: Int[Tensor, " entry"]
    values: Float[Tensor, " entry"]
    n_rows: int
    n_latents: int

    def __len__(self) -> int:
        return len(self.rows)

    def density(self) -> float:
        """Share of entries that are active, from 0 to 1."""
        return len(self) / max(1, self.n_rows * self.n_latents)

    def dense(self) -> Float[Tensor, "token latent"]:
        """The same code with its zeros."""
        whole = self.values.new_zeros(self.n_rows * self.n_latents)
        whole[self.rows * self.n_latents + self.latents] = self.values
        return whole.view(self.n_rows, self.n_latents)

    def with_values(self, values: Float[Tensor, " entry"]) -> SparseCode:
        """Other values at the same entries."""
        return SparseCode(self.rows, self.latents, values, self.n_rows, self.n_latents)

    def on_rows(self, kept: Bool[Tensor, " token"]) -> SparseCode:
        """The code of the tokens in `kept` alone; they are numbered anew."""
        inside = kept[self.rows]
        numbers = kept.long().cumsum(0) - 1  # (token,): its place among the kept ones
        rows, latents, values = (part[inside] for part in (self.rows, self.latents, self.values))
        return SparseCode(numbers[rows], latents, values, int(kept.sum()), self.n_latents)

    def l0(self) -> float:
        """Mean number of active latents per token."""
        return len(self) / max(1, self.n_rows)


def from_flat(flat: Int[Tensor, " entry"], activations: Float[Tensor, "token latent"]) -> SparseCode:
    """The code made of the entries of `activations` at these flat, ascending positions."""
    n_rows, n_latents = activations.shape
    rows = torch.div(flat, n_latents, rounding_mode="floor")
    return SparseCode(rows, flat - rows * n_latents, activations.view(-1)[flat], n_rows, n_latents)


def active(activations: Float[Tensor, "token latent"], above: Float[Tensor, "..."] | float = 0.0) -> SparseCode:
    """All entries greater than `above` (a number, or one per latent)."""
    return from_flat((activations > above).view(-1).nonzero().squeeze(1), activations)


def largest(
    activations: Float[Tensor, "token latent"],
    weights: Float[Tensor, " latent"],
    count: int,
    hint: float = 0.0,
) -> tuple[SparseCode, float]:
    """The `count` entries with the largest positive score = activation * weight, and the smallest score kept (0 if
    none is). With fewer positive scores than `count`, all of them; of equal scores at the edge, the first.

    `hint` is a guess of that smallest score. With a good one only the entries near or above it are ranked instead
    of all B*F; the result is the same with any hint.
    """
    positions, scores = _scored_above(activations, weights, 0.8 * hint)
    # the bound was applied to activations, the scores are rounded anew: one at the very edge may have been lost
    if hint > 0 and int((scores > 0.81 * hint).sum()) < count:
        positions, scores = _scored_above(activations, weights, 0.0)
    if not len(scores):
        return from_flat(positions, activations), 0.0
    if len(scores) <= count:
        return from_flat(positions, activations), float(scores.min())
    smallest = scores.topk(count, sorted=False).values.min()
    above = scores > smallest
    ties = (scores == smallest).nonzero().squeeze(1)
    above[ties[: count - int(above.sum())]] = True
    return from_flat(positions[above], activations), float(smallest)


def topk(responses: Float[Tensor, "token latent"], k: int) -> SparseCode:
    """TopK(ReLU(responses)): of each token's `k` largest responses the positive ones."""
    code = topk_of_any_sign(responses, k)
    return code if bool((code.values > 0).all()) else only(code, code.values > 0)


def topk_of_any_sign(responses: Float[Tensor, "token latent"], k: int) -> SparseCode:
    """The `k` largest responses of each token, negative ones among them."""
    latents, values = _largest_of_rows(responses, min(k, responses.shape[1]))
    n_rows, count = latents.shape
    rows = torch.arange(n_rows, device=latents.device).repeat_interleave(count)
    return SparseCode(rows, latents.flatten(), values.flatten(), n_rows, responses.shape[1])


def only(code: SparseCode, kept: Bool[Tensor, " entry"]) -> SparseCode:
    """The entries of a code marked in `kept`."""
    return SparseCode(code.rows[kept], code.latents[kept], code.values[kept], code.n_rows, code.n_latents)


def _largest_of_rows(
    matrix: Float[Tensor, "row column"], k: int
) -> tuple[Int[Tensor, "row k"], Float[Tensor, "row k"]]:
    """`matrix.topk(k)` (indices, values) in no order, in about half its time.

    The columns fall into groups. The k largest entries of a row are in the k groups with the largest maxima: a group
    left out has k groups before it, each with an entry at least as large. So only k groups are ranked in full.
    """
    rows, columns = matrix.shape
    size = _group_size(columns, k)
    if size == 1:
        best = matrix.topk(k, dim=1, sorted=False)
        return best.indices, best.values
    groups = columns // size  # group g holds the columns g, g + groups, g + 2 groups, ...
    maxima = matrix.view(rows, size, groups).amax(1)
    chosen = maxima.topk(k, dim=1, sorted=False).indices
    members = (chosen[:, :, None] + torch.arange(0, columns, groups, device=matrix.device)).view(rows, k * size)
    best = matrix.gather(1, members).topk(k, dim=1, sorted=False)
    return members.gather(1, best.indices), best.values


def _group_size(columns: int, k: int) -> int:
    """The size that leaves least to rank (columns / size maxima, k * size members) among those that divide evenly;
    1 where grouping does not halve it."""
    sizes = [size for size in range(2, 65) if columns % size == 0 and columns // size >= k]
    best = min(sizes, key=lambda size: columns // size + k * size, default=1)
    return best if best > 1 and columns // best + k * best < columns / 2 else 1


def _scored_above(
    activations: Float[Tensor, "token latent"], weights: Float[Tensor, " latent"], bound: float
) -> tuple[Int[Tensor, " entry"], Float[Tensor, " entry"]]:
    """(ascending flat positions, scores) of the positive scores above `bound`; the [B, F] scores are never made."""
    positions = (activations > bound / weights).view(-1).nonzero().squeeze(1)  # weight 0: above inf or NaN, never
    scores = activations.view(-1)[positions] * weights[positions % len(weights)]
    return positions, scores


def decode(code: SparseCode, dictionary: Float[Tensor, "latent out"]) -> Float[Tensor, "token out"]:
    """sum_j f_j * dictionary[j] for each token (no bias)."""
    if code.density() > DENSE_ABOVE:
        return code.dense() @ dictionary
    return _bags(code.latents, code.values, _offsets(code.rows, code.n_rows), dictionary)


def entry_products(
    code: SparseCode, per_token: Float[Tensor, "token out"], per_latent: Float[Tensor, "latent out"]
) -> Float[Tensor, " entry"]:
    """<per_token[n], per_latent[j]> at each active entry (n, j)."""
    if code.density() > DENSE_ABOVE:
        return (per_token @ per_latent.T).view(-1)[code.rows * code.n_latents + code.latents]
    if not len(code):
        return per_token.new_zeros(0)
    # The gradient of a bag's weights is this product. Gathering rows of both matrices costs 15 times as much.
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        per_token, per_latent, code.latents, _offsets(code.rows, code.n_rows), code.rows, 0
    )


class ByLatent:
    """The entries of a code regrouped by latent, for sums over tokens. Sorting is done once and shared."""

    def __init__(self, code: SparseCode):
        self.code = code
        self.is_dense = code.density() > DENSE_ABOVE
        if not self.is_dense:
            self.order = stable_order(code.latents, code.n_latents)
            self.rows = code.rows[self.order]
            counts = torch.bincount(code.latents, minlength=code.n_latents)
            self.offsets = F.pad(counts.cumsum(0), (1, 0))

    def sum(
        self, values: Float[Tensor, " entry"], per_token: Float[Tensor, "token out"]
    ) -> Float[Tensor, "latent out"]:
        """sum_n values[n, j] * per_token[n] for each latent j."""
        if self.is_dense:
            return self.code.with_values(values).dense().T @ per_token
        return _bags(self.rows, values[self.order], self.offsets, per_token)


def per_latent_sum(code: SparseCode, values: Float[Tensor, " entry"]) -> Float[Tensor, " latent"]:
    """sum_n values[n, j] for each latent j."""
    return values.new_zeros(code.n_latents).index_add_(0, code.latents, values)


def stable_order(keys: Int[Tensor, " entry"], below: int) -> Int[Tensor, " entry"]:
    """`keys.argsort(stable=True)` of integers from 0 to `below` - 1. On CPU by NumPy's radix sort of 16-bit numbers,
    which takes 0.3 ms for 65,536 entries where torch's sort takes 180 ms."""
    if keys.device.type != "cpu":
        return keys.argsort(stable=True)
    digits = keys.numpy()
    order = np.argsort((digits & 0xFFFF).astype(np.uint16), kind="stable")
    if below > 2**16:  # then by the digits above: a stable sort keeps the order of the lower ones
        if below > 2**32:
            raise ValueError(f"{below} keys: at most 2**32 are sorted")
        order = order[np.argsort((digits[order] >> 16).astype(np.uint16), kind="stable")]
    return torch.from_numpy(order)


def _offsets(rows: Int[Tensor, " entry"], n_rows: int) -> Int[Tensor, " row_and_end"]:
    """Where the entries of each row begin, and where those of the last end."""
    return torch.searchsorted(rows, torch.arange(n_rows + 1, device=rows.device))


def _bags(
    index: Int[Tensor, " entry"],
    weights: Float[Tensor, " entry"],
    offsets: Int[Tensor, " bag_and_end"],
    matrix: Float[Tensor, "row out"],
) -> Float[Tensor, "bag out"]:
    return F.embedding_bag(
        index, matrix, offsets, mode="sum", per_sample_weights=weights.to(matrix.dtype), include_last_offset=True
    )
