"""Markers of tests that need a GPU or Triton."""

from importlib.util import find_spec

import pytest
import torch

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
needs_triton = pytest.mark.skipif(not find_spec("triton"), reason="needs Triton, whose interpreter runs on a CPU")
