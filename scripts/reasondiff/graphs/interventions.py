"""Does a model change as its attribution graph says when a latent is ablated or doubled?

The model is the real one, with its own MLPs: a latent is changed by adding to the MLP's output at the latent's position
what the latent's decoder row would write more, or less.

Source: docs/methods.md §10; Ameisen et al. 2025, Circuit Tracing, "validating attribution graph hypotheses".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from circuit_tracer.replacement_model.replacement_model_transformerlens import TransformerLensReplacementModel
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from reasondiff.config import Interventions
from reasondiff.graphs.graph import FEATURE, Graph
from reasondiff.graphs.predictions import Predictions, predict
from reasondiff.graphs.targets import Target

Hook = tuple[str, Callable[..., Tensor]]
FACTORS = (0, 2)
"""What an activation is multiplied by: ablated, doubled."""
STRATIFIED, MATCHED = "stratified", "matched"
COLUMNS = [
    "layer", "position", "feature", "chosen", "stratum", "activation", "predicted_direct", "predicted_total",
    "baseline_norm", "baseline_logit", "factor", "frozen_change", "free_change",
]  # fmt: skip


def intervene(
    model: TransformerLensReplacementModel, graph: Graph, target: Target, settings: Interventions, batch_size: int
) -> pd.DataFrame:
    """One row for each chosen latent and factor: what the graph predicts, what baselines say, what the model does.

    Changes are of the demeaned target logit (the target's minus the mean over the vocabulary, before any soft cap), in
    logits. `free_change`: the model runs on as it will. `frozen_change`: attention patterns, norm scales and the gates
    of MLPs stay as they are without the change; the model is linear then, so an ablation is a doubling with the other
    sign. `predicted_direct` and `predicted_total` are `predictions.predict` for the row's factor.
    `baseline_norm` is activation times the decoder row's norm, which knows no sign; `baseline_logit` what the change
    would do to the logit if it were written where the logit is read (the final norm's scale as it is). Latents as
    `choose_latents` chooses them. A graph without latents gives a table without rows.

    `model` is the replacement model (`replacement.open_replacement`) that the whole `graph` of `target` was traced in;
    `batch_size` interventions run at once.

    Raises:
        ValueError: the graph is of another context or token, or the model's values are not finite.
    """
    nothing = pd.DataFrame({name: [] for name in COLUMNS})
    if not len(graph.nodes_of(FEATURE)):
        return nothing
    predictions = predict(graph, target.target_id)
    chosen = choose_latents(graph, predictions, settings)
    if not len(chosen.nodes):
        return nothing
    if len(target.ids) != len(graph.tokens):
        raise ValueError(f"the graph has {len(graph.tokens)} positions, the context {len(target.ids)}: it is another's")
    run = Run.of(model, target.ids, target.target_id)
    doubled = decoder_pushes(model, graph, chosen.nodes)
    places = np.searchsorted(predictions.nodes, chosen.nodes)
    linear = {
        "predicted_direct": predictions.direct[places],
        "predicted_total": predictions.total[places],
        "baseline_logit": run.written_at_the_end(doubled),
        "frozen_change": run.changes(doubled, True, batch_size),
    }
    free = run.changes(doubled.times([factor - 1 for factor in FACTORS]), False, batch_size)
    latents = {
        **{name: getattr(graph, name)[chosen.nodes] for name in ("layer", "position", "feature")},
        "chosen": chosen.chosen,
        "stratum": chosen.stratum,
        "activation": graph.activation[chosen.nodes].astype(np.float64),
        "baseline_norm": doubled.vectors.double().norm(dim=1).cpu().numpy(),
    }
    tables = [
        pd.DataFrame(latents | {name: value * (factor - 1) for name, value in linear.items()}).assign(
            factor=factor, free_change=change
        )
        for factor, change in zip(FACTORS, np.split(free, len(FACTORS)), strict=True)
    ]
    return pd.concat(tables, ignore_index=True)[COLUMNS]


# ------------------------------------------------------------------------------------------------ which latents


@dataclass(frozen=True)
class Chosen:
    """Latents of a graph, none twice: first the stratified ones, then those matched to them."""

    nodes: Int[np.ndarray, " latent"]
    """Indices of the graph's nodes."""
    chosen: np.ndarray
    """`stratified` or `matched`."""
    stratum: Int[np.ndarray, " latent"]
    """The quantile of the predicted effect, from 0 as the weakest; -1 of matched ones."""


def choose_latents(graph: Graph, predictions: Predictions, settings: Interventions) -> Chosen:
    """`features` latents, evenly from `quantiles` equal groups by the size of their total predicted effect (the whole
    range: the strongest beside random ones alone would inflate a correlation), and for `matched` of them a partner of
    which the prediction was not asked. Fewer where the graph has fewer. Latents with no path to the logit are not
    drawn: that they do nothing is no prediction.
    """
    generator = np.random.default_rng(settings.seed)
    reaching = np.flatnonzero(predictions.total)
    size = np.abs(predictions.total[reaching])
    drawn, stratum = stratified(size, settings.features, settings.quantiles, generator)
    sampled = predictions.nodes[reaching[drawn]]
    asked = generator.permutation(sampled)[: settings.matched]
    partners = matched(graph, asked, np.setdiff1d(predictions.nodes, sampled))
    return Chosen(
        nodes=np.concatenate([sampled, partners]),
        chosen=np.repeat([STRATIFIED, MATCHED], [len(sampled), len(partners)]),
        stratum=np.concatenate([stratum, np.full(len(partners), -1)]),
    )


def stratified(
    effect: Float[np.ndarray, " latent"], count: int, quantiles: int, generator: np.random.Generator
) -> tuple[Int[np.ndarray, " drawn"], Int[np.ndarray, " drawn"]]:
    """(indices, stratum from 0 as the weakest): `count` by lot from `quantiles` groups of equal size, as evenly as can
    be, what does not divide going to the strongest; all where there are no more than `count`."""
    groups = np.array_split(np.argsort(-effect, kind="stable"), quantiles)  # the first ones are the strongest
    wanted = [len(part) for part in np.array_split(np.arange(min(count, len(effect))), quantiles)]
    draws = [generator.permutation(group)[:size] for group, size in zip(groups, wanted, strict=True)]
    stratum = np.repeat(np.arange(quantiles)[::-1], [len(draw) for draw in draws])
    return np.concatenate(draws), stratum


def matched(
    graph: Graph, asked: Int[np.ndarray, " latent"], pool: Int[np.ndarray, " candidate"]
) -> Int[np.ndarray, " partner"]:
    """For each latent one of `pool`, none twice, of the same layer and position class (the target's position, or
    before) with the nearest activation: the smallest sum of the ratios' logarithms. Those that find none have none.

    Source: optimal matching, Rosenbaum 1989, Journal of the American Statistical Association 84, 1024-1032.
    """
    alike = 2 * graph.layer + (graph.position == len(graph.tokens) - 1)
    activation = graph.activation.astype(np.float64)
    partners = []
    for kind in np.unique(alike[asked]):
        seekers, candidates = asked[alike[asked] == kind], pool[alike[pool] == kind]
        ratios = activation[seekers][:, None] / activation[candidates][None]
        _, found = linear_sum_assignment(np.abs(np.log(ratios)))
        partners.append(candidates[found])
    return np.concatenate([np.zeros(0, dtype=pool.dtype), *partners])


# ------------------------------------------------------------------------------------------------ what the model does


@dataclass(frozen=True)
class Pushes:
    """Vectors, each to be added to the output of one layer's MLP at one position, one intervention each."""

    layers: Int[np.ndarray, " push"]
    positions: Int[np.ndarray, " push"]
    vectors: Float[Tensor, "push unit"]

    def times(self, factors: Sequence[int]) -> Pushes:
        """All of them multiplied by the first factor, then all by the second, and so on."""
        vectors = torch.cat([factor * self.vectors for factor in factors])
        return Pushes(np.tile(self.layers, len(factors)), np.tile(self.positions, len(factors)), vectors)


def decoder_pushes(model: TransformerLensReplacementModel, graph: Graph, nodes: Int[np.ndarray, " push"]) -> Pushes:
    """What doubling each latent would add to the MLP's output: its activation times its decoder row."""
    rows = [
        model.transcoders[int(layer)].W_dec[int(feature)].detach()
        for layer, feature in zip(graph.layer[nodes], graph.feature[nodes], strict=True)
    ]
    activations = torch.as_tensor(graph.activation[nodes]).to(rows[0])
    return Pushes(graph.layer[nodes], graph.position[nodes], torch.stack(rows) * activations[:, None])


@dataclass(frozen=True)
class Run:
    """A model on one context, unchanged, and what is needed to say how a change moves the target's logit."""

    model: TransformerLensReplacementModel
    direction: Float[Tensor, " unit"]
    """What the demeaned logit reads of the final norm's output."""
    streams: tuple[Float[Tensor, "1 position unit"], ...]
    """The stream before each block, and after the last."""
    held: Mapping[str, Tensor]
    """By hook: attention patterns, norm scales and what enters the activation functions of MLPs."""

    @classmethod
    @torch.no_grad()
    def of(cls, model: TransformerLensReplacementModel, ids: Sequence[int], target_id: int) -> Run:
        """The unchanged run of `model` on the token ids of a context."""
        kept: dict[str, Tensor] = {}

        def keep(value: Tensor, hook: Any) -> None:
            kept[hook.name] = value

        blocks, frozen = range(model.cfg.n_layers), _held_hooks(model)
        before = [f"blocks.{block}.hook_resid_pre" for block in blocks]
        unembedding = model.W_U.double()
        context = torch.tensor([list(ids)], dtype=torch.long, device=unembedding.device)
        with model.hooks(fwd_hooks=[(name, keep) for name in (*before, *frozen)]):
            end = model(context, stop_at_layer=len(blocks))
            model.ln_final(end[:, -1:])
        return cls(
            model=model,
            direction=unembedding[:, target_id] - unembedding.mean(1),
            streams=(*(kept[name] for name in before), end),
            held={name: kept[name] for name in frozen},
        )

    @torch.no_grad()
    def changes(self, pushes: Pushes, frozen: bool, batch_size: int) -> Float[np.ndarray, " push"]:
        """By how much each push alone changes the logit, in logits.

        `frozen`: attention patterns, norm scales and gates are those of the unchanged run, so that the change is
        proportional to the push. Pushes of one layer run together, from that layer on, since nothing changes below it;
        each batch holds one unchanged row with which the others are compared: sums in float32 depend on its shape.
        """
        found = np.zeros(len(pushes.layers))
        with self.model.hooks(fwd_hooks=_freezing_hooks(self.model, self.held) if frozen else []):
            for layer in map(int, np.unique(pushes.layers)):
                mine = np.flatnonzero(pushes.layers == layer)
                for some in np.split(mine, range(batch_size, len(mine), batch_size)):
                    found[some] = self._changes_from(layer, pushes.positions[some], pushes.vectors[some])
        return found

    def _changes_from(
        self, layer: int, positions: Int[np.ndarray, " push"], vectors: Float[Tensor, "push unit"]
    ) -> Float[np.ndarray, " push"]:
        """By how much pushes of one layer, each in its own row after an unchanged one, change the logit."""

        def add(point: Any, entering: Any, output: Tensor) -> Tensor:
            changed = output.clone()
            changed[torch.arange(1, len(positions) + 1), torch.as_tensor(positions)] += vectors
            return changed

        point = self.model.get_submodule(f"blocks.{layer}.{self.model.feature_output_hook}")
        stream = self.streams[layer].expand(len(positions) + 1, -1, -1)
        with point.register_forward_hook(add):
            end = self.model(stream, start_at_layer=layer, stop_at_layer=self.model.cfg.n_layers)
        return self._against_first(end[:, -1:])

    @torch.no_grad()
    def written_at_the_end(self, pushes: Pushes) -> Float[np.ndarray, " push"]:
        """By how much each push would change the logit if it were added to the stream before the final norm, whose
        scale stays as it is."""
        end = self.streams[-1][:, -1:]
        final = [hook for hook in _freezing_hooks(self.model, self.held) if hook[0].startswith("ln_final.")]
        with self.model.hooks(fwd_hooks=final):
            return self._against_first(end + torch.cat([torch.zeros_like(end), pushes.vectors[:, None]]))

    def _against_first(self, end: Float[Tensor, "row 1 unit"]) -> Float[np.ndarray, " push"]:
        """The target's demeaned logit of all rows but the first, minus that of the first, from the stream after the
        last block. Logits of the other positions and tokens are not worked out: they would not fit the memory."""
        logits = self.model.ln_final(end)[:, 0].double() @ self.direction
        if not torch.isfinite(logits).all():
            bad = int((~torch.isfinite(logits)).sum())
            raise ValueError(
                f"expected finite logits, {bad} of {len(logits)} are not: a weight or an activation overflows; check "
                "the model and the transcoders' decoders"
            )
        return (logits[1:] - logits[0]).cpu().numpy()


# ------------------------------------------------------------------------------------------------ what is frozen


def _held_hooks(model: TransformerLensReplacementModel) -> list[str]:
    """Attention patterns, scales of the norms of the stream, and what enters the MLPs' activation functions."""
    wanted = re.compile(r"attn\.hook_pattern$|(^|\.)ln\w*\.hook_scale$|^blocks\.\d+\.mlp\..*hook_pre$")
    return [name for name in model.hook_dict if wanted.search(name)]


def _freezing_hooks(model: TransformerLensReplacementModel, held: Mapping[str, Tensor]) -> list[Hook]:
    """Hooks under which the model is linear in its stream, with the slope it has in the unchanged run.

    Of a gated MLP, activation(gate) * linear, the gate is held. One without a gate follows the tangent of its
    activation function, which for a ReLU is the same as holding which neurons are active.
    """
    hooks: list[Hook] = []
    for name, value in held.items():
        if name.endswith("hook_pre") and not model.cfg.gated_mlp:
            hooks += _tangent(name, value, _activation(model, name))
        else:
            hooks.append((name, _holding(value)))
    return hooks


def _holding(value: Tensor) -> Callable[..., Tensor]:
    return lambda now, hook: value.expand_as(now)


def _activation(model: TransformerLensReplacementModel, name: str) -> Callable[[Tensor], Tensor]:
    """The activation function of the MLP that a hook belongs to."""
    return model.get_submodule(name.rpartition(".")[0]).act_fn


def _tangent(name: str, before: Tensor, activation: Callable[[Tensor], Tensor]) -> list[Hook]:
    with torch.enable_grad():
        point = before.detach().requires_grad_()
        value = activation(point)
        (slope,) = torch.autograd.grad(value.sum(), point)
    start, entered = value.detach(), []

    def remember(entering: Tensor, hook: Any) -> None:
        entered.append(entering)

    def follow(leaving: Tensor, hook: Any) -> Tensor:
        return start + slope * (entered.pop() - before)

    return [(name, remember), (name.replace("hook_pre", "hook_post"), follow)]
