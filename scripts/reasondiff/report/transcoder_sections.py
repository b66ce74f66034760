"""What does the page say of the transcoders: which they are, why these, and what the model answers with them?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from reasondiff.config import TranscodedModel, Transcoders
from reasondiff.report.blocks import (
    Cell,
    Column,
    Details,
    Figure,
    Paragraph,
    Section,
    figures,
    table,
    with_interval,
    words,
)
from reasondiff.report.faithfulness_blocks import faithfulness_blocks
from reasondiff.report.inputs import StudyParts, StudyTables
from reasondiff.report.transcoder_tables import ALL, side_by_side
from reasondiff.report.wording import decimals, interval, listed, number, percent, points, runs

HOW = {
    "sweep": "chosen by the sweep",
    "config": "named in the config",
    "best of the unqualified": "the best of points of which none qualifies",
}


def transcoders(study: StudyParts, tables: StudyTables, drawn: Mapping[str, Figure]) -> list[Section]:
    """The section, in a list; nothing in it for a study without transcoders."""
    if study.transcoders is None:
        return []
    blocks = [
        *_which(study.transcoders, tables),
        *_sweep(tables, drawn),
        *faithfulness_blocks(study, tables, drawn),
        *_answers(study.transcoders, tables),
    ]
    return [Section("transcoders", "Transcoders", blocks)]


# ------------------------------------------------------------------------------------------------ which


def _which(settings: Transcoders, tables: StudyTables) -> list[object]:
    """What a transcoder is, which models have them, and where they started."""
    what = (
        "A transcoder takes the place of one MLP: it reads the MLP's input (after the norm) and writes its output "
        "through a code of at most k latents and a linear skip. A set is the transcoders of all studied layers of "
        "one model and seed. Layers are replaced one at a time and all at once; layers outside the set always "
        "keep their own MLPs, and so do first positions, sinks and foreign ids unless it says “every token”. Losses "
        "are over the tokens of the response where the text has responses, FVU and sparsity over all tokens."
    )
    frame = pd.DataFrame([_model(name, model, settings, tables) for name, model in settings.models.items()])
    columns = [words("model", "name", look="name"), words("text", "text"), words("layers", "layers")]
    columns += [words("seeds", "seeds"), words("trained from", "start"), words("point", "point")]
    return [Paragraph(what), table(f"Models with transcoders (n = {len(frame)}).", frame, columns), _null(settings)]


def _model(name: str, model: TranscodedModel, settings: Transcoders, tables: StudyTables) -> dict[str, Any]:
    of_model = tables.models.get(name, {}).get("layers")
    of_all = f", of {of_model} in all" if of_model else ""
    row = {"name": name, "text": model.text, "layers": f"{runs(model.layers)} (n = {len(model.layers)}{of_all})"}
    row |= {"seeds": listed(model.seeds), "start": _start(model, settings), "point": "as they came"}
    if model.ready is None:
        row["point"] = tables.transcoder_choice["point"] if tables.transcoder_choice else settings.point
    return row


def _start(model: TranscodedModel, settings: Transcoders) -> str:
    if model.ready is not None:
        place = model.ready.folder or f"{model.ready.repo} at {model.ready.revision}"
        return f"not trained here: {place}"
    if model.start_from is not None:
        return f"those of {model.start_from}, same point and seed: latents correspond by index"
    start = "the best linear map beside random latents" if settings.trainer == "reasondiff" else "random weights"
    return f"{start} (trainer: {settings.trainer})"


def _null(settings: Transcoders) -> Paragraph:
    """What two models' transcoders may be compared with."""
    retrained = [name for name, model in settings.models.items() if len(model.seeds) > 1]
    if not retrained:
        return Paragraph(
            "No model has transcoders of two seeds, so there is no null: what differs between two models' "
            "transcoders cannot be told from what training anew would change."
        )
    return Paragraph(
        f"The seeds of {listed(retrained)} are the null of every comparison between models: what differs between two "
        "models' transcoders counts only beyond what differs between seeds of one model."
    )


# ------------------------------------------------------------------------------------------------ the sweep


def _sweep(tables: StudyTables, drawn: Mapping[str, Figure]) -> list[object]:
    """The choice in words, the sweep's figure and tables, and what became of each point."""
    blocks: list[object] = []
    choice = tables.transcoder_choice
    if choice:
        blocks.append(Paragraph(f"Trained on all layers: {choice['point']}, {HOW[choice['how']]}. {choice['reason']}."))
    if tables.transcoder_sweep.empty:
        return [*blocks, Paragraph("No sweep was run.", "note")]
    frame = _named(tables.transcoder_sweep)
    together, alone = frame[frame["layer"] == ALL], frame[frame["layer"] != ALL]
    layers, model = listed(alone["layer"].drop_duplicates()), frame["model"].iloc[0]
    note = (
        f"Sweep on pilot layers {layers} of {model} (part “choose”), each replaced alone. CE recovered is against mean "
        "ablation, over the informative pilot layers together; CE increase, FVU, dead and dense are the worst "
        "layer's, L0 the mean, ablation costs the sum."
    )
    each = "The same, layer by layer, beside what ablating the layer costs."
    return [
        *blocks,
        *([drawn["transcoder_sweep"]] if "transcoder_sweep" in drawn else []),
        table(note, together, [words("point", "point", look="name"), *_sizes(), *_sweep_columns()]),
        *([_verdicts(together["point"], choice)] if choice else []),
        Details(
            f"Every point on every pilot layer ({len(alone)} rows)",
            [table(each, alone, [words("point", "point"), words("layer", "layer"), *_sweep_columns()])],
        ),
    ]


def _named(sweep: pd.DataFrame) -> pd.DataFrame:
    """The sweep with the names that columns with intervals want."""
    names = {"ce_low": "ce_increase_nats_low", "ce_high": "ce_increase_nats_high"}
    names |= {"recovered_low": "ce_recovered_low", "recovered_high": "ce_recovered_high"}
    return sweep.rename(columns=names).astype({"point": str, "layer": str})


def _sizes() -> list[Column]:
    return [figures("expansion", "expansion", number), figures("k", "k", number), figures("latents", "latents", number)]


def _sweep_columns() -> list[Column]:
    return [
        figures("L0", "l0", lambda value: decimals(value, 1)),
        with_interval("CE recovered", "ce_recovered"),
        with_interval("CE increase, nats", "ce_increase_nats", 4),
        figures("mean abl., nats", "mean_ablation_nats", decimals),
        figures("linear map, nats", "linear_nats", lambda value: decimals(value, 4)),
        figures("FVU", "fvu", decimals),
        figures("FVU linear", "fvu_linear", decimals),
        figures("dead", "dead_share", percent),
        figures("dense", "dense_share", percent),
        figures("n problems", "n_problems", number),
        figures("targets", "n_tokens", number),
    ]


def _verdicts(swept: Iterable[str], choice: Mapping[str, Any]) -> object:
    """Why each point was or was not taken."""
    rows = [{"point": point, **_verdict(point, choice)} for point in swept]
    columns = [words("point", "point", look="name"), words("verdict", "verdict", look="name"), words("why", "why")]
    return table("What became of each point.", pd.DataFrame(rows, columns=["point", "verdict", "why"]), columns)


def _verdict(point: str, choice: Mapping[str, Any]) -> dict[str, str]:
    refused, chosen = choice["refused"].get(point), choice["point"]
    if point == chosen:
        return {"verdict": "trained", "why": f"{HOW[choice['how']]}" + (f"; refused: {refused}" if refused else "")}
    if refused:
        return {"verdict": "refused", "why": refused}
    if point in choice["front"]:
        return {"verdict": "qualifies", "why": f"on the Pareto front, where {choice['front'][0]} is the sparsest"}
    return {"verdict": "qualifies", "why": "off the Pareto front: no gain for its L0 or its size beyond the interval"}


# ------------------------------------------------------------------------------------------------ answers


def _answers(settings: Transcoders, tables: StudyTables) -> list[object]:
    """Problems solved with the model's own MLPs and with transcoders, and some answers side by side."""
    changes = tables.summaries["answer_changes"]
    if changes.empty:
        return [Paragraph("No problem was answered with transcoders (n = 0).", "note")]

    def change(row: object) -> Cell:
        ends = interval(row.low, row.high, 100, 1)
        return Cell(f"{points(row.change)} ({ends})", float(row.change), "number")

    columns = [words("model", "model", look="name"), figures("seed", "seed", number)]
    columns += [words("asked with", "elicitation"), figures("own MLPs", "own", percent)]
    columns += [figures("transcoders", "transcoders", percent), Column("change (95 %)", change)]
    columns += [figures(name, name, "{:.0f}".format) for name in ("lost", "gained")]
    columns += [figures("n problems", "n_problems", number)]
    for at, title in (("own", "own"), ("transcoders", "transcoders")):
        columns.append(figures(f"tokens, {title}", f"tokens_{at}", lambda value: decimals(value, 1)))
        columns.append(figures(f"cut off, {title}", f"truncated_{at}", percent))
    note = (
        "Held-out problems solved, greedy, with the model's own MLPs and with all MLPs of the set replaced at once, on "
        "the model's own words. Paired by problem, interval over problems; lost: solved with its own MLPs only. Where "
        f"answers differ in form from the text that transcoders learnt on ({_texts(settings)}), this also asks how far "
        "they carry."
    )
    beside = side_by_side(tables.transcoder_answers, settings.evaluation.shown)
    return [table(note, changes, columns), *([_beside(beside)] if len(beside) else [])]


def _texts(settings: Transcoders) -> str:
    return listed(sorted({model.text for model in settings.models.values()}))


def _beside(frame: pd.DataFrame) -> Details:
    def response(title: str, end: str) -> Column:
        return Column(title, lambda row: Cell(getattr(row, f"response{end}"), "", "mono"))

    def outcome(title: str, end: str) -> Column:
        return Column(title, lambda row: Cell("right" if getattr(row, f"correct{end}") else "wrong"))

    columns = [words("model", "model", look="name"), words("problem", "problem"), words("expected", "answer")]
    columns += [response("own MLPs", ""), outcome("is", ""), response("transcoders", "_transcoders")]
    columns += [outcome("is", "_transcoders")]
    caption = "The first problems asked, not selected; under the last way of asking of each model."
    return Details(f"Answers side by side ({len(frame)} problems)", [table(caption, frame, columns)])
