"""All crosscoders of one site and their latent tables in; what sets of their latents do to predictions out."""

from pathlib import Path

from reasondiff.config import SetEffects
from reasondiff.dictionaries.crosscoder import load_crosscoder
from reasondiff.evidence.measuring import measure_set_effects
from reasondiff.job import job
from reasondiff.models.pairing import open_stream, stream_card
from reasondiff.models.stream import calibrate
from reasondiff.store import file_digest, read_table, write_table

with job(snakemake) as log:
    given, layer, reading = snakemake.input, snakemake.params.layer, snakemake.params.reading
    stream = open_stream(given.models, given.tokens, given.alignment, [layer], **reading)
    crosscoders = {path: load_crosscoder(path, reading["device"]) for path in given.crosscoders}
    latents = {path: read_table(table) for path, table in zip(crosscoders, given.latents, strict=True)}
    wanted = SetEffects.model_validate(snakemake.params.settings)

    statistics = calibrate(stream, stream.table.documents_of("calibrate"), stream.settings.calibration_tokens)
    tables = measure_set_effects(
        stream, layer, statistics[layer], crosscoders, latents, wanted, snakemake.params.min_problems
    )

    card = {**stream_card(stream), "settings": snakemake.params.settings, "code": snakemake.params.code}
    for (path, table), source in zip(tables.items(), given.latents, strict=True):
        log.info("%s: %s", path, table["status"].value_counts().to_dict())
        facts = {**card, "crosscoder": file_digest(path), "latents": file_digest(source)}
        write_table(Path(path).with_name("effects.tsv"), table, facts)
