# What all rules share: the checked study, the paths, and the two lists of files that follow from the config.
import functools
import math
import sys

# the workflow's own library goes before an installed copy
sys.path.insert(0, str(Path(workflow.basedir) / "scripts"))

from reasondiff import codehash, listing
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
ANSWERING = [name for name, model in study.models.items() if model.elicitations]
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


def site_files(bank_names, name, coupled=False):
    """File `name` of every dictionary of some banks at the site {site}."""
    return [
        f"<results>/crosscoders/{{site}}/{point}/seed{seed}/{name}"
        for point, seed in listing.points(study, bank_names, coupled)
    ]


def sites():
    """{site: names of the banks that train there}; a site is `pair/text/layerN`."""
    return {site.folder: bank_names for site, bank_names in listing.sites(study).items()}


def sites_by_banks(coupled=False):
    """{bank names: sites where just these banks meet}; banks without any coupled dictionary left out on request."""
    grouped = {}
    for site, bank_names in sites().items():
        chosen = tuple(name for name in bank_names if listing.points(study, [name], coupled))
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


def tokenizer_of_pair(wildcards):
    pair, _ = pair_text(wildcards)
    return f"<results>/text/tokenizers/{study.pairs[pair].tokenizer}/tokenizer.json"


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


def markup_of(room):
    """Digest of what the pages of a room of the library are made of besides code: markup, styles, scripts."""
    folder = Path(workflow.basedir, "scripts", "reasondiff", room)
    files = sorted(path for path in folder.iterdir() if path.suffix in (".html", ".css", ".js", ".md"))
    return digest("".join(path.read_text(encoding="utf-8") for path in files))


include: "../functions/transcoders.smk"
include: "../functions/latents.smk"
include: "../functions/circuits.smk"
include: "../functions/release.smk"


ASKED = prompts_of_study()
PROMPTS = ASKED if study.graphs else []  # that graphs are made of
SIZES = known_sizes(study)
COSTS = reckon(study, SIZES, len(ASKED))
