"""Attention within each text of a packed row: torch's variable-length kernel where it is supported, else an attention mask."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from arclight.errors import InputError
from arclight.hardware import Decision

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# Encoders that use the mask only to hide padding, so that our mask can replace theirs
PLAIN_MASK = {"albert", "bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"}
PACKED = "arclight_packed"  # name of our attention in transformers
DROPOUT_NAMES = ("attention_probs_dropout_prob", "attention_dropout")  # in the configs of encoders
HALF = (torch.bfloat16, torch.float16)
OPTIONS = ("dropout", "scaling", "cu_seq_lens_q", "max_length_q")  # arguments of `attend`; encoders pass more
LEADING = ("query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k")  # of varlen_attn since torch 2.10


def inputs_of(
    config: PreTrainedConfig, attention_mask: Tensor, position_ids: Tensor | None, boundaries: Tensor | None
) -> dict[str, Any]:
    """Returns the encoder's arguments besides input_ids, with which texts of a row do not attend to each other.

    Args:
        config: of the encoder.
        attention_mask: int64 (R, T), of a TokenBatch.
        position_ids: int64 (R, T), where several texts share a row, counted as the encoder counts.
        boundaries: int32 (N + 1,), of a TokenBatch.

    Raises:
        InputError: when this encoder would mix the texts of a row.
    """
    is_plain = config.model_type in PLAIN_MASK and config._attn_implementation in ("sdpa", PACKED)
    if position_ids is None:
        # transformers would make the same mask of (B, T), but it first checks whether any value is 0, which synchronizes a GPU
        return {"attention_mask": padding_mask(attention_mask) if is_plain else attention_mask}
    if not is_plain:
        raise InputError(
            f"data.packing=rows and fixed: the encoder '{config.model_type}' would mix the texts of a row; take "
            f"data.packing=buckets, or one of these encoders: {', '.join(sorted(PLAIN_MASK))}",
            key="data.packing",
        )
    if config._attn_implementation == PACKED and boundaries is not None:
        given: dict[str, Any] = {"cu_seq_lens_q": boundaries, "max_length_q": attention_mask.shape[1]}
        return {"attention_mask": None, "position_ids": position_ids, **given}
    # with positions alone, transformers would silently let the texts attend to each other
    return {"attention_mask": row_mask(attention_mask), "position_ids": position_ids}


def row_mask(attention_mask: Tensor) -> Tensor:
    """Returns which positions attend to which, bool (R, 1, T, T); the mask, int64 (R, T), numbers the texts of a row."""
    return (attention_mask[:, :, None] == attention_mask[:, None, :])[:, None]


def padding_mask(attention_mask: Tensor) -> Tensor:
    """Returns which positions attend to which, bool (B, 1, T, T): all to those where the mask, int64 (B, T), is not 0."""
    return attention_mask.bool()[:, None, None, :].expand(-1, 1, attention_mask.shape[1], -1)


def attention_dropout(config: PreTrainedConfig) -> float:
    """Returns the attention dropout of this encoder; 0 where its config has none."""
    return next((float(getattr(config, name)) for name in DROPOUT_NAMES if getattr(config, name, None) is not None), 0.0)


def set_attention_dropout(config: PreTrainedConfig, dropout: float) -> None:
    """Writes the attention dropout into a config; raises InputError when this kind of encoder has no such setting."""
    name = next((name for name in DROPOUT_NAMES if hasattr(config, name)), None)
    if name is None:
        raise InputError(
            f"model.attention_dropout={dropout}: the encoder '{config.model_type}' has no such setting; set "
            "model.attention_dropout=null",
            key="model.attention_dropout",
        )
    setattr(config, name, dropout)


def choose_attention(config: PreTrainedConfig, device: torch.device, dtype: torch.dtype) -> Decision:
    """Returns whether packed rows use `varlen_attn`, or else a mask over all pairs of a row, and the reason.

    Args:
        config: of the encoder.
        device: it trains on.
        dtype: of queries and keys.
    """
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if config.model_type not in PLAIN_MASK or config._attn_implementation not in ("sdpa", PACKED):
        return Decision(False, f"the encoder '{config.model_type}' has its own attention")
    if device.type != "cuda" or torch.version.hip:
        return Decision(False, "the variable-length kernel needs CUDA; all pairs of a row are computed and masked")
    if (found := torch.cuda.get_device_capability(device)) < (8, 0):
        return Decision(False, f"the kernel needs compute capability 8.0, and this GPU has {found[0]}.{found[1]}")
    if dtype not in HALF:
        return Decision(False, "the kernel needs half precision: set precision=bf16")
    if (dropout := attention_dropout(config)) > 0:
        return Decision(False, f"the kernel has no dropout and this encoder has {dropout:g}: set model.attention_dropout=0")
    if head_size % 8 or head_size > 256:
        return Decision(False, f"the kernel needs a head size divisible by 8 and at most 256, and this encoder has {head_size}")
    if not has_kernel():
        return Decision(False, "this build of torch does not have the kernel")
    return Decision(True, "no computation on pairs of different texts")


def has_kernel() -> bool:
    """Returns whether torch has `varlen_attn` with the arguments used here."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    names = tuple(inspect.signature(varlen_attn).parameters)
    return names[: len(LEADING)] == LEADING and "scale" in names and torch.backends.cuda.is_flash_attention_available()


def register() -> None:
    """Registers `attend` with transformers under the name PACKED."""
    from transformers import AttentionInterface

    # encoders pass on different sets of arguments
    AttentionInterface.register(
        PACKED,
        lambda *given, **named: attend(*given, **{name: value for name, value in named.items() if name in OPTIONS}),
    )


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
) -> tuple[Tensor, None]:
    """Returns attention (R, T, heads, size) of query, key and value (R, heads, T, size), as transformers calls it.

    With `cu_seq_lens_q`, the `boundaries` of a TokenBatch, each text attends to itself only, and the mask is ignored; without
    it, transformers' own `sdpa` is called.

    `attention_mask` is bool (R, 1, T, T), `scaling` multiplies the products, `cu_seq_lens_q` is int32 (N + 1,), `max_length_q`
    the length of the longest text.
    """
    if cu_seq_lens_q is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        masked: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling
        )
        return masked
    from torch.nn.attention.varlen import varlen_attn

    assert dropout == 0, "checked by choose_attention"
    assert max_length_q is not None
    num_rows, num_places = query.shape[0], query.shape[2]
    # (R T, heads, size)
    query, key, value = (part.transpose(1, 2).flatten(0, 1) for part in (query, key, value))
    attended = varlen_attn(query, key, value, cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q, scale=scaling)
    assert isinstance(attended, Tensor), "it returns more only on request"
    return attended.unflatten(0, (num_rows, num_places)), None
