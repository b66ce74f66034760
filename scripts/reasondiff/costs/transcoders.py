"""What do the transcoders of a study take, from the sweep to their latents' examples?

Which point all layers get is known when the sweep has been judged; until then it is the one that the study takes to be
chosen (`cost.point`), or the largest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from reasondiff.costs.banks import (
    FEW_TABLES,
    RESPONSES_BYTES,
    TIMES_READ,
    TRAINING,
    effects,
    family_share,
    training,
    with_examples,
)
from reasondiff.costs.forward import answer, cache_bytes, logit_bytes, model_bytes, predict, read, reading_bytes
from reasondiff.costs.jobs import PROMPT_TOKENS, Job, Planned, Reckoned, held_bytes, loading_bytes
from reasondiff.costs.learning import Dictionary, encode, transcoder
from reasondiff.costs.sizes import NotKnown
from reasondiff.costs.work import Number, Work

SPLICES_ALONE = 5  # of a layer: transcoder twice, linear map, mean, zero
SPLICES_TOGETHER = 10  # of all layers: the same four and the MLPs' own outputs, under two masks
FLOORS = 3  # linear map, mean, zero
DIRECT_ANSWER = 24  # tokens of an answer without a solution, at most


# ------------------------------------------------------------------------------------------------ which ones


def of_point(reckoned: Reckoned, model: str, layers: Sequence[int], name: str) -> list[Dictionary]:
    """Transcoders of one point at some layers of a model."""
    section, width, cost = reckoned.study.transcoders, reckoned.size(model).hidden, reckoned.study.cost
    point, recipe = section.points[name], (section.selection, section.auxiliary_weight)
    return [transcoder(layer, name, point, width, cost, *recipe) for layer in layers]


def point_of_all(reckoned: Reckoned) -> str:
    """The point that all layers get: named, taken to be chosen, or the largest that the sweep could choose."""
    section = reckoned.study.transcoders
    sizes = {name: (point.expansion, point.k) for name, point in section.points.items()}
    return section.point or reckoned.study.cost.point or max(sizes, key=sizes.get)


def set_of(reckoned: Reckoned, model: str) -> list[Dictionary]:
    """The transcoders of one model with one seed.

    Raises:
        NotKnown: they come from elsewhere.
    """
    settings = reckoned.study.transcoders.models[model]
    if settings.ready:
        raise NotKnown(f"the sizes of the transcoders of {model!r}, which come from elsewhere: see their own configs")
    return of_point(reckoned, model, settings.layers, point_of_all(reckoned))


# ------------------------------------------------------------------------------------------------ training


def train_transcoders(reckoned: Reckoned) -> Iterator[Planned]:
    section = reckoned.study.transcoders
    for name, model in section.trained().items() if section else ():
        for _seed in model.seeds:
            yield "train_transcoders", partial(_train, reckoned, name)


def _train(reckoned: Reckoned, model: str) -> Job:
    section = reckoned.study.transcoders
    chosen = f"point {point_of_all(reckoned)}" + ("" if section.point else ", if the sweep chooses it")
    job = Job(f"{chosen}; {TRAINING}", f"model {model}")
    models, text = [reckoned.size(model)], section.models[model].text
    return training(job, set_of(reckoned, model), section.training, models, 2, text, 0, reckoned)


def sweep(reckoned: Reckoned) -> Iterator[Planned]:
    if reckoned.study.transcoders and reckoned.study.transcoders.sweep:
        yield "train_transcoder_sweep", partial(_train_sweep, reckoned)
        yield "evaluate_transcoder_sweep", partial(_evaluate_sweep, reckoned)


def _of_sweep(reckoned: Reckoned) -> list[Dictionary]:
    section = reckoned.study.transcoders
    pilot = section.sweep
    return [one for name in section.points for one in of_point(reckoned, pilot.model, pilot.layers, name)]


def _train_sweep(reckoned: Reckoned) -> Job:
    section = reckoned.study.transcoders
    schedule = section.training.model_copy(update={"tokens": section.sweep.tokens})
    models, text = [reckoned.size(section.sweep.model)], section.models[section.sweep.model].text
    job = Job(TRAINING, f"{len(section.points)} points at {len(section.sweep.layers)} layers")
    return training(job, _of_sweep(reckoned), schedule, models, 2, text, 0, reckoned)


def _evaluate_sweep(reckoned: Reckoned) -> Job:
    section = reckoned.study.transcoders
    pilot, every = section.sweep, _of_sweep(reckoned)
    size, rows = reckoned.size(pilot.model), reckoned.rows(section.models[pilot.model].text)
    tokens = pilot.evaluation_tokens
    job = _reading(reckoned, pilot.model, every, tokens)
    work = job.work + sum((encode(one, tokens) for one in every), Work())
    work += read(size, tokens, rows) + predict(size, tokens, rows)
    for layer in pilot.layers:
        run = read(size, tokens, rows, size.layers - layer) + 2 * predict(size, tokens, rows)
        work += (len(section.points) + FLOORS) * run
    return replace(job, basis="each splice runs the blocks from its layer on and the head", work=work)


# ------------------------------------------------------------------------------------------------ judging


def judge_sets(reckoned: Reckoned) -> Iterator[Planned]:
    """The jobs that follow the training of every set."""
    section = reckoned.study.transcoders
    for model in section.models if section else ():
        if section.models[model].ready:
            yield "import_transcoders", partial(_import, reckoned, model)
    for model, _seed in reckoned.sets():
        yield "evaluate_transcoders", partial(_evaluate, reckoned, model)
    for model, _seed in reckoned.sets(first_seed=True):
        yield "compare_answers", partial(_answers, reckoned, model)
        yield "collect_transcoder_examples", partial(_collect, reckoned, model)
        yield "measure_transcoder_logit_effects", partial(_effects, reckoned, model)
        if reckoned.study.concepts:
            yield "measure_transcoder_concepts", partial(_concepts, reckoned, model)


def _reading(reckoned: Reckoned, model: str, members: Sequence[Dictionary], tokens: Number) -> Job:
    """A job that fits linear maps, reads a text with transcoders, and compares predictions."""
    section = reckoned.study.transcoders
    text, size = section.models[model].text, reckoned.size(model)
    rows, linear = reckoned.rows(text), section.evaluation.linear_tokens
    layers, deepest = len({one.layer for one in members}), max(one.layer for one in members) + 1
    work = read(size, reckoned.calibration + linear + tokens, rows, deepest)
    work += sum((encode(one, tokens) for one in members), Work())
    models = model_bytes(size, rows.dtype, deepest) + model_bytes(size, rows.dtype)
    maps = layers * (2 * 8 * size.hidden**2 + rows.tokens * size.hidden * 4)  # and what enters each layer
    passing = reading_bytes(size, rows, 2 * layers) + logit_bytes(size, rows) + RESPONSES_BYTES
    return Job(
        "text read with every transcoder",
        tokens=reckoned.calibration + linear + tokens,
        work=work,
        card_bytes=models + held_bytes(members) + maps + passing,
        host_bytes=reckoned.reading_host_bytes(text, [size]),
        disk_bytes=FEW_TABLES * layers,
    )


def _import(reckoned: Reckoned, model: str) -> Job:
    members = set_of(reckoned, model)
    job = _reading(reckoned, model, members, reckoned.study.transcoders.evaluation.tokens)
    return replace(job, basis="copied, and compared with the MLPs they imitate", disk_bytes=held_bytes(members))


def _evaluate(reckoned: Reckoned, model: str) -> Job:
    section, members, size = reckoned.study.transcoders, set_of(reckoned, model), reckoned.size(model)
    settings, rows = section.evaluation, reckoned.rows(section.models[model].text)
    job = _reading(reckoned, model, members, settings.tokens * (1 + family_share(reckoned)))
    tokens = settings.spliced_tokens
    work = job.work + 2 * read(size, tokens, rows) + predict(size, tokens, rows)
    compared = 2 * predict(size, tokens, rows)
    for one in members:
        work += SPLICES_ALONE * (read(size, tokens, rows, size.layers - one.layer) + compared)
        work += 4 * encode(one, tokens)
    first = min(one.layer for one in members)
    work += SPLICES_TOGETHER * (read(size, tokens, rows, size.layers - first) + compared)
    basis = "text read with every transcoder; each splice runs the blocks from its layer on and the head"
    return replace(job, basis=basis, tokens=job.tokens + tokens, work=work)


def longest(elicitation: str, new_tokens: int) -> int:
    """Tokens of an answer, at most."""
    return min(new_tokens, DIRECT_ANSWER) if elicitation == "direct" else new_tokens


def _answers(reckoned: Reckoned, model: str) -> Job:
    study, size, members = reckoned.study, reckoned.size(model), set_of(reckoned, model)
    settings, asked = study.accuracy, study.transcoders.evaluation.problems
    work, written = Work(), 0
    for elicitation in study.models[model].elicitations:
        new = longest(elicitation, settings.max_new_tokens)
        steps = -(-asked // settings.batch_size) * new
        work += 2 * answer(size, asked, new, PROMPT_TOKENS, settings.batch_size, study.dtype)
        for one in members:
            work += encode(one, asked * new) + Work(moved_bytes=steps * one.file_bytes)
        written += 2 * asked * new
    at_once = min(asked, settings.batch_size)
    cache = cache_bytes(size, at_once, PROMPT_TOKENS + settings.max_new_tokens, study.dtype)
    responses = 3 * 4 * at_once * members[0].latents
    return Job(
        "answers of the greatest length, with the model's own MLPs and with transcoders",
        tokens=written,
        work=work,
        card_bytes=model_bytes(size, study.dtype) + held_bytes(members) + cache + responses,
        host_bytes=loading_bytes([size], study.dtype),
        disk_bytes=2 * written,
    )


def _collect(reckoned: Reckoned, model: str) -> Job:
    study, size, members = reckoned.study, reckoned.size(model), set_of(reckoned, model)
    text, tokens = study.transcoders.models[model].text, TIMES_READ * study.examples.tokens
    rows, deepest = reckoned.rows(text), max(one.layer for one in members) + 1
    work = read(size, reckoned.calibration + tokens, rows, deepest)
    work += sum((encode(one, tokens) for one in members), Work())
    passing = reading_bytes(size, rows, 2 * len(members)) + RESPONSES_BYTES
    job = Job(
        "",
        tokens=reckoned.calibration + tokens,
        work=work,
        card_bytes=model_bytes(size, rows.dtype, deepest) + held_bytes(members) + passing,
        host_bytes=reckoned.reading_host_bytes(text, [size]),
    )
    return with_examples(reckoned, job, sum(one.latents for one in members))


def _effects(reckoned: Reckoned, model: str) -> Job:
    return effects(reckoned, [reckoned.size(model)], set_of(reckoned, model))


def _concepts(reckoned: Reckoned, model: str) -> Job:
    tokens = 2 * 2 * reckoned.study.concepts.tokens
    return _reading(reckoned, model, set_of(reckoned, model), tokens)
