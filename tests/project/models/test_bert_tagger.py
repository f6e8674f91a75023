"""The tagger on any encoder: what it loads, what it rebuilds without files, what it computes, and what it tells."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from arclight.errors import InputError
from arclight.text.attention import PLAIN_MASK
from arclight.text.info import TokenInfo
from project.models.bert_tagger import BertTagger

LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
VOCAB = 111  # of the bert_folder fixture: 5 special pieces, 53 letters, 53 letters inside words


def text(vocab_size: int = VOCAB, max_length: int = 64) -> TokenInfo:
    return TokenInfo(labels=LABELS, tokenizer="{}", vocab_size=vocab_size, pad_id=0, max_length=max_length)


def tagger(**settings: Any) -> BertTagger:
    return BertTagger(text(), **{"checkpoint": None, "hidden_size": 16, **settings})


def sentences(*lengths: int, padded_to: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(5, VOCAB, (len(lengths), padded_to), generator=generator)
    mask = (torch.arange(padded_to) < torch.tensor(lengths)[:, None]).long()
    return input_ids * mask, mask  # pad_id is 0


def copy_of(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "encoder"))


def with_config(folder: Path, **changes: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


SMALL = {"vocab_size": VOCAB, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
ENCODERS: dict[str, dict[str, Any]] = {
    "bert": SMALL,
    "roberta": SMALL | {"pad_token_id": 0},
    "xlm-roberta": SMALL | {"pad_token_id": 0},
    "camembert": SMALL | {"pad_token_id": 0},
    "electra": SMALL | {"embedding_size": 8},
    "mpnet": SMALL | {"pad_token_id": 0},
    "albert": SMALL | {"embedding_size": 8},
    "distilbert": {"vocab_size": VOCAB, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
    "modernbert": SMALL | {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2},
    "deberta-v2": SMALL | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
}


# what it computes


@pytest.mark.parametrize("source", ["random", "folder"])
def test_each_subword_gets_one_logit_per_label(source: str, bert_folder: Path) -> None:
    net = tagger(checkpoint=str(bert_folder) if source == "folder" else None)
    assert net(*sentences(12, 7)).shape == (2, 12, len(LABELS))


@pytest.mark.parametrize("source", ["random", "folder"])
def test_dropout_is_on_from_the_start_and_off_in_eval(source: str, bert_folder: Path) -> None:
    torch.manual_seed(0)
    net = tagger(checkpoint=str(bert_folder) if source == "folder" else None)
    assert all(module.training for module in net.modules())
    batch = sentences(12, 7)
    assert not torch.equal(net(*batch), net(*batch))
    net.eval()
    assert torch.equal(net(*batch), net(*batch))


def test_dropout_0_leaves_no_chance_in_the_random_bert() -> None:
    net = tagger(dropout=0.0)
    batch = sentences(12, 7)
    assert torch.equal(net(*batch), net(*batch))


@pytest.mark.parametrize("kind", sorted(ENCODERS))
def test_padding_changes_no_logit_of_a_real_subword(kind: str) -> None:
    net = BertTagger(text(), checkpoint=None, encoder={"model_type": kind, **ENCODERS[kind]}).eval()
    input_ids, mask = sentences(12, 5)
    together = net(input_ids, mask)
    for row, length in enumerate((12, 5)):
        alone = net(input_ids[row : row + 1, :length], mask[row : row + 1, :length])
        torch.testing.assert_close(together[row : row + 1, :length], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", sorted(PLAIN_MASK))
def test_our_mask_gives_what_the_encoder_makes_of_the_plain_one(kind: str) -> None:
    net = BertTagger(text(), checkpoint=None, encoder={"model_type": kind, **ENCODERS[kind]}).eval()
    assert net.encoder.config._attn_implementation == "sdpa"
    for lengths in ((12, 5), (12, 12)):
        input_ids, mask = sentences(*lengths)
        hidden = net.encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(net(input_ids, mask), net.head(hidden), atol=1e-6, rtol=1e-5)


def test_another_attention_gets_the_plain_mask() -> None:
    net = tagger().eval()
    batch = sentences(12, 5)
    expected = net(*batch)
    net.encoder.set_attn_implementation("eager")
    torch.testing.assert_close(net(*batch)[batch[1] > 0], expected[batch[1] > 0], atol=1e-5, rtol=1e-5)


class Reads(TorchDispatchMode):
    """Counts how often the host reads a tensor's value, for which it waits on a GPU."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", sorted(PLAIN_MASK))
def test_the_host_waits_for_no_value(kind: str) -> None:
    net = BertTagger(text(), checkpoint=None, encoder={"model_type": kind, **ENCODERS[kind]})
    input_ids, mask = sentences(12, 5)
    with Reads() as reads:
        net(input_ids, mask).sum().backward()
    assert reads.count == 0
    with Reads() as reads:
        net.encoder(input_ids=input_ids, attention_mask=mask)
    assert reads.count > 0, "transformers no longer reads the mask: PLAIN_MASK can go"


def test_gradient_checkpointing_changes_no_gradient(capfd: pytest.CaptureFixture[str]) -> None:
    plain, saving = tagger(dropout=0.0), tagger(dropout=0.0, gradient_checkpointing=True)
    saving.load_state_dict(plain.state_dict(), strict=True)
    batch = sentences(12, 5)
    for net in (plain, saving):
        net(*batch).square().sum().backward()
    assert capfd.readouterr() == ("", "")
    for (name, expected), got in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(got.grad, expected.grad, msg=lambda text, name=name: f"{name}: {text}")
    assert saving.encoder.is_activation_checkpointing
    assert not plain.encoder.is_activation_checkpointing


def test_every_weight_gets_a_gradient(bert_folder: Path) -> None:
    net = tagger(checkpoint=str(bert_folder))
    net(*sentences(12, 5)).square().sum().backward()
    assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []


def test_the_last_layer_starts_like_the_encoder() -> None:
    torch.manual_seed(0)
    net = BertTagger(
        text(), checkpoint=None, encoder={"model_type": "bert", **SMALL, "hidden_size": 512, "initializer_range": 0.05}
    )
    assert 0.045 < net.head.weight.std() < 0.055
    assert net.head.bias.abs().max() == 0


# what it loads


def test_a_folder_gives_its_weights_in_float32(bert_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from transformers import AutoModel

    half = tmp_path / "half"
    AutoModel.from_pretrained(bert_folder, dtype=torch.bfloat16).save_pretrained(half)
    for folder in (bert_folder, half):
        net = tagger(checkpoint=str(folder))
        weights = load_file(folder / "model.safetensors")
        state = net.encoder.state_dict()
        assert set(weights) - set(state) == {"pooler.dense.weight", "pooler.dense.bias"}
        for name, value in state.items():
            assert value.dtype == torch.float32
            assert torch.equal(value, weights[name].float()), name


def test_a_language_model_with_old_names_loads_whole_and_without_noise(
    bert_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy_of(bert_folder, tmp_path)
    weights = load_file(folder / "model.safetensors")
    old = {
        "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in weights.items()
    }
    old["bert.embeddings.LayerNorm.gamma"] = torch.full_like(weights["embeddings.LayerNorm.weight"], 3.0)
    save_file(old | {"cls.predictions.bias": torch.zeros(VOCAB)}, folder / "model.safetensors", metadata={"format": "pt"})
    with_config(folder, architectures=["BertForPreTraining"])
    capfd.readouterr()
    net = tagger(checkpoint=str(folder))
    assert capfd.readouterr() == ("", "")
    assert net.encoder.embeddings.LayerNorm.weight.unique().tolist() == [3.0]
    assert torch.equal(net.encoder.encoder.layer[1].output.dense.weight, weights["encoder.layer.1.output.dense.weight"])


def test_loading_logs_nothing_and_restores_the_verbosity_of_transformers(bert_folder: Path) -> None:
    import logging
    import logging.handlers
    from queue import SimpleQueue

    records: SimpleQueue[logging.LogRecord] = SimpleQueue()
    logger, handler = logging.getLogger("transformers"), logging.handlers.QueueHandler(records)
    level = logger.level
    logger.addHandler(handler)
    try:
        tagger(checkpoint=str(bert_folder))
    finally:
        logger.removeHandler(handler)
    assert records.empty()
    assert logger.level == level
    with pytest.raises(InputError):
        tagger(checkpoint="no-such-model")
    assert logger.level == level


def test_a_home_folder_may_be_written_short(bert_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(bert_folder.parent))
    net = tagger(checkpoint=f"~/{bert_folder.name}")
    assert net.num_layers == 2


def test_the_hub_is_asked_only_for_what_is_not_here(bert_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[str] = []
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda _, name, revision, timeout: asked.append(name))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    copied = tmp_path / "models--ours--encoder" / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    copied.mkdir(parents=True)
    (copied.parent.parent / "refs").mkdir()
    (copied.parent.parent / "refs" / "main").write_text(copied.name)
    for file in ("config.json", "model.safetensors"):
        with pytest.raises(InputError, match="hub did not provide it"):
            tagger(checkpoint="ours/encoder")
        shutil.copy(bert_folder / file, copied)
    assert asked == ["ours/encoder"] * 2  # once for the config, once for the weights
    assert tagger(checkpoint="ours/encoder").num_layers == 2
    assert tagger(checkpoint="ours/encoder", revision=copied.name).blueprint["revision"] == copied.name
    assert tagger(checkpoint="ours/encoder").blueprint["revision"] == copied.name
    assert tagger(checkpoint=str(bert_folder)).blueprint["revision"] is None
    assert asked == ["ours/encoder"] * 2
    with pytest.raises(InputError, match="hub did not provide it"):
        tagger(checkpoint="ours/encoder", revision="f" * 40)


def test_weights_of_older_folders_load_but_never_code_in_them(bert_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    class Harmful:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return Path.touch, (tmp_path / "touched",)

    folder = copy_of(bert_folder, tmp_path)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    net = tagger(checkpoint=str(folder))
    assert torch.equal(net.encoder.embeddings.word_embeddings.weight, weights["embeddings.word_embeddings.weight"])
    torch.save(weights | {"more": Harmful()}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no encoder can be loaded .* \(Weights only load failed\)"):
        tagger(checkpoint=str(folder))
    assert not (tmp_path / "touched").exists()


# what it rebuilds


@pytest.mark.parametrize("source", ["random", "folder", *sorted(ENCODERS)])
def test_blueprint_and_weights_rebuild_the_net_without_files(source: str, bert_folder: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "checkpoint": None,
        "dropout": 0.2,
        "num_hidden_layers": 3,
        "hidden_size": 16,
        "num_attention_heads": 4,
    }
    if source == "folder":
        settings["checkpoint"] = str(copy_of(bert_folder, tmp_path))
    elif source in ENCODERS:
        settings["encoder"] = {"model_type": source, **ENCODERS[source]}
    net = BertTagger(text(), **settings).eval()
    if source == "folder":
        shutil.rmtree(settings["checkpoint"])
    blueprint = json.loads(json.dumps(net.blueprint))
    assert blueprint == net.blueprint
    assert blueprint["checkpoint"] is None
    again = BertTagger(text(), **{**settings, **blueprint}).eval()
    again.load_state_dict(net.state_dict(), strict=True)
    batch = sentences(12, 5)
    assert torch.equal(again(*batch), net(*batch))
    assert again.blueprint == net.blueprint
    assert again.dropout.p == 0.2


def test_blueprint_tells_no_folder_of_its_maker(bert_folder: Path) -> None:
    assert str(bert_folder) not in json.dumps(tagger(checkpoint=str(bert_folder)).blueprint)


def test_the_random_bert_has_the_size_asked_for() -> None:
    net = BertTagger(
        text(vocab_size=50, max_length=10), checkpoint=None, num_hidden_layers=3, hidden_size=8, num_attention_heads=2
    )
    embeddings = (50 + 10 + 2) * 8 + 2 * 8
    layer = 4 * (8 * 8 + 8) + 2 * 8 + (8 * 32 + 32) + (32 * 8 + 8) + 2 * 8
    assert sum(parameter.numel() for parameter in net.encoder.parameters()) == embeddings + 3 * layer
    assert net.num_layers == 3


# how deep its parameters lie


@pytest.mark.parametrize(
    ("kind", "first", "in_layer_1", "num_layers"),
    [
        ("bert", "embeddings.word_embeddings.weight", "encoder.layer.0.attention.self.query.weight", 2),
        ("roberta", "embeddings.position_embeddings.weight", "encoder.layer.0.output.dense.bias", 2),
        ("distilbert", "embeddings.LayerNorm.weight", "transformer.layer.0.attention.q_lin.weight", 2),
        ("electra", "embeddings_project.weight", "encoder.layer.0.intermediate.dense.weight", 2),
        ("modernbert", "embeddings.tok_embeddings.weight", "layers.0.attn.Wqkv.weight", 2),
        ("deberta-v2", "encoder.rel_embeddings.weight", "encoder.layer.0.attention.self.query_proj.weight", 2),
    ],
)
def test_depth_grows_from_embeddings_to_head(kind: str, first: str, in_layer_1: str, num_layers: int) -> None:
    net = BertTagger(text(), checkpoint=None, encoder={"model_type": kind, **ENCODERS[kind]})
    assert net.num_layers == num_layers
    depths = {name: net.depth(name) for name, _ in net.named_parameters()}
    assert depths[f"encoder.{first}"] == 0
    assert depths[f"encoder.{in_layer_1}"] == 1
    assert depths[f"encoder.{in_layer_1}".replace(".0.", ".1.")] == 2
    assert depths["head.weight"] == depths["head.bias"] == 3
    assert set(depths.values()) == {0, 1, 2, 3}
    assert {depth for name, depth in depths.items() if "embeddings" in name} == {0}


def test_depth_knows_names_of_adapters_holders_and_last_norms() -> None:
    net = tagger()
    assert net.depth("encoder.base_model.model.encoder.layer.1.attention.self.query.lora_A.default.weight") == 2
    assert net.depth("net.encoder.encoder.layer.0.output.dense.weight") == 1
    assert net.depth("net.head.weight") == 3
    assert net.depth("encoder.final_norm.weight") == 2


# what it tells


def test_unknown_name_is_reported_with_the_fix() -> None:
    with pytest.raises(
        InputError, match=r"model\.checkpoint=bert-base-casd: no such directory.*hub did not provide it.*hf download"
    ):
        tagger(checkpoint="bert-base-casd")


@pytest.mark.parametrize("path", ["/no/such/folder", "./folder", "~/no/folder", "models/of/mine"])
def test_a_missing_directory_is_reported(path: str) -> None:
    with pytest.raises(InputError, match=rf"model\.checkpoint={path}: no such directory\. Give one that save_pretrained"):
        tagger(checkpoint=path)


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def cut_short(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (without("model.safetensors"), "no file named model.safetensors"),
        (without("config.json"), "Unrecognized model"),
        (cut_short, "incomplete metadata"),
        (lambda folder: (folder / "config.json").write_text("{"), "not a valid JSON file"),
        (lambda folder: with_config(folder, hidden_size="wide"), "expected int, got str"),
        (lambda folder: with_config(folder, num_attention_heads=3), "not a multiple of the number of attention heads"),
        (lambda folder: with_config(folder, model_type="mine", auto_map={"AutoModel": "mine.Net"}), "custom code|mine"),
    ],
    ids=["no weights", "no config", "cut short", "broken config", "wrong config", "odd config", "foreign code"],
)
def test_a_directory_that_cannot_be_loaded_is_reported(
    harm: Callable[[Path], object], reason: str, bert_folder: Path, tmp_path: Path
) -> None:
    folder = copy_of(bert_folder, tmp_path)
    harm(folder)
    with pytest.raises(
        InputError, match=rf"model\.checkpoint={folder}: no encoder .* from this directory .*({reason}).*save_pretrained"
    ):
        tagger(checkpoint=str(folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_hidden_layers": 3}, r"16 of the encoder's weights are missing .*'encoder\.layer\.2\."),
        ({"intermediate_size": 48}, r"6 of the encoder's weights are missing .*'encoder\.layer\.0\.intermediate\.dense\.bias'"),
        ({"model_type": "distilbert"}, r"are not those of the 'distilbert' model in its config\.json"),
    ],
)
def test_weights_that_would_stay_random_are_reported(
    changes: dict[str, Any], message: str, bert_folder: Path, tmp_path: Path
) -> None:
    folder = with_config(copy_of(bert_folder, tmp_path), **changes)
    with pytest.raises(InputError, match=message):
        tagger(checkpoint=str(folder))


@pytest.mark.parametrize("kind", ["vit", "t5"])
def test_a_model_that_is_not_a_text_encoder_is_reported(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(
        InputError, match=rf"is a '{kind}' model, which is not a text encoder; take one such as bert-base-cased"
    ):
        tagger(checkpoint=str(tmp_path))


def test_a_foreign_tokenizer_is_reported(bert_folder: Path) -> None:
    with pytest.raises(
        InputError, match=rf"the tokenizer has 112 entries, but the encoder of .* has only {VOCAB}: .* set data.tokenizer"
    ):
        BertTagger(text(vocab_size=VOCAB + 1), checkpoint=str(bert_folder))
    BertTagger(text(vocab_size=VOCAB - 1), checkpoint=str(bert_folder))  # an encoder may know more


def test_too_long_a_text_is_reported(bert_folder: Path) -> None:
    with pytest.raises(
        InputError, match=r"data\.max_length=65 is more than the 64 positions .* set data\.max_length=64 or less"
    ):
        BertTagger(text(max_length=65), checkpoint=str(bert_folder))


def test_positions_that_roberta_skips_are_not_counted() -> None:
    encoder = {"model_type": "roberta", **SMALL, "pad_token_id": 1, "max_position_embeddings": 66}
    BertTagger(text(max_length=64), checkpoint=None, encoder=encoder)
    with pytest.raises(InputError, match=r"data\.max_length=65 is more than the 64 positions"):
        BertTagger(text(max_length=65), checkpoint=None, encoder=encoder)


def test_an_encoder_that_cannot_save_memory_is_reported(bert_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import BertModel

    monkeypatch.setattr(BertModel, "supports_gradient_checkpointing", False)
    with pytest.raises(
        InputError, match=r"model\.gradient_checkpointing=true: the encoder of .* does not support it; set it to false"
    ):
        tagger(checkpoint=str(bert_folder), gradient_checkpointing=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dropout": 1.0}, r"model\.dropout=1\.0 must be at least 0 and below 1"),
        ({"num_hidden_layers": 0}, r"model\.num_hidden_layers=0 must be 1 or more"),
        ({"hidden_size": 0}, r"model\.hidden_size=0 must be 1 or more"),
        ({"num_attention_heads": -1}, r"model\.num_attention_heads=-1 must be 1 or more"),
        (
            {"hidden_size": 130, "num_attention_heads": 4},
            r"hidden_size=130 is not divisible by .*_heads=4; .* are 128 or 132",
        ),
        (
            {"hidden_size": 3, "num_attention_heads": 4},
            r"hidden_size=3 is not divisible by .*_heads=4; .* are 4",
        ),
    ],
)
def test_settings_out_of_range_are_reported(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tagger(**settings)


# several texts in a row


def packed(*lengths: int, padding: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """One row of texts of these lengths, and padding behind them."""
    input_ids, _ = sentences(*lengths)
    texts = [input_ids[row, :length] for row, length in enumerate(lengths)]
    pad = torch.zeros(padding, dtype=torch.int64)
    numbers = [torch.full((length,), number) for number, length in enumerate(lengths, start=1)]
    positions = [torch.arange(length) for length in lengths]
    return tuple(torch.cat([*parts, pad])[None] for parts in (texts, numbers, positions))


@pytest.mark.parametrize("kind", sorted(PLAIN_MASK))
def test_texts_that_share_a_row_get_the_logits_and_gradients_of_texts_alone(kind: str) -> None:
    net = BertTagger(text(), checkpoint=None, encoder={"model_type": kind, **ENCODERS[kind]}).eval()
    lengths = (5, 12, 3)
    input_ids, _ = sentences(*lengths)
    weights = torch.randn(sum(lengths), len(LABELS), generator=torch.Generator().manual_seed(2))
    alone = torch.cat([net(input_ids[row : row + 1, :n], torch.ones(1, n).long())[0] for row, n in enumerate(lengths)])
    (alone * weights).sum().backward()
    expected = {name: weight.grad.clone() for name, weight in net.named_parameters()}
    net.zero_grad()
    together = net(*packed(*lengths))[0, : sum(lengths)]
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    (together * weights).sum().backward()
    for name, weight in net.named_parameters():
        torch.testing.assert_close(weight.grad, expected[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("kind", sorted(PLAIN_MASK))
def test_no_text_sees_another_of_its_row(kind: str) -> None:
    net = BertTagger(text(), checkpoint=None, encoder={"model_type": kind, **ENCODERS[kind]}).eval()
    input_ids, numbers, positions = packed(5, 12, 3)
    before = net(input_ids, numbers, positions)
    changed = input_ids.clone()
    changed[numbers == 2] = 5 + (changed[numbers == 2] + 7) % (VOCAB - 5)
    after = net(changed, numbers, positions)
    assert torch.equal(after[numbers != 2], before[numbers != 2])
    assert not torch.isclose(after[numbers == 2], before[numbers == 2]).all(dim=-1).any()
    assert after.isfinite().all()


def test_a_row_may_be_longer_than_a_text() -> None:
    net = BertTagger(text(max_length=8), checkpoint=None, hidden_size=16).eval()
    input_ids, numbers, positions = packed(8, 8, 8)
    assert net(input_ids, numbers, positions).shape == (1, 26, len(LABELS))


def test_the_host_waits_for_no_value_of_packed_rows() -> None:
    net = tagger()
    batch = packed(5, 12, 3)
    with Reads() as reads:
        net(*batch).sum().backward()
    assert reads.count == 0


@pytest.mark.parametrize("kind", ["modernbert", "deberta-v2", "mpnet"])
def test_an_encoder_that_would_mix_the_texts_of_a_row_is_reported(kind: str) -> None:
    net = BertTagger(text(), checkpoint=None, encoder={"model_type": kind, **ENCODERS[kind]})
    with pytest.raises(InputError, match=f"data.packing=rows and fixed: the encoder '{kind}' would mix the texts of a row"):
        net(*packed(5, 12))


def test_another_attention_is_reported_before_it_mixes_texts() -> None:
    net = tagger()
    net.encoder.set_attn_implementation("eager")
    with pytest.raises(InputError, match="would mix the texts of a row; take data.packing=buckets"):
        net(*packed(5, 12))
