"""Damage to images by degrees, to measure how robust a model is: noise, blur, brightness.

Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", 2019; its
kinds, at strengths of our own that suit small and large images.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

PERTURBATIONS: dict[str, tuple[float, ...]] = {
    "noise": (0.05, 0.1, 0.15, 0.2, 0.3),  # standard deviation, of pixels in 0..1
    "blur": (0.01, 0.02, 0.03, 0.05, 0.08),  # standard deviation of the Gaussian, as a fraction of the shorter side
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),  # added to pixels in 0..1
}


def perturb_images(images: Tensor, kind: str, strength: float, *, seed: int) -> Tensor:
    """Returns damaged images, uint8 (B, C, H, W); the same seed gives the same images.

    Args:
        images: uint8 (B, C, H, W).
        kind: a key of `PERTURBATIONS`.
        strength: in the unit of this kind.
        seed: of the noise.
    """
    pixels = images.float() / 255
    if kind == "noise":  # drawn on the CPU, so that every device gets the same
        random = torch.Generator().manual_seed(seed)
        pixels = pixels + strength * torch.randn(pixels.shape, generator=random).to(pixels.device)
    elif kind == "blur":
        pixels = blur(pixels, strength * min(images.shape[2:]))
    elif kind == "brightness":
        pixels = pixels + strength
    else:
        raise ValueError(f"unknown perturbation '{kind}'")
    return (pixels * 255).round().clamp(0, 255).to(torch.uint8)


def blur(pixels: Tensor, sigma: float) -> Tensor:
    """Returns images (B, C, H, W) blurred by a Gaussian of `sigma` pixels; beyond the edges the outermost pixels repeat."""
    radius = max(1, math.ceil(3 * sigma))
    places = torch.arange(-radius, radius + 1, device=pixels.device, dtype=pixels.dtype)
    kernel = torch.exp(-(places**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).expand(pixels.shape[1], 1, 1, -1)
    across = functional.conv2d(functional.pad(pixels, (radius, radius, 0, 0), mode="replicate"), kernel, groups=pixels.shape[1])
    down = functional.pad(across, (0, 0, radius, radius), mode="replicate")
    return functional.conv2d(down, kernel.transpose(2, 3), groups=pixels.shape[1])
