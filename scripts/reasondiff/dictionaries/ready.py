"""Which transcoders that were trained elsewhere belong to which layer of a model?

sparsify writes what a transcoder was trained on nowhere but into the name of its folder. A folder that says another
place than the layer's MLP is refused: grafted onto the MLP, such a transcoder is worse than no MLP at all.

Source: docs/methods.md §6 and §7.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from reasondiff.config import ReadyTranscoders
from reasondiff.dictionaries.transcoder import CONFIG, WEIGHTS, Transcoder, hookpoint, load_transcoder
from reasondiff.hub import download_folder
from reasondiff.store import ArtefactError, file_digest

# `layers.3.mlp`, `model.layers.3.mlp`; without what follows the number, the whole block
HOOKPOINT = re.compile(r"(?:model\.)?layers\.(?P<layer>\d+)(?:\.(?P<place>[^/]+))?")
PREFIXES = ("", "model.")


def find_ready(ready: ReadyTranscoders, layers: Sequence[int]) -> dict[int, Path]:
    """The folder of each layer's transcoder, local or fetched from the hub.

    Raises:
        ArtefactError: a layer has no folder, or the folder's name says that it was trained on something else than
            the MLP, or says nothing and the config names no `hookpoint`.
        HubError: the hub cannot be reached.
    """
    root = _root(ready, layers)
    return {layer: root / name for layer, name in _names(ready, root, layers).items()}


def read_ready(
    ready: ReadyTranscoders, layers: Sequence[int], width: int, n_layers: int, model_name: str
) -> dict[int, Transcoder]:
    """The transcoder of each layer, with a card that says where it is from. Whether it imitates this model's MLPs at
    all, its own unexplained variance must show.

    Raises:
        ArtefactError: as `find_ready`; or the model has no such layer or another width, or a checkpoint is broken.
        HubError: the hub cannot be reached.
    """
    if beyond := [layer for layer in layers if layer >= n_layers]:
        raise ArtefactError(
            f"model {model_name!r} has {n_layers} layers (0 to {n_layers - 1}); transcoders of layer(s) {beyond} were "
            "asked for"
        )
    root = _root(ready, layers)
    found = {}
    for layer, name in _names(ready, root, layers).items():
        transcoder = load_transcoder(root / name)
        if transcoder.width != width:
            raise ArtefactError(
                f"{root / name / WEIGHTS} is for activations of {transcoder.width} units, model {model_name!r} has "
                f"{width}: it was trained on another model"
            )
        found[layer] = replace(transcoder, card=_card(ready, root, name, transcoder))
    return found


def _card(ready: ReadyTranscoders, root: Path, name: str, transcoder: Transcoder) -> dict[str, Any]:
    """Where a transcoder is from; what its own card said, if it had one, is under `own_card`."""
    # the snapshot's folder is named by its commit, whatever branch or tag the config says
    source = {"folder": ready.folder} if ready.repo is None else {"repo": ready.repo, "revision": root.name}
    digests = {"weights_digest": file_digest(root / name / WEIGHTS), "config_digest": file_digest(root / name / CONFIG)}
    return {"trainer": "elsewhere", **source, "hookpoint": name, **digests, "own_card": dict(transcoder.card)}


# ------------------------------------------------------------------------------------------------ folders


def _root(ready: ReadyTranscoders, layers: Sequence[int]) -> Path:
    """The folder in which the layers' folders are."""
    if ready.folder is not None:
        root = Path(ready.folder)
        if not root.is_dir():
            raise ArtefactError(f"there is no folder {root} of transcoders (paths are relative to the working folder)")
        return root
    return download_folder(ready.repo, ready.revision, ready_files(ready, layers))


def ready_files(ready: ReadyTranscoders, layers: Sequence[int]) -> list[str]:
    """The files of a hub repository that are read, as patterns: the small configs of all layers, to say what there is;
    the large weights of the wanted layers alone."""
    return [f"*{CONFIG}", *(f"{name}/{WEIGHTS}" for layer in layers for name in _wanted(ready, layer))]


def _wanted(ready: ReadyTranscoders, layer: int) -> list[str]:
    """The names that a layer's folder may have."""
    if ready.hookpoint is not None:
        return [Path(ready.hookpoint.replace("{layer}", str(layer))).as_posix()]
    return [prefix + hookpoint(layer) for prefix in PREFIXES]


def _names(ready: ReadyTranscoders, root: Path, layers: Sequence[int]) -> dict[int, str]:
    """{layer: name of its folder inside `root`}."""
    there = _checkpoints(root)
    names, missing = {}, []
    for layer in layers:
        fitting = [name for name in _wanted(ready, layer) if name in there]
        if len(fitting) > 1:
            raise ArtefactError(f"{root} has both {' and '.join(fitting)}; name one of them as `hookpoint`")
        if fitting:
            _refuse_elsewhere(root, fitting[0], layer)
            names[layer] = fitting[0]
        else:
            missing.append(layer)
    if missing:
        _refuse_missing(ready, root, there, missing)
    return names


def _checkpoints(root: Path) -> list[str]:
    """Folders at any depth that hold a checkpoint, or a part of one, as they are called from `root`."""
    files = [file for name in (CONFIG, WEIGHTS) for file in root.rglob(name)]
    return sorted({file.parent.relative_to(root).as_posix() for file in files}, key=_natural)


def _natural(name: str) -> list[tuple[int, str]]:
    """`layers.2` before `layers.10`."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


# ------------------------------------------------------------------------------------------------ refusals


def _refuse_elsewhere(root: Path, name: str, layer: int) -> None:
    """A folder, or one it lies in, that names a hookpoint must name this layer's MLP."""
    for part in name.split("/"):
        says = HOOKPOINT.fullmatch(part)
        if says is None:
            continue
        if says["place"] != "mlp":
            whole = "the whole block (sparsify's --layers does that)"
            place = whole if says["place"] is None else f"{says['place']} of the block"
            raise ArtefactError(
                f"{root / name} was trained on {place}: hookpoint {part}, expected {hookpoint(layer)}. Train with "
                "hookpoints layers.*.mlp"
            )
        if int(says["layer"]) != layer:
            raise ArtefactError(f"{root / name} is of layer {says['layer']} by its name, but was named for {layer}")


def _refuse_missing(ready: ReadyTranscoders, root: Path, there: list[str], missing: list[int]) -> None:
    """Says why layers have no transcoder: trained elsewhere, under names that say nothing, or not there at all."""
    if not there:
        raise ArtefactError(f"{root} holds no transcoder: no folder in it has {WEIGHTS} or {CONFIG}")
    if there == ["."]:
        raise ArtefactError(f"{root} is itself the folder of a transcoder: give the folder that it lies in")
    for name in there if ready.hookpoint is None else ():
        says = HOOKPOINT.fullmatch(name)
        if says is not None and int(says["layer"]) in missing:
            _refuse_elsewhere(root, name, int(says["layer"]))
    shown = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "")
    if ready.hookpoint is None and not any(HOOKPOINT.fullmatch(name) for name in there):
        raise ArtefactError(
            f"{root} has {shown}: these names do not say where the transcoders were trained. If it was on MLPs, name "
            f"the folders as `hookpoint` in the config, with {{layer}} for the number ({hookpoint(3)} in sparsify)"
        )
    wanted = ", ".join(_wanted(ready, layer)[0] for layer in missing)
    raise ArtefactError(f"{root} has no transcoder of layer(s) {missing} (expected {wanted}); there is {shown}")
