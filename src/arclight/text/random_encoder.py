"""Encoders with random weights: a small BERT that fits its data, and any encoder again from its saved config."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from arclight.errors import InputError
from arclight.text.info import TokenInfo

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def rebuilt(encoder: Mapping[str, Any]) -> PreTrainedModel:
    """An encoder with random weights from its saved config."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(**encoder)
    make: Any = AutoModel.from_config  # it carries no types
    model: PreTrainedModel = make(config, dtype=torch.float32, trust_remote_code=False, **without_pooler(config))
    return model


def check_sizes(*, layers: int, width: int, heads: int) -> None:
    """Raises InputError for a size that is less than 1."""
    for name, value in (("layers", layers), ("width", width), ("heads", heads)):
        if value < 1:
            raise InputError(f"model.{name}={value} must be 1 or more")


def check_heads(*, width: int, heads: int) -> None:
    """Raises InputError for hidden states that cannot be cut into so many heads."""
    if width % heads:
        lower = width // heads * heads
        sizes = " or ".join(str(size) for size in (lower, lower + heads) if size)
        raise InputError(
            f"model.width={width} does not divide over model.heads={heads}; the nearest widths that do are {sizes}"
        )


def small_bert(
    data_info: TokenInfo, *, layers: int, width: int, heads: int, dropout: float, attention_dropout: float | None
) -> PreTrainedModel:
    """A BERT with random weights that fits the spec exactly."""
    from transformers import BertConfig, BertModel

    check_sizes(layers=layers, width=width, heads=heads)
    check_heads(width=width, heads=heads)
    config = BertConfig(
        vocab_size=data_info.vocab_size,
        pad_token_id=data_info.pad_id,
        max_position_embeddings=data_info.max_length,
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout if attention_dropout is None else attention_dropout,
        dtype=torch.float32,
    )
    return BertModel(config, add_pooling_layer=False)


def without_pooler(config: PreTrainedConfig) -> dict[str, bool]:
    """The setting that leaves out the layer for whole sentences: ddp takes weights that no loss reaches for an error."""
    from transformers import MODEL_MAPPING

    model = MODEL_MAPPING.get(type(config), None)
    has_pooler = inspect.isclass(model) and "add_pooling_layer" in inspect.signature(model).parameters
    return {"add_pooling_layer": False} if has_pooler else {}
