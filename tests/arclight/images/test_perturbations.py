"""Damage to images grows with its strength and repeats with its seed."""

from __future__ import annotations

import pytest
import torch

from arclight.images.perturbations import PERTURBATIONS, perturb_images

IMAGES = torch.randint(0, 256, (3, 3, 12, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize("kind", PERTURBATIONS)
def test_damage_grows(kind: str) -> None:
    damaged = [perturb_images(IMAGES, kind, strength, seed=1) for strength in PERTURBATIONS[kind]]
    distances = [(one.float() - IMAGES.float()).abs().mean().item() for one in damaged]
    assert distances == sorted(distances)
    assert distances[0] > 0 or kind == "blur"  # a hundredth of 12 pixels blurs nothing
    assert len(distances) == 5
    assert all(one.dtype == torch.uint8 and one.shape == IMAGES.shape for one in damaged)
    assert torch.equal(damaged[-1], perturb_images(IMAGES, kind, PERTURBATIONS[kind][-1], seed=1))


def test_blur_keeps_the_mean_and_noise_has_its_deviation() -> None:
    grey = torch.full((1, 1, 64, 64), 128, dtype=torch.uint8)
    assert torch.equal(perturb_images(grey, "blur", 0.08, seed=0), grey)
    assert torch.equal(perturb_images(grey, "brightness", 0.1, seed=0), torch.full_like(grey, 154))
    noise = perturb_images(grey, "noise", 0.1, seed=0).float() - 128
    assert noise.std().item() == pytest.approx(25.5, rel=0.05)


def test_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="unknown perturbation 'fog'"):
        perturb_images(IMAGES, "fog", 0.1, seed=0)
