"""All crosscoders of one site in; for each known concept the latents that tell it best, beside their baselines, out."""

from reasondiff.config import Concepts
from reasondiff.dictionaries.crosscoder import load_crosscoder
from reasondiff.dictionaries.untrained import with_its_models
from reasondiff.job import job
from reasondiff.latents.concepts import measure_concepts, point_and_seed
from reasondiff.models.pairing import open_stream, stream_card
from reasondiff.models.stream import calibrate
from reasondiff.store import file_digest, read_table, write_table
from reasondiff.text.token_strings import token_strings

with job(snakemake):
    given, layer, reading = snakemake.input, snakemake.params.layer, snakemake.params.reading
    names = [point_and_seed(path) for path in given.crosscoders]
    crosscoders = [load_crosscoder(path, reading["device"]) for path in given.crosscoders]
    tags = [read_table(path)["tag"].tolist() for path in given.latents]
    wanted, strings = Concepts.model_validate(snakemake.params.settings), token_strings(given.tokenizer)
    files = (given.models, given.tokens, given.alignment, [layer])
    stream = open_stream(*files, **reading)
    untrained = with_its_models(given.get("untrained", []), *files, **reading)

    statistics = calibrate(stream, stream.table.documents_of("calibrate"), stream.settings.calibration_tokens)
    table = measure_concepts(
        stream, layer, statistics[layer], dict(zip(names, crosscoders, strict=True)),
        dict(zip(names, tags, strict=True)), untrained, strings, wanted, snakemake.params.of,
    )  # fmt: skip

    card = {
        **stream_card(stream),
        "crosscoders": [file_digest(path) for path in given.crosscoders],
        "tags": [file_digest(path) for path in given.latents],
        "untrained": untrained[0].card["fingerprint"] if untrained else None,
        "tokenizer": file_digest(given.tokenizer),
        "settings": snakemake.params.settings,
        "code": snakemake.params.code,
    }
    write_table(snakemake.output[0], table, card)
