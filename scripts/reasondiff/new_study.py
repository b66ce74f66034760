"""What would a study of another pair of models and another text look like, and is it worth its hours?

`python -m reasondiff.new_study --base X --tuned Y --text Z` writes config/<name>.yaml: sizes and layers are those of
the models, everything else is taken from a template. It then runs what is cheap (the guard, the distance between the
models, the costs) and says what would make the rest a waste.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from reasondiff.config import ConfigError, ModelSize, Study, load_study
from reasondiff.gpus import visible_gpus
from reasondiff.hub import HubError, download_folder
from reasondiff.models.divergence import upper_layers
from reasondiff.models.load import ModelError, size_of_folder
from reasondiff.revisions import unpinned
from reasondiff.store import ArtefactError, read_json, read_table, write_text
from reasondiff.text.sources import REQUIRED, SourceError

TEMPLATE = "config/deepscaler.yaml"
SIDES = ("base", "tuned")
PAIR, TEXT = "-".join(SIDES), "text"
ABSENT = ("transcoders", "concepts", "prompts", "graphs", "motifs", "comparisons")
"""Sections that are null in a study of a pair alone."""

FEW_FOREIGN = 0.001  # share of the text's tokens
NORMS = (0.5, 2.0)  # of the tuned model over the base's: beyond, it is called rescaled
TURNED_GAIN = 0.2  # in cosine, by an orthogonal map: above, it is called rotated
UNRELATED_COSINE = 0.5  # after that map
SAME_DISTANCE = 0.01  # of the norm, in every layer
SHOWN_CHARACTERS = 4000  # of a run that failed


@dataclass(frozen=True)
class Model:
    """A model as the new study says it (`settings`), its sizes, and the longest document it takes, in tokens."""

    settings: dict[str, Any]
    size: ModelSize
    positions: int


# ------------------------------------------------------------------------------------------------ the inputs


def find_model(side: str, named: str) -> Model:
    """A model by its local folder or its name on the hub, of which only config.json is fetched.

    Raises:
        ModelError: neither a folder nor a name, or a config of no kind that is read.
        HubError: the hub cannot be reached or has no such model.
    """
    elicitations = {"base": ["direct", "solution"], "tuned": ["think"]}[side]
    shared = {"elicitations": elicitations, "untrained": []}
    if Path(named).is_dir():
        settings, folder = {"stage": "local", "folder": named, **shared}, Path(named)
    elif _is_hub_name(named):
        settings = {"stage": "hub", "repo": named, "revision": None, **shared}
        folder = download_folder(named, None, ["config.json"])
    else:
        raise ModelError(f"--{side} {named}: expected a local folder or a name on the hub (owner/name)")
    size = size_of_folder(side, folder)
    positions = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("max_position_embeddings")
    return Model({**settings, "size": size.model_dump()}, size, positions or sys.maxsize)


def _is_hub_name(named: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", named) is not None


def find_text(named: str, column: str | None) -> dict[str, Any]:
    """The source of a text: a local file of problems or of plain text, or a data set of the hub.

    Raises:
        SourceError: neither, or a file without the columns that are read.
    """
    path = Path(named)
    if path.is_file():
        if path.suffix == ".txt" or column or "text" in (columns := _columns(path)):
            return {"kind": "plain_files", "weight": 1.0, "files": [named], "column": column, "rows": None}
        if set(REQUIRED) <= set(columns):
            return {"kind": "files", "weight": 1.0, "files": [named], "rows": None}
        raise SourceError(
            f"--text {named}: expected the columns {', '.join(REQUIRED)} (OpenR1-Math) or `text`, came "
            f"{', '.join(columns)}; name a column of plain text with --column"
        )
    if not _is_hub_name(named):
        raise SourceError(f"--text {named}: expected a file (.jsonl, .parquet, .txt) or a data set of the hub")
    return {
        "kind": "hub", "weight": 1.0, "repo": named, "revision": None, "subset": None, "split": "train",
        "rows": None, "column": column,
    }  # fmt: skip


def _columns(path: Path) -> list[str]:
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            return pq.read_schema(path).names
        with open(path, encoding="utf-8") as file:
            return list(json.loads(file.readline()))
    except (OSError, ValueError) as error:
        raise SourceError(f"--text {path}: cannot be read as .jsonl or .parquet ({error})") from error


# ------------------------------------------------------------------------------------------------ the config


def make_config(
    name: str, models: Mapping[str, Model], source: Mapping[str, Any], device: str, template: Mapping[str, Any]
) -> dict[str, Any]:
    """The whole study: `template` with these models, this text, and banks of one pair at the models' own layers.

    Raises:
        ConfigError: the models differ in width, or the template has no bank of coupled dictionaries.
    """
    sizes = {side: model.size for side, model in models.items()}
    if len({size.hidden for size in sizes.values()}) > 1:
        widths = ", ".join(f"{side} {size.hidden}" for side, size in sizes.items())
        raise ConfigError(f"a crosscoder reads models of one width; these have {widths}")
    settings = {side: model.settings for side, model in models.items()}
    has_hub = source["kind"] == "hub" or any(one["stage"] == "hub" for one in settings.values())
    told = {side: one.get("repo") or one["folder"] for side, one in settings.items()}
    config = {
        **template,
        "study": name,
        "results_dir": f"results/{name}",
        "device": device,
        "dtype": "bfloat16" if device == "cuda" else "float32",
        "revisions": f"config/{name}.revisions.yaml" if has_hub else None,
        "unpinned": "refuse",
        "split": {**template["split"], "held_out_family": None},
        "tokenizers": {side: {"source": "model", "model": side} for side in reversed(SIDES)},
        "models": settings,
        "text": {TEXT: _text(source, template["text"], min(model.positions for model in models.values()))},
        "pairs": {
            PAIR: {"models": list(SIDES), "tokenizer": "tuned", "texts": [TEXT], "role": "effect", "control": None}
        },
        "banks": _banks(template, min(size.layers for size in sizes.values()), sizes["base"].hidden),
        **dict.fromkeys(ABSENT),
        "cost": {**template["cost"], "source_rows": _rows(source), "point": None},
        "release": {**template["release"], "licence": None, "licences": {}, "upload": False, "organisation": None},
        "report": {**template["report"], "title": f"What changed from {told['base']} to {told['tuned']}"},
    }
    load_study(config)
    return config


def _text(source: Mapping[str, Any], texts: Mapping[str, Any], positions: int) -> dict[str, Any]:
    """The whole responses, in documents as long as in the template or as the models can take."""
    like = next((text for text in texts.values() if text["mode"] == "both"), next(iter(texts.values())))
    longest = min(like["max_tokens"], positions)
    return {**like, "sources": {"mine": dict(source)}, "mode": "both", "max_tokens": longest,
            "context": min(like["context"], positions)}  # fmt: skip


def _rows(source: Mapping[str, Any]) -> dict[str, int]:
    """{text: its rows}, for the costs; of the hub's data sets it is not known."""
    if source["kind"] == "hub":
        return {}
    path = Path(source["files"][0])
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return {TEXT: pq.read_metadata(path).num_rows}
    with open(path, "rb") as file:
        return {TEXT: sum(1 for _ in file)}


def _banks(template: Mapping[str, Any], layers: int, width: int) -> dict[str, Any]:
    """The template's banks of coupled dictionaries, at the upper layers and with as many latents a unit of width."""
    banks = {}
    for name, bank in template["banks"].items():
        points = {point: settings for point, settings in bank["points"].items() if settings.get("sides") is None}
        if points and not bank["independent_halves"]:
            latents = width * max(1, round(bank["latents"] / _width(template)))
            banks[name] = {**bank, "pairs": [PAIR], "layers": upper_layers(range(layers)), "latents": latents}
            banks[name]["points"] = points
    methods = {point["method"] for bank in banks.values() for point in bank["points"].values()}
    if methods != {"l1", "batch_topk"}:
        raise ConfigError(f"the template's banks have the methods {sorted(methods)}; expected l1 and batch_topk")
    return _without_repeated_points(banks)


def _without_repeated_points(banks: Mapping[str, Any]) -> dict[str, Any]:
    """Banks of different pairs become banks of one: of points with one name the first bank's stays."""
    seen: set[str] = set()
    kept = {}
    for name, bank in banks.items():
        points = {point: settings for point, settings in bank["points"].items() if point not in seen}
        seen |= set(points)
        if points:
            kept[name] = {**bank, "points": points}
    return kept


def _width(template: Mapping[str, Any]) -> int:
    """The width of the template's models."""
    sizes = [model.get("size") or model.get("architecture") for model in template["models"].values()]
    return next(size["hidden"] for size in sizes if size)


def as_yaml(config: Mapping[str, Any], template: str, heading: str) -> str:
    """The config as text: sections that are as in the template as they stand there, comments included; the others
    written anew."""
    parts = {
        match[1]: match[0] for match in re.finditer(r"^(\w+):.*\n(?:(?![A-Za-z_#]).*\n?)*", template, re.MULTILINE)
    }
    before = yaml.safe_load(template)
    whole = heading
    for key, value in config.items():
        if key in parts and before[key] == value:
            whole += parts[key].rstrip() + "\n"
        else:
            style = None if isinstance(value, dict) else False  # the innermost level of a section in one line
            whole += yaml.safe_dump(
                {key: value}, sort_keys=False, default_flow_style=style, width=110, allow_unicode=True
            )
        whole += "\n" if isinstance(value, dict) else ""
    try:
        is_same = yaml.safe_load(whole) == config
    except yaml.YAMLError:  # a section that was kept refers to one that was not
        is_same = False
    return whole if is_same else heading + yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)


# ------------------------------------------------------------------------------------------------ the warnings


def warnings(alignment: Mapping[str, Any], divergence: pd.DataFrame | None) -> Iterator[str]:
    """What speaks against spending hours on this pair; nothing where all is well."""
    yield from _about_tokens(alignment)
    if divergence is not None:
        yield from _about_stream(divergence)


def _about_tokens(alignment: Mapping[str, Any]) -> Iterator[str]:
    foreign = sorted(alignment["foreign"], key=lambda row: -row["count"])
    if alignment["foreign_share"] > FEW_FOREIGN:
        shown = ", ".join(f"{row['token']!r} ({row['model']}: {row['why']})" for row in foreign[:5])
        yield (
            f"foreign tokens: {alignment['foreign_share']:.2%} of the text means something else to one of the models "
            f"and is masked: {shown}"
        )
    others = {row["id"] for row in foreign if row["why"].startswith("other string")}
    if others:
        yield f"the tokenizers differ: {len(others)} of the ids in the text are other strings to one of the models"


def _about_stream(divergence: pd.DataFrame) -> Iterator[str]:
    rows = divergence[divergence["mask"] == "unmasked"]
    ratio = rows["norm_ratio"].median()
    if not NORMS[0] <= ratio <= NORMS[1]:
        yield (
            f"rescaled residual stream: norms of the tuned model are {ratio:.2g} times those of the base. Dictionaries "
            "scale each model to one mean norm, so this alone does no harm; a training that does this changes much else"
        )
    if rows["relative_l2"].max() < SAME_DISTANCE:
        yield f"the models hardly differ: by at most {rows['relative_l2'].max():.2%} of the norm in any layer"
    turned = rows.dropna(subset="turned_cosine")
    before, after = turned["centred_cosine"].mean(), turned["turned_cosine"].mean()
    if after - before > TURNED_GAIN:
        yield (
            f"rotated residual stream: activations have cosine {before:.2f}, and {after:.2f} after one orthogonal map. "
            "Every latent would look as if it belonged to one model: these are the same features in other directions"
        )
    elif after < UNRELATED_COSINE:
        yield (
            f"activations have cosine {before:.2f} and no orthogonal map brings them together ({after:.2f}): is one "
            "model a training of the other?"
        )


def layers(study: Study, divergence: pd.DataFrame) -> str:
    """Where the models differ most, beside the layers that the study has."""
    ranked = divergence[divergence["suggested"] > 0].sort_values("suggested")
    suggested = list(dict.fromkeys(ranked["layer"].tolist()))
    planned = sorted({layer for bank in study.banks.values() for layer in bank.layers})
    return f"layers: the study has {planned}; the models differ most in {suggested} (the first most of all)"


def costs(table: pd.DataFrame) -> str:
    """What the study will take, in a sentence."""
    total = table.iloc[-1]
    hours = "unknown" if pd.isna(total["gpu_hours"]) else f"{total['gpu_hours']:.1f}"
    memory = "" if pd.isna(total["gpu_gib"]) else f", {total['gpu_gib']:.0f} GiB of the card"
    return (
        f"reckoned: {hours} hours of a card, {total['disk_gb']:.1f} GB of disk, {total['host_gib']:.0f} GiB of memory"
        f"{memory}, {total['dollars']:.2f} dollars ({total['basis']})"
    )


# ------------------------------------------------------------------------------------------------ the command


def check(path: Path, study: Study, arguments: Sequence[str]) -> int:
    """Runs costs, guard and distance by the workflow, prints what they say; 0 where the study can go on."""
    results = Path(study.results_dir)
    cost, site = results / "cost.tsv", results / f"crosscoders/{PAIR}/{TEXT}"
    alignment, divergence = site / "alignment.json", site / "divergence.tsv"
    has_card = study.device == "cpu" or visible_gpus() or shutil.which("sbatch")
    resolve = [["resolve_revisions"]] if unpinned(study) else []
    for targets in [*resolve, [str(cost), str(alignment), *([str(divergence)] if has_card else [])]]:
        print(f"checking: {' '.join(targets)}", flush=True)
        if failure := _snakemake(path, arguments, targets):
            print(f"{failure}\nstopped: this pair cannot be compared on this text as it is; the reason stands above")
            return 1
    print(costs(read_table(cost)))
    if not has_card:
        print(f"not measured for want of a card: how far the models are apart (snakemake {divergence})")
    table = read_table(divergence) if has_card else None
    found = list(warnings(read_json(alignment), table))
    print("\n".join(f"WARNING {line}" for line in found) or "no warning: the models can be compared on this text")
    if table is not None:
        print(layers(study, table))
    return 0


def _snakemake(path: Path, arguments: Sequence[str], targets: Sequence[str]) -> str:
    """What a run said at its end if it failed, nothing otherwise."""
    command = [sys.executable, "-m", "snakemake", *targets, "--keep-going", "--show-failed-logs", *arguments]
    run = subprocess.run(
        [*command, "--configfile", str(path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return run.stdout[-SHOWN_CHARACTERS:] if run.returncode else ""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m reasondiff.new_study", description=__doc__.split("\n")[0])
    parser.add_argument("--base", required=True, help="local folder, or name on the hub")
    parser.add_argument("--tuned", required=True, help="the same; its tokenizer is the pair's")
    parser.add_argument("--text", required=True, help="file (.jsonl, .parquet, .txt), or data set of the hub")
    parser.add_argument("--column", help="of plain text in a file or data set that has no problems")
    parser.add_argument("--name", help="of the study; default: made of the models' names")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda where there is a card or SLURM")
    parser.add_argument("--template", type=Path, default=Path(TEMPLATE), help=f"default: {TEMPLATE}")
    parser.add_argument("--no-check", action="store_true", help="only write the file")
    parser.add_argument("--cores", default="all", help="of the check")
    parser.add_argument("--profile", help="of Snakemake, for the check (workflow/profiles/slurm)")
    given = parser.parse_args(arguments)
    try:
        path, study = _write(given)
    except (ConfigError, ModelError, HubError, SourceError, ArtefactError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    if given.no_check:
        return 0
    profile = ["--profile", given.profile] if given.profile else []
    return check(path, study, ["--cores", given.cores, *profile])


def _write(given: argparse.Namespace) -> tuple[Path, Study]:
    name = given.name or re.sub(r"[^a-z0-9]+", "_", f"{Path(given.base).name}_{Path(given.tuned).name}".lower())
    path = Path("config") / f"{name}.yaml"
    if path.exists():
        raise ConfigError(f"{path} is there already: delete it, or give another --name")
    template = given.template.read_text(encoding="utf-8")
    models = {side: find_model(side, getattr(given, side)) for side in SIDES}
    device = given.device or ("cuda" if visible_gpus() or shutil.which("sbatch") else "cpu")
    source = find_text(given.text, given.column)
    config = make_config(name, models, source, device, yaml.safe_load(template))
    heading = (
        f"# {config['report']['title']}. Written by python -m reasondiff.new_study from {given.template};\n"
        "# keys and units: see config.yaml.\n\n"
    )
    write_text(path, as_yaml(config, template, heading))
    print(f"wrote {path}")
    return path, load_study(config)


if __name__ == "__main__":
    raise SystemExit(main())
