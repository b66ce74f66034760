"""Packaged folders in, repositories of the hub out; their addresses are what is kept."""

from huggingface_hub import HfApi

from reasondiff.config import Release
from reasondiff.job import job
from reasondiff.release.upload import require_upload, upload_release
from reasondiff.store import write_json

with job(snakemake) as log:
    release = Release.model_validate(snakemake.params.release)
    api = HfApi(token=require_upload(release))
    kinds = dict(zip(snakemake.input, snakemake.params.kinds, strict=True))
    sent = upload_release(kinds, release, api)
    log.info("%d repositories are on the hub: %s", len(sent), ", ".join(sent))
    write_json(snakemake.output[0], {"repositories": sent}, card={"release": snakemake.params.release})
