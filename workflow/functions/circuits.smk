# Which files of prompts, graphs, motifs and comparisons rules read and write.

TARGETS_OF = {"reasoning": (*FORCED, "correct", "incorrect"), "base": (*FORCED, "own")}


def file_of_prompts():
    return beside_workflow(study.prompts.file)


def prompts_of_study():
    """The ids of the benchmark prompts, in the order of their file."""
    if study.prompts is None:
        return []
    from reasondiff.text.prompts import PromptError, read_prompts

    try:
        return [prompt.id for prompt in read_prompts(file_of_prompts())]
    except PromptError as error:
        raise WorkflowError(str(error)) from None


def traced_models():
    """{model: names of its targets}."""
    return {model: TARGETS_OF[role] for role, model in listing.traced_models(study).items()}


def graph_files(model, seed, name="graph.npz", targets=None, prompts=None):
    """File `name` of the graphs of one subject; only those of some targets or prompts on request."""
    return [
        f"<results>/graphs/{model}/seed{seed}/{prompt}/{target}/{name}"
        for prompt in (PROMPTS if prompts is None else prompts)
        for target in traced_models()[model]
        if targets is None or target in targets
    ]


def all_graph_files(name="graph.npz"):
    return [path for model, seed in listing.subjects(study) for path in graph_files(model, seed, name)]


def prompts_by_job():
    """The prompts, in lots that one job traces."""
    size = study.graphs.prompts_of_job if study.graphs else 1
    return [PROMPTS[start : start + size] for start in range(0, len(PROMPTS), size)]


def graph_costs():
    return [
        f"<results>/graphs/{model}/seed{seed}/costs/{number}.tsv"
        for model, seed in listing.subjects(study)
        for number, _ in enumerate(prompts_by_job())
    ]


def set_of_graphs(model, name=None):
    """An input function: the transcoders that a model's graphs with seed {seed} are made with, or file `name` of
    their set."""

    def paths(wildcards):
        (folder,) = chosen_folders(wildcards, model, [wildcards.seed])
        return weights_in(folder, model) if name is None else f"{folder}/{name}"

    return paths


def labels_of_graphs(name):
    """An input function: file `name` of every set of transcoders whose latents got labels and stand in graphs."""
    return lambda wildcards: [
        f"{folder}/{name}" for model, folder in chosen_sets(wildcards, first_seed=True) if model in traced_models()
    ]


def failed_graphs(model, number):
    """A params function: graphs that failed when a job last ran, with its time, so that the next run tries them."""

    def failed(wildcards):
        path = Path(study.results_dir, "graphs", model, f"seed{wildcards.seed}", "costs", f"{number}.tsv")
        if not path.is_file():
            return "none"
        table = read_table(path)
        names = table.loc[table["status"] == "failed", ["prompt_id", "target"]]
        return f"{names.values.tolist()} at {path.stat().st_mtime_ns}" if len(names) else "none"

    return failed


def motif_sources():
    """Folders of results/motifs: a subject each, and one for each folder of graphs from elsewhere."""
    if study.motifs is None:
        return []
    return [f"{model}/seed{seed}" for model, seed in listing.subjects(study)] + [
        f"published/{name}" for name in study.motifs.sources
    ]


def labels_of_subject(model):
    """An input function: the labels of the transcoders that a model's graphs with seed {seed} are made with; only
    those of the first seed have any."""
    first = TRANSCODED[model].seeds[0]
    named = set_of_graphs(model, "labels.json")
    return lambda wildcards: [named(wildcards)] if int(wildcards.seed) == first else []


def linked_crosscoders(links, name):
    """File `name` of the crosscoders of the linked point, in every layer that it is trained on, with its first seed."""
    text = study.pairs[links.pair].texts[0]
    banks = [bank for bank in study.banks.values() if links.pair in bank.pairs and links.point in bank.points]
    return [
        f"<results>/crosscoders/{links.pair}/{text}/layer{layer}/{links.point}/seed{bank.points[links.point].seeds[0]}/{name}"
        for bank in banks
        for layer in bank.layers
    ]


def forced_graphs(model, number):
    """Graphs of a model's seed of that number on the reasoning model's response; none where it has fewer seeds."""
    seeds = TRANSCODED[model].seeds[number : number + 1]
    return [path for seed in seeds for path in graph_files(model, seed, targets=FORCED)]


def compared_subjects(reasoning, base):
    """{side: subject}: the reasoning model, the base, and the base with another seed where there is one."""
    named = {"reasoning": (reasoning, 0), "base": (base, 0), "other_seed": (base, 1)}
    return {
        side: f"{model}/seed{TRANSCODED[model].seeds[number]}"
        for side, (model, number) in named.items()
        if number < len(TRANSCODED[model].seeds)
    }


def set_of_seed(model, number):
    """An input function: the transcoders of a model's seed of that number; none where it has fewer seeds."""
    seeds = TRANSCODED[model].seeds[number : number + 1]
    return lambda wildcards: [
        path for folder in chosen_folders(wildcards, model, seeds) for path in weights_in(folder, model)
    ]


def link_tables():
    if study.graphs is None or study.graphs.links is None:
        return []
    return [f"<results>/graphs/{model}/seed{seed}/links.tsv" for model, seed in listing.subjects(study)]


def published_graphs(name):
    """The files of a folder of graphs from elsewhere."""
    folder = Path(study.motifs.sources[name].folder)
    if found := sorted(str(path) for path in folder.glob("*.json")):
        return found
    raise WorkflowError(f"motifs.sources.{name}.folder: no .json file in {folder} (relative to the working folder)")
