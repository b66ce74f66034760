"""What do the texts and models of a study take, before any dictionary learns from them?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from reasondiff.config import is_trained
from reasondiff.costs.banks import both
from reasondiff.costs.forward import answer, cache_bytes, logit_bytes, model_bytes, predict, read, reading_bytes
from reasondiff.costs.jobs import PROMPT_TOKENS, Job, Planned, Reckoned, loading_bytes
from reasondiff.costs.transcoders import longest
from reasondiff.costs.work import Work

UNPACKED = 8  # bytes in memory for a byte of a compressed document


def texts(reckoned: Reckoned) -> Iterator[Planned]:
    study = reckoned.study
    for text in study.text:
        yield "prepare_text", partial(_prepare, reckoned, text)
        for _tokenizer in study.tokenizers:
            yield "tokenize_text", partial(_tokenize, reckoned, text)


def _prepare(reckoned: Reckoned, text: str) -> Job:
    kept = reckoned.documents(text) * reckoned.study.cost.document_bytes
    basis = "documents that the sources hold, or are assumed to hold"
    return Job(basis, disk_bytes=kept, host_bytes=UNPACKED * kept)


def _tokenize(reckoned: Reckoned, text: str) -> Job:
    documents, table = reckoned.documents(text), reckoned.table_bytes(text)
    return Job(
        "every document as long as max_tokens allows",
        tokens=documents * reckoned.study.text[text].max_tokens,
        disk_bytes=table,
        host_bytes=UNPACKED * documents * reckoned.study.cost.document_bytes + 3 * table,
    )


def models(reckoned: Reckoned) -> Iterator[Planned]:
    for name, model in reckoned.study.models.items():
        if is_trained(model):
            yield "train_model", partial(_train, reckoned, name)
        else:
            yield "locate_model", partial(_locate, reckoned, name)
        if model.elicitations:
            yield "measure_accuracy", partial(_accuracy, reckoned, name)


def _train(reckoned: Reckoned, name: str) -> Job:
    model, size = reckoned.study.models[name], reckoned.size(name)
    disk = model_bytes(size, "float32")
    return Job("on the processor", tokens=getattr(model, "tokens", 0.0), disk_bytes=disk, host_bytes=4 * disk)


def _locate(reckoned: Reckoned, name: str) -> Job:
    if reckoned.study.models[name].stage == "local":
        return Job("on this machine already")
    return Job("in the hub's cache, two bytes a weight", disk_bytes=model_bytes(reckoned.size(name), "bfloat16"))


def _accuracy(reckoned: Reckoned, name: str) -> Job:
    study, size = reckoned.study, reckoned.size(name)
    settings = study.accuracy
    asked = settings.problems + (settings.held_out_family_problems if study.split.held_out_family else 0)
    work, written = Work(), 0
    for elicitation in study.models[name].elicitations:
        new = longest(elicitation, settings.max_new_tokens)
        for temperature in settings.decodings.values():
            answers = asked * (settings.samples if temperature else 1)
            work += answer(size, answers, new, PROMPT_TOKENS, settings.batch_size, study.dtype)
            written += answers * new
    at_once = min(asked * settings.samples, settings.batch_size)
    cache = cache_bytes(size, at_once, PROMPT_TOKENS + settings.max_new_tokens, study.dtype)
    return Job(
        "answers of the greatest length: weights and the tokens before are read at each step",
        tokens=written,
        work=work,
        card_bytes=model_bytes(size, study.dtype) + cache,
        host_bytes=loading_bytes([size], study.dtype),
        disk_bytes=2 * written,
    )


def checks(reckoned: Reckoned) -> Iterator[Planned]:
    """Of tokenizers and pairs."""
    study = reckoned.study
    for text in study.text:
        yield "check_tokenizers", partial(_check_tokenizers, reckoned, text)
    for pair, settings in study.pairs.items():
        for text in settings.texts:
            yield "check_alignment", partial(_check_alignment, reckoned, text)
            yield "measure_divergence", partial(_divergence, reckoned, pair, text)
    for model in study.transcoders.models.values() if study.transcoders else ():
        yield "check_alignment_of_model", partial(_check_alignment, reckoned, model.text)


def _check_tokenizers(reckoned: Reckoned, text: str) -> Job:
    study = reckoned.study
    sizes, tables = reckoned.models(list(study.models)), len(study.tokenizers)
    tokens, work = study.tokenizer_check.documents * study.text[text].max_tokens, Work()
    for dtype in ("float32", "bfloat16"):
        rows = replace(reckoned.rows(text), dtype=dtype)
        work += tables * sum((read(size, tokens, rows) + predict(size, tokens, rows) for size in sizes), Work())
    exact = replace(rows, dtype="float32")
    held = [model_bytes(one, "float32") + reading_bytes(one, exact) + logit_bytes(one, exact) for one in sizes]
    return Job(
        "every model under every tokenizer, in two precisions",
        tokens=tables * tokens,
        work=work,
        card_bytes=max(held),
        host_bytes=loading_bytes(sizes, "float32") + tables * reckoned.reading_host_bytes(text, []),
    )


def _check_alignment(reckoned: Reckoned, text: str) -> Job:
    return Job("the ids of a text are looked through", host_bytes=2 * reckoned.table_bytes(text))


def _divergence(reckoned: Reckoned, pair: str, text: str) -> Job:
    sizes, rows = reckoned.models(reckoned.study.pairs[pair].models), reckoned.rows(text)
    tokens, layers = reckoned.calibration + reckoned.study.divergence.tokens, min(size.layers for size in sizes)
    passing = max(reading_bytes(size, rows, len(sizes) * layers) for size in sizes)
    return Job(
        "all layers of both models",
        tokens=tokens,
        work=both(sizes, tokens, rows, layers),
        card_bytes=sum(model_bytes(size, rows.dtype) for size in sizes)
        + passing
        + 4 * 8 * rows.tokens * sizes[0].hidden,
        host_bytes=reckoned.reading_host_bytes(text, sizes),
    )
