"""Which latents get words?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from reasondiff.config import Labels
from reasondiff.labels.selection import choose_latents, most_used, rate_bins

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = yaml.safe_load((ROOT / "config" / "config.yaml").read_text(encoding="utf-8"))["labels"]
TAGS = {0: "reasoning_only", 1: "base_only", 2: "shared", 3: "other", 4: "dead"}
DELTAS = {"reasoning_only": 0.05, "base_only": 0.95, "shared": 0.5, "other": 0.35, "dead": 0.05}


def settings(**changes):
    return Labels.model_validate({**DEFAULT, "pages": 3, "sample": 8, "seed": 0, **changes})


def crosscoder(n=200, layer=3):
    """(firing, latents): tags in turn; latents of a higher number fire more often."""
    tag = [TAGS[i % 5] for i in range(n)]
    fires = np.array([t != "dead" for t in tag])
    rate = np.where(fires, (1 + np.arange(n)) / (10 * n), 0.0)
    firing = pd.DataFrame({"layer": layer, "latent": range(n), "firings": (rate * 1e5).astype(int), "rate": rate})
    firing["mean_activation"] = 1.0
    latents = pd.DataFrame({"latent": range(n), "tag": tag, "rate": rate, "mean_activation": 1.0})
    latents["delta"] = [DELTAS[t] for t in tag] + np.arange(n) * 1e-6
    return firing, latents


def transcoders(layers=4, n=30):
    parts = [crosscoder(n, layer)[0] for layer in range(layers)]
    return pd.concat(parts, ignore_index=True)


def test_each_side_and_the_shared_get_as_many_pages_as_asked():
    chosen = choose_latents(*crosscoder(), settings())
    pages = chosen[chosen["why"] == "page"]
    assert pages["tag"].value_counts().to_dict() == {"reasoning_only": 3, "base_only": 3, "shared": 3}
    assert list(pages.loc[pages["tag"] == "reasoning_only", "latent"]) == [0, 5, 10], "the lowest Delta"
    assert list(pages.loc[pages["tag"] == "shared", "latent"]) == [187, 192, 197], "the largest mass"


def test_the_sample_is_spread_over_tags_and_firing_rates():
    firing, latents = crosscoder()
    chosen = choose_latents(firing, latents, settings(sample=12))
    sample = chosen[chosen["why"] == "sample"]
    assert sample["tag"].value_counts().to_dict() == {"reasoning_only": 3, "base_only": 3, "shared": 3, "other": 3}
    for tag, drawn in sample.groupby("tag"):
        of_tag = latents[latents["tag"] == tag]
        bins = dict(zip(of_tag["latent"], rate_bins(of_tag["rate"]), strict=True))
        assert {bins[latent] for latent in drawn["latent"]} == {0, 1, 2}


def test_dead_latents_and_such_as_do_not_fire_on_the_examples_text_are_never_chosen():
    firing, latents = crosscoder()
    firing.loc[firing["latent"] == 0, "firings"] = 0  # it fires on the `report` part alone
    chosen = choose_latents(firing, latents, settings(sample=1000))
    assert "dead" not in set(chosen["tag"]) and 0 not in set(chosen["latent"])
    assert len(chosen) == 159, "all others, since there are fewer than asked for"


def test_no_latent_is_chosen_twice_and_a_page_is_named_before_a_graph():
    chosen = choose_latents(*crosscoder(), settings(sample=1000), in_graphs=[(3, 0), (3, 2), (3, 2)])
    assert not chosen.duplicated(["layer", "latent"]).any()
    assert chosen.set_index("latent")["why"].loc[[0, 2]].tolist() == ["page", "graph"]


def test_latents_of_graphs_are_kept_even_without_a_firing_and_unknown_ones_refused():
    firing = transcoders()
    chosen = choose_latents(firing, None, settings(), in_graphs=[(1, 4)])  # number 4 is dead
    assert ((chosen["layer"] == 1) & (chosen["latent"] == 4) & (chosen["why"] == "graph")).sum() == 1
    with pytest.raises(ValueError, match=r"not in this dictionary, the first being \(layer, latent\) \(9, 1\)"):
        choose_latents(firing, None, settings(), in_graphs=[(9, 1)])


def test_every_layer_of_transcoders_gets_pages_and_a_sample():
    chosen = choose_latents(transcoders(), None, settings(pages=6, sample=8))
    assert set(chosen["tag"]) == {"transcoder"}
    assert chosen.groupby(["layer", "why"]).size().to_dict() == {
        (layer, why): 2 for layer in range(4) for why in ("page", "sample")
    }
    few = choose_latents(transcoders(), None, settings(pages=1, sample=1))
    assert few.groupby(["layer", "why"]).size().to_dict() == {
        (layer, why): 1 for layer in range(4) for why in ("page", "sample")
    }, "at least one of each"
    assert set(choose_latents(transcoders(), None, settings(sample=0))["why"]) == {"page"}


def test_the_seed_decides_the_sample_alone_and_equal_seeds_choose_alike():
    one, again, other = (choose_latents(*crosscoder(), settings(seed=seed)) for seed in (0, 0, 1))
    assert one.equals(again)
    assert set(one["latent"]) != set(other["latent"])
    pages = [set(table.loc[table["why"] == "page", "latent"]) for table in (one, other)]
    assert pages[0] == pages[1]


def test_the_order_of_the_tables_rows_does_not_matter():
    firing, latents = crosscoder()
    assert choose_latents(firing[::-1], latents[::-1], settings()).equals(choose_latents(firing, latents, settings()))


@pytest.mark.parametrize("with_tags", [True, False])
def test_a_dictionary_without_a_live_latent_gives_an_empty_table(with_tags):
    firing, latents = crosscoder(5)
    firing["firings"] = 0
    chosen = choose_latents(firing, latents if with_tags else None, settings())
    assert list(chosen.columns) == ["layer", "latent", "why", "tag"] and not len(chosen)


def test_tables_of_different_dictionaries_are_refused():
    firing, latents = crosscoder()
    with pytest.raises(ValueError, match="of different dictionaries"):
        choose_latents(firing, latents.iloc[:-1], settings())


def test_terciles_hold_a_third_each_from_the_rarest_up():
    assert list(rate_bins([0.3, 0.1, 0.2, 0.5, 0.6, 0.4])) == [1, 0, 0, 2, 2, 1]
    assert list(rate_bins([])) == []


# ------------------------------------------------------------------------------------------------ graphs


def test_the_latents_that_graphs_of_a_set_use_most_are_those_of_its_model_and_seed():
    rows = [("distill", 0, 2, 17), ("base", 0, 1, 3), ("distill", 1, 1, 4), ("distill", 0, 0, 5), ("distill", 0, 4, 6)]
    table = pd.DataFrame(rows, columns=["model", "seed", "layer", "latent"])
    assert most_used(table, "transcoders/distill/traces/x8k8/seed0", 2) == [(2, 17), (0, 5)]
    assert most_used(table, "transcoders/rl/traces/x8k8/seed0", 2) == []
