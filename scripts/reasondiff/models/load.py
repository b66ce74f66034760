"""Which model is this, and how much of it has to be in memory?

Every model of a study, trained here, local or from the hub, is known by a small `model.json`: where its folder is,
its sizes, and a digest of its weights. Later stages depend on that file alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from reasondiff.config import ModelSize
from reasondiff.hub import download_folder
from reasondiff.store import DIGESTS, ArtefactError, check_folder, digest, file_digest, filling, read_json
from reasondiff.text.alignment import OwnTokenizer

MODEL_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")
"""The files of a model on the hub that are read: its weights in safetensors alone."""


class ModelError(ValueError):
    """A model folder is missing, incomplete, or not of a kind the workflow reads."""


@dataclass(frozen=True)
class ModelInfo:
    """Sizes and origin of one model.

    `layers` blocks of width `hidden`, `vocabulary` embedded ids; `unseen_ids` were in no training text as far as is
    known; `untrained_tokens` are named so in the config.
    """

    name: str
    folder: str
    architecture: str
    layers: int
    hidden: int
    vocabulary: int
    weights_digest: str
    unseen_ids: tuple[int, ...]
    untrained_tokens: tuple[str, ...]


def describe_model(
    name: str, folder: str | Path, unseen_ids: Any = (), untrained_tokens: Any = (), revision: str | None = None
) -> ModelInfo:
    """Reads the config of a Hugging Face folder (no weights are loaded, but that their files are whole is checked).

    A revision of the hub stands for its weights; otherwise the weight files are hashed.

    Raises:
        ModelError: the folder, its config or its weights are missing, or a weight file is truncated.
    """
    folder = Path(folder)
    config = _read_config(name, folder)
    weights = weight_files(folder)
    if not weights:
        raise ModelError(f"model {name!r}: no weights (*.safetensors) in {folder}")
    if missing := missing_shards(folder):
        raise ModelError(
            f"model {name!r}: of its weights {', '.join(missing)} is missing from {folder}: fetch it again"
        )
    for file in weights:
        _refuse_truncated(name, file)
    weights_digest = revision or digest_of_weights(folder)
    return ModelInfo(
        name=name,
        folder=str(folder),
        architecture=(config.get("architectures") or ["unknown"])[0],
        layers=int(config["num_hidden_layers"]),
        hidden=int(config["hidden_size"]),
        vocabulary=int(config["vocab_size"]),
        weights_digest=weights_digest,
        unseen_ids=tuple(sorted(unseen_ids)),
        untrained_tokens=tuple(untrained_tokens),
    )


def missing_shards(folder: Path) -> list[str]:
    """The files of weights that a folder's index names and that are not there."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    named = set(read_json(index).get("weight_map", {}).values())
    return sorted(file for file in named if not (folder / file).is_file())


def size_of_folder(name: str, folder: str | Path) -> ModelSize:
    """The sizes that a model's own config.json gives, with the defaults of its architecture.

    Raises:
        ModelError: there is no such file, or it is of no kind that transformers knows.
    """
    from transformers import AutoConfig

    _read_config(name, Path(folder))
    try:
        config = AutoConfig.from_pretrained(str(folder))
        return ModelSize(
            hidden=config.hidden_size,
            layers=config.num_hidden_layers,
            mlp=config.intermediate_size,
            heads=config.num_attention_heads,
            kv_heads=getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
            vocabulary=config.vocab_size,
            tied=config.tie_word_embeddings,
        )
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"model {name!r}: {folder}/config.json is of no kind that is read here ({error})") from error


def refuse_other_size(name: str, folder: str | Path, declared: ModelSize) -> None:
    """Stops where a model is not of the sizes that the study declares for it, on which plans and costs rest.

    Raises:
        ModelError: naming each size that differs.
    """
    found = size_of_folder(name, folder).model_dump()
    differ = [
        f"{key}: {value} declared, {found[key]} found"
        for key, value in declared.model_dump().items()
        if value != found[key]
    ]
    if differ:
        raise ModelError(
            f"model {name!r}: its config.json in {folder} does not say what models.{name}.size declares "
            f"({'; '.join(differ)}). Correct the declaration, or name the model that was meant."
        )


def refuse_changed(info: ModelInfo) -> None:
    """Stops where the folder of a model no longer holds what its model.json was written for (a second a gigabyte).

    Raises:
        ModelError: its weights are others.
        ArtefactError: a file of the folder is damaged.
    """
    check_folder(info.folder)
    if (Path(info.folder) / DIGESTS).exists() or len(info.weights_digest) != len(digest("")):
        return  # checked already; or known by the hub's revision
    if (found := digest_of_weights(Path(info.folder))) != info.weights_digest:
        raise ModelError(
            f"model {info.name!r}: the weights in {info.folder} have the digest {found}, its model.json expects "
            f"{info.weights_digest}: they are damaged or were replaced. Fetch them again, or, if they are meant, "
            "delete model.json and run the same command again."
        )


def digest_of_weights(folder: Path) -> str:
    """One digest for all files of weights in a folder."""
    return digest(" ".join(file_digest(file) for file in weight_files(folder)))


def weight_files(folder: Path) -> list[Path]:
    return sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")])


def _refuse_truncated(name: str, file: Path) -> None:
    """The header of a safetensors file says how long the file must be, so a short one is found before it is loaded."""
    if file.suffix != ".safetensors":
        return
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np"):
            pass
    except SafetensorError as error:
        raise ModelError(
            f"model {name!r}: {file} is truncated or damaged ({error}): fetch or train it again"
        ) from error


def _read_config(name: str, folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise ModelError(f"model {name!r}: there is no folder {folder} (paths are relative to the working folder)")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return {key: config[key] for key in config} | {
            k: config[k] for k in ("num_hidden_layers", "hidden_size", "vocab_size")
        }
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"model {name!r}: {folder}/config.json is missing or not that of a language model ({error}); expected "
            "num_hidden_layers, hidden_size and vocab_size"
        ) from error


def info_to_json(info: ModelInfo) -> dict[str, Any]:
    """The content of model.json."""
    return asdict(info)


def read_info(path: str | Path) -> ModelInfo:
    """A model from its model.json; a relative folder is relative to that file.

    Raises:
        ArtefactError: the file is missing or lacks a field.
    """
    content = read_json(path)
    try:
        values = {field: content[field] for field in ModelInfo.__dataclass_fields__}
    except KeyError as error:
        raise ArtefactError(f"{path} lacks {error}: delete it and run again") from error
    folder = Path(values["folder"])
    values["folder"] = str(folder if folder.is_absolute() else Path(path).parent / folder)
    values["unseen_ids"] = tuple(values["unseen_ids"])
    values["untrained_tokens"] = tuple(values["untrained_tokens"])
    return ModelInfo(**values)


def download_model(repo: str, revision: str | None) -> Path:
    """The local folder of a hub model at one revision (from the cache where it is already there).

    The folder's name is the commit, whatever branch or tag `revision` is: it stands for the weights.

    Raises:
        HubError: the hub cannot be reached and the model is not in the cache.
    """
    return download_folder(repo, revision, MODEL_FILES)


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer of a folder (fast tokenizers only: phases need character offsets).

    Raises:
        ModelError: there is none, or it has no fast form.
        ArtefactError: a file of the folder is damaged.
    """
    from transformers import AutoTokenizer

    check_folder(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
    except (OSError, ValueError) as error:
        raise ModelError(f"no tokenizer can be read from {folder} ({error})") from error
    if not tokenizer.is_fast:
        raise ModelError(f"the tokenizer in {folder} has no fast form; phases need its character offsets")
    return tokenizer


def own_tokenizer(info: ModelInfo) -> OwnTokenizer:
    """What the alignment guard wants to know of a model."""
    unseen = frozenset(info.unseen_ids)
    return OwnTokenizer(info.name, info.vocabulary, load_tokenizer(info.folder), unseen, info.untrained_tokens)


def save_tokenizer(tokenizer: Any, folder: str | Path) -> None:
    """Writes a tokenizer's files into `folder`, each whole."""
    with filling(folder) as temporary:
        tokenizer.save_pretrained(temporary)


def load_model(info: ModelInfo, device: str, dtype: str, layers: int | None = None) -> Any:
    """The causal language model in evaluation mode, without gradients; only its first `layers` blocks where given.

    A shortened model's outputs after the last block are not those of the model: it is for reading activations.

    Raises:
        ModelError: the weights are truncated, changed, do not fit the config, or the model has fewer layers.
        ArtefactError: a file of the folder is damaged.
    """
    import torch
    from transformers import AutoModelForCausalLM

    if layers is not None and layers > info.layers:
        raise ModelError(
            f"model {info.name!r} has {info.layers} layers (0 to {info.layers - 1}); layer {layers - 1} was asked for"
        )
    refuse_changed(info)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            info.folder, dtype=getattr(torch, dtype), attn_implementation="sdpa", output_loading_info=True
        )
    except Exception as error:
        raise ModelError(
            f"model {info.name!r} in {info.folder} cannot be loaded ({type(error).__name__}: {error}). Its files are "
            "truncated or do not fit its config.json: fetch or train it again."
        ) from error
    if report["missing_keys"] or report["mismatched_keys"]:
        raise ModelError(
            f"model {info.name!r}: weights are missing from {info.folder}: {sorted(report['missing_keys'])[:5]}"
        )
    if layers is not None:
        model.model.layers = model.model.layers[:layers]
        model.config.num_hidden_layers = layers
    return model.to(device).eval().requires_grad_(False)
