"""What is the same model with its residual stream written in another basis and at another scale?

Every block reads the stream through a norm and a linear map and adds to it through a linear map, so an orthogonal
rotation and a scale of the stream can be taken up by those maps: all logits stay as they are, all activations become
`scale * x @ rotation`. A crosscoder of a model and such a copy has nothing to find that belongs to one of them alone.

Source: docs/methods.md §1; SliceGPT (arXiv 2401.15024) for the invariance.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reasondiff.models.load import ModelError


def random_rotation(width: int, seed: int) -> Float[Tensor, "width width"]:
    """An orthogonal matrix, uniform over all of them, in float64."""
    drawn = torch.randn(width, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    q, r = torch.linalg.qr(drawn)
    return q * torch.sign(torch.diagonal(r))  # without the signs QR's convention would favour some rotations


@torch.no_grad()
def reparametrised(model: Any, rotation: Float[Tensor, "width width"] | None, scale: float) -> Any:
    """A copy of a Qwen2 or Llama model in float32 whose residual stream is `scale * x @ rotation`; with no rotation
    the basis is kept. Norm weights are folded into the maps that follow them, and the unembedding is untied.

    Raises:
        ModelError: a model of another architecture, where it is not known which maps touch the stream.
    """
    if type(model).__name__ not in ("Qwen2ForCausalLM", "LlamaForCausalLM"):
        raise ModelError(f"a {type(model).__name__} cannot be reparametrised: expected a Qwen2 or a Llama model")
    changed = copy.deepcopy(model).float()
    if changed.config.tie_word_embeddings:
        changed.lm_head.weight = nn.Parameter(changed.lm_head.weight.detach().clone())
        changed.config.tie_word_embeddings = False
    for block in changed.model.layers:
        attention, mlp = block.self_attn, block.mlp
        _fold(block.input_layernorm, [attention.q_proj, attention.k_proj, attention.v_proj])
        _fold(block.post_attention_layernorm, [mlp.gate_proj, mlp.up_proj])
        for reader in (attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj):
            _set(reader.weight, _rotated(reader.weight, rotation))
        for writer in (attention.o_proj, mlp.down_proj):
            _set(writer.weight, scale * _rotated(writer.weight.T, rotation).T)
            if writer.bias is not None:
                _set(writer.bias, scale * _rotated(writer.bias, rotation))
    _fold(changed.model.norm, [changed.lm_head])
    _set(changed.lm_head.weight, _rotated(changed.lm_head.weight, rotation))
    _set(changed.model.embed_tokens.weight, scale * _rotated(changed.model.embed_tokens.weight, rotation))
    for norm in (module for module in changed.modules() if hasattr(module, "variance_epsilon")):
        norm.variance_epsilon *= scale**2  # so that the norms divide by the same but for the scale
    changed.config.rms_norm_eps *= scale**2
    return changed


def _fold(norm: nn.Module, readers: list[nn.Linear]) -> None:
    """Moves a norm's weight into the maps that read its output."""
    for reader in readers:
        _set(reader.weight, reader.weight.double() * norm.weight.double())
    norm.weight.fill_(1.0)


def _rotated(rows: Tensor, rotation: Float[Tensor, "width width"] | None) -> Tensor:
    return rows.double() if rotation is None else rows.double() @ rotation


def _set(parameter: Tensor, value: Tensor) -> None:
    parameter.copy_(value.to(parameter.dtype))
