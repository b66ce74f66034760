"""What do the crosscoders of a study take, from training to their latents' examples?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from reasondiff.config import Bank, ModelSize, Schedule
from reasondiff.costs.forward import Rows, logit_bytes, model_bytes, predict, read, reading_bytes
from reasondiff.costs.jobs import CARD_CONTEXT_GIB, Job, Planned, Reckoned, held_bytes
from reasondiff.costs.learning import Dictionary, checkpoint_bytes, crosscoders, encode, learn, planned
from reasondiff.costs.sizes import NUMBER_BYTES, NotKnown
from reasondiff.costs.work import Number, Work
from reasondiff.dictionaries.planning import GIB, RESERVED_SHARE, PlanError, Size, group_bytes, plan
from reasondiff.listing import points, shows_latents, sites, tested_sites, untrained_point

TRAINING = (
    "models once over the text for each group of dictionaries; a dense product for each dictionary and token, sums "
    "over the latents that fire, Adam"
)
RESPONSES_BYTES = 2**29  # encoder responses that are made together, and a copy
TESTED_SETS, DIRECTIONS, ROWS_BESIDE_SETS = 2, 2, 6  # of evidence.effects
FEW_TABLES = 60_000  # bytes of tables of figures for a dictionary
LATENT_ROW_BYTES = 350  # of a row of latents.tsv
RESAMPLED_BYTES = 3 * 200 * 2 * 4 * 8  # of a latent: four ratios of two owners in 200 resamples, sorted
FIRING_ROW_BYTES = 180  # of firing.parquet, for a latent
LOGIT_BYTES = 14  # of logits.parquet, for a token that is named
EXAMPLE_BYTES = 35  # of examples.parquet, for a window, its tokens apart
EXAMPLE_TOKEN_BYTES = 2.2  # for a token of it
PROPOSED = 2 * 16  # silent windows that are looked at for each one that is wanted, of two kinds
FIRING_HOST_BYTES, PROPOSED_HOST_BYTES = 64, 20  # of host memory, for a window while the text is read
TIMES_READ = 4  # two parts of the text, for all firings and, at most once more, for the windows
POOL_BYTES = 1 / 8  # of the card's memory, for a latent and a window of the pool
PLACE_BYTES = 4  # of the card's memory, for a window


# ------------------------------------------------------------------------------------------------ training


def grouped(sizes: Sequence[Size], beside: Number, reckoned: Reckoned) -> list[list[Size]]:
    """The dictionaries of a job in groups that fit the card beside what else the job holds there, as the training will
    plan it; all together where nothing limits them.

    Raises:
        NotKnown: one does not fit even alone.
    """
    study = reckoned.study
    if study.memory_gib is not None:
        room = study.memory_gib * GIB
    elif study.cost.card is not None:
        room = (study.cost.card.memory_gib * GIB - beside) * (1 - RESERVED_SHARE)
    else:
        return [list(sizes)]
    try:
        return plan(sizes, room)
    except PlanError as error:
        raise NotKnown(f"hours, for a dictionary that does not fit the card: {error}") from None


def training(
    job: Job,
    dictionaries: Sequence[Dictionary],
    schedule: Schedule,
    models: Sequence[ModelSize],
    sides: int,
    text: str,
    extra_tokens: Number,
    reckoned: Reckoned,
) -> Job:
    """A job that trains dictionaries from one stream: in groups, each with its own pass over the text."""
    rows, number_bytes = reckoned.rows(text), NUMBER_BYTES[reckoned.study.dtype]
    deepest = max(one.layer for one in dictionaries) + 1
    layers = {one.layer for one in dictionaries}
    beside = CARD_CONTEXT_GIB * GIB + sum(model_bytes(size, rows.dtype, deepest) for size in models)
    beside += max(reading_bytes(size, rows, sides * len(layers)) for size in models)
    sizes = {(one.layer, one.name): planned(one, schedule, sides, number_bytes) for one in dictionaries}
    groups = grouped(list(sizes.values()), beside, reckoned)
    work = both(models, reckoned.calibration + extra_tokens, rows, deepest)
    for group in groups:
        work += both(models, schedule.tokens, rows, max(size.layer for size in group) + 1)
    for one in dictionaries:
        work += learn(one, schedule)
    members = [[one for one in dictionaries if sizes[one.layer, one.name] in group] for group in groups]
    largest = max(one.file_bytes for one in dictionaries)
    return replace(
        job,
        tokens=len(groups) * schedule.tokens + reckoned.calibration + extra_tokens,
        work=work,
        passes=len(groups),
        disk_bytes=held_bytes(dictionaries),
        scratch_bytes=2 * max(checkpoint_bytes(some, group) for some, group in zip(members, groups, strict=True)),
        card_bytes=beside - CARD_CONTEXT_GIB * GIB + max(map(group_bytes, groups)),
        host_bytes=reckoned.reading_host_bytes(text, models)
        + 3 * largest,  # written: on the card's side, here, as bytes
    )


def both(models: Sequence[ModelSize], tokens: Number, rows: Rows, blocks: Number) -> Work:
    """All models of a pair over the same tokens."""
    return sum((read(size, tokens, rows, blocks) for size in models), Work())


def train_banks(reckoned: Reckoned) -> Iterator[Planned]:
    study = reckoned.study
    for name, bank in study.banks.items():
        for seed in bank.seeds():
            for pair in bank.pairs:
                for text in study.pairs[pair].texts:
                    yield "train_bank", partial(_train_bank, reckoned, name, bank, seed, pair, text)


def _train_bank(reckoned: Reckoned, name: str, bank: Bank, seed: int, pair: str, text: str) -> Job:
    study = reckoned.study
    models = reckoned.models(study.pairs[pair].models)
    dictionaries = crosscoders(bank, seed, models[0].hidden, len(models), study.cost)
    extra = study.evaluation.threshold_tokens if any(one.is_thresholded for one in dictionaries) else 0
    job = Job(TRAINING, f"bank {name}")
    return training(job, dictionaries, bank, models, len(models), text, extra, reckoned)


# ------------------------------------------------------------------------------------------------ judging


def at_site(reckoned: Reckoned, pair: str, layer: int, banks: Sequence[str], coupled: bool) -> list[Dictionary]:
    """The dictionaries of a site, only those of several models on request."""
    study = reckoned.study
    models = reckoned.models(study.pairs[pair].models)
    found = [
        one
        for name in banks
        for seed in study.banks[name].seeds()
        for one in crosscoders(study.banks[name], seed, models[0].hidden, len(models), study.cost)
    ]
    return [one for one in found if one.layer == layer and (one.sides > 1 or not coupled)]


def judge_sites(reckoned: Reckoned) -> Iterator[Planned]:
    """The jobs that follow the training at every site."""
    study = reckoned.study
    for (pair, text, layer), banks in sites(study).items():
        yield "evaluate_crosscoders", partial(_evaluate, reckoned, pair, text, layer, banks)
        if not points(study, banks, coupled=True):
            continue
        yield "describe_latents", partial(_describe, reckoned, pair, text, layer, banks)
        if shows_latents(study, pair):
            yield "collect_examples", partial(_collect, reckoned, pair, text, layer, banks)
            yield "measure_logit_effects", partial(_effects, reckoned, pair, layer, banks)
        if (pair, text, layer) in tested_sites(study):
            yield "measure_set_effects", partial(_set_effects, reckoned, pair, text, layer, banks)
        if study.concepts and pair in study.concepts.pairs and (chosen := untrained_point(study, banks)):
            yield "train_untrained", partial(_train_untrained, reckoned, pair, text, layer, *chosen)
            yield "measure_concepts", partial(_concepts, reckoned, pair, text, layer, banks)


def family_share(reckoned: Reckoned) -> Number:
    """Tokens of the held-out family that are read, as a share of those of the report part."""
    return 0.25 if reckoned.study.split.held_out_family else 0.0


def _site_job(
    reckoned: Reckoned, pair: str, text: str, layer: int, dictionaries: Sequence[Dictionary], tokens: Number
) -> Job:
    """A job that reads a site's text, calibration included, with codes of all its dictionaries."""
    models, rows = reckoned.models(reckoned.study.pairs[pair].models), reckoned.rows(text)
    work = both(models, reckoned.calibration + tokens, rows, layer + 1)
    work += sum((encode(one, tokens) for one in dictionaries), Work())
    card = sum(model_bytes(size, rows.dtype, layer + 1) for size in models) + held_bytes(dictionaries)
    card += max(reading_bytes(size, rows, len(models)) for size in models) + RESPONSES_BYTES
    host = reckoned.reading_host_bytes(text, models)
    tokens += reckoned.calibration
    return Job("text read with every dictionary", tokens=tokens, work=work, card_bytes=card, host_bytes=host)


def _evaluate(reckoned: Reckoned, pair: str, text: str, layer: int, banks: Sequence[str]) -> Job:
    study, rows, dictionaries = reckoned.study, reckoned.rows(text), at_site(reckoned, pair, layer, banks, False)
    settings, models = study.evaluation, reckoned.models(study.pairs[pair].models)
    tokens = settings.threshold_tokens + settings.tokens * (1 + family_share(reckoned))
    job = _site_job(reckoned, pair, text, layer, dictionaries, tokens)
    spliced, work = settings.spliced_tokens, job.work
    for side, size in enumerate(models):
        variants = 3 + 2 * sum(side in one.reads for one in dictionaries)
        work += both(models, spliced, rows, layer + 1) + read(size, spliced, rows)
        work += variants * (read(size, spliced, rows, size.layers - layer - 1) + 2 * predict(size, spliced, rows))
        work += sum((2 * encode(one, spliced) for one in dictionaries if side in one.reads), Work())
    whole = max(model_bytes(size, rows.dtype) for size in models)
    logits = max(logit_bytes(size, rows) for size in models)
    activations = settings.threshold_tokens * len(models) * models[0].hidden * 4
    return replace(
        job,
        basis="text read with every dictionary; each splice runs the blocks above the site and the head",
        tokens=job.tokens + len(models) * spliced,
        work=work,
        card_bytes=job.card_bytes + whole + logits + 3 * activations,
        disk_bytes=FEW_TABLES * (len(dictionaries) + 1),
    )


def _describe(reckoned: Reckoned, pair: str, text: str, layer: int, banks: Sequence[str]) -> Job:
    settings, dictionaries = reckoned.study.latents, at_site(reckoned, pair, layer, banks, True)
    job = _site_job(reckoned, pair, text, layer, dictionaries, settings.probe_tokens + settings.tokens)
    numbers = dictionaries[0].numbers
    # of each latent: its directions, the mean error where it fires and the probes' products; and sums by group
    by_group = sum(settings.problem_groups * 8 * one.latents * (1 + 2 * one.sides**2) for one in dictionaries)
    sums = sum(one.latents * one.numbers * (4 + 8 + 8) for one in dictionaries) + by_group
    tested = 3 * 4 * settings.probe_tokens * numbers
    judging = sum(2 * settings.probe_tokens * one.latents * one.numbers for one in dictionaries)
    most = max(one.latents for one in dictionaries)
    return replace(
        job,
        basis="as evaluation, with sums by problem and a probe for every latent",
        work=job.work + Work(float32_flops=judging),
        card_bytes=job.card_bytes + sums + tested,
        host_bytes=job.host_bytes + RESAMPLED_BYTES * most + by_group / len(dictionaries),
        disk_bytes=LATENT_ROW_BYTES * sum(one.latents for one in dictionaries),
    )


def _set_effects(reckoned: Reckoned, pair: str, text: str, layer: int, banks: Sequence[str]) -> Job:
    study, rows = reckoned.study, reckoned.rows(text)
    settings, size = study.evidence.effects, reckoned.models(study.pairs[pair].models)[-1]
    dictionaries = list({one.name: one for one in at_site(reckoned, pair, layer, banks, True)}.values())  # a seed each
    job, tokens = _site_job(reckoned, pair, text, layer, dictionaries, settings.tokens), settings.tokens
    changes = len(dictionaries) * (ROWS_BESIDE_SETS + TESTED_SETS * DIRECTIONS * (1 + settings.random_sets))
    work = job.work + read(size, tokens, rows)
    work += changes * (read(size, tokens, rows, size.layers - layer - 1) + 2 * predict(size, tokens, rows))
    return replace(
        job,
        basis="text read with every dictionary; each change of each set runs the blocks above the site and the head",
        work=work,
        card_bytes=job.card_bytes + model_bytes(size, rows.dtype) + logit_bytes(size, rows),
        disk_bytes=FEW_TABLES * len(dictionaries),
    )


# ------------------------------------------------------------------------------------------------ latents


def firing_windows(reckoned: Reckoned) -> int:
    """Windows in which a latent fires that are kept of it, at most, in two parts."""
    settings = reckoned.study.examples
    return 2 * (settings.strongest + settings.quantiles * settings.per_quantile)


def examples_bytes(reckoned: Reckoned, latents: int) -> Number:
    """Of examples.parquet and firing.parquet, at most: every latent live and all its windows full."""
    settings = reckoned.study.examples
    window = EXAMPLE_BYTES + EXAMPLE_TOKEN_BYTES * (settings.before + 1 + settings.after)
    return latents * ((firing_windows(reckoned) + 3 * settings.negatives) * window + FIRING_ROW_BYTES)


def shortlist_bytes(reckoned: Reckoned, latents: int) -> Number:
    """Of the device's memory: shortlists of firings, and which windows of the pool each latent is active in."""
    settings = reckoned.study.examples
    return latents * (3 * 16 * (settings.strongest + settings.sampled) + POOL_BYTES * settings.pool_windows)


def _collect(reckoned: Reckoned, pair: str, text: str, layer: int, banks: Sequence[str]) -> Job:
    dictionaries = at_site(reckoned, pair, layer, banks, True)
    job = _site_job(reckoned, pair, text, layer, dictionaries, TIMES_READ * reckoned.study.examples.tokens)
    return with_examples(reckoned, job, sum(one.latents for one in dictionaries))


def with_examples(reckoned: Reckoned, job: Job, latents: int) -> Job:
    """A job that reads the text of examples, with what it keeps of so many latents."""
    firing, proposed = firing_windows(reckoned), PROPOSED * reckoned.study.examples.negatives
    return replace(
        job,
        basis="two parts of the text, each read twice at most; disk and memory as if every latent fired often",
        card_bytes=job.card_bytes + shortlist_bytes(reckoned, latents) + PLACE_BYTES * (firing + proposed) * latents,
        host_bytes=job.host_bytes + (FIRING_HOST_BYTES * firing + PROPOSED_HOST_BYTES * proposed) * latents,
        disk_bytes=examples_bytes(reckoned, latents),
    )


def effects(reckoned: Reckoned, models: Sequence[ModelSize], dictionaries: Sequence[Dictionary]) -> Job:
    """The logit effects of all latents in each model that their dictionary reads."""
    size, work = models[0], Work()
    for one in dictionaries:
        pairs = one.latents * one.sides * size.vocabulary
        work += Work(float32_flops=2 * one.width * pairs, moved_bytes=6 * 4 * pairs)
    latents = sum(one.latents * one.sides for one in dictionaries)
    unembedding = 2 * 4 * size.vocabulary * size.hidden
    return Job(
        "every latent's direction times the unembedding",
        work=work,
        card_bytes=held_bytes(dictionaries) + unembedding + 2**28,
        host_bytes=unembedding,
        disk_bytes=latents * 2 * reckoned.study.examples.logits * LOGIT_BYTES,
    )


def _effects(reckoned: Reckoned, pair: str, layer: int, banks: Sequence[str]) -> Job:
    return effects(
        reckoned,
        reckoned.models(reckoned.study.pairs[pair].models),
        at_site(reckoned, pair, layer, banks, True),
    )


def _train_untrained(reckoned: Reckoned, pair: str, text: str, layer: int, bank: str, point: str) -> Job:
    study = reckoned.study
    first = next(one for one in at_site(reckoned, pair, layer, [bank], True) if one.name == point)
    schedule = study.banks[bank].model_copy(update={"tokens": study.concepts.untrained_tokens})
    models, extra = reckoned.models(study.pairs[pair].models), study.evaluation.threshold_tokens
    return training(Job(TRAINING), [first], schedule, models, len(models), text, extra, reckoned)


def _concepts(reckoned: Reckoned, pair: str, text: str, layer: int, banks: Sequence[str]) -> Job:
    dictionaries = at_site(reckoned, pair, layer, banks, True)
    tokens = 2 * 2 * reckoned.study.concepts.tokens  # two parts, by the models and by random ones
    job = _site_job(reckoned, pair, text, layer, [*dictionaries, dictionaries[0]], tokens)
    return replace(job, disk_bytes=FEW_TABLES, basis="two parts of the text, with the models and random ones")
