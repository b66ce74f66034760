"""Examples, firings and logit effects (and labels, where they are given) in; the shapes that other tools read, out."""

from reasondiff.job import job
from reasondiff.latents.export import export_examples, names_of
from reasondiff.latents.records import Sources

with job(snakemake) as log:
    paths, params = snakemake.input, snakemake.params
    # a rule may give none of these, or an empty list
    given = {name: str(paths[name]) for name in ("logits", "labels") if paths.get(name)}
    kind, names = names_of(params.study, snakemake.wildcards.folder)

    card = {"study": params.study, "dictionary": snakemake.wildcards.folder, "code": params.code}
    count = export_examples(
        Sources(paths.examples, paths.firing, **given), kind, names,
        snakemake.output.neuronpedia, snakemake.output.legacy, card,
    )  # fmt: skip
    log.info("%d latents", count)
