"""The sweep's table in; which point is trained on all layers, and why, out."""

from reasondiff.config import TranscoderGates
from reasondiff.dictionaries.choice import choose_point
from reasondiff.job import job
from reasondiff.store import file_digest, read_table, write_json

with job(snakemake) as log:
    params = snakemake.params
    sweeps = list(snakemake.input.sweep)
    gates = TranscoderGates.model_validate(params.gates)

    choice = choose_point(read_table(sweeps[0]) if sweeps else None, gates, params.named, params.unqualified)
    log.info("%s: %s", choice["point"], choice["reason"])

    card = {
        "sweep": [file_digest(path) for path in sweeps],
        "gates": params.gates,
        "named": params.named,
        "unqualified": params.unqualified,
        "code": params.code,
    }
    write_json(snakemake.output[0], choice, card)
