"""The name of a ready model in, its folder, sizes and weights digest out."""

from pathlib import Path

from reasondiff.config import HubModel, LocalModel
from reasondiff.job import job
from reasondiff.models.load import describe_model, download_model, info_to_json, refuse_other_size
from reasondiff.revisions import refuse_unpinned
from reasondiff.store import write_json

with job(snakemake):
    refuse_unpinned(snakemake.params.without_commit)
    wanted, name = snakemake.params.settings, snakemake.wildcards.model
    is_hub = wanted["stage"] == "hub"
    model = (HubModel if is_hub else LocalModel).model_validate(wanted)

    folder = download_model(model.repo, model.revision) if is_hub else Path(model.folder).resolve()
    commit = folder.name if is_hub else None  # a branch may move, its commit does not
    info = describe_model(name, folder, untrained_tokens=model.untrained, revision=commit)
    if model.size is not None:
        refuse_other_size(name, folder, model.size)

    card = {"settings": {**wanted, "revision": commit} if is_hub else dict(wanted)}
    write_json(snakemake.output.model, info_to_json(info), card)
