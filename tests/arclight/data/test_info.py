import io

import pytest
import torch

from arclight.data.info import from_plain, to_plain
from arclight.images.info import ImageInfo
from arclight.interfaces import DataInfo
from arclight.text.info import TokenInfo

IMAGES = ImageInfo(channels=3, height=32, width=24, classes=("cat", "dog"), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
TOKENS = TokenInfo(labels=("O", "B-PER", "I-PER"), tokenizer="{}", vocab_size=9, pad_id=0, max_length=16)


@pytest.mark.parametrize("data_info", [IMAGES, TOKENS])
def test_a_spec_survives_a_checkpoint(data_info: DataInfo) -> None:
    file = io.BytesIO()
    torch.save(to_plain(data_info), file)
    file.seek(0)
    assert from_plain(torch.load(file, weights_only=True)) == data_info
