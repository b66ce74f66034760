"""A finished study's folder in, the size, digest and card of each artefact in it out."""

from pathlib import Path

from reasondiff.job import job
from reasondiff.manifest import manifest_of, write_manifest

with job(snakemake) as log:
    params = snakemake.params
    content = manifest_of(Path(snakemake.output[0]).parent, snakemake.threads)
    log.info("%d artefacts, %d more that say how long the run took", len(content["artefacts"]), len(content["timed"]))
    card = {"study": params.study, "config": params.config_digest, "code": params.code}
    write_manifest(snakemake.output[0], {"card": card, **content})
