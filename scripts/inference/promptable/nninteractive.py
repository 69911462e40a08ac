"""nnInteractive (Isensee et al. 2025) on a scan: a network in three dimensions for clicks and boxes."""

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from scripts.data.clicks import Click
from scripts.inference.promptable.planes import SliceView
from scripts.inference.promptable.prompts import Box


class NnInteractiveSegmenter:
    """nnInteractive on one scan.

    It gets the prompts one after the other, and corrects its own mask by each. Where they extend the former ones, it
    goes on from there, else it begins anew. A box is one in three dimensions if the weights know these; if not, on its
    middle slice.

    Args:
        network: what `load_nninteractive` returns.
        voxels: of the scan, [H, W, D].
        affine: of the scan, from voxels to mm.
        plane: of the slice of a box, of `scripts.inference.promptable.planes.PLANES`.
    """

    def __init__(self, network: Any, voxels: np.ndarray, affine: np.ndarray, plane: str) -> None:
        self.view = SliceView(voxels.shape, affine, plane)
        image = np.ascontiguousarray(self.view.slices(voxels), dtype=np.float32)
        self.session = make_session(network["device"])
        self.session.initialize_from_loaded_artifacts(network)
        self.mask = np.zeros(image.shape, np.uint8)
        self.session.set_image(image[None])
        self.session.set_target_buffer(self.mask)
        self.prompted: list[Click | Box] = []

    def segment(self, clicks: Sequence[Click], box: Box | None) -> tuple[np.ndarray, int]:
        """See `scripts.inference.promptable.session.PromptSegmenter`."""
        given: list[Click | Box] = [*([box] if box else []), *clicks]
        with contextlib.redirect_stdout(io.StringIO()), torch.inference_mode():  # it prints its steps
            if not {*self.prompted} <= {*given}:
                self.session.reset_interactions()
                self.prompted = []
            new = [prompt for prompt in given if prompt not in self.prompted]
            for prompt in new:
                if isinstance(prompt, Box):
                    self.session.add_bbox_interaction(self._corners(prompt), True)
                else:
                    self.session.add_point_interaction(self.view.place(prompt.voxel), prompt.positive)
                self.prompted.append(prompt)
        return self.view.scan(self.mask > 0), len(new)

    def _corners(self, box: Box) -> list[list[int]]:
        """The first index of the box on each axis, and the one after its last."""
        corners = np.sort([self.view.place(corner) for corner in box], axis=0)
        if not self.session.supported_interactions.get("bbox3d"):
            corners[:, 0] = corners[:, 0].sum() // 2
        return [[int(low), int(high) + 1] for low, high in corners.T]


def make_session(device: str | torch.device) -> Any:
    """A session of nnInteractive without weights or image; torch keeps its number of threads."""
    from nnInteractive.inference.inference_session import nnInteractiveInferenceSession

    with contextlib.redirect_stdout(io.StringIO()):
        return nnInteractiveInferenceSession(
            device=torch.device(device),
            torch_n_threads=torch.get_num_threads(),
            interactions_storage="tensor",
            enable_undo=False,
        )
