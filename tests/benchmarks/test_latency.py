"""The parts of the latency program that do not depend on time."""

from __future__ import annotations

import torch

from arclight.benchmark.measurement import Case, Figure, Result
from arclight.text.info import TokenInfo
from benchmarks import latency


def test_the_sentence_nearest_in_length_without_padding() -> None:
    ids = torch.tensor([[2, 5, 3, 0, 0], [2, 5, 6, 3, 0]])
    starts = torch.tensor([[1, -1, -1], [1, 2, -1]])
    found = latency.nearest_to([(ids, (ids != 0).long(), starts)], num_words=2)
    assert [value.tolist() for value in found] == [[[2, 5, 6, 3]], [[1, 1, 1, 1]], [[1, 2]]]
    assert latency.nearest_to([(ids,)], 2)[0].tolist() == [[2, 5, 3, 0, 0]]


def test_every_word_gets_the_tag_of_its_first_subword() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"[UNK]": 0, "a": 1, "b": 2, "##b": 3}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    info = TokenInfo(labels=("O", "B-X"), tokenizer=tokenizer.to_str(), vocab_size=4, pad_id=0, max_length=8)

    def run(inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        ids, _, starts = inputs
        is_b = (ids.gather(1, starts.clamp(min=0)) == 2).float()
        return (torch.stack([1 - is_b, is_b], dim=-1),)

    assert latency.tag_texts(run, info, ["a bb a", "b", "abb"]) == [["O", "B-X", "O"], ["B-X"], ["O"]]


def test_the_table_compares_with_eager() -> None:
    cases = [latency.latency_case(name, [[seconds] * 3] * 2) for name, seconds in (("eager", 0.004), ("onnx", 0.001))]
    cases = [latency.with_speed(case, cases[0]) for case in cases]
    assert cases[1].figures["speed"] == Figure((4.0, 4.0), "")
    assert cases[1].figures["p50"].median == 1.0
    rate = Case("batch 32, onnx", {}, {"rate": Figure((9.0,), "1/s")})
    metadata = {"device": "CPU", "num_rounds": 2, "machine": {"flops": {}, "copy_bytes_per_s": 0.0}}
    assert latency.result_table(Result("latency", metadata, (*cases, rate))).row_count == 3


def test_rates_count_from_the_second_call() -> None:
    calls = []
    once = latency.rate_of(lambda: calls.append(1), 10)
    assert once() > 0
    assert len(calls) == 2
