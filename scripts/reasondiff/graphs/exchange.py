"""How does an attribution graph look in the JSON that Neuronpedia and circuit-tracer's viewer read?

Ours differ from circuit-tracer's files in three ways. An error's id is `<layer>_error_<position>`, since
circuit-tracer's `0_<layer>_<position>` may be a latent's of layer 0 as well; labels stand in `clerp`; and the metadata
say how the graph was made and pruned. A node's `influence` is, as there, the share of all influence that it carries
with all more influential nodes, at which the viewer's slider cuts; its own is `influence_share`. All facts of a graph
stand in `metadata.reasondiff`, so that it comes back the same.

Source: docs/methods.md §10; hijohnnylin/neuronpedia, apps/webapp/app/api/graph/graph-schema.json; circuit-tracer 0.5.0,
frontend/graph_models.py.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from jaxtyping import Shaped
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from reasondiff.graphs.graph import EMBEDDING, ERROR, FEATURE, KINDS, LOGIT, NO_FEATURE, Graph, make_graph, no_graph
from reasondiff.graphs.pruning import ranked
from reasondiff.store import ArtefactError

log = logging.getLogger(__name__)

Labels = Mapping[tuple[int, int], str]
"""(layer, latent) -> words."""
TYPES = ("cross layer transcoder", "mlp reconstruction error", "embedding", "logit")
"""What the format calls each of `KINDS`; it has one name for latents of all transcoders."""
EMBEDDING_LAYER = "E"


# ----------------------------------------------------------------------------------------------- the schema


class Loose(BaseModel):
    """Types and required keys are those of the schema, which lets further keys through."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class GenerationSettings(Loose):
    max_n_logits: int = 0
    desired_logit_prob: float = 0.0
    batch_size: int = 0
    max_feature_nodes: int = 0


class PruningSettings(Loose):
    node_threshold: float = 1.0
    edge_threshold: float = 1.0


class Ours(Loose):
    """What only files of this workflow have: a graph's facts."""

    facts: dict[str, Any]


class Metadata(Loose):
    slug: str
    scan: str
    prompt_tokens: list[str]
    prompt: str
    node_threshold: float | None = None
    schema_version: int | None = None
    info: dict[str, Any] | None = None
    generation_settings: GenerationSettings | None = None
    pruning_settings: PruningSettings | None = None
    reasondiff: Ours | None = None


class QueryParameters(Loose):
    """What a viewer opens with."""

    pinnedIds: list[str] = []
    supernodes: list[Any] = []
    linkType: str = "both"
    clickedId: str | None = None
    sg_pos: str = ""


class Node(Loose):
    node_id: str
    feature: int | None
    layer: str | int
    ctx_idx: Annotated[int, Field(ge=0)]
    feature_type: str
    jsNodeId: str
    clerp: str
    influence: float | None = None
    activation: float | None = None
    token_prob: float | None = None
    is_target_logit: bool = False
    influence_share: float | None = None


class Link(Loose):
    source: str
    target: str
    weight: float


class Content(Loose):
    metadata: Metadata
    qParams: QueryParameters
    nodes: list[Node]
    links: list[Link]


# ----------------------------------------------------------------------------------------------- out


def to_neuronpedia(graph: Graph, labels: Labels, slug: str, scan: str, unpruned: Graph | None = None) -> dict[str, Any]:
    """A graph as JSON's plain types, in the order of its nodes and edges; equal graphs give equal bytes.

    `slug` names the graph, `scan` the model with its transcoders, `unpruned` is the graph that it was pruned from, by
    whose nodes the viewer's slider goes (None: it was not). A graph that could not be made has no nodes and says
    why in `info`. Numbers that are not finite among the facts become null, which JSON has.

    Raises:
        ValueError: the graph's facts do not fit the schema.
    """
    ids = node_ids(graph)
    cumulative = _cumulative(graph if unpruned is None else unpruned)
    ends = ((ids[end] for end in column) for column in (graph.source, graph.target))
    content = {
        "metadata": _metadata(graph, slug, scan),
        "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
        "nodes": _nodes(graph, ids, [cumulative[one] for one in ids], labels),
        "links": [
            {"source": source, "target": target, "weight": weight}
            for source, target, weight in zip(*ends, _short(graph.weight), strict=True)
        ],
    }
    Content.model_validate(content)
    return content


def node_ids(graph: Graph) -> list[str]:
    """The id of each node, no two alike: `<layer>_<latent>_<position>`, `<layer>_error_<position>`,
    `E_<token>_<position>`, and `<blocks + 1>_<token>_<position>` of logits."""
    columns = (getattr(graph, name).tolist() for name in ("kind", "layer", "feature", "position"))
    return [
        f"{_layer(kind, layer)}_{'error' if kind == ERROR else feature}_{position}"
        for kind, layer, feature, position in zip(*columns, strict=True)
    ]


def cantor(layer: int, latent: int) -> int:
    """One number for two, as circuit-tracer writes a latent into `feature`."""
    return (layer + latent) * (layer + latent + 1) // 2 + latent


def _layer(kind: int, layer: int) -> str:
    return EMBEDDING_LAYER if kind == EMBEDDING else str(layer + (kind == LOGIT))


def _cumulative(graph: Graph) -> dict[str, float | None]:
    """What the slider compares its threshold with, by node id."""
    shares = _short(ranked(graph).cumulative.astype(np.float32)) if graph.n_nodes else []
    return dict(zip(node_ids(graph), shares, strict=True))


def _nodes(
    graph: Graph, ids: Sequence[str], cumulative: Sequence[float | None], labels: Labels
) -> list[dict[str, Any]]:
    numbers = (_short(getattr(graph, name)) for name in ("activation", "influence", "probability"))
    columns = (getattr(graph, name).tolist() for name in ("kind", "layer", "position", "feature"))
    target, nodes = _target(graph), []
    for row, (kind, layer, position, feature, activation, share, chance) in enumerate(
        zip(*columns, *numbers, strict=True)
    ):
        node = {
            "node_id": ids[row],
            "feature": {FEATURE: cantor(layer, feature), ERROR: -1, EMBEDDING: position, LOGIT: feature}[kind],
            "layer": _layer(kind, layer),
            "ctx_idx": position,
            "feature_type": TYPES[kind],
            "token_prob": chance if kind == LOGIT else 0.0,
            "is_target_logit": row == target,
            "run_idx": 0,
            "reverse_ctx_idx": 0,
            "jsNodeId": ids[row],
            "clerp": _words(graph, row, labels),
            "influence": None if kind == LOGIT else cumulative[row],
            "activation": activation,
            "influence_share": share,
        }
        nodes.append({key: value for key, value in node.items() if value is not None})
    return nodes


def _words(graph: Graph, row: int, labels: Labels) -> str:
    kind, feature, position = int(graph.kind[row]), int(graph.feature[row]), int(graph.position[row])
    token = graph.tokens[position] if position < len(graph.tokens) else ""
    if kind == FEATURE:
        return labels.get((int(graph.layer[row]), feature), "")
    if kind == LOGIT:
        return f'Output "{logit_token(graph, feature)}" (p={graph.probability[row]:.3f})'
    return f'{"Emb" if kind == EMBEDDING else "Err"}: "{token}"'


def logit_token(graph: Graph, token_id: int) -> str:
    """The string of a logit's token, from `facts["logit_tokens"]` (id as text -> string) or, of the target, from
    `facts["target_token"]`; else its number."""
    known = graph.facts.get("logit_tokens") or {}
    if token_id == graph.facts.get("target_id"):
        known = {str(token_id): graph.facts.get("target_token"), **known}
    return known.get(str(token_id)) or f"token {token_id}"


def _target(graph: Graph) -> int:
    """The row of the logit that the graph explains: the target token's, else the likeliest; -1 without logits."""
    logits = graph.nodes_of(LOGIT)
    if not len(logits):
        return -1
    named = logits[graph.feature[logits] == graph.facts.get("target_id", NO_FEATURE)]
    return int(named[0] if len(named) else logits[np.argmax(np.nan_to_num(graph.probability[logits]))])


def _metadata(graph: Graph, slug: str, scan: str) -> dict[str, Any]:
    facts = finite(dict(graph.facts))
    pruning = facts.get("pruning") or {}
    return {
        "slug": slug,
        "scan": scan,
        "transcoder_list": list(facts.get("transcoders") or []),
        "prompt_tokens": list(graph.tokens),
        "prompt": "".join(graph.tokens),
        **({"node_threshold": pruning["node_share"]} if pruning else {}),
        "schema_version": 1,
        "info": {"description": _description(graph), "generator": {"name": "reasondiff"}},
        "generation_settings": _generation(graph, facts),
        "pruning_settings": {key.replace("share", "threshold"): value for key, value in pruning.items()},
        "reasondiff": {"facts": facts},
    }


def _generation(graph: Graph, facts: Mapping[str, Any]) -> dict[str, Any]:
    """How the graph was made, in the format's own keys where it has them; no limit is no key."""
    settings = {**(facts.get("settings") or {}), "max_feature_nodes": facts.get("max_features")}
    found = {key: value for key, value in settings.items() if value is not None}
    return {"max_n_logits": len(graph.nodes_of(LOGIT)), **found}


def _description(graph: Graph) -> str:
    facts = graph.facts
    if not graph.n_nodes:
        return f"There is no graph: {facts.get('reason')}"
    said = f"What makes {facts.get('model', 'the model')} say {facts.get('target_token', 'its next token')!r}"
    return f"{said} after {len(graph.tokens)} tokens"


def finite(value: Any) -> Any:
    """A value of JSON's types with null in the place of numbers that JSON does not have (not a number, infinite)."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _short(column: Shaped[np.ndarray, " value"]) -> list[float | None]:
    """float32 numbers in the fewest digits that give them back, None for those that are not finite."""
    known = np.isfinite(column)
    return [float(text) if there else None for text, there in zip(column.astype(str), known, strict=True)]


# ----------------------------------------------------------------------------------------------- in


def from_neuronpedia(content: Any, where: str, need_features: bool = False) -> Graph:
    """The graph of a file's content: ours, circuit-tracer's, Neuronpedia's, or Anthropic's (its latents keep the
    numbers they have there). `where` names the file in errors. Links of weight 0 are left out.

    Facts of a graph from elsewhere: slug, scan, prompt, blocks, target_id, probability, and its settings if the file
    has them; `model` is the scan, `prompt_id` the slug, `status` "published", `warning` that it holds no latents.

    Raises:
        ArtefactError: not the schema's keys and types, no logit, kinds of nodes that are not known, nodes or links
            twice, links to nodes that are not there, or links that do not lead to a later layer; with `need_features`
            also where there are no latents.
    """
    read = _validated(content, where)
    ours = read.metadata.reasondiff.facts if read.metadata.reasondiff else None
    if ours is not None and not read.nodes:
        return no_graph(tuple(read.metadata.prompt_tokens), ours, str(ours.get("reason")))
    columns = _columns(read.nodes, where)
    links = _ends(read, columns["layer"], where)
    facts = dict(ours) if ours is not None else _facts(read.metadata, columns)
    if not (columns["kind"] == FEATURE).any():
        said = f"{where} holds no latents, only {', '.join(sorted({KINDS[kind] for kind in columns['kind']}))} nodes"
        if need_features:
            raise ArtefactError(f"{said}: it explains nothing by latents; leave it out of the folder")
        log.warning(said)
        facts.update({} if ours is not None else {"warning": "it holds no latents"})
    try:
        return make_graph(tuple(read.metadata.prompt_tokens), facts, **columns, **links)
    except ValueError as error:
        raise ArtefactError(f"{where} is no attribution graph: {error}; export it again") from error


def clerps(content: Any, where: str) -> dict[tuple[int, int], str]:
    """The words that a file has for its latents, by layer and latent as `from_neuronpedia` numbers them.

    Raises:
        ArtefactError: as `from_neuronpedia`, for nodes.
    """
    nodes = _validated(content, where).nodes
    columns = _columns(nodes, where)
    rows = zip(columns["kind"], columns["layer"].tolist(), columns["feature"].tolist(), nodes, strict=True)
    return {(layer, latent): node.clerp for kind, layer, latent, node in rows if kind == FEATURE and node.clerp}


def _validated(content: Any, where: str) -> Content:
    try:
        return Content.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise ArtefactError(
            f"{where} is not Neuronpedia's graph JSON: {place}: {first['msg']}{more}. It needs metadata (slug, scan, "
            "prompt, prompt_tokens), qParams, nodes and links; export the graph again, or take the file away."
        ) from error


def _columns(nodes: Sequence[Node], where: str) -> dict[str, np.ndarray]:
    """Columns of nodes in the file's order, with `Graph`'s numbers for layers and latents."""
    _refuse_twice((node.node_id for node in nodes), where, "nodes have the id", _COLLIDING)
    kinds = np.array([_kind(node, where) for node in nodes], dtype=np.int8)
    layers = np.array([_number(node, where) for node in nodes], dtype=np.int64)
    layers[kinds == LOGIT] = _logit_layer(nodes, kinds, layers, where)
    return {
        "kind": kinds,
        "layer": layers,
        "position": np.array([node.ctx_idx for node in nodes], dtype=np.int64),
        "feature": _latents(nodes, kinds, layers),
        "activation": _floats(nodes, "activation", kinds == FEATURE),
        "influence": _floats(nodes, "influence_share", kinds >= 0),
        "probability": _floats(nodes, "token_prob", kinds == LOGIT),
    }


_COLLIDING = "circuit-tracer gives errors ids that a latent of layer 0 may have too, so its links cannot be told apart"


def _kind(node: Node, where: str) -> int:
    if node.feature_type in TYPES:
        return TYPES.index(node.feature_type)
    raise ArtefactError(
        f"{where}: node {node.node_id} is of the type {node.feature_type!r}; known are {', '.join(TYPES)}. Graphs with "
        "latents of attention or biases as nodes cannot be read: leave the file out of the folder."
    )


def _number(node: Node, where: str) -> int:
    if str(node.layer) == EMBEDDING_LAYER:
        return -1
    try:
        return int(node.layer)
    except ValueError as error:
        raise ArtefactError(
            f"{where}: node {node.node_id} has the layer {node.layer!r}, which is neither a number nor 'E'"
        ) from error


def _logit_layer(nodes: Sequence[Node], kinds: np.ndarray, layers: np.ndarray, where: str) -> int:
    """The number of blocks: what the file gives as the logits' layer, or 1 less where circuit-tracer wrote it, which
    counts one layer between; known by the embeddings, whose `feature` it sets to their position."""
    found = np.unique(layers[kinds == LOGIT])
    if len(found) != 1:
        raise ArtefactError(f"{where} has logits at {len(found)} layers, expected one: export the graph again")
    of_embeddings = [(node.feature, node.ctx_idx) for node, kind in zip(nodes, kinds, strict=True) if kind == EMBEDDING]
    counted_on = bool(of_embeddings) and all(feature == position for feature, position in of_embeddings)
    last = int(layers[kinds != LOGIT].max(initial=-1))
    return int(found[0]) - (1 if counted_on and last < found[0] - 1 else 0)


def _latents(nodes: Sequence[Node], kinds: np.ndarray, layers: np.ndarray) -> np.ndarray:
    """The number of each latent or token. Latents' are unpacked where all of them are layer and latent in one
    (`cantor`), as in all files but Anthropic's; a token's stands in the id of its embedding."""
    numbers = [NO_FEATURE if node.feature is None else node.feature for node in nodes]
    features = np.flatnonzero(kinds == FEATURE)
    unpacked = [_uncantor(numbers[row]) for row in features]
    if all(layer == layers[row] for row, (layer, _) in zip(features, unpacked, strict=True)):
        for row, (_, latent) in zip(features, unpacked, strict=True):
            numbers[row] = latent
    for row in np.flatnonzero(kinds == EMBEDDING):
        token = re.match(r"E_(-?\d+)_", nodes[row].node_id)
        numbers[row] = int(token[1]) if token else numbers[row]
    found = np.array(numbers, dtype=np.int64)
    return np.where(kinds == ERROR, NO_FEATURE, found)


def _uncantor(number: int) -> tuple[int, int]:
    """(layer, latent) of which `cantor` is `number`; (-1, -1) for a number below 0."""
    if number < 0:
        return -1, -1
    total = (math.isqrt(8 * number + 1) - 1) // 2
    latent = number - total * (total + 1) // 2
    return total - latent, latent


def _floats(nodes: Sequence[Node], name: str, meant: np.ndarray) -> np.ndarray:
    values = [getattr(node, name) for node in nodes]
    known = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return np.where(meant, known, np.nan)


def _ends(read: Content, layers: np.ndarray, where: str) -> dict[str, np.ndarray]:
    row_of = {node.node_id: row for row, node in enumerate(read.nodes)}
    if dangling := [link for link in read.links if link.source not in row_of or link.target not in row_of]:
        first = dangling[0]
        raise ArtefactError(
            f"{where}: {len(dangling)} links lead to or from nodes that are not there, the first from {first.source} "
            f"to {first.target}; export the graph again"
        )
    _refuse_twice(
        (f"{link.source} to {link.target}" for link in read.links), where, "links lead from", "export it again"
    )
    source, target = (
        np.array([row_of[getattr(link, end)] for link in read.links], dtype=np.int64) for end in ("source", "target")
    )
    if backward := np.flatnonzero(layers[source] >= layers[target]).tolist():
        first = read.links[backward[0]]
        raise ArtefactError(
            f"{where}: {len(backward)} links do not lead to a later layer, the first from {first.source} to "
            f"{first.target}; such a graph may have cycles: export it again"
        )
    with np.errstate(over="ignore"):  # too large a weight becomes infinite, and is refused as such
        weight = np.array([link.weight for link in read.links], dtype=np.float64).astype(np.float32)
    return {"source": source, "target": target, "weight": weight}


def _refuse_twice(names: Iterable[str], where: str, what: str, why: str) -> None:
    name, times = max(Counter(names).items(), key=lambda item: item[1], default=("", 0))
    if times > 1:
        raise ArtefactError(f"{where}: {times} {what} {name}; {why}")


def _facts(metadata: Metadata, columns: Mapping[str, np.ndarray]) -> dict[str, Any]:
    logits = np.flatnonzero(columns["kind"] == LOGIT)
    first = logits[np.argmax(np.nan_to_num(columns["probability"][logits]))]
    chance = float(columns["probability"][first])
    known = {
        "model": metadata.scan,
        "prompt_id": metadata.slug,
        "status": "published",
        "slug": metadata.slug,
        "scan": metadata.scan,
        "prompt": metadata.prompt,
        "blocks": int(columns["layer"][first]),
        "target_id": int(columns["feature"][first]),
        "probability": finite(chance),
    }
    if metadata.generation_settings is not None:
        known["settings"] = finite(metadata.generation_settings.model_dump(exclude_unset=True))
    if metadata.pruning_settings is not None and metadata.pruning_settings.model_fields_set:
        pruned = metadata.pruning_settings
        known["pruning"] = {"node_share": pruned.node_threshold, "edge_share": pruned.edge_threshold}
    return known


# ----------------------------------------------------------------------------------------------- names


def labels_of(contents: Iterable[Mapping[str, Any]]) -> dict[tuple[int, int], str]:
    """The labels of some transcoders, from what `labels.json` of each set of them says; latents without one are left
    out.

    Raises:
        ArtefactError: two of them have different words for one latent, so they are not of one model's layers.
    """
    found: dict[tuple[int, int], str] = {}
    for content in contents:
        for row in content["latents"]:
            key = (int(row["layer"]), int(row["latent"]))
            if row["label"] and found.setdefault(key, row["label"]) != row["label"]:
                raise ArtefactError(
                    f"latent {key[1]} of layer {key[0]} has two labels, {found[key]!r} and {row['label']!r}: labels of "
                    "several models or seeds were given for graphs of one"
                )
    return found


def slug_and_scan(graph: Graph) -> tuple[str, str]:
    """What a traced graph is called, and what model with which transcoders it is of."""
    scan = f"{graph.facts['model']}-seed{graph.facts['seed']}"
    return "-".join([scan, str(graph.facts["prompt_id"]), str(graph.facts["target"])]), scan
