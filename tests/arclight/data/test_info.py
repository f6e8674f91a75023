import io

import pytest
import torch

from arclight.data.info import from_plain, to_plain
from arclight.images.info import ImageSpec
from arclight.interfaces import DataInfo
from arclight.text.info import TokenSpec

IMAGES = ImageSpec(channels=3, height=32, width=24, classes=("cat", "dog"), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
TOKENS = TokenSpec(labels=("O", "B-PER", "I-PER"), tokenizer="{}", vocab_size=9, pad_id=0, max_length=16)


@pytest.mark.parametrize("spec", [IMAGES, TOKENS])
def test_a_spec_survives_a_checkpoint(spec: DataInfo) -> None:
    file = io.BytesIO()
    torch.save(to_plain(spec), file)
    file.seek(0)
    assert from_plain(torch.load(file, weights_only=True)) == spec
