"""An image classifier as a program: raw pixels in, logits and probabilities out; and as a model of transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from arclight.errors import InputError
from arclight.export.program import BATCH, Call, Program, Tensors
from arclight.images.info import ImageInfo
from arclight.inference.pipeline import net_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EXAMPLE = """\
from PIL import Image, ImageOps
_, height, width, channels = session.get_inputs()[0].shape
for path in sys.argv[1:]:
    image = ImageOps.exif_transpose(Image.open(path)).convert("L" if channels == 1 else "RGB")
    pixels = np.asarray(RESIZED, dtype=np.uint8)
    logits, probabilities = session.run(None, {"images": pixels.reshape(1, height, width, channels)})
    best = int(probabilities[0].argmax())
    print(path, metadata["labels"][best], f"{probabilities[0, best]:.4f}")"""


RESIZED = {
    "crop": "ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)",
    "pad": "ImageOps.pad(image, (width, height), Image.Resampling.BICUBIC)",
    "squash": "image.resize((width, height), Image.Resampling.BICUBIC)",
}


class PixelClassifier(nn.Module):
    """Images as they are decoded, uint8 (B, H, W, C) -> logits and probabilities (B, classes), float32."""

    def __init__(self, module: LightningModule) -> None:
        super().__init__()
        self.module = net_of(module)
        # what prediction calls, such as a mean over views
        self.compute: Callable[[Tensor], Tensor] = getattr(module, "predict_forward", self.module)

    def forward(self, images: Tensor) -> Tensors:
        """Returns logits and probabilities."""
        logits = self.compute(images.permute(0, 3, 1, 2)).float()
        return logits, logits.softmax(dim=-1)


def image_program(module: LightningModule, info: ImageInfo) -> Program:
    """Returns the program of a module whose `forward` takes raw images (B, C, H, W) and returns logits."""
    shape = (2, info.height, info.width, info.channels)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Program(
        net=PixelClassifier(module).eval(),
        examples={"images": pixels},
        axes={"images": {0: BATCH}},
        outputs=("logits", "probabilities"),
        inputs_of=lambda batch: (batch.images.permute(0, 2, 3, 1).contiguous(),),
        forward_with=lambda run: lambda images: run((images.permute(0, 2, 3, 1).contiguous(),))[0],
        example=EXAMPLE.replace("RESIZED", RESIZED[info.resize]),
        labels=info.classes,
        extra={
            "inputs": {"images": f"uint8 ({BATCH}, {info.height}, {info.width}, {info.channels})"},
            "task": "image-classification",
            "normalization": normalization_of(module, info),
            "resize": f"{info.resize}, bicubic",
        },
        save_as_hugging_face=lambda directory: save_image_model(module, info, directory),
    )


def normalization_of(module: LightningModule, info: ImageInfo) -> dict[str, Any]:
    """Returns mean and std per channel, of pixels in 0..1, that the module normalizes with: from what it does to 0 and 255."""
    normalize: Callable[[Tensor], Tensor] | None = getattr(module, "normalize", None)
    if normalize is None:
        return {"mean": list(info.mean), "std": list(info.std)}
    black = torch.zeros(1, info.channels, 1, 1, dtype=torch.uint8)
    low, high = (normalize(pixels).double().flatten() for pixels in (black, black + 255))
    return {"mean": (-low / (high - low)).tolist(), "std": (1 / (high - low)).tolist()}


def save_image_model(module: LightningModule, info: ImageInfo, directory: Path) -> Call:
    """Writes the classifier of transformers that the net holds, with its image processor, and returns the loaded one.

    Raises:
        InputError: when the net holds none, so that its architecture is not one of transformers.
    """
    from transformers import AutoModelForImageClassification

    model = classifier_in(module)
    normalization = normalization_of(module, info)
    model.config.id2label = dict(enumerate(info.classes))
    model.config.label2id = {name: number for number, name in enumerate(info.classes)}
    model.save_pretrained(directory)
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": info.height, "width": info.width},
        "resample": 3,  # bicubic
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": normalization["mean"],
        "image_std": normalization["std"],
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")
    loaded = AutoModelForImageClassification.from_pretrained(directory).eval()
    mean, std = (torch.tensor(normalization[name]).view(-1, 1, 1) for name in ("mean", "std"))

    def run(inputs: Tensors) -> Tensors:
        with torch.inference_mode():
            logits = loaded((inputs[0].permute(0, 3, 1, 2) / 255 - mean) / std).logits
        return logits, logits.softmax(dim=-1)

    return run


def classifier_in(module: LightningModule) -> PreTrainedModel:
    """Returns the image classifier of transformers inside a module."""
    from transformers import PreTrainedModel

    for inner in module.modules():
        if isinstance(inner, PreTrainedModel) and type(inner).__name__.endswith("ForImageClassification"):
            return inner
    name = type(getattr(module, "net", module)).__name__
    raise InputError(
        f"--format huggingface: {name} is not an architecture of transformers; set --format onnx, torch_export or safetensors. "
        "A net that holds a model of AutoModelForImageClassification can be exported so"
    )
