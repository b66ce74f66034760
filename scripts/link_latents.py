"""The latents of a model's graphs, its transcoders and a pair's crosscoders in; which latents are linked, out."""

from reasondiff.config import Links
from reasondiff.dictionaries.crosscoder import load_crosscoder
from reasondiff.dictionaries.transcoder import load_set
from reasondiff.graphs.codes import read_codes
from reasondiff.graphs.links import by_site, latents_of, link_latents
from reasondiff.job import job
from reasondiff.models.pairing import open_stream, stream_card
from reasondiff.models.stream import calibrate
from reasondiff.store import file_digest, read_table, write_table

with job(snakemake) as log:
    given, params = snakemake.input, snakemake.params
    settings, reading = Links.model_validate(params.settings), params.reading
    device, paths = reading["device"], list(given.transcoders)
    crosscoders = by_site(given.crosscoders, [load_crosscoder(path, device) for path in given.crosscoders])
    tables = by_site(given.crosscoders, [read_table(path) for path in given.latents])
    in_graphs = latents_of(read_table(given.in_graphs), params.model, params.seed)
    streams = [
        open_stream(models, given.tokens, given.alignment, list(crosscoders), **reading, place=place)
        for models, place in (([given.model], "mlp"), (given.models, "block"))
    ]

    statistics = [
        calibrate(stream, stream.table.documents_of("calibrate"), stream.settings.calibration_tokens)
        for stream in streams
    ]
    codes = read_codes(*streams, *statistics, load_set(paths, device), crosscoders, settings.tokens)
    links = link_latents(codes, tables, in_graphs, settings)

    log.info("%d of %d rows are linked", links["linked"].sum(), len(links))
    card = {
        "mlps": stream_card(streams[0]),
        "blocks": stream_card(streams[1]),
        "transcoders": [file_digest(path) for path in paths],
        "crosscoders": [file_digest(path) for path in given.crosscoders],
        "tags": [file_digest(path) for path in given.latents],
        "in_graphs": file_digest(given.in_graphs),
        "settings": params.settings,
        "code": params.code,
    }
    write_table(snakemake.output[0], links, card)
