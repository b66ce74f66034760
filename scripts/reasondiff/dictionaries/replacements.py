"""How much of an MLP's output do transcoders give back, and poorer replacements?

The poorer ones are what a transcoder has to beat: the best linear map, the mean, zero. One pass over some text measures
all of them, with sums per problem.

Source: docs/methods.md §5 and §6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasondiff.dictionaries.fidelity import ExplainedVariance, FiringCounts, token_labels
from reasondiff.dictionaries.transcoder import TOKENS_AT_ONCE, Transcoder
from reasondiff.models.mlp import Replacement
from reasondiff.models.stream import ActivationStream, Block, SiteStatistics, unmasked
from reasondiff.statistics import Estimate
from reasondiff.store import ArtefactError
from reasondiff.text.tokens import TokenTable

RIDGE = 1e-8  # of an input's own variance; keeps the least squares solvable, changes nothing visible
NO_VARIANCE = 1e-14  # of the mean variance: below it is rounding
LINEAR_MAP = "linear map"  # beside sweep points in the sums below; a point's name has no space


# ------------------------------------------------------------------------------------------- the text


@dataclass(frozen=True)
class Sample:
    """Documents that figures are measured on; `number` [document of the table] counts their problems from 0 (-1 for
    other documents), `problems` says how many there are."""

    documents: Int[np.ndarray, " document"]
    number: Int[np.ndarray, " document_of_table"]
    problems: int


def first_documents(table: TokenTable, part: str, tokens: int, context: int) -> Sample:
    """The first documents of a part that together hold at most `tokens` tokens, but one at least.

    Raises:
        ArtefactError: the part has no documents.
    """
    return sample_of(table, table.documents_of(part), part, tokens, context)


def sample_of(
    table: TokenTable, documents: Int[np.ndarray, " document"], what: str, tokens: int, context: int
) -> Sample:
    """The first of these documents that together hold at most `tokens` tokens, but one at least."""
    if not len(documents):
        raise ArtefactError(f"the text has no document in its `{what}` part, so nothing can be measured: use more text")
    lengths = np.minimum(table.lengths()[documents], context)
    chosen = documents[: max(1, int(np.searchsorted(lengths.cumsum(), tokens, side="right")))]
    problems, numbers = np.unique(table.problem[chosen], return_inverse=True)
    number = np.full(len(table), -1)
    number[chosen] = numbers
    return Sample(chosen, number, len(problems))


# ------------------------------------------------------------------------------------------- what takes the place


@dataclass(frozen=True)
class AffineMap:
    """The best linear imitation of an MLP: `weight` (input unit, output unit) and `bias`, in raw units."""

    weight: Float[Tensor, "unit unit"]
    bias: Float[Tensor, " unit"]

    def __call__(self, x: Float[Tensor, "token unit"]) -> Float[Tensor, "token unit"]:
        return torch.addmm(self.bias, x.float(), self.weight)


def fit_maps(
    stream: ActivationStream, statistics: Mapping[int, SiteStatistics], sample: Sample
) -> dict[int, AffineMap]:
    """For each layer the affine map from MLP input to output with the least squared error on the unmasked tokens of a
    sample. Only sums of products are held, in float64.

    Raises:
        ArtefactError: there are no more tokens than units, so that the map would fit anything.
    """
    moments = {layer: _Moments(statistics[layer].mean) for layer in stream.layers}
    for block in stream(sample.documents):
        for layer, x in block.activations.items():
            kept, _ = unmasked(block, layer, statistics[layer], stream.settings)
            moments[layer].add(x[kept])
    return {layer: found.solve(layer) for layer, found in moments.items()}


class _Moments:
    """Sums over tokens that a least-squares map needs, taken around a constant near the mean to lose no digits."""

    def __init__(self, centre: Float[Tensor, "2 unit"]):
        self.centre = centre.double()
        self.count, self.total = 0, torch.zeros_like(self.centre)
        self.within = self.centre.new_zeros(centre.shape[1], centre.shape[1])  # sum of input x input
        self.between = torch.zeros_like(self.within)  # sum of input x output

    def add(self, x: Float[Tensor, "token 2 unit"]) -> None:
        given, output = (x.double() - self.centre).unbind(1)
        self.count += len(x)
        self.total += torch.stack([given.sum(0), output.sum(0)])
        self.within += given.T @ given
        self.between += given.T @ output

    def solve(self, layer: int) -> AffineMap:
        if self.count <= len(self.within):
            raise ArtefactError(
                f"layer {layer}: the best linear map would be fitted on {self.count} unmasked tokens, no more than it "
                f"has inputs ({len(self.within)}). Raise stream.calibration_tokens (training) or "
                "transcoders.evaluation.linear_tokens (evaluation), or use more text: the `calibrate` part is small."
            )
        given, output = self.total / self.count  # (unit,): means, from the centre
        within = self.within - self.count * torch.outer(given, given)
        variances = within.diagonal()  # a ridge relative to each, since norms scale units very differently
        variances.mul_(1 + RIDGE).clamp_(min=NO_VARIANCE * float(variances.mean()))
        weight = torch.linalg.solve(within, self.between - self.count * torch.outer(given, output))
        bias = self.centre[1] + output - (self.centre[0] + given) @ weight
        return AffineMap(weight.float(), bias.float())


def floors(layer_map: AffineMap, statistics: SiteStatistics) -> dict[str, Replacement]:
    """What a transcoder has to beat: {name: function that takes an MLP's place}."""
    mean = statistics.mean[1]
    return {
        "linear": lambda x, _own: layer_map(x),
        "mean_ablation": lambda _x, own: mean.expand_as(own),
        "zero_ablation": lambda _x, own: torch.zeros_like(own),
    }


def imitation(transcoder: Transcoder) -> Replacement:
    """A transcoder as what takes an MLP's place."""
    return lambda x, _own: transcoder(x)


# ------------------------------------------------------------------------------------------- variance and sparsity


@dataclass(frozen=True)
class Imitated:
    """What one pass over a sample says of a layer: variance of the MLP's output that each imitation leaves (side 0),
    and how often each transcoder's latents fire."""

    variance: ExplainedVariance
    firing: dict[str, FiringCounts]

    def fvu(self, name: str, phase: str, mask: str, resamples: int, seed: int) -> tuple[Estimate, int]:
        """(fraction of variance unexplained by an imitation, with its interval over problems; number of tokens)."""
        fve, tokens = self.variance.estimate(name, 0, phase, mask == "unmasked", resamples, seed)
        return Estimate(1 - fve.value, 1 - fve.high, 1 - fve.low, fve.n), tokens


def imitated(
    stream: ActivationStream,
    statistics: Mapping[int, SiteStatistics],
    maps: Mapping[int, AffineMap],
    named: Mapping[str, Mapping[int, Transcoder]],
    sample: Sample,
) -> dict[int, Imitated]:
    """One pass over a sample, for several sets of transcoders by name; the linear maps go by `LINEAR_MAP`."""
    found = {
        layer: Imitated(
            ExplainedVariance(sample.problems, 1, stream.width, stream.device),
            {name: FiringCounts(members[layer].n_latents, stream.device) for name, members in named.items()},
        )
        for layer in stream.layers
    }
    for block in stream(sample.documents):
        problem, phase = _problems_and_phases(stream, sample, block)
        for layer, x in block.activations.items():
            kept, _ = unmasked(block, layer, statistics[layer], stream.settings)
            labels = token_labels(problem, phase, kept)
            given, output = x[:, 0].float(), x[:, 1:2].float()
            sums, firing = found[layer].variance, found[layer].firing
            sums.add(output, labels)
            sums.add_reconstruction(LINEAR_MAP, [0], output, maps[layer](given)[:, None], labels)
            for name, members in named.items():
                outputs = _counted(members[layer], given, phase, kept, firing[name])
                sums.add_reconstruction(name, [0], output, outputs[:, None], labels)
    return found


def _counted(
    transcoder: Transcoder, x: Float[Tensor, "token unit"], phase: Tensor, kept: Tensor, firing: FiringCounts
) -> Float[Tensor, "token unit"]:
    """The imitated outputs, their codes being added to `firing` some tokens at a time."""
    outputs = []
    for piece, its_phase, its_kept in zip(*(part.split(TOKENS_AT_ONCE) for part in (x, phase, kept)), strict=True):
        code = transcoder.encode(piece)
        firing.add(code, its_phase, its_kept)
        outputs.append(transcoder.decode(code, piece))
    return torch.cat(outputs)


def _problems_and_phases(
    stream: ActivationStream, sample: Sample, block: Block
) -> tuple[Int[Tensor, " token"], Int[Tensor, " token"]]:
    """(number of each token's problem in the sample, its phase code)."""
    problem = torch.from_numpy(sample.number)[block.document.cpu()]
    phase = torch.from_numpy(stream.table.phases)[block.token.cpu()]
    return problem.to(stream.device), phase.long().to(stream.device)
