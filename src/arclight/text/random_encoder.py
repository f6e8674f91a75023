"""Encoders with random weights: a small BERT that fits the data, and any encoder rebuilt from its saved config."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from arclight.errors import InputError
from arclight.text.info import TokenInfo

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def encoder_from_config(encoder: Mapping[str, Any]) -> PreTrainedModel:
    """Returns an encoder with random weights, built from its saved config."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(**encoder)
    from_config: Any = AutoModel.from_config  # it has no type annotations
    model: PreTrainedModel = from_config(config, dtype=torch.float32, trust_remote_code=False, **without_pooler(config))
    return model


def check_bert_sizes(*, num_hidden_layers: int, hidden_size: int, num_attention_heads: int) -> None:
    """Raises InputError for a size below 1, or hidden states that do not divide over the attention heads."""
    sizes = {
        "num_hidden_layers": num_hidden_layers,
        "hidden_size": hidden_size,
        "num_attention_heads": num_attention_heads,
    }
    if errors := [f"model.{name}={value} must be 1 or more" for name, value in sizes.items() if value < 1]:
        raise InputError("\n".join(errors))
    if hidden_size % num_attention_heads:
        lower = hidden_size // num_attention_heads * num_attention_heads
        nearest = " or ".join(str(size) for size in (lower, lower + num_attention_heads) if size)
        raise InputError(
            f"model.hidden_size={hidden_size} is not divisible by model.num_attention_heads={num_attention_heads}; the nearest "
            f"sizes are {nearest}",
            key="model.hidden_size",
        )


def small_bert(
    data_info: TokenInfo,
    *,
    num_hidden_layers: int,
    hidden_size: int,
    num_attention_heads: int,
    dropout: float,
    attention_dropout: float | None,
) -> PreTrainedModel:
    """Returns a BERT with random weights whose vocabulary and positions are those of the data."""
    from transformers import BertConfig, BertModel

    check_bert_sizes(num_hidden_layers=num_hidden_layers, hidden_size=hidden_size, num_attention_heads=num_attention_heads)
    config = BertConfig(
        vocab_size=data_info.vocab_size,
        pad_token_id=data_info.pad_id,
        max_position_embeddings=data_info.max_length,
        num_hidden_layers=num_hidden_layers,
        hidden_size=hidden_size,
        num_attention_heads=num_attention_heads,
        intermediate_size=4 * hidden_size,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout if attention_dropout is None else attention_dropout,
        dtype=torch.float32,
    )
    return BertModel(config, add_pooling_layer=False)


def without_pooler(config: PreTrainedConfig) -> dict[str, bool]:
    """Returns the argument that leaves out the pooling layer: DDP raises for parameters that get no gradient."""
    from transformers import MODEL_MAPPING

    model = MODEL_MAPPING.get(type(config), None)
    has_pooler = inspect.isclass(model) and "add_pooling_layer" in inspect.signature(model).parameters
    return {"add_pooling_layer": False} if has_pooler else {}
