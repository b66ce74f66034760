"""How does circuit-tracer get a model in which transcoders stand beside the MLPs?

The model computes what it always does; gradients flow through the transcoders' linear skips in the place of the MLPs,
and attention patterns and norm scales are constants, so that the effect of one latent on the next is a number.

Source: docs/methods.md §10; Ameisen et al. 2025, Circuit Tracing; circuit-tracer 0.5.0.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
import transformer_lens.loading_from_pretrained as loading
from circuit_tracer.replacement_model.replacement_model_transformerlens import TransformerLensReplacementModel
from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder, TranscoderSet
from jaxtyping import Float, Int
from torch import Tensor, nn

from reasondiff.dictionaries.transcoder import Transcoder
from reasondiff.models.load import ModelError, ModelInfo, load_model
from reasondiff.models.mlp import MLPS
from reasondiff.store import ArtefactError

INPUT_HOOK, OUTPUT_HOOK = "mlp.hook_in", "mlp.hook_out"
"""What a transcoder reads and writes: the MLP's input after the norm (`hook_mlp_in` is before it) and its output."""
LONGEST_CONTEXT = 4096
"""Tokens; TransformerLens holds a mask of this size squared for each block while it loads."""
LOGIT_TOLERANCE = 1e-4
"""Of the largest logit: how far TransformerLens may be from Hugging Face."""
_CHECKED_IDS = 32
_NAME = "reasondiff/model"  # no path: TransformerLens takes the architecture from words in a model's name


class Replacement(TransformerLensReplacementModel):
    """circuit-tracer's model, which takes the ids that it is given as they are."""

    _own: tuple[Any]  # in a tuple, so that torch does not count its weights among this model's

    def ensure_tokenized(self, prompt: Any) -> Int[Tensor, " position"]:
        """The ids of a prompt. circuit-tracer would put a token of its choice before one that begins with no special
        token, and so attribute another context."""
        return torch.as_tensor(prompt, dtype=torch.long, device=self.cfg.device).reshape(-1)

    def set_tokenizer(self, tokenizer: Any, default_padding_side: str | None = None) -> None:
        """Takes a copy of the tokenizer. TransformerLens would load it anew, with a beginning-of-text token, and mask
        ids that stand for padding where the tokenizer pads on the left."""
        self.tokenizer = copy.copy(tokenizer)
        self.tokenizer.padding_side = "right"

    def __del__(self) -> None:
        """Nothing: circuit-tracer takes off its hooks here, which fails when Python is ending."""


class ReluTopK(nn.Module):
    """Of a token's `k` largest responses the positive ones, as `Transcoder.encode`; circuit-tracer's own TopK keeps
    negative ones as well."""

    def __init__(self, k: int):
        super().__init__()
        self.k = k

    def forward(self, responses: Float[Tensor, "*token latent"]) -> Float[Tensor, "*token latent"]:
        positive = responses.relu()
        values, latents = positive.topk(self.k, dim=-1)
        return torch.zeros_like(positive).scatter_(-1, latents, values)


class WindowedSet(TranscoderSet):
    """A transcoder for each block, of whose latents only those at the last `window` positions count (None: all).

    What earlier ones write counts as error, so nothing is lost from a sum.
    """

    window: int | None = None

    def compute_attribution_components(
        self, mlp_inputs: Float[Tensor, "block position unit"], zero_positions: slice = slice(0, 1)
    ) -> dict[str, Tensor]:
        """circuit-tracer's, with no latent before the window."""
        first = (
            zero_positions.stop if self.window is None else max(zero_positions.stop, mlp_inputs.shape[1] - self.window)
        )
        return super().compute_attribution_components(mlp_inputs, slice(0, first))


# ------------------------------------------------------------------------------------------------ opening


def open_replacement(
    info: ModelInfo, transcoders: Mapping[int, Transcoder], tokenizer: Any, device: str, window: int | None
) -> Replacement:
    """circuit-tracer's model, in float32, of `info` with a transcoder for some of its blocks.

    A block without one gets a stand-in whose latents never fire and whose skip is zero: all it does counts as error.
    Latents before the last `window` positions of a context count as error too.

    Raises:
        ArtefactError: there is no transcoder, one is for a block or a width that the model does not have, or was
            trained on another model's weights.
        ModelError: TransformerLens does not know the architecture, or computes other logits than Hugging Face.
    """
    _refuse_unfitting(info, transcoders)
    own = load_model(info, device, "float32")
    with _loading_from(own), contextlib.redirect_stdout(io.StringIO()):
        model = Replacement.from_pretrained_and_transcoders(
            _NAME,
            transcoder_set(info, transcoders, device, window),
            hf_model=own,
            tokenizer=tokenizer,
            device=torch.device(device),
            dtype=torch.float32,
            n_ctx=min(own.config.max_position_embeddings, LONGEST_CONTEXT),
        )
    model._own = (own,)
    _refuse_other_function(info, model)
    return model


def own_model(replacement: Replacement) -> Any:
    """The Hugging Face model that a replacement model was made from."""
    return replacement._own[0]


def transcoder_set(
    info: ModelInfo, transcoders: Mapping[int, Transcoder], device: str, window: int | None
) -> WindowedSet:
    """The transcoders of a model as circuit-tracer reads them, stand-ins for the blocks that have none.

    Sets of unequal size are filled up with latents that never fire.
    """
    latents = max(transcoder.n_latents for transcoder in transcoders.values())
    layers = {
        layer: _single(layer, info.hidden, latents, transcoders.get(layer), device) for layer in range(info.layers)
    }
    found = WindowedSet(layers, INPUT_HOOK, OUTPUT_HOOK, scan=_NAME)
    found.window = window
    return found


def _single(layer: int, width: int, latents: int, transcoder: Transcoder | None, device: str) -> SingleLayerTranscoder:
    """A transcoder in circuit-tracer's form. It starts as zeros, which is what a stand-in remains: with no skip there
    is no gradient that the model does not have, and a response of 0 does not fire."""
    k = 1 if transcoder is None else transcoder.k
    single = SingleLayerTranscoder(
        width, latents, ReluTopK(k), layer, skip_connection=True, device=torch.device(device), dtype=torch.float32
    )
    if transcoder is None:
        return single
    missing = latents - transcoder.n_latents
    with torch.no_grad():
        single.W_enc.copy_(F.pad(transcoder.encoder, (0, 0, 0, missing)))
        single.b_enc.copy_(F.pad(transcoder.encoder_bias, (0, missing)))
        single.W_dec.copy_(F.pad(transcoder.decoder, (0, 0, 0, missing)))
        single.b_dec.copy_(transcoder.decoder_bias)
        if transcoder.skip is not None:
            single.W_skip.copy_(transcoder.skip)
    return single


@contextlib.contextmanager
def _loading_from(own: Any) -> Iterator[None]:
    """Inside, TransformerLens takes any name for a model of its list, with the config of `own`.

    It knows models by their name alone, and a path with "llama" or "gemma" in it for one of those.
    """
    with (
        mock.patch.object(loading, "get_official_model_name", lambda name: name),
        mock.patch.object(loading.AutoConfig, "from_pretrained", lambda *_, **__: own.config),
    ):
        yield


# ------------------------------------------------------------------------------------------------ refusals


def _refuse_unfitting(info: ModelInfo, transcoders: Mapping[int, Transcoder]) -> None:
    if info.architecture not in MLPS:
        raise ModelError(
            f"model {info.name!r} is a {info.architecture}; attribution graphs are made of {', '.join(MLPS)}"
        )
    if not transcoders:
        raise ArtefactError(
            f"model {info.name!r} has no transcoder at all, so its graphs would hold no latent: train some"
        )
    if beyond := [layer for layer in transcoders if not 0 <= layer < info.layers]:
        raise ArtefactError(
            f"model {info.name!r} has {info.layers} layers (0 to {info.layers - 1}), but there are transcoders of "
            f"layer(s) {beyond}: they are another model's"
        )
    for layer, transcoder in transcoders.items():
        if transcoder.width != info.hidden:
            raise ArtefactError(
                f"the transcoder of layer {layer} is for activations of {transcoder.width} units, model {info.name!r} "
                f"has {info.hidden}: it is another model's"
            )
        trained_on = [weights for _, weights in transcoder.card.get("models", [])]
        if trained_on and trained_on != [info.weights_digest]:
            raise ArtefactError(
                f"the transcoder of layer {layer} was trained on a model with weights {', '.join(trained_on)}, model "
                f"{info.name!r} has {info.weights_digest}: give the transcoders of this very model"
            )


@torch.no_grad()
def _refuse_other_function(info: ModelInfo, model: Replacement) -> None:
    """Compares the logits on ids from all over the vocabulary."""
    ids = torch.linspace(0, info.vocabulary - 1, _CHECKED_IDS, device=model.cfg.device).long()
    refuse_other_logits(info.name, model(ids[None])[0], own_model(model)(ids[None]).logits[0])


def refuse_other_logits(
    name: str, traced: Float[Tensor, "position token"], own: Float[Tensor, "position token"]
) -> None:
    """
    Raises:
        ModelError: TransformerLens's logits differ from Hugging Face's by more than `LOGIT_TOLERANCE` of the largest.
    """
    difference = float((traced - own).abs().max() / own.abs().max())
    if not difference <= LOGIT_TOLERANCE:  # also where a logit is not a number
        raise ModelError(
            f"model {name!r}: TransformerLens computes other logits than Hugging Face (they differ by {difference:.2g} "
            f"of the largest, at most {LOGIT_TOLERANCE:g} is allowed), so its graphs would be of another model. Its "
            "conversion lacks a setting of this model's config (scaled rotary embeddings, say)"
        )
