"""What does a labeller see, and what becomes of its answers?"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from made_up_examples import WORDS, planted_rows

from reasondiff.config import Labels
from reasondiff.labels.labelling import count_states, label_latents, settings_card, subjects_of
from reasondiff.labels.offline import OfflineProvider
from reasondiff.labels.questions import Failure, Label
from reasondiff.latents.example_table import table_of, write_examples

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))["labels"]


def settings(**changes):
    return Labels.model_validate({**DEFAULT, "strongest": 4, "per_quantile": 2, **changes})


@pytest.fixture
def stored(tmp_path):
    """`stored(rows)`: the path of a table of examples."""

    def store(rows):
        write_examples(tmp_path / "examples.parquet", table_of(rows), {})
        return tmp_path / "examples.parquet"

    return store


def chosen(latents, layer=3):
    return pd.DataFrame([(layer, latent, "page", "shared") for latent in latents], columns=COLUMNS)


COLUMNS = ["layer", "latent", "why", "tag"]


class Recorder:
    """A labeller that keeps what it was shown and answers as it is told."""

    measure = "interpretability"

    def __init__(self, answer=None):
        self.seen, self.answer = [], answer or Label("some words here", "A sentence.")

    def usage(self, subjects):
        return {"requests": 3, "input_tokens": 30, "output_tokens": 12, "dollars": 0.25}

    def label(self, subjects):
        self.seen += subjects
        return [self.answer for _ in subjects]

    def judge(self, questions):
        raise AssertionError("nobody asked")


def test_a_labeller_sees_the_strongest_and_some_of_each_quantile_strongest_first(stored):
    rows = planted_rows(["apple"])
    subject = subjects_of([(3, 0)], stored(rows), settings())[0]
    values = [max(example.activations) for example in subject.examples]
    # 4 strongest (3.0, 2.9, 2.8, 2.7), then 2 of the upper quantile (2.0) and 2 of the lower (1.0)
    middles = [example.activations[4] for example in subject.examples]
    assert middles == pytest.approx([3.0, 2.9, 2.8, 2.7, 2.0, 2.0, 1.0, 1.0])
    assert len(values) == 8 and {example.phase for example in subject.examples} == {"prompt"}


def test_a_window_that_is_both_strongest_and_of_a_quantile_is_shown_once(stored):
    rows = planted_rows(["apple"])
    strongest = next(row for row in rows if row["part"] == "choose" and row["kind"] == "strongest")
    twin = {**strongest, "kind": "quantile", "place": 1}
    subject = subjects_of([(3, 0)], stored([twin, *rows]), settings(per_quantile=99, strongest=99))[0]
    assert len(subject.examples) == 12


def test_a_labeller_never_sees_the_part_that_labels_are_scored_on(stored):
    """Whatever stands in `score`, the content is the same to the byte."""
    rows = planted_rows(WORDS[:4])
    poisoned = [
        {**row, "tokens": [" poison"] * len(row["tokens"]), "value": 99.0} if row["part"] == "score" else row
        for row in rows
    ]
    contents = [label_latents(chosen(range(4)), stored(r), OfflineProvider(), settings()) for r in (rows, poisoned)]
    assert json.dumps(contents[0]) == json.dumps(contents[1])
    recorder = Recorder()
    label_latents(chosen(range(4)), stored(poisoned), recorder, settings())
    assert len(recorder.seen) == 4 and "poison" not in repr(recorder.seen)


def test_each_chosen_latent_has_an_entry_with_its_own_label(stored):
    content = label_latents(chosen(range(4)), stored(planted_rows(WORDS[:4])), OfflineProvider(), settings())
    assert content["provider"] == "offline" and content["model"] is None
    assert [entry["latent"] for entry in content["latents"]] == [0, 1, 2, 3]
    for entry, word in zip(content["latents"], WORDS, strict=False):
        assert entry["status"] == "labelled" and f"␣{word}" in entry["label"]
        assert entry["pattern"]["conditions"][0]["value"] == f" {word}"
    assert content["usage"]["dollars"] == 0.0
    assert json.loads(json.dumps(content)) == content


def test_a_latent_without_examples_is_said_so_and_not_asked_about(stored):
    recorder = Recorder()
    content = label_latents(chosen([0, 7]), stored(planted_rows(["apple"])), recorder, settings())
    entry = content["latents"][1]
    assert [subject.latent for subject in recorder.seen] == [0]
    assert entry["status"] == "no examples" and entry["label"] is None and "fires nowhere" in entry["reason"]
    assert count_states(content) == {"labelled": 1, "no examples": 1}


def test_a_failure_is_kept_as_a_failure_and_never_as_a_label(stored):
    content = label_latents(chosen([0]), stored(planted_rows(["apple"])), Recorder(Failure("refused")), settings())
    entry = content["latents"][0]
    assert entry["status"] == "failed" and entry["reason"] == "refused"
    assert entry["label"] is None and entry["explanation"] is None and entry["pattern"] is None


def test_what_a_provider_used_is_told_beside_the_labels_and_is_in_no_card(stored):
    paid = settings(provider="anthropic")
    content = label_latents(chosen([0]), stored(planted_rows(["apple"])), Recorder(), paid)
    assert content["usage"]["dollars"] == 0.25
    assert content["provider"] == "anthropic" and content["model"] == paid.anthropic.model
    for card in (settings_card(paid), settings_card(paid, with_scores=True), settings_card(settings())):
        for word in ("dollar", "price", "budget", "seconds", "store", "url"):
            assert word not in json.dumps(card)
    assert settings_card(paid)["anthropic"]["model"] == paid.anthropic.model
    assert "anthropic" not in settings_card(settings()), "what is not used changes nothing"


def test_a_provider_that_answers_for_too_few_is_refused(stored):
    class Short(Recorder):
        def label(self, subjects):
            return []

    with pytest.raises(RuntimeError, match="expected 1 answers of the provider, came 0"):
        label_latents(chosen([0]), stored(planted_rows(["apple"])), Short(), settings())


def test_no_latent_at_all_is_a_valid_case(stored):
    content = label_latents(chosen([]), stored([]), OfflineProvider(), settings())
    assert content["latents"] == [] and count_states(content) == {}


def test_latents_of_one_number_in_two_layers_are_two_latents(stored):
    rows = planted_rows(["apple"], layer=1) + planted_rows(["river"], layer=2, seed=1)
    both = pd.concat([chosen([0], 1), chosen([0], 2)], ignore_index=True)
    content = label_latents(both, stored(rows), OfflineProvider(), settings())
    assert ["apple" in content["latents"][0]["label"], "river" in content["latents"][1]["label"]] == [True, True]
