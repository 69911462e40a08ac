"""MedSAM (Ma et al. 2024) on a scan: slice by slice, each with the box of its neighbour's mask."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from scripts.data.clicks import Click
from scripts.inference.promptable.planes import SliceView, to_grey_values
from scripts.inference.promptable.prompts import Box, SlicePrompt, box_of, split_prompts, to_tensors

MARGIN = 3 / 256  # of a slice's sides, by which the box of the neighbour's mask is grown


class MedSamSegmenter:
    """MedSAM on one scan.

    Begins at the slice that was prompted first, and goes to both sides: the next slice's prompt is the box of this
    one's mask, grown by `MARGIN`, as in its authors' inference of volumes (the baseline of the challenge Segment
    Anything in Medical Images on Laptop, CVPR 2024). It ends where a mask is empty, or at the end of the box. Clicks
    on a slice are added to its prompt; MedSAM was trained on boxes alone, so that clicks without one are SAM's.

    Args:
        network: a `SamModel` of transformers.
        voxels: of the scan, [H, W, D].
        affine: of the scan, from voxels to mm.
        plane: of the slices, of `scripts.inference.promptable.planes.PLANES`.
    """

    def __init__(self, network: Any, voxels: np.ndarray, affine: np.ndarray, plane: str) -> None:
        self.network, self.view = network, SliceView(voxels.shape, affine, plane)
        self.slices = self.view.slices(to_grey_values(voxels))
        self.size = int(np.max(network.config.vision_config.image_size))
        self.features: dict[int, torch.Tensor] = {}  # of the slices so far: 4 MB each

    @torch.inference_mode()
    def segment(self, clicks: Sequence[Click], box: Box | None) -> tuple[np.ndarray, int]:
        """See `scripts.inference.promptable.session.PromptSegmenter`."""
        prompts, limits = split_prompts(self.view, clicks, box)
        start = next(number for number, prompt in prompts.items() if prompt.finds)
        first, last = limits or (0, len(self.slices) - 1)
        mask, runs = np.zeros(self.slices.shape, bool), 0
        for step, end in ((1, max(last, *prompts)), (-1, min(first, *prompts))):
            for place in range(start if step > 0 else start - 1, end + step, step):
                prompt = prompts.get(place, SlicePrompt())
                if place != start:
                    within = limits is not None and limits[0] <= place <= limits[1]
                    given = prompts[start].box if within else None
                    prompt = _with_neighbour(prompt, box_of(mask[place - step], MARGIN) or given)
                if prompt.finds:
                    mask[place], runs = self._predict(place, prompt), runs + 1
                elif not any((other - place) * step > 0 for other in prompts):
                    break
        return self.view.scan(mask), runs

    def _predict(self, place: int, prompt: SlicePrompt) -> np.ndarray:
        if place not in self.features:
            self.features[place] = self.network.get_image_embeddings(self._picture(place))
        points, labels, edges = (
            None if given is None else given.to(self.network.device)
            for given in to_tensors(prompt, self.slices.shape[1:], self.size)
        )
        output = self.network(
            image_embeddings=self.features[place],
            input_points=points if prompt.clicks else None,
            input_labels=labels if prompt.clicks else None,
            input_boxes=edges,
            multimask_output=False,
        )
        logits = output.pred_masks[0].float()
        stretched = interpolate(logits, self.slices.shape[1:], mode="bilinear", align_corners=False)
        return stretched[0, 0].numpy(force=True) > 0

    def _picture(self, place: int) -> torch.Tensor:
        """A slice as a picture [1, 3, size, size] from 0 to 1, as MedSAM was trained."""
        grey = torch.from_numpy(np.ascontiguousarray(self.slices[place]))[None, None]
        grey = interpolate(grey, (self.size, self.size), mode="bicubic", antialias=True)
        grey = (grey - grey.min()) / (grey.max() - grey.min()).clamp(min=1e-8)
        return grey.expand(1, 3, -1, -1).to(self.network.device, self.network.dtype)


def _with_neighbour(prompt: SlicePrompt, box: tuple[int, int, int, int] | None) -> SlicePrompt:
    """The prompt with the box of the neighbour's mask in place of its own, grown to its foreground clicks."""
    if box is None:
        return prompt
    inside = [click.voxel for click in prompt.clicks if click.positive]
    rows, columns = zip(box[:2], box[2:], *inside, strict=True)
    return prompt._replace(box=(min(rows), min(columns), max(rows), max(columns)))
