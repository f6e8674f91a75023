"""Packed rows through the kernel for texts of any length: what it is given, what comes of it, and when it is taken."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.attention.varlen as varlen
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from arclight.errors import InputError
from arclight.text import attention
from arclight.text.attention import PACKED, PLAIN_MASK, choose_attention, set_attention_dropout
from arclight.text.info import TokenInfo
from project.models.bert_tagger import BertTagger
from tests.project.models.test_bert_tagger import ENCODERS, VOCAB, text

BF16 = torch.bfloat16
CUDA = torch.device("cuda", 0)
AMPERE = (8, 0)
KINDS = sorted(PLAIN_MASK)


def built(kind: str = "bert", data_info: TokenInfo | None = None, **config: Any) -> BertTagger:
    torch.manual_seed(0)
    return BertTagger(data_info or text(), checkpoint=None, dropout=0, encoder={"model_type": kind, **ENCODERS[kind], **config})


def without_dropout(kind: str) -> dict[str, float]:
    if kind == "distilbert":
        return {"dropout": 0.0, "attention_dropout": 0.0}
    return {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def in_rows(*rows: tuple[int, ...], width: int, more: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Texts of these lengths in rows: subwords, mask, positions and boundaries, with `more` empty texts at the end."""
    mask = torch.zeros(len(rows), width, dtype=torch.int64)
    positions, begins = torch.zeros_like(mask), {0}
    for row, lengths in enumerate(rows):
        start = 0
        for number, length in enumerate(lengths, 1):
            mask[row, start : start + length] = number
            positions[row, start : start + length] = torch.arange(length)
            begins.add(row * width + start)
            start += length
        begins.add(row * width + start)
    input_ids = torch.randint(5, VOCAB, mask.shape, generator=torch.Generator().manual_seed(1)) * (mask > 0)
    begins.add(mask.numel())
    boundaries = torch.tensor(sorted(begins) + [mask.numel()] * more, dtype=torch.int32)
    return input_ids, mask, positions, boundaries


class Reference:
    """What `varlen_attn` documents, text by text; writes down what it was given."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cu_seq_q: Tensor,
        cu_seq_k: Tensor,
        max_q: int,
        max_k: int,
        *,
        scale: Any,
    ) -> Tensor:
        given = locals()
        self.calls.append({name: given[name] for name in ("query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k")})
        seen = []
        for start, end in zip(cu_seq_q[:-1].tolist(), cu_seq_q[1:].tolist(), strict=True):
            assert end - start <= max_q, "beyond it the kernel writes nothing"
            one = (part[start:end].transpose(0, 1).float() for part in (query, key, value))  # (heads, T, size)
            seen.append(torch.nn.functional.scaled_dot_product_attention(*one, scale=scale).transpose(0, 1).to(query.dtype))
        return torch.cat(seen)


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Reference:
    made = Reference()
    monkeypatch.setattr(varlen, "varlen_attn", made)
    return made


def take_kernel(net: BertTagger, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU."""
    monkeypatch.setattr(attention, "has_kernel", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: AMPERE)
    choice = net.choose_attention(CUDA, BF16)
    assert choice.value, choice.reason
    assert net.encoder.config._attn_implementation == PACKED


# what comes of it


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_gradients_are_those_of_each_text_alone(
    kind: str, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, alone = built(kind, **without_dropout(kind)), built(kind, **without_dropout(kind))
    take_kernel(net, monkeypatch)
    input_ids, mask, positions, boundaries = in_rows((7, 5, 3), (9, 6), (), width=16, more=2)
    packed = net(input_ids, mask, positions, boundaries)
    assert len(reference.calls) == 2  # once in each layer
    expected = torch.zeros_like(packed)
    for row, numbers in enumerate(mask):
        for number in range(1, int(numbers.max()) + 1):
            at = numbers == number
            one = input_ids[row : row + 1, at]
            expected[row, at] = alone(one, torch.ones_like(one))[0]
    real = mask > 0
    torch.testing.assert_close(packed[real], expected[real], atol=1e-5, rtol=1e-5)
    for logits in (packed, expected):
        (logits[real].square() * torch.linspace(0, 1, int(real.sum()))[:, None]).sum().backward()
    for (name, weight), other in zip(net.named_parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, other.grad, atol=1e-5, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_under_the_mask_it_is_the_same(reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = in_rows((7, 5, 3), (9, 6), width=16)
    net = built(**without_dropout("bert"))
    expected = net(*batch)
    take_kernel(net, monkeypatch)
    torch.testing.assert_close(net(*batch), expected, atol=1e-5, rtol=1e-5)
    assert reference.calls


def test_padded_rows_are_no_matter_of_the_kernel(reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    net = built(**without_dropout("bert"))
    input_ids, mask, *_ = in_rows((7,), (9,), width=12)
    expected = net(input_ids, mask)
    take_kernel(net, monkeypatch)
    torch.testing.assert_close(net(input_ids, mask), expected, atol=1e-6, rtol=1e-5)
    assert not reference.calls


def test_gradient_checkpointing_gives_the_kernel_the_same(reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = in_rows((7, 5), (9,), width=16)
    gradients = []
    for saving in (False, True):
        torch.manual_seed(0)
        encoder = {"model_type": "bert", **ENCODERS["bert"], **without_dropout("bert")}
        net = BertTagger(text(), checkpoint=None, dropout=0, encoder=encoder, gradient_checkpointing=saving)
        take_kernel(net, monkeypatch)
        net(*batch).square().sum().backward()
        gradients.append([weight.grad for weight in net.parameters()])
    assert len(reference.calls) == 2 + 4
    torch.testing.assert_close(gradients[1], gradients[0])


# what it is given


def test_the_arguments_are_those_that_torch_documents(reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    net = built(**without_dropout("bert"))
    take_kernel(net, monkeypatch)
    with torch.autocast("cpu", BF16):
        net(*in_rows((7, 5, 3), (9, 6), width=16, more=3))
    for call in reference.calls:
        for name in ("query", "key", "value"):
            assert (call[name].shape, call[name].dtype) == ((2 * 16, 2, 8), BF16)  # all places, heads, size of a head
        assert call["cu_seq_q"] is call["cu_seq_k"]
        assert call["cu_seq_q"].dtype == torch.int32
        assert call["cu_seq_q"].tolist() == [0, 7, 12, 15, 16, 25, 31, 32, 32, 32, 32]
        assert (call["max_q"], call["max_k"]) == (16, 16)  # of the shape, not of the texts: the host reads nothing


def test_torch_takes_such_arguments_forward_and_backward() -> None:
    """The installed torch, without numbers: its own shape functions of the kernel and its gradient."""
    with FakeTensorMode():
        query, key, value = (torch.empty(32, 2, 8, dtype=BF16, device="cpu", requires_grad=True) for _ in range(3))
        boundaries = torch.empty(11, dtype=torch.int32)
        seen = varlen.varlen_attn(query, key, value, boundaries, boundaries, 16, 16, scale=0.5)
        assert isinstance(seen, Tensor)
        assert (seen.shape, seen.dtype) == (query.shape, BF16)
        seen.sum().backward()
        assert query.grad is not None
        assert query.grad.shape == query.shape


def test_the_signature_begins_as_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    names = tuple(inspect.signature(varlen.varlen_attn).parameters)
    assert names[: len(attention.LEADING)] == attention.LEADING
    monkeypatch.setattr(torch.backends.cuda, "is_flash_attention_available", lambda: True)
    assert attention.has_kernel()
    monkeypatch.setattr(varlen, "varlen_attn", lambda query, key: None)
    assert not attention.has_kernel()
    monkeypatch.delattr(varlen, "varlen_attn")
    assert not attention.has_kernel()


def test_one_graph_holds_net_and_loss_with_the_kernel_in_each_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch.compile sees: nothing breaks it in two, and no value is read."""
    net = built(**without_dropout("bert"))
    take_kernel(net, monkeypatch)
    graphs: list[torch.fx.GraphModule] = []

    def stop(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        raise NotImplementedError("seen enough")

    def loss(inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(net(*inputs).float().flatten(0, -2), labels.flatten(), reduction="sum")

    batch = in_rows((7, 5, 3), (9, 6), width=16, more=3)
    compiled = torch.compile(loss, backend=stop, fullgraph=True)
    with torch.autocast("cpu", BF16), pytest.raises(Exception, match="seen enough"):
        compiled(batch, torch.zeros_like(batch[0]))
    assert len(graphs) == 1
    targets = [node.target for node in graphs[0].graph.nodes]
    assert sum("varlen_attn" in str(target) for target in targets) == 2
    assert not {"item", "tolist", "cpu"} & {target for target in targets if isinstance(target, str)}


# when it is taken


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": torch.device("cpu")}, "needs CUDA"),
        ({"capability": (7, 5)}, "needs compute capability 8.0, and this GPU has 7.5"),
        ({"dtype": torch.float32}, "set precision=bf16"),
        ({"config": {"attention_probs_dropout_prob": 0.1}}, "this encoder has 0.1: set model.attention_dropout=0"),
        ({"config": {"num_attention_heads": 4}}, "a head size divisible by 8 and at most 256, and this encoder has 4"),
        ({"kind": "mpnet"}, "the encoder 'mpnet' has its own attention"),
        ({"has_kernel": False}, "this build of torch does not have the kernel"),
    ],
)
def test_what_is_missing_is_reported(change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "has_kernel", lambda: change.get("has_kernel", True))
    kind = change.get("kind", "bert")
    config = built(kind, **(without_dropout(kind) | change.get("config", {}))).encoder.config
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: change.get("capability", AMPERE))
    choice = choose_attention(config, change.get("device", CUDA), change.get("dtype", BF16))
    assert choice.value is False
    assert message in choice.reason


def test_without_a_gpu_all_stays_as_it_was() -> None:
    net = built()
    assert net.choose_attention(torch.device("cpu"), BF16).value is False
    assert net.encoder.config._attn_implementation == "sdpa"


# dropout of the attention


@pytest.mark.parametrize("source", ["random", "folder"])
def test_the_share_of_attention_that_is_dropped(source: str, bert_folder: Any) -> None:
    checkpoint = str(bert_folder) if source == "folder" else None
    make: Callable[..., BertTagger] = lambda **settings: BertTagger(text(), checkpoint=checkpoint, **settings)  # noqa: E731
    assert attention.attention_dropout(make().encoder.config) == 0.1
    for share in (0.0, 0.3):
        net = make(attention_dropout=share)
        layers = [layer.attention.self for layer in net.encoder.encoder.layer]
        assert [layer.dropout.p for layer in layers] == [share] * 2
        again = BertTagger(text(), **{"checkpoint": checkpoint, "attention_dropout": share, **net.blueprint})
        assert attention.attention_dropout(again.encoder.config) == share
    assert net.encoder.embeddings.dropout.p == 0.1  # the others stay


def test_a_share_out_of_its_range_is_reported() -> None:
    with pytest.raises(InputError, match="model.attention_dropout=1.0 must be at least 0 and below 1"):
        BertTagger(text(), checkpoint=None, attention_dropout=1.0)


def test_an_encoder_without_such_a_setting_is_reported() -> None:
    from transformers import T5Config

    with pytest.raises(
        InputError, match="model.attention_dropout=0: the encoder 't5' has no such setting; set model.attention"
    ):
        set_attention_dropout(T5Config(), 0)
