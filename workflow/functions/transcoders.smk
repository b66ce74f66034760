# Which files of transcoders rules read and write, before and after their point is chosen.


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


def tokenizer_of_transcoders(wildcards):
    return f"<results>/text/tokenizers/{TRANSCODED[wildcards.model].tokenizer}/tokenizer.json"


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
