"""What do labels, answers to the benchmark prompts, graphs and motifs take?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from reasondiff.config import ModelSize
from reasondiff.costs.banks import RESPONSES_BYTES, both
from reasondiff.costs.forward import Rows, answer, block_flops, cache_bytes, model_bytes, predict, read, reading_bytes
from reasondiff.costs.jobs import PROMPT_TOKENS, Job, Planned, Reckoned, held_bytes, loading_bytes
from reasondiff.costs.learning import crosscoders, encode
from reasondiff.costs.transcoders import longest, set_of
from reasondiff.costs.work import Number, Work
from reasondiff.labels.spending import bound, most_labelled
from reasondiff.listing import points, shows_latents, sites, subjects

LABEL_BYTES = 6000  # of labels.json and label_scores.tsv, for a latent
EDGE_BYTES, NODE_BYTES = 12, 37  # of a stored graph: an edge's ends and weight; a node's columns
EDGE_HOST_BYTES = 28  # of an edge while a graph is made of them: weight, ends, and the weight again
SHOWN_SHARE = 0.1  # of the stored edges that a pruned graph shows: an assumption
SHOWN_BYTES = 60  # of graph.json and graph.svg, for an edge that is shown
CUT_SECONDS = 4.3e-7  # of a core, for an edge of a null graph, motifs counted: measured (benchmarks/README.md)
PRUNED_EDGES = 2000  # of a graph whose motifs are counted: an assumption
MOTIF_ROW_BYTES, MOTIFS = 60, 44
INTERVENED = 3  # runs of each latent: with all else frozen, ablated, doubled
ROWS_AT_ONCE = 32  # latents that are followed back together
LONGEST_CONTEXT = 4096
TARGETS_OF_REASONING, TARGETS_OF_BASE = 5, 4  # of a prompt
SIMILARITIES = 3  # times that all latents of two sets are compared


# ------------------------------------------------------------------------------------------------ labels


def labels(reckoned: Reckoned) -> Iterator[Planned]:
    """Labels and scores of every dictionary that gets them."""
    study = reckoned.study
    shown = {site: banks for site, banks in sites(study).items() if shows_latents(study, site.pair)}
    coupled = [dict(points(study, banks, coupled=True)) for banks in shown.values()]
    layers = [1 for chosen in coupled for _point in chosen]
    sets = reckoned.sets(first_seed=True)
    layers += [len(study.transcoders.models[model].layers) for model, _seed in sets]
    for count in layers:
        yield "label_latents", partial(_label, reckoned, count)
        yield "score_labels", partial(Job, "paid with label_latents")


def _label(reckoned: Reckoned, layers: int) -> Job:
    study = reckoned.study
    latents = most_labelled(study.labels, layers, study.graphs.labelled if study.graphs else 0)
    if study.labels.provider == "offline":
        return Job("offline: costs nothing", disk_bytes=LABEL_BYTES * latents)
    window = study.examples.before + study.examples.after + 1
    return Job(
        "labels and scores at most, every request asked twice; together no more than the budget",
        disk_bytes=LABEL_BYTES * latents,
        dollars=bound(study.labels, latents, window),
    )


# ------------------------------------------------------------------------------------------------ answers


def answers(reckoned: Reckoned) -> Iterator[Planned]:
    if reckoned.study.prompts:
        yield "answer_prompts", partial(_answer, reckoned)
    if reckoned.study.graphs:
        yield "choose_targets", partial(_choose_targets, reckoned)


def _answer(reckoned: Reckoned) -> Job:
    study, settings = reckoned.study, reckoned.study.prompts
    work, written = Work(), 0
    for model, elicitation in settings.elicitations.items():
        new = longest(elicitation, settings.max_new_tokens)
        for number in (reckoned.prompts, reckoned.prompts * settings.samples):
            work += answer(reckoned.size(model), number, new, PROMPT_TOKENS, settings.batch_size, study.dtype)
            written += number * new
    sizes = reckoned.models(list(settings.elicitations))
    at_once = min(settings.batch_size, reckoned.prompts * max(1, settings.samples))
    length = PROMPT_TOKENS + settings.max_new_tokens
    cache = max(cache_bytes(size, at_once, length, study.dtype) for size in sizes)
    return Job(
        "answers of the greatest length",
        tokens=written,
        work=work,
        card_bytes=sum(model_bytes(size, study.dtype) for size in sizes) + cache,
        host_bytes=loading_bytes(sizes, study.dtype),
        disk_bytes=8 * written,
    )


def _context(reckoned: Reckoned) -> int:
    """Tokens of a context that ends in a response, at most."""
    return min(LONGEST_CONTEXT, PROMPT_TOKENS + reckoned.study.prompts.max_new_tokens)


def _choose_targets(reckoned: Reckoned) -> Job:
    study, settings = reckoned.study, reckoned.study.prompts
    rows = Rows(_context(reckoned), 1, study.dtype)
    asked = {settings.reasoning: 3, settings.base: 1}  # responses that are read: greedy, and two samples
    sizes = {model: reckoned.size(model) for model in asked if model}
    work, tokens = Work(), 0
    for model, size in sizes.items():
        one = asked[model] * reckoned.prompts * rows.context
        work += read(size, one, rows) + predict(size, one, rows)
        tokens += one
    logits = 4 * 4 * rows.context * max(size.vocabulary for size in sizes.values())
    return Job(
        "the responses read once",
        tokens=tokens,
        work=work,
        card_bytes=sum(model_bytes(size, study.dtype) for size in sizes.values()) + logits,
        host_bytes=loading_bytes(list(sizes.values()), study.dtype),
        disk_bytes=6 * reckoned.prompts * 6 * rows.context,
    )


# ------------------------------------------------------------------------------------------------ graphs


def graphs(reckoned: Reckoned) -> Iterator[Planned]:
    study = reckoned.study
    if study.graphs is None:
        return
    size = study.graphs.prompts_of_job
    lots = [min(size, reckoned.prompts - first) for first in range(0, reckoned.prompts, size)]
    for model, _seed in subjects(study):
        for prompts in lots:
            yield "trace_graphs", partial(_trace, reckoned, model, prompts)
        yield "export_graphs", partial(_export, reckoned, model)
        if study.graphs.links:
            yield "link_latents", partial(_links, reckoned, model)
        if study.motifs:
            yield "count_motifs", partial(_motifs, reckoned, reckoned.prompts * _targets(reckoned, model))
    yield "summarise_graphs", partial(_summary, reckoned)
    yield "judge_interventions", partial(_summary, reckoned)


def _targets(reckoned: Reckoned, model: str) -> int:
    return TARGETS_OF_REASONING if model == reckoned.study.prompts.reasoning else TARGETS_OF_BASE


def _stored_edges(reckoned: Reckoned) -> Number:
    """Of a graph's file, at most: half of all couples of nodes."""
    return reckoned.study.graphs.stored_nodes**2 / 2


def _graph_bytes(reckoned: Reckoned) -> Number:
    return EDGE_BYTES * _stored_edges(reckoned) + NODE_BYTES * reckoned.study.graphs.stored_nodes


def row_flops(size: ModelSize, context: int) -> Number:
    """Products that follow one latent back to the embeddings, from the middle of the model: in each block the skip, the
    attention's output and values, and its pattern."""
    head_width = size.hidden // size.heads
    block = 2 * (2 * size.hidden**2 + size.hidden * size.kv_heads * head_width) + 2 * context * size.hidden
    return size.layers / 2 * context * block


def _trace(reckoned: Reckoned, model: str, prompts: int) -> Job:
    study, size, members = reckoned.study, reckoned.size(model), set_of(reckoned, model)
    settings, context = study.graphs, _context(reckoned)
    rows, targets = Rows(context, 1, "float32"), prompts * _targets(reckoned, model)
    active = sum(min(settings.window, context) * one.k for one in members)
    columns = active + (size.layers + 1) * context
    latents = active if settings.max_features is None else min(settings.max_features, active)
    one = 3 * (read(size, context, rows) + predict(size, context, rows))
    one += 2 * sum((encode(member, context) for member in members), Work())
    one += Work(float32_flops=latents * (row_flops(size, context) + active * size.hidden))
    passes = latents / settings.batch_size * size.layers  # over half of the rows, to find the next most influential
    one += Work(moved_bytes=passes * 4 * columns * latents / 2, block_calls=4 * size.layers * latents / ROWS_AT_ONCE)
    intervened = INTERVENED * (settings.interventions.features + settings.interventions.matched)
    one += Work(float32_flops=intervened * context * size.layers / 2 * block_flops(size, context))
    held = 2 * model_bytes(size, "float32") + 2 * held_bytes(members)  # Hugging Face's and circuit-tracer's
    vectors = 3 * 4 * active * size.hidden + 3 * 4 * context * members[0].latents
    logits = (6 * 4 * context + 8 * size.hidden) * size.vocabulary
    folded = latents * (latents + (size.layers + 1) * context)  # edges of the graph before it is pruned
    return Job(
        "contexts of the greatest length; a row followed back for each latent, in float32",
        f"model {model}",
        tokens=targets * context,
        work=targets * one,
        card_bytes=held
        + vectors
        + logits
        + 4 * latents * columns
        + 3 * 4 * folded
        + reading_bytes(size, rows, size.layers),
        host_bytes=loading_bytes([size], "float32") + EDGE_HOST_BYTES * folded,
        disk_bytes=targets * _graph_bytes(reckoned),
    )


def _export(reckoned: Reckoned, model: str) -> Job:
    shown = SHOWN_SHARE * _stored_edges(reckoned) * reckoned.prompts * _targets(reckoned, model)
    basis = f"{SHOWN_SHARE:.0%} of the stored edges are shown"
    return Job(basis, disk_bytes=2 * SHOWN_BYTES * shown, host_bytes=20 * _graph_bytes(reckoned))


def _summary(reckoned: Reckoned) -> Job:
    return Job("one graph after the other", host_bytes=20 * _graph_bytes(reckoned))


def _links(reckoned: Reckoned, model: str) -> Job:
    study, links = reckoned.study, reckoned.study.graphs.links
    pair, members = study.pairs[links.pair], set_of(reckoned, model)
    rows, sizes = reckoned.rows(pair.texts[0]), reckoned.models(pair.models)
    linked = [
        one
        for bank in study.banks.values()
        if links.pair in bank.pairs and links.point in bank.points
        for one in crosscoders(bank, bank.points[links.point].seeds[0], sizes[0].hidden, len(sizes), study.cost)
        if one.name == links.point
    ]
    layers = {one.layer for one in linked}
    deepest, reading = max(layers) + 1, [reckoned.size(model), *sizes]
    asked = [*linked, *(one for one in members if one.layer in layers)]
    tokens = reckoned.calibration + links.tokens
    work = both(reading, tokens, rows, deepest) + sum((encode(one, links.tokens) for one in asked), Work())
    models = sum(model_bytes(size, rows.dtype, deepest) for size in reading)
    passing = reading_bytes(sizes[0], rows, 4 * len(layers)) + RESPONSES_BYTES
    codes = 12 * links.tokens * sum(one.k for one in asked)
    return Job(
        "the model and the pair over the same text, with both kinds of dictionary",
        tokens=tokens,
        work=work,
        card_bytes=models + held_bytes([*linked, *members]) + passing,
        host_bytes=reckoned.reading_host_bytes(pair.texts[0], reading) + 3 * codes,
    )


# ------------------------------------------------------------------------------------------------ motifs


def _motifs(reckoned: Reckoned, graphs_of_source: int) -> Job:
    settings = reckoned.study.motifs
    kinds = len(settings.nulls) * len(settings.thresholds)
    drawn = settings.samples + settings.samples_beside * (kinds - 1)
    return Job(
        f"{PRUNED_EDGES} edges a graph, one core at the rate that was measured",
        core_hours=graphs_of_source * drawn * PRUNED_EDGES * CUT_SECONDS / 3600,
        host_bytes=20 * _graph_bytes(reckoned),
        disk_bytes=graphs_of_source * kinds * MOTIFS * MOTIF_ROW_BYTES,
    )


def comparisons(reckoned: Reckoned) -> Iterator[Planned]:
    study = reckoned.study
    for _source in study.motifs.sources if study.motifs else ():
        yield "count_published_motifs", partial(_motifs, reckoned, reckoned.prompts)
    if study.comparisons:
        yield "compare_graphs", partial(_summary, reckoned)
        if study.prompts.base:
            yield "split_changes", partial(_split, reckoned)


def _split(reckoned: Reckoned) -> Job:
    study = reckoned.study
    members, other = (set_of(reckoned, model) for model in (study.prompts.reasoning, study.prompts.base))
    pairs = sum(one.latents * two.latents * 2 * 2 * one.width for one, two in zip(members, other, strict=False))
    graphs_of_base = 3 * reckoned.prompts * len(study.transcoders.models[study.prompts.base].seeds)
    return Job(
        "all latents of two sets compared with one another, and their graphs edge by edge",
        work=Work(float32_flops=SIMILARITIES * pairs),
        card_bytes=3 * held_bytes(members) + 2**29,
        host_bytes=(graphs_of_base + 3 * reckoned.prompts) * _graph_bytes(reckoned),
    )
