"""What does a provider say of each chosen latent, shown its examples of the part `choose`?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from reasondiff.config import Labels
from reasondiff.labels.questions import Example, Failure, Label, Provider, Subject
from reasondiff.latents.example_table import FIRING, read_examples

SHOWN_PART = "choose"


def label_latents(chosen: pd.DataFrame, examples_path: str | Path, provider: Provider, settings: Labels) -> dict:
    """The content of `labels.json` without its card: provider, model, usage, and one entry for each row of `chosen`
    (layer, latent, why, tag), in their order. `provider` is a `questions.Provider`.

    `status`: labelled; failed (with the reason, and no label); or no examples, where the latent does not fire on what
    was read of the part `choose`.

    Raises:
        ArtefactError: the examples are missing or broken.
        RuntimeError: the provider gave another number of answers than it was asked for.
    """
    subjects = subjects_of(keys_of(chosen), examples_path, settings)
    asked = [subject for subject in subjects if subject.examples]
    answers = provider.label(asked)
    if len(answers) != len(asked):
        raise RuntimeError(f"expected {len(asked)} answers of the provider, came {len(answers)}")
    said = {(subject.layer, subject.latent): answer for subject, answer in zip(asked, answers, strict=True)}
    return {
        "provider": settings.provider,
        "model": settings.anthropic.model if settings.provider == "anthropic" else None,
        "latents": [_entry(row, said.get((row["layer"], row["latent"]))) for row in _rows(chosen)],
        "usage": provider.usage(asked),
    }


def keys_of(chosen: pd.DataFrame) -> list[tuple[int, int]]:
    """(layer, latent) of each row, as plain integers."""
    return [(int(layer), int(latent)) for layer, latent in zip(chosen["layer"], chosen["latent"], strict=True)]


def _rows(chosen: pd.DataFrame) -> list[dict[str, Any]]:
    facts = zip(keys_of(chosen), chosen["why"], chosen["tag"], strict=True)
    return [{"layer": layer, "latent": latent, "why": why, "tag": tag} for (layer, latent), why, tag in facts]


def _entry(row: Mapping[str, Any], answer: Label | Failure | None) -> dict[str, Any]:
    entry = {**row, "status": "no examples", "label": None, "explanation": None, "reason": None, "pattern": None}
    if isinstance(answer, Failure):
        return entry | {"status": "failed", "reason": answer.reason}
    if isinstance(answer, Label):
        pattern = None if answer.pattern is None else dict(answer.pattern)
        return entry | {
            "status": "labelled", "label": answer.text, "explanation": answer.explanation, "pattern": pattern,
        }  # fmt: skip
    return entry | {"reason": f"it fires nowhere in what was read of the part {SHOWN_PART}"}


# ------------------------------------------------------------------------------------------------ what is shown


def subjects_of(keys: Sequence[tuple[int, int]], examples_path: str | Path, settings: Labels) -> list[Subject]:
    """One subject for each (layer, latent), with the examples a labeller sees: the `strongest` strongest and
    `per_quantile` of each activation quantile, a window that is both once; by falling activation."""
    table = read_examples(examples_path, keys, parts=[SHOWN_PART], kinds=FIRING)
    by_latent = {key: group for key, group in table.groupby(["layer", "latent"], sort=False)}
    return [Subject(*key, tuple(_shown(by_latent.get(key, table.iloc[:0]), settings))) for key in keys]


def _shown(table: pd.DataFrame, settings: Labels) -> Iterable[Example]:
    strongest = table[table["kind"] == "strongest"].sort_values("place", kind="stable").head(settings.strongest)
    sampled = table[table["kind"] == "quantile"].groupby("place", sort=True).head(settings.per_quantile)
    shown = pd.concat([strongest, sampled]).drop_duplicates(["document", "position"])
    for row in shown.sort_values("value", ascending=False, kind="stable").itertuples():
        yield Example(tuple(row.tokens), tuple(row.activations), row.phase)


# ------------------------------------------------------------------------------------------------ cards, logs


def count_states(content: Mapping[str, Any]) -> dict[str, int]:
    """How many latents were labelled, failed, or had no examples."""
    return dict(sorted(Counter(entry["status"] for entry in content["latents"]).items()))


def settings_card(settings: Labels, with_scores: bool = False) -> dict[str, Any]:
    """The settings that determine what labels say, for a card: nothing of money, of speed or of places."""
    card = settings.model_dump(
        mode="json", include={"provider", "pages", "sample", "strongest", "per_quantile", "seed"}
    )
    if with_scores:
        card = {"provider": settings.provider, "scores": settings.scores.model_dump(mode="json")}
    if settings.provider == "anthropic":
        card["anthropic"] = settings.anthropic.model_dump(mode="json", include={"model", "max_tokens"})
    return card
