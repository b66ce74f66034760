"""What is a trained transcoder, and how does it stay the same on its way to disk and back?

A skip transcoder imitates one MLP: it reads the MLP's input and writes its output, through a sparse code and a linear
skip. On disk it is a folder as `sparsify` writes it, so that other tools read it without help.

Source: docs/methods.md §6 and §7; Dunefsky et al. 2024, arXiv 2406.11944; Paulo et al. 2025, arXiv 2501.18823.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from reasondiff.dictionaries.code import SparseCode, decode, topk
from reasondiff.store import ArtefactError, read_tensors, write_json, write_tensors

WEIGHTS, CONFIG = "sae.safetensors", "cfg.json"
TENSORS = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")  # and W_skip where there is a skip connection
# Settings of later versions and forks of sparsify under which the same tensors are another function.
OTHER_FUNCTIONS = ("embed_skip", "gram_lookup", "normalize_io")
TOKENS_AT_ONCE = 4096  # whose responses are made together: 4096 x 49k latents in fp32 are 0.8 GB


@dataclass(frozen=True)
class Transcoder:
    """Weights in the units of the raw activations.

    `encoder` [F, d], `encoder_bias` [F], `decoder` [F, d], `decoder_bias` [d], `skip` [d, d] (output unit, input unit;
    None without a skip connection), `k`: at most so many latents fire on a token. `card`: how it was made.
    """

    encoder: Float[Tensor, "latent unit"]
    encoder_bias: Float[Tensor, " latent"]
    decoder: Float[Tensor, "latent unit"]
    decoder_bias: Float[Tensor, " unit"]
    skip: Float[Tensor, "unit unit"] | None
    k: int
    card: Mapping[str, Any]

    @property
    def n_latents(self) -> int:
        return self.encoder.shape[0]

    @property
    def width(self) -> int:
        """Units of the MLP's input and output, d."""
        return self.encoder.shape[1]

    def to(self, device: str) -> Transcoder:
        """The same transcoder on another device."""
        tensors = ("encoder", "encoder_bias", "decoder", "decoder_bias")
        skip = None if self.skip is None else self.skip.to(device)
        return replace(self, skip=skip, **{name: getattr(self, name).to(device) for name in tensors})

    def encode(self, x: Float[Tensor, "token unit"]) -> SparseCode:
        """The sparse code of raw MLP inputs: of each token's `k` largest responses the positive ones."""
        return topk(torch.addmm(self.encoder_bias, x, self.encoder.T), self.k)

    def decode(self, code: SparseCode, x: Float[Tensor, "token unit"]) -> Float[Tensor, "token unit"]:
        """The imitated MLP output, in raw units; the skip reads the MLP's input `x`."""
        output = decode(code, self.decoder) + self.decoder_bias
        return output if self.skip is None else torch.addmm(output, x, self.skip.T)

    @torch.no_grad()
    def __call__(self, x: Float[Tensor, "token unit"]) -> Float[Tensor, "token unit"]:
        """The imitated MLP output for raw MLP inputs."""
        pieces = [self.decode(self.encode(piece), piece) for piece in x.float().split(TOKENS_AT_ONCE)]
        return torch.cat(pieces) if pieces else x.float()


# ----------------------------------------------------------------------------------------------- on disk


def hookpoint(layer: int) -> str:
    """The name of a layer's folder: `layers.3.mlp`."""
    return f"layers.{layer}.mlp"


def layer_of(folder: Path) -> int:
    """The layer in the name of a folder made by `hookpoint`."""
    return int(folder.name.split(".")[1])


@dataclass(frozen=True)
class TranscoderFolders:
    """Where the transcoders of one model and seed go: `<folder>/<point>/seed<seed>/layers.<layer>.mlp/`."""

    folder: str
    seed: int

    def path(self, point: str, layer: int) -> Path:
        return Path(self.folder) / point / f"seed{self.seed}" / hookpoint(layer)


def save_transcoder(folder: str | Path, transcoder: Transcoder) -> None:
    """Writes `sae.safetensors` (card inside) and `cfg.json` into `folder`, as sparsify does. The config is written
    first: where the weights are, it is too."""
    folder = Path(folder)
    tensors = {
        "encoder.weight": transcoder.encoder,
        "encoder.bias": transcoder.encoder_bias,
        "W_dec": transcoder.decoder,
        "b_dec": transcoder.decoder_bias,
    }
    if transcoder.skip is not None:
        tensors["W_skip"] = transcoder.skip
    expansion, rest = divmod(transcoder.n_latents, transcoder.width)
    config = {
        "activation": "topk",
        "expansion_factor": expansion,
        "normalize_decoder": False,
        "num_latents": transcoder.n_latents if rest else 0,
        "k": transcoder.k,
        "multi_topk": False,
        "skip_connection": transcoder.skip is not None,
        "transcode": True,
        "d_in": transcoder.width,
    }
    write_json(folder / CONFIG, config)
    write_tensors(folder / WEIGHTS, tensors, transcoder.card)


def load_transcoder(folder: str | Path, device: str = "cpu") -> Transcoder:
    """Reads a folder written by `save_transcoder` or by sparsify.

    Raises:
        ArtefactError: a file is missing or broken, `k` is not given, it is no TopK transcoder, its tensors do not fit
            together, or a weight is not finite.
    """
    folder = Path(folder)
    config = _read_config(folder / CONFIG)
    tensors, card = read_tensors(folder / WEIGHTS, device)
    _check_shapes(folder / WEIGHTS, tensors, config)
    trained_with = card.get("point", {}).get("k", config["k"])
    if trained_with != config["k"]:
        raise ArtefactError(
            f"{folder / CONFIG} says k = {config['k']}, but the weights beside it were trained with k = {trained_with}:"
            " one of the two files is another transcoder's"
        )
    plain = {name: tensor.float() for name, tensor in tensors.items()}
    if broken := [name for name, tensor in plain.items() if not bool(tensor.isfinite().all())]:
        raise ArtefactError(f"{folder / WEIGHTS}: {', '.join(broken)} has values that are not finite; train it again")
    return Transcoder(
        encoder=plain["encoder.weight"],
        encoder_bias=plain["encoder.bias"],
        decoder=plain["W_dec"],
        decoder_bias=plain["b_dec"],
        skip=plain.get("W_skip"),
        k=config["k"],
        card=card,
    )


def load_set(paths: Sequence[str | Path], device: str) -> dict[int, Transcoder]:
    """{layer: transcoder} from the folders of some layers of one model (or a file in each), named by `hookpoint`.

    Raises:
        ArtefactError: a folder holds no transcoder.
    """
    folders = [path if path.name != WEIGHTS else path.parent for path in map(Path, paths)]
    layers = {layer_of(folder): folder for folder in folders}
    return {layer: load_transcoder(layers[layer], device) for layer in sorted(layers)}


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ArtefactError(f"{path} is missing: without it k is not known, and without k a transcoder has no code")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtefactError(f"{path} is not JSON ({error}): delete it, or fetch it again, and run again") from error
    if not isinstance(config, dict):
        raise ArtefactError(f"{path} holds no JSON object, as expected, but a {type(config).__name__}")
    if not isinstance(config.get("k"), int) or config["k"] < 1:
        raise ArtefactError(
            f"{path} says k = {config.get('k')!r}; expected a whole number of at least 1. k is part of a transcoder: "
            "with another one it is another function."
        )
    if config.get("transcode") is not True:
        raise ArtefactError(
            f"{path} says transcode: {config.get('transcode')!r}, expected True: this is an autoencoder, or older than "
            "the key. Train with transcode=True (sparsify's API) on hookpoints layers.*.mlp."
        )
    if config.get("activation", "topk") != "topk":
        raise ArtefactError(f"{path} says activation: {config['activation']!r}; only topk can be read")
    if other := [key for key in OTHER_FUNCTIONS if config.get(key)]:
        raise ArtefactError(f"{path} says {other[0]}: {config[other[0]]!r}; such a transcoder cannot be read")
    return config


def _check_shapes(path: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """The tensors fit one another and the config.

    Raises:
        ArtefactError: naming the tensor, what was expected and what came.
    """
    if missing := [key for key in TENSORS if key not in tensors]:
        raise ArtefactError(f"{path} lacks {', '.join(missing)}: it is not a transcoder (docs/methods.md §7)")
    if unknown := sorted(set(tensors) - {*TENSORS, "W_skip"}):
        raise ArtefactError(f"{path} has {', '.join(unknown)} besides: it is another function than a skip transcoder")
    if tensors["encoder.weight"].ndim != 2:
        raise ArtefactError(f"{path}: encoder.weight has {tensors['encoder.weight'].ndim} dimensions, expected 2")
    latents, width = tensors["encoder.weight"].shape
    expected = {"encoder.bias": (latents,), "W_dec": (latents, width), "b_dec": (width,), "W_skip": (width, width)}
    for key, shape in expected.items():
        if key in tensors and tuple(tensors[key].shape) != shape:
            raise ArtefactError(f"{path}: {key} has shape {tuple(tensors[key].shape)}, expected {shape}")
    if config.get("skip_connection", False) != ("W_skip" in tensors):
        has = "has" if "W_skip" in tensors else "has no"
        raise ArtefactError(
            f"{path} {has} W_skip, but {CONFIG} says skip_connection: {config.get('skip_connection', False)}. One of "
            "the two files is damaged or another transcoder's: fetch them again, or delete both and run again"
        )
    if config["k"] > latents:
        raise ArtefactError(f"{path} has {latents} latents, fewer than k = {config['k']} in {CONFIG}")
