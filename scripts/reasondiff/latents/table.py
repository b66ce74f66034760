"""What is known about each latent of a crosscoder, in one row?

Source: docs/methods.md §4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from reasondiff.config import Latents
from reasondiff.dictionaries.code import SparseCode
from reasondiff.dictionaries.crosscoder import Crosscoder
from reasondiff.dictionaries.fidelity import FiringCounts
from reasondiff.latents.decodability import Probe, auroc, with_constant
from reasondiff.latents.ownership import cosine, random_cosine, relative_norm, tags
from reasondiff.latents.replication import ReplicaSums, alone, siblings
from reasondiff.latents.scaling import Scaling, ScalingSums, scale_latents
from reasondiff.models.stream import ActivationStream, Block, SiteStatistics, unmasked
from reasondiff.text.rendering import PHASE_CODE, PHASES
from reasondiff.text.tokens import TokenTable

NEAR_FOREIGN = 3  # tokens, to either side
BOOTSTRAP_RESAMPLES = 200


def near_foreign(table: TokenTable, foreign_ids: Sequence[int]) -> Bool[np.ndarray, " token"]:
    """True for tokens within `NEAR_FOREIGN` positions of a foreign id in the same document (itself included)."""
    foreign = np.isin(table.ids, np.array(sorted(foreign_ids), dtype=table.ids.dtype))
    document = np.repeat(np.arange(len(table)), table.lengths())
    near = foreign.copy()
    for shift in range(1, NEAR_FOREIGN + 1):
        same = document[shift:] == document[:-shift]
        near[shift:] |= foreign[:-shift] & same
        near[:-shift] |= foreign[shift:] & same
    return near


@dataclass
class _Gathered:
    """Everything one crosscoder needs from the passes over text."""

    firing: FiringCounts
    near: Tensor  # (latent,) firings near a foreign token, masked tokens included
    all_firings: Tensor  # (latent,) firings on all tokens
    scaling: ScalingSums
    probes: list[Probe]
    test_codes: list[SparseCode]


class SiteDescription:
    """Describes the latents of every crosscoder of one site; they share each forward pass."""

    def __init__(
        self,
        stream: ActivationStream,
        layer: int,
        statistics: SiteStatistics,
        crosscoders: dict[str, Crosscoder],
        settings: Latents,
        seed: int,
    ):
        self.stream, self.layer, self.statistics = stream, layer, statistics
        self.crosscoders, self.settings, self.seed = crosscoders, settings, seed
        self.near = near_foreign(stream.table, stream.foreign.tolist())
        self.gathered = {name: self._empty(crosscoder) for name, crosscoder in crosscoders.items()}
        groups = [group for group in siblings(list(crosscoders)) if len(group) > 1]
        self.replicas = [ReplicaSums({name: crosscoders[name] for name in group}) for group in groups]
        self.test_activations: list[Tensor] = []  # raw, [token, model, unit]: what the probes are judged on
        self.test_tokens = 0

    def _empty(self, crosscoder: Crosscoder) -> _Gathered:
        device, latents, width = self.stream.device, crosscoder.n_latents, crosscoder.width
        zeros = torch.zeros(latents, dtype=torch.int64, device=device)
        probes = [Probe(width, latents, device) for _ in range(crosscoder.n_models)]
        scaling = ScalingSums(crosscoder, self.settings.problem_groups)
        return _Gathered(FiringCounts(latents, device), zeros, zeros.clone(), scaling, probes, [])

    def run(self) -> dict[str, pd.DataFrame]:
        """{name: latent table}."""
        for block in self._blocks("score", self.settings.probe_tokens):
            self._fit_probes(block)
        for block in self._blocks("report", self.settings.tokens):
            self._read(block)
        return {name: self._table(name, self.gathered[name]) for name in self.crosscoders}

    def _blocks(self, part: str, tokens: int):
        seen = 0
        for block in self.stream(self.stream.table.documents_of(part)):
            yield block
            seen += len(block.token)
            if seen >= tokens:
                return

    # ------------------------------------------------------------------------------------------- passes

    def _fit_probes(self, block: Block) -> None:
        kept, _ = unmasked(block, self.layer, self.statistics, self.stream.settings)
        x = block.activations[self.layer][kept].float()
        for name, crosscoder in self.crosscoders.items():
            sides = x[:, crosscoder.sides]
            code = crosscoder.encode(sides)
            for side, probe in enumerate(self.gathered[name].probes):
                probe.add(sides[:, side] * crosscoder.scale[side], code)

    def _read(self, block: Block) -> None:
        table, device = self.stream.table, self.stream.device
        kept, _ = unmasked(block, self.layer, self.statistics, self.stream.settings)
        token = block.token.cpu().numpy()
        phase = torch.from_numpy(table.phases[token]).long().to(device)
        near = torch.from_numpy(self.near[token]).to(device)
        problem = torch.from_numpy(table.problem[block.document.cpu().numpy()]).long().to(device)
        group = problem % self.settings.problem_groups  # problems are numbered by hash, so groups are random
        x = block.activations[self.layer].float()
        tested = self.test_tokens < self.settings.probe_tokens  # bounds memory, whatever `tokens` says
        if tested:
            self.test_activations.append(x[kept])
            self.test_tokens += int(kept.sum())
        codes = {}
        for name, crosscoder in self.crosscoders.items():
            gathered, sides = self.gathered[name], x[:, crosscoder.sides]
            every = crosscoder.encode(sides)
            gathered.firing.add(every, phase, kept)
            gathered.all_firings += torch.bincount(every.latents, minlength=crosscoder.n_latents)
            gathered.near += torch.bincount(every.latents[near[every.rows]], minlength=crosscoder.n_latents)
            code = codes[name] = every.on_rows(kept)
            gathered.scaling.add(sides[kept], code, group[kept])
            if tested:
                gathered.test_codes.append(code)
        for replicas in self.replicas:
            replicas.add(codes)

    # ------------------------------------------------------------------------------------------- the table

    def _table(self, name: str, gathered: _Gathered) -> pd.DataFrame:
        crosscoder = self.crosscoders[name]
        decoder = crosscoder.normalised_decoder().cpu().numpy()
        encoder = crosscoder.normalised_encoder().cpu().numpy()
        norm = crosscoder.norm.cpu().numpy()
        firing = gathered.firing
        live = (firing.firings() > 0).cpu().numpy()
        delta = relative_norm(norm[0], norm[-1])
        frame = pd.DataFrame({"latent": np.arange(crosscoder.n_latents)})
        for side in range(crosscoder.n_models):
            frame[f"decoder_norm_{side}"] = norm[side]
            frame[f"encoder_norm_{side}"] = np.linalg.norm(encoder[side], axis=1)
        frame["delta"] = delta
        frame["tag"] = tags(delta, live, self.settings)
        frame["decoder_cosine"] = cosine(decoder[0], decoder[-1])
        frame["encoder_cosine"] = cosine(encoder[0], encoder[-1])
        for column, values in _firing_columns(gathered).items():
            frame[column] = values
        scaling = scale_latents(gathered.scaling, BOOTSTRAP_RESAMPLES, self.seed)
        owner = (delta < 0.5).astype(int)  # 0: the first model owns it, 1: the last
        frame["owner"] = owner
        for column, values in scaling_columns(scaling, owner, self.settings).items():
            frame[column] = values
        areas = self._decodability(crosscoder, gathered)
        frame["auroc_owner"] = np.where(owner == 0, areas[0], areas[-1])
        frame["auroc_other"] = np.where(owner == 0, areas[-1], areas[0])
        replicas = next((sums for sums in self.replicas if name in sums.names), None)
        limits = (frame["firings"].to_numpy(), self.settings.replication, self.settings.min_firings)
        for column, values in (replicas.columns(name, *limits) if replicas else alone(*limits)).items():
            frame[column] = values
        frame.attrs["facts"] = {
            "replica_random_cosine": replicas.random_cosine(name) if replicas else None,
            "decoder_random_cosine": random_cosine(decoder[0], decoder[-1], self.seed),
            "encoder_random_cosine": random_cosine(encoder[0], encoder[-1], self.seed),
            "unmasked_tokens": firing.unmasked_tokens(),
            "dead_rate_bound": 3 / max(1, firing.unmasked_tokens()),
        }
        return frame

    def _decodability(self, crosscoder: Crosscoder, gathered: _Gathered) -> list[np.ndarray]:
        """Per side the AUROC of each latent; NaN where its probe was fitted on too few firings to be judged."""
        code = _joined(gathered.test_codes)
        areas = []
        for side, probe in enumerate(gathered.probes):
            own = torch.cat([x[:, crosscoder.sides[side]] for x in self.test_activations])
            area = auroc(with_constant(own * crosscoder.scale[side]), probe.weights(self.settings.ridge), code)
            area[probe.firings < self.settings.min_firings] = torch.nan
            areas.append(area.cpu().numpy())
        return areas


def _joined(codes: list[SparseCode]) -> SparseCode:
    """Codes of successive batches as one."""
    starts = np.cumsum([0, *(code.n_rows for code in codes)])
    rows = torch.cat([code.rows + int(start) for code, start in zip(codes, starts[:-1], strict=True)])
    latents, values = torch.cat([code.latents for code in codes]), torch.cat([code.values for code in codes])
    return SparseCode(rows, latents, values, int(starts[-1]), codes[0].n_latents)


def _firing_columns(gathered: _Gathered) -> dict[str, np.ndarray]:
    """Firing rates (shares of unmasked tokens), activations, and where the firings lie."""
    firing = gathered.firing
    firings = firing.firings().cpu().numpy()
    columns = {"firings": firings, "rate": firing.rate().cpu().numpy()}
    for code, phase in enumerate(PHASES):
        tokens = int(firing.tokens[code, 1])
        rate = firing.fired[code, 1].cpu().numpy() / max(1, tokens)
        columns[f"rate_{phase}"] = rate if tokens else np.full(len(rate), np.nan)
    columns["mean_activation"] = firing.mass.cpu().numpy() / np.maximum(firings, 1)
    columns["max_activation"] = firing.peak.cpu().numpy()
    everywhere = firing.fired.sum((0, 1)).cpu().numpy()
    template = firing.fired[PHASE_CODE["template"]].sum(0).cpu().numpy()
    columns["template_share"] = template / np.maximum(everywhere, 1)
    columns["near_foreign_share"] = gathered.near.cpu().numpy() / np.maximum(gathered.all_firings.cpu().numpy(), 1)
    columns["template"] = columns["near_foreign_share"] > 0.5
    return columns


def scaling_columns(scaling: Scaling, owner: np.ndarray, settings: Latents) -> dict[str, np.ndarray]:
    """The owner's side of latent scaling for each latent, and the verdict `scaling`.

    `specific`: nu_reconstruction < 0.5 and nu_error < 0.2; `not_specific`: otherwise; `undetermined` (and NaN) where
    the owner's interval reaches 0 (or there is none) or the latent fires under `min_firings` times.
    """
    latent = np.arange(len(owner))
    undetermined = ~(scaling.owner_low[owner, latent] > 0) | (scaling.firings < settings.min_firings)
    columns = {}
    for name, label in (("fit", "nu_reconstruction"), ("error", "nu_error")):
        for end in ("", "_low", "_high"):
            values = getattr(scaling, f"nu_{name}{end}")[owner, latent]
            columns[f"{label}{end}"] = np.where(undetermined, np.nan, values)
    specific = (columns["nu_reconstruction"] < settings.nu_reconstruction) & (columns["nu_error"] < settings.nu_error)
    columns["scaling"] = np.where(undetermined, "undetermined", np.where(specific, "specific", "not_specific"))
    side = np.where(owner == 0, 0, len(scaling.free_r2) - 1)
    columns["free_r2_owner"] = scaling.free_r2[side, latent]
    columns["free_r2_other"] = scaling.free_r2[len(scaling.free_r2) - 1 - side, latent]
    return columns


def crosscoders_only(dictionaries: dict[str, Crosscoder]) -> dict[str, Crosscoder]:
    """Those that read two models or more: a latent of a single model has no owner to ask for."""
    return {name: dictionary for name, dictionary in dictionaries.items() if dictionary.n_models > 1}
