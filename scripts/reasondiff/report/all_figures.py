"""Which table does each figure of a study show?"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from reasondiff.latents.counts import DICTIONARY
from reasondiff.report import circuit_figures, figures, label_figures, latent_figures, transcoder_figures
from reasondiff.report.captions import of_site
from reasondiff.report.circuit_tables import of_comparison
from reasondiff.report.concept_tables import all_concepts
from reasondiff.report.inputs import StudyParts, StudyTables
from reasondiff.report.sites import control_site
from reasondiff.report.transcoder_tables import told


def draw(kind: str, site: str, study: StudyParts, tables: StudyTables) -> Figure:
    """A figure by its kind and, where it has one, its site, or the name of its comparison (see
    `report.sites.figures_of` and `report.circuit_tables.figures_of_circuits`).

    Raises:
        KeyError: there is no such kind.
    """
    fidelity, counts = tables.summaries["fidelity"], tables.summaries["counts"]
    limits = study.gates.transcoders
    place = "" if kind == "comparison" else site
    mine, control = of_site(tables.latents, place), of_site(tables.latents, control_site(study.pairs, place))
    drawings = {
        "lengths": lambda: figures.lengths(tables.histograms),
        "accuracy": lambda: figures.accuracy(tables.accuracy),
        "divergence": lambda: figures.divergence(tables.divergence, tables.baselines, study.pairs),
        "exclusive_counts": lambda: figures.exclusive_counts(counts, fidelity),
        "fidelity": lambda: figures.fidelity(of_site(fidelity, site)),
        "norm_difference": lambda: latent_figures.norm_difference(mine, control, study.latents),
        "cosines": lambda: latent_figures.cosines(mine, control, _random_cosines(mine, tables)),
        "scaling": lambda: latent_figures.scaling(mine, control, study.latents),
        "transcoder_sweep": lambda: transcoder_figures.sweep(tables.transcoder_sweep, tables.transcoder_choice, limits),
        "transcoder_layers": lambda: transcoder_figures.layers(told(tables.summaries["transcoders"]), limits),
        "transcoders_at_once": lambda: transcoder_figures.together(told(tables.summaries["transcoders"]), limits),
        "label_scores": lambda: label_figures.label_scores(tables.summaries["label_summary"]),
        "graph_scores": lambda: circuit_figures.graph_scores(tables.graph_summary, study.gates.graphs),
        "interventions": lambda: circuit_figures.interventions(tables.graph_interventions),
        "motif_profiles": lambda: circuit_figures.motif_profiles(tables.motif_profiles, study.motifs),
        "comparison": lambda: circuit_figures.comparison(of_comparison(tables.comparisons, site)),
        "concepts": lambda: label_figures.concepts(all_concepts(tables.concepts, tables.transcoder_concepts.iloc[:0])),
    }
    return drawings[kind]()


def _random_cosines(site: pd.DataFrame, tables: StudyTables) -> dict[str, dict[str, float]]:
    """{point: mean cosine of different latents' directions} from the cards of the lowest seeds."""
    found: dict[str, dict[str, float]] = {}
    for row in site[DICTIONARY].drop_duplicates().sort_values("seed").itertuples():
        folder = f"/{row.pair}/{row.text}/layer{row.layer}/{row.point}/seed{row.seed}/latents.tsv"
        card = next((card for path, card in tables.cards.items() if f"/{path}".endswith(folder)), {})
        known = {
            which: card[f"{which}_random_cosine"]
            for which in ("decoder", "encoder")
            if f"{which}_random_cosine" in card
        }
        found.setdefault(row.point, known)
    return found
