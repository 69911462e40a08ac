"""Fixtures for the tests of scans and intensities."""

import pytest
import torch


@pytest.fixture
def head() -> torch.Tensor:
    """Two channels [2, 12, 10, 8] of positive intensities, the second 50 times as bright, on a background of 0."""
    generator = torch.Generator().manual_seed(0)
    image = torch.zeros(2, 12, 10, 8)
    image[:, 2:10, 2:9, :7] = 10 + 90 * torch.rand(2, 8, 7, 7, generator=generator)
    image[1] *= 50
    return image
