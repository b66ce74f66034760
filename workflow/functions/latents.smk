# Which files of latents, their labels and their concepts rules read and write.

# the folder of one crosscoder, or of a model's set of transcoders
DICTIONARY_FOLDER = r"crosscoders/[^/]+/[^/]+/layer\d+/[^/]+/seed\d+|transcoders/[^/]+/[^/]+/[^/]+/seed\d+"


def table_of_latents(wildcards):
    """The latent table of a crosscoder; transcoders have none."""
    return [f"<results>/{wildcards.folder}/latents.tsv"] if wildcards.folder.startswith("crosscoders/") else []


def labelled_crosscoders():
    """Folders of the crosscoders whose latents get labels: each coupled point of a site with its first seed."""
    folders = []
    for site, bank_names in sites().items():
        if not listing.shows_latents(study, site.split("/")[0]):
            continue
        folders += [Path(path.format(site=site)).parent.as_posix() for path in first_seed_files(bank_names, "x")]
    return folders


def first_seed_files(bank_names, name):
    """File `name` of each coupled point's first seed at the site {site}."""
    first = {}
    for point, seed in listing.points(study, bank_names, coupled=True):
        first.setdefault(point, seed)
    return [f"<results>/crosscoders/{{site}}/{point}/seed{seed}/{name}" for point, seed in first.items()]


def tested_sites_by_banks():
    """{bank names: sites where just these banks meet} where sets of latents are tested for what they do."""
    grouped = {}
    for site, bank_names in listing.tested_sites(study).items():
        grouped.setdefault(tuple(bank_names), []).append(site.folder)
    return grouped


def effect_tables():
    return [
        path.format(site=site)
        for bank_names, some in tested_sites_by_banks().items()
        for site in some
        for path in first_seed_files(bank_names, "effects.tsv")
    ]


def labelled_files(name):
    """An input function: file `name` of every dictionary whose latents get labels."""
    return lambda wildcards: [f"{folder}/{name}" for folder in labelled_crosscoders()] + [
        f"{folder}/{name}" for _, folder in chosen_sets(wildcards, first_seed=True)
    ]


def require_key_of_provider(jobs):
    """Where labels are among what is to run, or may follow from the choice: before anything is trained."""
    labelling = {"label_latents", "score_labels", "choose_transcoder"} & {job.rule.name for job in jobs}
    if study.labels.provider != "anthropic" or not labelling:
        return
    from reasondiff.labels.claude import require_key
    from reasondiff.labels.store import LabelError

    try:
        require_key()
    except LabelError as error:
        raise WorkflowError(str(error)) from None


def most_dollars(wildcards):
    """What labels and scores of one dictionary can cost at most, in words, from the config alone."""
    if study.labels.provider == "offline":
        return "costs nothing"
    from reasondiff.labels.spending import bound, most_labelled

    layers = (
        1 if wildcards.folder.startswith("crosscoders/") else len(TRANSCODED[wildcards.folder.split("/")[1]].layers)
    )
    window = study.examples.before + study.examples.after + 1
    latents = most_labelled(study.labels, layers, study.graphs.labelled if study.graphs else 0)
    dollars = bound(study.labels, latents, window)
    limit = study.labels.anthropic.budget_dollars
    return f"at most {dollars:.2f} dollars with scores, and never more than {limit:.2f} for the study"


def latents_of_graphs(wildcards):
    """The table of the latents that graphs use most, for a set of transcoders that graphs are made with."""
    kind, model, *_ = wildcards.folder.split("/")
    is_traced = kind == "transcoders" and model in traced_models()
    return ["<results>/graphs/latents.tsv"] if is_traced else []


def failed_before(wildcards):
    """Labels that failed in the last run, with its time: so that the next run asks for them again."""
    path = Path(study.results_dir) / wildcards.folder / "labels.json"
    if not path.is_file():
        return "none"
    failed = sum(row["status"] == "failed" for row in read_json(path)["latents"])
    return f"{failed} at {path.stat().st_mtime_ns}" if failed else "none"


def concept_sites():
    """{bank names: sites where just these banks meet} where concepts are measured in crosscoders."""
    pairs = study.concepts.pairs if study.concepts else ()
    grouped = {
        bank_names: [site for site in some if site.split("/")[0] in pairs]
        for bank_names, some in sites_by_banks(coupled=True).items()
        if listing.untrained_point(study, bank_names)
    }
    return {bank_names: some for bank_names, some in grouped.items() if some}


def untrained_bank(wildcards):
    """The bank of the point that is trained on random weights, as plain data and for this site and point alone."""
    name, point = listing.untrained_point(study, sites()[wildcards.site])
    bank = study.banks[name]
    return {
        **bank.model_dump(mode="json"),
        "pairs": [pair_text(wildcards)[0]],
        "layers": [layer_of_site(wildcards)],
        "points": {point: bank.points[point].model_dump(mode="json")},
    }


def concept_tables():
    return [f"<results>/crosscoders/{site}/concepts.tsv" for some in concept_sites().values() for site in some]


def transcoder_concept_tables(wildcards):
    """Of the first seed of each set."""
    if study.concepts is None:
        return []
    return [f"{folder}/concepts.tsv" for _, folder in chosen_sets(wildcards, first_seed=True)]
