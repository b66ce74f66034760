"""Are the dictionaries of one site good enough to read anything from them?

All dictionaries of a site (pair, text, layer) share each forward pass. Explained variance, sparsity and dead latents
come from one pass over held-out text; cross-entropy and KL from splicing reconstructions back into each model.

Source: docs/methods.md §5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from reasondiff.config import Evaluation
from reasondiff.dictionaries.baselines import LinearBaselines, fit_baselines
from reasondiff.dictionaries.code import SparseCode, active
from reasondiff.dictionaries.crosscoder import Crosscoder
from reasondiff.dictionaries.fidelity import ExplainedVariance, FiringCounts, token_labels
from reasondiff.dictionaries.spliced_losses import LOSSES, SPLICED_PHASES, spliced_rows
from reasondiff.dictionaries.threshold import ThresholdSearch
from reasondiff.models.load import load_model
from reasondiff.models.stream import ActivationStream, Block, SiteStatistics, unmasked
from reasondiff.statistics import Estimate, bootstrap, one_minus_ratio, ratio
from reasondiff.text.rendering import PHASES

Reconstruct = Callable[[Float[Tensor, "token model unit"]], Float[Tensor, "token unit"]]
Variant = tuple[str, str, str]
TOKENS_AT_ONCE = 4096
DENSE_RATE = 0.10
RARE_RATE = 1e-6
COLUMNS = ["quantity", "model", "part", "phase", "mask", "at", "value", "low", "high", "n", "n_unit", "n_tokens"]


@dataclass
class Rows:
    """The long table of figures that an evaluation writes: one row per figure, with n and its unit."""

    rows: list[dict] = field(default_factory=list)

    def add(
        self, quantity: str, estimate: Estimate | float, n_unit: str, n: int | None = None, **where: object
    ) -> None:
        if isinstance(estimate, Estimate):
            figures = {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}
        else:
            figures = {"value": estimate, "low": float("nan"), "high": float("nan"), "n": n}
        self.rows.append({"quantity": quantity, "n_unit": n_unit, **figures, **where})

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows, columns=COLUMNS)


class SiteEvaluation:
    """Evaluates every dictionary of one site on one stream; `run` gives a table per dictionary and one of baselines."""

    def __init__(
        self,
        stream: ActivationStream,
        layer: int,
        statistics: SiteStatistics,
        dictionaries: dict[str, Crosscoder],
        settings: Evaluation,
    ):
        self.stream, self.layer, self.statistics = stream, layer, statistics
        self.dictionaries, self.settings = dictionaries, settings
        self.table = stream.table
        self.problems = int(self.table.problem.max()) + 1
        self.names = [info.name for info in stream.infos]
        self.tables = {name: Rows() for name in [*dictionaries, "baselines"]}

    def run(self) -> dict[str, pd.DataFrame]:
        """{dictionary name or "baselines": long table}."""
        self._fit()
        self._explained_variance("report", self.settings.tokens)
        if len(self.table.documents_of("family")):
            self._explained_variance("family", self.settings.tokens // 4)
        self._splice()
        return {name: rows.table() for name, rows in self.tables.items()}

    # ------------------------------------------------------------------------------------------- fitting

    def _fit(self) -> None:
        """Fits the baselines and the thresholds of matched L0, on the `calibrate` part."""
        kept = torch.cat(list(self._kept_activations("calibrate", self.settings.threshold_tokens)))
        self.baselines: LinearBaselines = fit_baselines(kept)
        self.matched = {name: self._matched(dictionary, kept) for name, dictionary in self.dictionaries.items()}
        l0s = {round(dictionary.k) for dictionary in self.dictionaries.values() if dictionary.k}
        self.components = sorted(l0s | {round(target) for target in self.settings.matched_l0})

    def _matched(self, dictionary: Crosscoder, kept: Tensor) -> dict[float, float]:
        """{mean L0: the dictionary's threshold there}, without those that it does not reach."""
        searches = {target: ThresholdSearch(target, len(kept)) for target in self.settings.matched_l0}
        for batch in kept.split(TOKENS_AT_ONCE):
            activations = dictionary.activations(batch[:, dictionary.sides])
            for search in searches.values():
                search.add(activations)
        found = {target: search.threshold() for target, search in searches.items()}
        return {target: theta for target, theta in found.items() if theta > 0}

    def _kept_activations(self, part: str, tokens: int):
        seen = 0
        for block in self.stream(self.table.documents_of(part)):
            kept, _ = unmasked(block, self.layer, self.statistics, self.stream.settings)
            rows = block.activations[self.layer][kept].float()
            yield rows[: tokens - seen]
            seen += len(rows)
            if seen >= tokens:
                return

    # ------------------------------------------------------------------------------------------- explained variance

    def _explained_variance(self, part: str, tokens: int) -> None:
        sums = ExplainedVariance(self.problems, len(self.names), self.stream.width, self.stream.device)
        firing = {name: FiringCounts(d.n_latents, self.stream.device) for name, d in self.dictionaries.items()}
        seen = 0
        for block in self.stream(self.table.documents_of(part)):
            x = block.activations[self.layer].float()
            kept, _ = unmasked(block, self.layer, self.statistics, self.stream.settings)
            problem, phase = self._labels(block)
            labels = token_labels(problem, phase, kept)
            sums.add(x, labels)
            for (name, at), sides, code, reconstruction in self._reconstructions(x):
                sums.add_reconstruction(f"{name} {at}", sides, x, reconstruction, labels)
                if code is not None and at == "threshold":
                    firing[name].add(code, phase, kept)
            seen += len(x)
            if seen >= tokens:
                break
        if not seen:
            return
        for name, at, sides in self._measured():
            self._write_fve(name, at, sides, sums, part)
        if part == "report":
            for name, counts in firing.items():
                self._write_sparsity(name, counts)

    def _measured(self) -> list[tuple[str, str, list[int]]]:
        """(table, row label, sides) of everything whose explained variance is measured."""
        every_side = list(range(len(self.names)))
        found = []
        for name, dictionary in self.dictionaries.items():
            labels = ["threshold", *(f"l0={target:g}" for target in self.matched[name])]
            found += [(name, label, dictionary.sides) for label in labels]
        labels = [*(f"pca{count}" for count in self.components), "linear_from_others"]
        return found + [("baselines", label, every_side) for label in labels]

    def _reconstructions(self, x: Tensor) -> Iterator[tuple[tuple[str, str], list[int], SparseCode | None, Tensor]]:
        """((table, row label), sides, code if it has one, reconstruction) of everything in `_measured`, one by one."""
        every_side = list(range(len(self.names)))
        for name, dictionary in self.dictionaries.items():
            activations = dictionary.activations(x[:, dictionary.sides])
            thresholds = {"threshold": dictionary.threshold}
            thresholds |= {f"l0={target:g}": theta for target, theta in self.matched[name].items()}
            for label, theta in thresholds.items():
                code = active(activations, theta)
                yield (name, label), dictionary.sides, code, dictionary.decode(code)
        for count in self.components:
            yield ("baselines", f"pca{count}"), every_side, None, self.baselines.principal(x, count)
        yield ("baselines", "linear_from_others"), every_side, None, self.baselines.from_others(x)

    def _labels(self, block: Block) -> tuple[Tensor, Tensor]:
        """(problem, phase code) of each token, on the stream's device."""
        problem = torch.from_numpy(self.table.problem)[block.document.cpu()]
        phase = torch.from_numpy(self.table.phases)[block.token.cpu()]
        return problem.long().to(self.stream.device), phase.long().to(self.stream.device)

    def _write_fve(self, name: str, at: str, sides: list[int], sums: ExplainedVariance, part: str) -> None:
        in_detail = part == "report" and at == "threshold"
        for side in sides:
            for mask in ("unmasked", "all"):
                for phase in ("all", *PHASES) if in_detail else ("all",):
                    estimate, tokens = sums.estimate(
                        f"{name} {at}", side, phase, mask == "unmasked", self.settings.bootstrap, self.settings.seed
                    )
                    if tokens:
                        where = {"part": part, "phase": phase, "mask": mask, "at": at, "n_tokens": tokens}
                        self.tables[name].add("fve", estimate, "problems", model=self.names[side], **where)

    def _write_sparsity(self, name: str, counts: FiringCounts) -> None:
        dictionary, rows = self.dictionaries[name], self.tables[name]
        tokens, rate = counts.unmasked_tokens(), counts.rate()
        where = {"model": "pair", "part": "report", "phase": "all", "mask": "unmasked", "n_tokens": tokens}
        rows.add("l0", float(rate.sum()), "tokens", tokens, at="threshold", **where)
        rule = float(dictionary.k) if dictionary.k else float(rate.sum())
        rows.add("l0", rule, "tokens", tokens, at="training_rule", **where)
        latents = len(rate)
        dead = float((counts.firings() == 0).double().mean())
        rows.add("dead_share", dead, "latents", latents, at="threshold", **where)
        rows.add("dead_rate_bound", 3 / max(1, tokens), "tokens", tokens, at="threshold", **where)
        rare = float(((rate > 0) & (rate < RARE_RATE)).double().mean())
        rows.add("rare_share", rare, "latents", latents, at="threshold", **where)
        rows.add("dense_share", float((rate > DENSE_RATE).double().mean()), "latents", latents, at="threshold", **where)

    # ------------------------------------------------------------------------------------------- spliced loss

    def _splice(self) -> None:
        """KL and CE of each model with its site replaced: by each dictionary, by the mean, by itself."""
        for side in range(len(self.names)):
            self._splice_model(side, self._variants(side))

    def _variants(self, side: int) -> dict[Variant, Reconstruct]:
        """What one model's site is replaced by: (table, row label, mask) -> function of the pair's activations that
        gives the model's own. With mask `unmasked` sinks and first positions stay as they are, with `all` none does."""
        mean = self.baselines.mean[side].float()
        found: dict[Variant, Reconstruct] = {
            ("baselines", "mean_ablation", "unmasked"): lambda x: mean.expand_as(x[:, side]),
            ("baselines", "mean_ablation", "all"): lambda x: mean.expand_as(x[:, side]),
            ("baselines", "identity", "unmasked"): lambda x: x[:, side],
        }
        for name, dictionary in self.dictionaries.items():
            if side in dictionary.sides:
                for mask in ("unmasked", "all"):
                    found[name, "threshold", mask] = _reconstruction_of(dictionary, side)
        return found

    def _splice_model(self, side: int, variants: dict[Variant, Reconstruct]) -> None:
        info = self.stream.infos[side]
        model = load_model(info, self.stream.device, str(self.stream.models[side].dtype).removeprefix("torch."))
        sums = {key: np.zeros((self.problems, len(SPLICED_PHASES), len(LOSSES))) for key in variants}
        for rows in spliced_rows(self.stream, self.layer, self.statistics, model, self.settings.spliced_tokens):
            for key, function in variants.items():
                replaced = rows.kept if key[2] == "unmasked" else torch.ones_like(rows.kept)
                rows.add(sums[key], torch.where(replaced[:, None], function(rows.x), rows.x[:, side]))
        self._write_spliced(info.name, sums)

    def _write_spliced(self, model: str, sums: dict[Variant, np.ndarray]) -> None:
        resamples, seed = self.settings.bootstrap, self.settings.seed
        for (name, label, mask), total in sums.items():
            for index, phase in enumerate(SPLICED_PHASES):
                part, floor = total[:, index], sums["baselines", "mean_ablation", mask][:, index]
                targets = int(part[:, 3].sum())
                if not targets:
                    continue
                where = {"model": model, "part": "report", "phase": phase, "mask": mask, "at": label}
                where["n_tokens"] = targets
                columns = {"kl": part[:, [0, 3]], "ce_original": part[:, [1, 3]], "ce_spliced": part[:, [2, 3]]}
                columns["ce_increase"] = np.stack([part[:, 2] - part[:, 1], part[:, 3]], axis=1)
                for quantity, values in columns.items():
                    estimate = bootstrap(values, ratio, resamples, seed)
                    self.tables[name].add(f"{quantity}_nats", estimate, "problems", **where)
                against_mean = np.stack([part[:, 0], floor[:, 0]], axis=1)
                recovered = bootstrap(against_mean, one_minus_ratio, resamples, seed)
                self.tables[name].add("kl_recovered", recovered, "problems", **where)


def _reconstruction_of(dictionary: Crosscoder, side: int) -> Reconstruct:
    """One model's activations as a dictionary gives them back at its inference threshold."""

    def reconstruct(x: Tensor) -> Tensor:
        return dictionary.decode(dictionary.encode(x[:, dictionary.sides]))[:, dictionary.sides.index(side)]

    return reconstruct
