"""What becomes of the targets of a model with one seed of its transcoders?

Each becomes the graph of what makes the model say a token, and a table of interventions that test it; one that cannot
be traced becomes an empty graph that says why, and takes no other with it.

Source: docs/methods.md §10; Ameisen et al. 2025, Circuit Tracing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from reasondiff.config import Graphs
from reasondiff.dictionaries.transcoder import Transcoder
from reasondiff.graphs.attribution import attributed, explained_logits, share_skip, whole_graph
from reasondiff.graphs.frozen import FrozenContext
from reasondiff.graphs.graph import Graph, no_graph, write_graph
from reasondiff.graphs.influence import influences, scores
from reasondiff.graphs.interventions import COLUMNS as INTERVENTION_COLUMNS
from reasondiff.graphs.interventions import intervene
from reasondiff.graphs.pruning import stored_part
from reasondiff.graphs.replaced import compare_replaced
from reasondiff.graphs.replacement import Replacement, open_replacement, own_model, refuse_other_logits
from reasondiff.graphs.targets import Target
from reasondiff.job import peak_memory_gib
from reasondiff.models.load import ModelInfo, load_tokenizer
from reasondiff.store import ArtefactError, fingerprint, is_finished, read_card, write_table

log = logging.getLogger(__name__)

TRACED, NONE, FAILED = "traced", "none", "failed"
"""Of a graph: there is one; the prompt has no such target; it could not be traced."""
SETTINGS = ("window", "max_features", "batch_size", "runners_up")
"""Settings that a whole graph depends on."""
STORED = (*SETTINGS, "stored_share", "stored_nodes")
"""And those that its file depends on as well."""
COSTS = [
    "model", "seed", "prompt_id", "target", "status", "tokens", "active", "features", "seconds", "peak_memory_gib",
]  # fmt: skip


class TraceError(ValueError):
    """A target cannot be traced in this model."""


@dataclass(frozen=True)
class Subject:
    """A model with one seed of its transcoders."""

    info: ModelInfo
    seed: int
    """Of the transcoders."""
    transcoders: Mapping[int, Transcoder]
    """By layer."""
    digests: tuple[str, ...]
    """Of their files."""
    first_positions: int
    """So many tokens of a context keep the model's own MLPs when all are replaced."""
    device: str


@dataclass(frozen=True)
class Files:
    """What one target becomes."""

    graph: str
    interventions: str


# ------------------------------------------------------------------------------------------------ all targets


def trace_all(
    subject: Subject,
    targets: Sequence[Target],
    files: Sequence[Files],
    settings: Graphs,
    code: str,
    before: pd.DataFrame | None,
) -> pd.DataFrame:
    """Traces the targets whose files are not finished yet and writes each at once; what each cost (`COSTS`).

    Seconds include interventions. Memory is the peak so far of the process on a processor, of the target alone on a
    graphics card. Rows of targets that are kept come from the table `before`, if there is one. A target that failed is
    tried again in the next run.

    Raises:
        ArtefactError, ModelError: of the subject, as `open_replacement`.
        torch.AcceleratorError: the graphics card does not answer any more.
    """
    cards = [_card(subject, target, settings, code) for target in targets]
    todo = [not _is_kept(*one) for one in zip(files, cards, strict=True)]
    log.info("trace %d of %d targets, keep the others", sum(todo), len(todo))
    known = {} if before is None else {(row["prompt_id"], row["target"]): row for row in before.to_dict("records")}
    model, rows = None, []
    for target, file, card, is_todo in zip(targets, files, cards, todo, strict=True):
        cost = known.get((target.prompt_id, target.target), {})
        if is_todo:
            if model is None and target.reason is None:
                model = _opened(subject, settings)
            cost = _trace_and_write(model, subject, target, file, settings, card)
        rows.append({**_named(subject, target), **cost})
    return pd.DataFrame(rows, columns=COSTS)


def _opened(subject: Subject, settings: Graphs) -> Replacement:
    tokenizer = load_tokenizer(subject.info.folder)
    return open_replacement(subject.info, subject.transcoders, tokenizer, subject.device, settings.window)


def _card(subject: Subject, target: Target, settings: Graphs, code: str) -> dict[str, Any]:
    """All that determines the files of a target."""
    card = {
        "kind": "graph",
        "model": [subject.info.name, subject.info.weights_digest],
        "seed": subject.seed,
        "transcoders": list(subject.digests),
        "first_positions": subject.first_positions,
        "of": asdict(target),
        "settings": settings.model_dump(mode="json", include={*STORED}),
        "interventions": settings.interventions.model_dump(mode="json", exclude={"bootstrap"}),
        "code": code,
    }
    return {**card, "fingerprint": fingerprint(**card)}


def _is_kept(files: Files, card: Mapping[str, Any]) -> bool:
    whole = all(is_finished(path, card["fingerprint"]) for path in (files.graph, files.interventions))
    return whole and read_card(files.graph)["status"] != FAILED


def _named(subject: Subject, target: Target) -> dict[str, Any]:
    return {
        "model": subject.info.name,
        "seed": subject.seed,
        "prompt_id": target.prompt_id,
        "target": target.target,
        "tokens": len(target.ids),
    }


def _trace_and_write(
    model: Replacement | None,
    subject: Subject,
    target: Target,
    files: Files,
    settings: Graphs,
    card: Mapping[str, Any],
) -> dict[str, Any]:
    """Writes the files of a target; its costs."""
    started, on_card = time.perf_counter(), subject.device.startswith("cuda")
    if on_card:
        torch.cuda.reset_peak_memory_stats()
    graph, interventions = _traced(model, subject, target, settings)
    facts = {name: graph.facts.get(name) for name in ("status", "active", "features")}
    card = {**card, "status": facts["status"]}
    write_table(files.interventions, interventions, card)
    write_graph(files.graph, graph, card)
    gib = torch.cuda.max_memory_allocated() / 2**30 if on_card else peak_memory_gib()
    return {**facts, "seconds": time.perf_counter() - started, "peak_memory_gib": gib}


def _traced(
    model: Replacement | None, subject: Subject, target: Target, settings: Graphs
) -> tuple[Graph, pd.DataFrame]:
    """The stored part of a target's graph and its interventions, both empty where it cannot be traced; without a
    `model` there is no such target."""
    nothing = pd.DataFrame({name: [] for name in INTERVENTION_COLUMNS})
    if model is None or target.reason is not None:
        return no_graph((), _facts(subject, target, settings, NONE), str(target.reason)), nothing
    try:
        graph = trace(model, subject, target, settings)
        interventions = intervene(model, graph, target, settings.interventions, settings.batch_size)
        return stored_part(graph, settings.stored_share, settings.stored_nodes), interventions
    except torch.AcceleratorError:
        raise
    except Exception as error:
        if subject.device.startswith("cuda"):
            torch.cuda.synchronize()  # raises if the card has failed: then no other target can be traced
        reason = f"{type(error).__name__}: {error}"
        log.warning("%s, target %s: %s", target.prompt_id, target.target, reason, exc_info=True)
        return no_graph((), _facts(subject, target, settings, FAILED), reason), nothing


def select_targets(targets: Sequence[Target], wanted: Sequence[Sequence[str]]) -> list[Target]:
    """Those of some (prompt, target) names, in their order.

    Raises:
        ArtefactError: there is none of that name.
    """
    known = {(one.prompt_id, one.target): one for one in targets}
    if missing := [" ".join(names) for names in wanted if tuple(names) not in known]:
        raise ArtefactError(f"the table of targets lacks {', '.join(missing)}: delete it and run again")
    return [known[tuple(names)] for names in wanted]


# ------------------------------------------------------------------------------------------------ one target


@torch.no_grad()
def trace(model: Replacement, subject: Subject, target: Target, settings: Graphs) -> Graph:
    """The whole graph of a target: the latents that fire in the window (of more than `max_features` the most
    influential), all errors and embeddings, and a logit for the target's token and each of its runners-up.

    What is written by latents that are not in the graph counts as error of their block and position, so that the edges
    into a node always sum to what it reads, but for constants. Its facts are described in docs/methods.md §10.

    Raises:
        TraceError: the context is too short or longer than the model's, or an id is not in its vocabulary.
        ModelError: TransformerLens computes other logits than Hugging Face, or some that are not finite.
        ValueError: an edge is not finite.
    """
    _refuse_impossible(model, target)
    ids = torch.tensor(target.ids, device=model.cfg.device)
    context = FrozenContext(model, ids)
    logits = context.traced.logits[0]
    own = own_model(model)(ids[None]).logits[0]
    refuse_other_logits(subject.info.name, logits, own)
    named = explained_logits(model, logits[-1], target.target_id, settings.runners_up)
    rows = attributed(context, named, settings.max_features, settings.batch_size)
    tokens = tuple(_string(model, one) for one in target.ids)
    graph = whole_graph(context, rows, named, target.ids, tokens)
    replaced = compare_replaced(own_model(model), subject.transcoders, ids, own[-1], subject.first_positions)
    facts = {
        **_facts(subject, target, settings, TRACED),
        **_said(logits[-1], target.target_id),
        "logit_tokens": {str(one): _string(model, one) for one in named.ids.tolist()},
        "active": len(context.latents),
        "features": len(rows.chosen),
        "included": rows.included,
        **asdict(scores(graph)),
        "share_skip": share_skip(context, rows, named),
        "coverage": len(subject.transcoders) / subject.info.layers,
        "replaced_kl": replaced.kl,
        "replaced_top1": replaced.top1,
    }
    return replace(graph, influence=influences(graph).astype(np.float32), facts=facts)


def _facts(subject: Subject, target: Target, settings: Graphs, status: str) -> dict[str, Any]:
    """What is known of a target before it is traced."""
    return {
        "model": subject.info.name,
        "seed": subject.seed,
        "prompt_id": target.prompt_id,
        "category": target.category,
        "target": target.target,
        "phase": target.phase,
        "status": status,
        "reason": None,
        "target_id": target.target_id,
        "target_token": target.target_token,
        "blocks": subject.info.layers,
        "ids": list(target.ids),
        "window": settings.window,
        "max_features": settings.max_features,
        "transcoders": list(subject.digests),
        "settings": {name: getattr(settings, name) for name in SETTINGS},
    }


def _said(logits: Float[Tensor, " token"], target_id: int) -> dict[str, float]:
    """What the traced model expects: the target's probability, the entropy in nats, and the logit over the mean."""
    logs = logits.double().log_softmax(0)
    return {
        "probability": float(logs[target_id].exp()),
        "entropy": float(-(logs.exp() * logs).sum()),
        "logit_difference": float(logits[target_id].double() - logits.double().mean()),
    }


def _string(model: Replacement, token_id: int) -> str:
    return model.tokenizer.decode([token_id])


def _refuse_impossible(model: Replacement, target: Target) -> None:
    ids, longest, vocabulary = target.ids, model.cfg.n_ctx, model.cfg.d_vocab
    if len(ids) < 2:
        raise TraceError(f"the context has {len(ids)} token(s); the first is never attributed, so it takes two")
    if len(ids) > longest:
        raise TraceError(f"the context has {len(ids)} tokens, the model takes {longest}: choose an earlier target")
    if strange := sorted({one for one in [*ids, target.target_id] if not 0 <= one < vocabulary}):
        raise TraceError(f"ids {strange} are not in the model's vocabulary of {vocabulary}: another tokenizer's?")
