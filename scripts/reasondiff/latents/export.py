"""How do the examples of a dictionary reach the tools of others?

One pass over the files writes Neuronpedia's shape and that of the study before; memory does not grow with the number
of latents. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from reasondiff.latents import legacy, neuronpedia
from reasondiff.latents.neuronpedia import Names, slug
from reasondiff.latents.records import Sources, read_layers, read_records
from reasondiff.store import ArtefactError, file_digest, read_card, replacing, write_json

CARD = "card.json"


def export_examples(
    sources: Sources,
    kind: str,
    names: Names,
    neuronpedia_folder: str | Path,
    legacy_folder: str | Path,
    card: Mapping[str, Any],
) -> int:
    """Writes both folders, each whole or not at all, and returns the number of live latents in them.

    `kind` is `crosscoders` or `transcoders`: the study before had a shape for each. A folder that is there already is
    replaced. The card, with the digests of the sources, lies in each folder.

    Raises:
        ArtefactError: a source is missing or broken, or they are of different dictionaries.
        ValueError: another `kind`.
    """
    if kind not in ("crosscoders", "transcoders"):
        raise ValueError(f"examples are exported of crosscoders or transcoders, not of {kind!r}")
    layers, edges = read_layers(sources), read_card(sources.firing).get("histogram_edges")
    if edges is None:
        raise ArtefactError(f"the card of {sources.firing} lacks histogram_edges: delete it and run again")
    if kind == "crosscoders" and len(layers) > 1:
        raise ArtefactError(f"{sources.firing} has {len(layers)} layers; a crosscoder has one")
    quantiles = _quantiles(sources)  # names a missing file
    digests = {name: file_digest(path) for name, path in sources.files().items()}
    with (
        _replacing_folder(neuronpedia_folder, {**card, **digests}) as first,
        _replacing_folder(legacy_folder, {**card, **digests}) as second,
        neuronpedia.Writer(first, names, edges, quantiles) as writer,
        legacy.crosscoder_files(second) if kind == "crosscoders" else legacy.transcoder_files(second, layers) as add,
    ):
        count = 0
        for record in read_records(sources):
            writer.add(record)
            add(record)
            count += 1
    return count


def names_of(study: str, folder: str) -> tuple[str, Names]:
    """(kind, names) of the dictionary in `<kind>/<model or pair>/<text>/...` below the results, where the layer is
    left out: the source set of `crosscoders/base-distill/traces/layer3/btk24/seed0` in study `tiny` is
    `tiny-base-distill-traces-btk24-seed0`."""
    kind, of, *rest = folder.split("/")
    parts = [part for part in rest if not (part.startswith("layer") and part[5:].isdigit())]
    return kind, Names(slug("-".join([study, of, *parts])), of)


def _quantiles(sources: Sources) -> int:
    """Into how many quantiles the sampled firings were cut."""
    settings = read_card(sources.examples).get("settings", {})
    if "quantiles" not in settings:
        raise ArtefactError(f"the card of {sources.examples} lacks settings.quantiles: delete it and run again")
    return int(settings["quantiles"])


@contextlib.contextmanager
def _replacing_folder(folder: str | Path, card: Mapping[str, Any]) -> Iterator[Path]:
    """Yields an empty temporary folder; on success it becomes `folder`, with its card, on failure it disappears."""
    folder = Path(folder)
    with replacing(folder) as temporary:
        try:
            shutil.rmtree(temporary, ignore_errors=True)  # of a job that was killed
            temporary.mkdir()
            yield temporary
            write_json(temporary / CARD, {}, card)
            if folder.exists():  # a folder, unlike a file, is not replaced while it holds something
                shutil.rmtree(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
