"""A tagger as a program: subwords and the first subword of each word in, the logits of each word's tag out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from arclight.export.program import BATCH, Call, Program, Tensors
from arclight.inference.pipeline import net_of
from arclight.text.export.hugging_face import save_token_classifier
from arclight.text.info import TokenBatch, TokenInfo

CUT_OFF = -1e4  # logit of every tag but O of a word without subwords; its logit of O is 0
EXAMPLE = """\
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_str(metadata["tokenizer"])
tokenizer.enable_truncation(metadata["max_length"])
for text in sys.argv[1:]:
    encoding = tokenizer.encode(words := text.split(), is_pretokenized=True)
    starts = [(encoding.word_to_tokens(number) or (-1,))[0] for number in range(len(words))]
    rows = np.array([encoding.ids]), np.array([encoding.attention_mask]), np.array([starts])
    inputs = {taken.name: row.astype(np.int64) for taken, row in zip(session.get_inputs(), rows)}
    tags = session.run(None, inputs)[0][0].argmax(-1)
    print(" ".join(f"{word}/{metadata['labels'][tag]}" for word, tag in zip(words, tags)))"""


class WordTagger(nn.Module):
    """Token ids and mask (B, T), first subword of each word (B, W), -1 for none -> logits (B, W, labels), float32."""

    def __init__(self, module: LightningModule, num_labels: int) -> None:
        super().__init__()
        self.module = net_of(module)
        self.cut_off: Tensor
        self.register_buffer("cut_off", torch.tensor([0.0] + [CUT_OFF] * (num_labels - 1)), persistent=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, word_starts: Tensor) -> Tensor:
        """Returns the logits of each word."""
        return at_words(self.module(input_ids, attention_mask).float(), word_starts, self.cut_off)


def at_words(logits: Tensor, word_starts: Tensor, cut_off: Tensor) -> Tensor:
    """Returns logits (B, W, labels) at the first subwords (B, W) of logits (B, T, labels); `cut_off` (labels,) where -1."""
    index = word_starts.clamp(min=0)[:, :, None].expand(-1, -1, logits.shape[-1])
    return torch.where((word_starts >= 0)[:, :, None], logits.gather(1, index), cut_off)


def tag_program(module: LightningModule, info: TokenInfo) -> Program:
    """Returns the program of a module whose `forward` takes token ids and attention mask and returns logits of subwords."""
    length = min(8, info.max_length)
    ids = torch.full((2, length), info.pad_id)
    starts = torch.arange(2).repeat(2, 1)
    net = WordTagger(module, len(info.labels)).eval()
    rows = {0: BATCH, 1: "length"}

    def save(directory: object) -> Call:
        return save_token_classifier(module, info, directory, lambda logits, at: at_words(logits, at, net.cut_off))  # type: ignore[arg-type]

    return Program(
        net=net,
        examples={"input_ids": ids, "attention_mask": torch.ones_like(ids), "word_starts": starts},
        axes={"input_ids": rows, "attention_mask": rows, "word_starts": {0: BATCH, 1: "words"}},
        outputs=("logits",),
        inputs_of=inputs_of,
        forward_with=forward_with,
        example=EXAMPLE,
        labels=info.labels,
        counted=lambda inputs: inputs[2] >= 0,
        largest={"length": info.max_length},
        extra={
            "inputs": {
                "input_ids": f"int64 ({BATCH}, length)",
                "attention_mask": f"int64 ({BATCH}, length), 0 on padding",
                "word_starts": f"int64 ({BATCH}, words), first subword of each word, -1 for none",
            },
            "task": "token-classification",
            "tokenizer": info.tokenizer,
            "max_length": info.max_length,
            "pad_id": info.pad_id,
        },
        save_as_hugging_face=save,
    )


def inputs_of(batch: TokenBatch) -> Tensors:
    """Returns the inputs of a batch of evaluation, with one row for each sentence."""
    ids, mask = batch.input_ids, batch.attention_mask
    if batch.rows is not None:
        ids, mask = ids[batch.rows], mask[batch.rows]
    return ids, mask, batch.word_starts


def forward_with(run: Call) -> Callable[..., Tensor]:
    """Returns what the module's `forward` computes: every subword counts as the first one of a word."""

    def forward(input_ids: Tensor, attention_mask: Tensor, position_ids: None = None, boundaries: None = None) -> Tensor:
        every = torch.arange(input_ids.shape[1]).expand_as(input_ids).contiguous()
        return run((input_ids, attention_mask, every))[0]

    return forward
