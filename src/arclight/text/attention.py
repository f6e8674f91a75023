"""Attention inside the texts of packed rows: by torch's kernel for texts of any length, or under a mask, as facts decide."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from arclight.errors import InputError
from arclight.hardware import Decision

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

# Encoders whose only use of the mask is to hide padding, so that a mask of ours can stand for the one they would make.
PLAIN_MASK = {"albert", "bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"}
PACKED = "arclight_packed"  # our name among the attentions of transformers
DROPOUT_NAMES = ("attention_probs_dropout_prob", "attention_dropout")  # as the configs of encoders call it
HALF = (torch.bfloat16, torch.float16)
OPTIONS = ("dropout", "scaling", "cu_seq_lens_q", "max_length_q")  # what `attend` takes of all that encoders hand on
WANTED = ("query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k")  # how varlen_attn begins since torch 2.10


def inputs_of(
    config: PreTrainedConfig, attention_mask: Tensor, position_ids: Tensor | None, boundaries: Tensor | None
) -> dict[str, Any]:
    """What the encoder is given besides token numbers, so that no text of a row sees another, and the host waits for nothing.

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
        # the mask that transformers makes of (B, T), but it first asks whether any place is 0, and for that a GPU must stop
        return {"attention_mask": padding_mask(attention_mask) if is_plain else attention_mask}
    if not is_plain:
        raise InputError(
            f"data.packing=rows and fixed: the encoder '{config.model_type}' cannot keep the texts of a row apart; take "
            f"data.packing=buckets, or an encoder among {', '.join(sorted(PLAIN_MASK))}"
        )
    if config._attn_implementation == PACKED and boundaries is not None:
        given: dict[str, Any] = {"cu_seq_lens_q": boundaries, "max_length_q": attention_mask.shape[1]}
        return {"attention_mask": None, "position_ids": position_ids, **given}
    # positions alone would not do: transformers then lets the texts see each other without a word
    return {"attention_mask": row_mask(attention_mask), "position_ids": position_ids}


def row_mask(attention_mask: Tensor) -> Tensor:
    """Who sees whom, bool (R, 1, T, T), where the mask, int64 (R, T), numbers the texts of a row."""
    return (attention_mask[:, :, None] == attention_mask[:, None, :])[:, None]


def padding_mask(attention_mask: Tensor) -> Tensor:
    """Who sees whom, bool (B, 1, T, T), where the mask, int64 (B, T), is 0 on padding: all see what is no padding."""
    return attention_mask.bool()[:, None, None, :].expand(-1, 1, attention_mask.shape[1], -1)


def attention_dropout(config: PreTrainedConfig) -> float:
    """The share of attention that this encoder drops in training; 0 where its config knows none."""
    return next((float(getattr(config, name)) for name in DROPOUT_NAMES if getattr(config, name, None) is not None), 0.0)


def set_attention_dropout(config: PreTrainedConfig, share: float) -> None:
    """Writes the share of attention that is dropped in training into a config.

    Raises:
        InputError: when this kind of encoder has no such setting.
    """
    name = next((name for name in DROPOUT_NAMES if hasattr(config, name)), None)
    if name is None:
        raise InputError(
            f"model.attention_dropout={share}: the encoder '{config.model_type}' has no such setting; take "
            "model.attention_dropout=null"
        )
    setattr(config, name, share)


def choose_attention(
    config: PreTrainedConfig, device: torch.device, dtype: torch.dtype, capability: tuple[int, int] | None = None
) -> Decision:
    """Whether the texts of packed rows are attended to by `varlen_attn`, or else all pairs of a row under a mask, and why.

    Args:
        config: of the encoder.
        device: that it trains on.
        dtype: of queries and keys there.
        capability: of the GPU; None asks torch.
    """
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if config.model_type not in PLAIN_MASK or config._attn_implementation not in ("sdpa", PACKED):
        return Decision(False, f"the encoder '{config.model_type}' has an attention of its own")
    if device.type != "cuda" or torch.version.hip:
        return Decision(False, "the kernel for texts of any length is of GPUs of CUDA; all pairs of a row are reckoned with")
    if (found := capability or torch.cuda.get_device_capability(device)) < (8, 0):
        return Decision(False, f"the kernel wants compute capability 8.0, and this GPU has {found[0]}.{found[1]}")
    if dtype not in HALF:
        return Decision(False, "the kernel is of half precision: precision=bf16 would have it")
    if (share := attention_dropout(config)) > 0:
        return Decision(
            False, f"the kernel knows no dropout and this encoder drops {share:g}: model.attention_dropout=0 would have it"
        )
    if head_size % 8 or head_size > 256:
        return Decision(False, f"the kernel wants heads of a multiple of 8 and 256 at most, and these have {head_size}")
    if not has_kernel():
        return Decision(False, "this build of torch has no such kernel")
    return Decision(True, "no work on pairs of different texts")


def has_kernel() -> bool:
    """Whether torch offers `varlen_attn` with the arguments that are given here."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    names = tuple(inspect.signature(varlen_attn).parameters)
    return names[: len(WANTED)] == WANTED and "scale" in names and torch.backends.cuda.is_flash_attention_available()


def register() -> None:
    """Makes `attend` known to transformers as PACKED."""
    from transformers import AttentionInterface

    # encoders hand on whatever they were given, each another selection
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
    """Attention (R, T, heads, size) of queries, keys and values (R, heads, T, size), as transformers calls it.

    With `cu_seq_lens_q`, the `boundaries` of a TokenBatch, each text sees itself and nothing else, and no mask is looked at;
    without, transformers' own `sdpa` does it.

    Args:
        module: the layer's attention.
        query: what looks.
        key: what is looked at.
        value: what is seen.
        attention_mask: bool (R, 1, T, T), who sees whom.
        dropout: share of attention that is dropped; 0 with `cu_seq_lens_q`.
        scaling: of the products.
        cu_seq_lens_q: int32 (N + 1,), where each text begins among all R T places.
        max_length_q: most places in a text.
    """
    if cu_seq_lens_q is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        masked: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling
        )
        return masked
    from torch.nn.attention.varlen import varlen_attn

    assert dropout == 0, "choose_attention looked"
    assert max_length_q is not None
    num_rows, num_places = query.shape[0], query.shape[2]
    # (R T, heads, size): row after row, as the boundaries count
    query, key, value = (part.transpose(1, 2).flatten(0, 1) for part in (query, key, value))
    seen = varlen_attn(query, key, value, cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q, scale=scaling)
    assert isinstance(seen, Tensor), "more is given only to who asks"
    return seen.unflatten(0, (num_rows, num_places)), None
