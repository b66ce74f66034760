# What a release hands on.


def released_crosscoders():
    """What is handed on of the crosscoders: weights, their config and evaluation, and the guard's finding."""
    dictionaries = [
        path for name in ("crosscoder.safetensors", "config.json", "evaluation.tsv") for path in all_files(name)
    ]
    trained = {tuple(site.split("/")[:2]) for site in sites()}
    guards = [make(pair, text) for pair, text in sorted(trained) for make in (alignment_file, divergence_file)]
    return dictionaries + [f"<results>/crosscoders/{site}/baselines.tsv" for site in sites()] + guards


def released_transcoders(wildcards):
    """What is handed on of the transcoders that were trained here; ready ones are somebody else's."""
    return [
        path
        for model, folder in chosen_sets(wildcards)
        if model in transcoders_trained_here()
        for layer in TRANSCODED[model].layers
        for path in [f"{folder}/{name}" for name in transcoder_files(layer)[:2]]
    ] + [f"{folder}/evaluation.tsv" for model, folder in chosen_sets(wildcards) if model in transcoders_trained_here()]


def released_latents(wildcards):
    """Latent tables, and everything known of the dictionaries whose latents have labels; windows of text on request."""
    names = ["firing.parquet", "logits.parquet", "labels.json", "label_scores.tsv"]
    names += ["examples.parquet"] if study.release.examples else []
    return all_files("latents.tsv", coupled=True) + [path for name in names for path in labelled_files(name)(wildcards)]


def released_graphs():
    """Graphs in both forms, interventions, and the tables over all of them."""
    if study.graphs is None:
        return []
    tables = [f"<results>/graphs/{name}.tsv" for name in ("summary", "latents", "interventions")]
    tables += [f"<results>/comparisons/{name}.tsv" for name in (COMPARISONS if study.comparisons else [])]
    tables += ["<results>/motifs/profiles.tsv"] if study.comparisons else []
    graphs = [path for name in ("graph.npz", "graph.json", "interventions.tsv") for path in all_graph_files(name)]
    return graphs + tables + link_tables() + ([SPLIT] if SPLIT else [])


def released_repositories():
    """{folder: "model" or "dataset"} of a release."""
    from reasondiff.release.contents import repository_name

    crosscoders = [("crosscoders", pair) for pair in dict.fromkeys(site.split("/")[0] for site in sites())]
    dictionaries = crosscoders + [("transcoders", model) for model in transcoders_trained_here()]
    kinds = {repository_name(study.study, *one): "model" for one in dictionaries}
    data_sets = ["latents", *(["graphs"] if study.graphs else [])]
    kinds |= {repository_name(study.study, name): "dataset" for name in data_sets}
    return {f"<results>/release/{name}": kind for name, kind in kinds.items()}


def refuse_upload(jobs):
    """Where an upload is among what is to run, and may not or cannot be: before anything is trained."""
    if "upload_release" not in {job.rule.name for job in jobs}:
        return
    from reasondiff.release.upload import UploadError, require_upload

    try:
        require_upload(study.release)
    except UploadError as error:
        raise WorkflowError(str(error)) from None
