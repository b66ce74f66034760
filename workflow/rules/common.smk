# What all rules share: the checked study, the paths, and the two lists of files that follow from the config.
import functools
import math
import sys

# the workflow's own library goes before an installed copy
sys.path.insert(0, str(Path(workflow.basedir) / "scripts"))

from reasondiff import codehash
from reasondiff.config import READY, ConfigError, first_stage, is_trained, load_study
from reasondiff.costs.sizes import known_sizes
from reasondiff.costs.table import largest, reckon
from reasondiff.gpus import visible_gpus
from reasondiff.graphs.graph import FORCED
from reasondiff.job import prefer_library
from reasondiff.revisions import pinned, read_revisions, refuse_unpinned, unpinned
from reasondiff.store import digest, read_json, read_table

prefer_library(Path(workflow.basedir) / "scripts")


def beside_workflow(file):
    """Where a file of the study is: relative to the working folder, or to the workflow's."""
    path = Path(file)
    return str(path if path.is_file() else Path(workflow.basedir) / path)


try:
    study = load_study(config)
    if study.revisions is not None:
        study = pinned(study, read_revisions(beside_workflow(study.revisions)))
except ConfigError as error:
    raise WorkflowError(str(error)) from None

GPU = 0 if study.device == "cpu" else 1
TRAINED = [name for name, model in study.models.items() if is_trained(model)]
LOCATED = [name for name in study.models if name not in TRAINED]
TRANSCODED = study.transcoders.models if study.transcoders else {}


pathvars:
    results=study.results_dir,
    logs=f"logs/{study.study}",


wildcard_constraints:
    model="|".join(study.models),
    text="|".join(study.text),
    tokenizer="|".join(study.tokenizers),
    pair="|".join(study.pairs),
    layer=r"\d+",
    seed=r"\d+",
    point=r"[a-z0-9][a-z0-9_]*",


resource_scopes:
    gpu="local",


# never more GPU jobs at once than cards: Snakemake's own default is no limit
if workflow.is_main_process and GPU and workflow.global_resources.get("gpu").value is None:
    if cards := visible_gpus():
        workflow.register_resource("gpu", len(cards))


# ---------------------------------------------------------------------------------------------------- revisions


def without_commit(*place):
    """The hub repositories of a part of the study, in words, that must not be read for want of a commit."""
    if study.unpinned == "allow":
        return []
    return [str(name) for name in unpinned(study) if name.place[: len(place)] == place]


def refuse_commits_that_are_missing(jobs):
    """Before any job, rather than hours later in the one that reads the repository."""
    try:
        refuse_unpinned(sorted({name for job in jobs for name in job.params.get("without_commit", [])}))
    except ConfigError as error:
        raise WorkflowError(str(error)) from None


def code_hash(*modules):
    """A params function: the hash of the library modules that a rule's script imports. Worked out for the rules whose
    jobs run, since each job of a cluster reads this file twice."""
    hashed = functools.cache(lambda: codehash.code_hash(*modules))
    return lambda wildcards: hashed()


def memory(mb, rule=None):
    """Memory that doubles with each attempt (retries are set in the profile): at least `mb`, more where the largest job
    of `rule` is reckoned to take more."""
    least = max(mb, math.ceil(largest(COSTS, rule, "host_gib") * 2**30 / 1e6))
    return lambda wildcards, attempt: least * 2 ** (attempt - 1)


def runtime(minutes, rule=None):
    """Minutes that grow with each attempt: at least so many, more where the longest job of `rule` is reckoned to take
    more on the study's card."""
    reckoned = 60 * study.cost.runtime_factor * largest(COSTS, rule, "gpu_hours_each")
    least = max(minutes, math.ceil(reckoned))
    return lambda wildcards, attempt: least * attempt


def settings(section, wildcard=None):
    """One section of the study as plain data, so that only a change in it runs the rule again."""
    part = getattr(study, section)
    if wildcard is None:
        return part.model_dump(mode="json")
    return lambda wildcards: part[wildcards[wildcard]].model_dump(mode="json")


def tokenizer_of_model(name):
    """The tokenizer that the first stage of a model's chain was trained with."""
    return first_stage(study, name).tokenizer


def points(bank_names, coupled=False):
    """(point, seed) of every dictionary of some banks; only those that read two models or more where `coupled`."""
    return [
        (name, seed)
        for bank in map(study.banks.get, bank_names)
        for name, point in bank.points.items()
        for seed in point.seeds
        if point.is_coupled or not coupled
    ]


def site_files(bank_names, name, coupled=False):
    """File `name` of every dictionary of some banks at the site {site}."""
    return [f"<results>/crosscoders/{{site}}/{point}/seed{seed}/{name}" for point, seed in points(bank_names, coupled)]


def sites():
    """{site: names of the banks that train there}; a site is `pair/text/layerN`."""
    found = {}
    for bank_name, bank in study.banks.items():
        for pair in bank.pairs:
            for text in study.pairs[pair].texts:
                for layer in bank.layers:
                    found.setdefault(f"{pair}/{text}/layer{layer}", []).append(bank_name)
    return found


def sites_by_banks(coupled=False):
    """{bank names: sites where just these banks meet}; banks without any coupled dictionary left out on request."""
    grouped = {}
    for site, bank_names in sites().items():
        chosen = tuple(name for name in bank_names if points([name], coupled))
        if chosen:
            grouped.setdefault(chosen, []).append(site)
    return grouped


def all_files(name, coupled=False):
    """File `name` of every dictionary of the study."""
    return [
        path.format(site=site) for site, bank_names in sites().items() for path in site_files(bank_names, name, coupled)
    ]


def pair_texts():
    """(pair, text) of all pairs of the study."""
    return [(pair, text) for pair, settings in study.pairs.items() for text in settings.texts]


def pair_text(wildcards):
    """(pair, text) from the wildcards pair and text, or from a site (pair/text/layerN)."""
    if hasattr(wildcards, "site"):
        return wildcards.site.split("/")[:2]
    return wildcards.pair, wildcards.text


def layer_of_site(wildcards):
    return int(wildcards.site.rsplit("layer", 1)[1])


def models_of_pair(wildcards):
    pair, _ = pair_text(wildcards)
    return [f"<results>/models/{model}/model.json" for model in study.pairs[pair].models]


def tokens_file(pair, text):
    return f"<results>/text/{text}/{study.pairs[pair].tokenizer}/tokens.npz"


def alignment_file(pair, text):
    return f"<results>/crosscoders/{pair}/{text}/alignment.json"


def divergence_file(pair, text):
    return f"<results>/crosscoders/{pair}/{text}/divergence.tsv"


def tokens_of_pair(wildcards):
    return tokens_file(*pair_text(wildcards))


def alignment_of_pair(wildcards):
    return alignment_file(*pair_text(wildcards))


def reading_of_text(text):
    """How activations are read: part of every rule that reads them."""
    return {
        "stream": study.stream.model_dump(mode="json"),
        "context": study.text[text].context,
        "device": study.device,
        "dtype": study.dtype,
    }


def reading(wildcards):
    return reading_of_text(pair_text(wildcards)[1])


# ------------------------------------------------------------------------------------------------ transcoders


def transcoders_trained_here():
    return study.transcoders.trained() if study.transcoders else {}


def transcoders_from_elsewhere():
    return {name: model for name, model in TRANSCODED.items() if model.ready}


def transcoder_sweeps():
    """The study's sweep, in a list; nothing in it where there is none."""
    return [study.transcoders.sweep] if study.transcoders and study.transcoders.sweep else []


SWEEP = [
    f"<results>/transcoders/{sweep.model}/{TRANSCODED[sweep.model].text}/sweep.tsv" for sweep in transcoder_sweeps()
]


def transcoder_files(layer):
    """What a trained transcoder leaves, in the folder of its set."""
    return [f"layers.{layer}.mlp/{name}" for name in ("sae.safetensors", "cfg.json", "training.jsonl")]


def weights_in(folder, model):
    """The weights of a set in its folder: those of the layers that `model` has transcoders of."""
    return [f"{folder}/{transcoder_files(layer)[0]}" for layer in TRANSCODED[model].layers]


def point_of_transcoders(name):
    return study.transcoders.points[name].model_dump(mode="json")


def training_of_transcoders():
    """What all transcoders of a study are trained with, apart from point and schedule."""
    recipe = study.transcoders.model_dump(include={"auxiliary_weight", "stale_after_tokens", "selection"})
    tracking = study.tracking.model_dump(mode="json")
    return {
        "trainer": study.transcoders.trainer,
        "recipe": recipe,
        "tracking": tracking,
        "memory_gib": study.memory_gib,
    }


def transcoders_to_start_from(model):
    """Weights of the transcoders that a model's own begin as, of the same point and seed."""
    first = TRANSCODED[model].start_from
    if first is None:
        return []
    folder = f"<results>/transcoders/{first}/{TRANSCODED[first].text}/{{point}}/seed{{seed}}"
    return weights_in(folder, model)


def sweep_files(sweep, name=None):
    """Files of all sweep points on the pilot layers; only those of one `name` on request."""
    folder = f"<results>/transcoders/{sweep.model}/{TRANSCODED[sweep.model].text}/sweep"
    return [
        f"{folder}/{point}/seed{sweep.seed}/{file}"
        for point in study.transcoders.points
        for layer in sweep.layers
        for file in transcoder_files(layer)
        if name in (None, Path(file).name)
    ]


def tokens_of_transcoders(wildcards):
    model = TRANSCODED[wildcards.model]
    return f"<results>/text/{model.text}/{model.tokenizer}/tokens.npz"


def transcoders_of_set(wildcards):
    """Weights of the transcoders of one model, point and seed."""
    folder = "<results>/transcoders/{model}/{text}/{point}/seed{seed}".format(**wildcards)
    return weights_in(folder, wildcards.model)


def choice_of_transcoders(wildcards):
    """The choice, where one has to be made."""
    return [checkpoints.choose_transcoder.get().output[0]] if transcoders_trained_here() else []


def chosen_sets(wildcards, first_seed=False):
    """(model, folder) of every set of transcoders that the study asks for; waits for the choice."""
    choice = choice_of_transcoders(wildcards)
    point = read_json(choice[0])["point"] if choice else None
    return [
        (model, f"<results>/transcoders/{model}/{settings.text}/{READY if settings.ready else point}/seed{seed}")
        for model, settings in TRANSCODED.items()
        for seed in settings.seeds[: 1 if first_seed else None]
    ]


def chosen_weights(wildcards):
    """Weights of every set of transcoders that the study asks for."""
    return [path for model, folder in chosen_sets(wildcards) for path in weights_in(folder, model)]


def chosen_folders(wildcards, model, seeds):
    """The folders of a model's sets with some seeds."""
    named = [f"seed{seed}" for seed in seeds]
    return [folder for of, folder in chosen_sets(wildcards) if of == model and Path(folder).name in named]


def chosen_files(name, first_seed=False):
    """An input function: file `name` of every set of transcoders."""
    return lambda wildcards: [f"{folder}/{name}" for _, folder in chosen_sets(wildcards, first_seed)]


def transcoder_histories(wildcards):
    """The last file that each transcoder left when it was made, sweep included: what stands beside it says what that
    cost."""
    last = {model: 1 if settings.ready else 2 for model, settings in TRANSCODED.items()}  # ready ones have no history
    made = [
        f"{folder}/{transcoder_files(layer)[last[model]]}"
        for model, folder in chosen_sets(wildcards)
        for layer in TRANSCODED[model].layers
    ]
    return made + [path for sweep in transcoder_sweeps() for path in sweep_files(sweep, "training.jsonl")]


# ---------------------------------------------------------------------------------------------------- latents

# the folder of one crosscoder, or of a model's set of transcoders
DICTIONARY_FOLDER = r"crosscoders/[^/]+/[^/]+/layer\d+/[^/]+/seed\d+|transcoders/[^/]+/[^/]+/[^/]+/seed\d+"


def tokenizer_of_pair(wildcards):
    pair, _ = pair_text(wildcards)
    return f"<results>/text/tokenizers/{study.pairs[pair].tokenizer}/tokenizer.json"


def tokenizer_of_transcoders(wildcards):
    return f"<results>/text/tokenizers/{TRANSCODED[wildcards.model].tokenizer}/tokenizer.json"


def table_of_latents(wildcards):
    """The latent table of a crosscoder; transcoders have none."""
    return [f"<results>/{wildcards.folder}/latents.tsv"] if wildcards.folder.startswith("crosscoders/") else []


def labelled_crosscoders():
    """Folders of the crosscoders whose latents get labels: each coupled point of a site with its first seed."""
    folders = []
    for site, bank_names in sites().items():
        first = {}
        for point, seed in points(bank_names, coupled=True):
            first.setdefault(point, seed)
        folders += [f"<results>/crosscoders/{site}/{point}/seed{seed}" for point, seed in first.items()]
    return folders


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
        if untrained_point(bank_names)
    }
    return {bank_names: some for bank_names, some in grouped.items() if some}


def untrained_point(bank_names):
    """The point that the dictionary on random weights is trained with: the first coupled BatchTopK one."""
    for name, _ in points(bank_names, coupled=True):
        for bank in map(study.banks.get, bank_names):
            if name in bank.points and bank.points[name].method == "batch_topk":
                return name
    return None


def untrained_bank(wildcards):
    """The bank of that point, as plain data and for this site alone."""
    banks = sites()[wildcards.site]
    point = untrained_point(banks)
    bank = next(bank for bank in map(study.banks.get, banks) if point in bank.points)
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


# ---------------------------------------------------------------------------------------------------- circuits

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
    if study.graphs is None:
        return {}
    roles = {role: getattr(study.prompts, role) for role in TARGETS_OF}
    return {model: TARGETS_OF[role] for role, model in roles.items() if model is not None}


def subjects():
    """(model, seed of its transcoders) of everything that is traced."""
    return [(model, seed) for model in traced_models() for seed in TRANSCODED[model].seeds]


def graph_files(model, seed, name="graph.npz", targets=None, prompts=None):
    """File `name` of the graphs of one subject; only those of some targets or prompts on request."""
    return [
        f"<results>/graphs/{model}/seed{seed}/{prompt}/{target}/{name}"
        for prompt in (PROMPTS if prompts is None else prompts)
        for target in traced_models()[model]
        if targets is None or target in targets
    ]


def all_graph_files(name="graph.npz"):
    return [path for model, seed in subjects() for path in graph_files(model, seed, name)]


def prompts_by_job():
    """The prompts, in lots that one job traces."""
    size = study.graphs.prompts_of_job if study.graphs else 1
    return [PROMPTS[start : start + size] for start in range(0, len(PROMPTS), size)]


def graph_costs():
    return [
        f"<results>/graphs/{model}/seed{seed}/costs/{number}.tsv"
        for model, seed in subjects()
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
    return [f"{model}/seed{seed}" for model, seed in subjects()] + [
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
    return [f"<results>/graphs/{model}/seed{seed}/links.tsv" for model, seed in subjects()]


def published_graphs(name):
    """The files of a folder of graphs from elsewhere."""
    folder = Path(study.motifs.sources[name].folder)
    if found := sorted(str(path) for path in folder.glob("*.json")):
        return found
    raise WorkflowError(f"motifs.sources.{name}.folder: no .json file in {folder} (relative to the working folder)")


def markup_of(room):
    """Digest of what the pages of a room of the library are made of besides code: markup, styles, scripts."""
    folder = Path(workflow.basedir, "scripts", "reasondiff", room)
    files = sorted(path for path in folder.iterdir() if path.suffix in (".html", ".css", ".js", ".md"))
    return digest("".join(path.read_text(encoding="utf-8") for path in files))


ASKED = prompts_of_study()
PROMPTS = ASKED if study.graphs else []  # that graphs are made of
SIZES = known_sizes(study)
COSTS = reckon(study, SIZES, len(ASKED))


# ---------------------------------------------------------------------------------------------------- release


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
