"""SAM 2 (Ravi et al. 2024) on a scan: its slices are the frames of a video, in which a prompted mask is tracked."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from scripts.data.clicks import Click
from scripts.inference.promptable.planes import SliceView, to_grey_values
from scripts.inference.promptable.prompts import CORNERS, Box, SlicePrompt, box_of, split_prompts, to_tensors

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as SAM 2 was trained
KEPT_SLICES = 64  # whose features are kept between clicks


class VideoFrames:
    """Slices [S, rows, columns] of grey values as the frames of a video, each made when it is asked for.

    Args:
        slices: grey values from 0 to 1.
        size: the side of a frame in pixels, to which both sides are stretched.
    """

    def __init__(self, slices: np.ndarray, size: int) -> None:
        self.slices, self.size = slices, size
        self.mean, self.deviation = torch.tensor(MEAN)[:, None, None], torch.tensor(DEVIATION)[:, None, None]

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, number: int) -> torch.Tensor:
        """The frame [3, size, size]."""
        grey = torch.from_numpy(np.ascontiguousarray(self.slices[number]))[None, None]
        grey = interpolate(grey, (self.size, self.size), mode="bilinear", antialias=True)[0]
        return (grey - self.mean) / self.deviation


class Sam2Segmenter:
    """SAM 2 on one scan.

    Each slice with a foreground click or a box is a frame that is prompted; the mask is tracked from there to both
    sides, with the memory of SAM 2, until a slice is empty. A slice that has background clicks alone is prompted in a
    second run, by these and the box of its mask from the first.

    Args:
        network: a `Sam2VideoModel` of transformers.
        voxels: of the scan, [H, W, D].
        affine: of the scan, from voxels to mm.
        plane: of the slices, of `scripts.inference.promptable.planes.PLANES`.
    """

    def __init__(self, network: Any, voxels: np.ndarray, affine: np.ndarray, plane: str) -> None:
        from transformers import Sam2VideoInferenceSession

        self.network, self.view = network, SliceView(voxels.shape, affine, plane)
        self.slices = self.view.slices(to_grey_values(voxels))
        self.size = int(np.max(network.config.image_size))
        rows, columns = self.slices.shape[1:]
        self.session = Sam2VideoInferenceSession(
            video_height=rows,
            video_width=columns,
            inference_device=network.device,
            inference_state_device=network.device,
            dtype=network.dtype,
            max_vision_features_cache_size=KEPT_SLICES,
        )
        self.session.processed_frames = VideoFrames(self.slices, self.size)

    @torch.inference_mode()
    def segment(self, clicks: Sequence[Click], box: Box | None) -> tuple[np.ndarray, int]:
        """See `scripts.inference.promptable.session.PromptSegmenter`."""
        prompts, limits = split_prompts(self.view, clicks, box)
        finding = {number: prompt for number, prompt in prompts.items() if prompt.finds}
        mask, runs = self._track(finding, limits)
        around = {number: box_of(mask[number]) for number in prompts.keys() - finding.keys()}
        refining = {number: prompts[number]._replace(box=edges) for number, edges in around.items() if edges}
        if refining:
            mask, more = self._track({**finding, **refining}, limits)
            runs += more
        return self.view.scan(mask), runs

    def _track(self, prompts: Mapping[int, SlicePrompt], limits: tuple[int, int] | None) -> tuple[np.ndarray, int]:
        """The mask [S, rows, columns] and the number of slices that the network was run on."""
        self.session.reset_tracking_data()
        number = self.session.obj_id_to_idx(1)
        for place, prompt in prompts.items():
            points, labels, edges = to_tensors(prompt, self.slices.shape[1:], self.size)
            if edges is not None:
                points = torch.cat([edges.reshape(1, 1, 2, 2), points], 2)
                labels = torch.cat([torch.tensor([[CORNERS]], dtype=labels.dtype), labels], 2)
            self.session.add_point_inputs(number, place, {"point_coords": points, "point_labels": labels})
            self.session.obj_with_new_inputs = [1]
            self.network(self.session, frame_idx=place)
        first, last = limits or (0, len(self.slices) - 1)
        start = next(iter(prompts))
        first, last = min(first, *prompts), max(last, *prompts)
        mask, seen = np.zeros(self.slices.shape, bool), {*prompts}
        for reverse, end in ((False, last), (True, first)):
            steps = abs(end - start)
            outputs = self.network.propagate_in_video_iterator(self.session, start, steps, reverse=reverse)
            for output in outputs if steps or not reverse else ():
                place = int(output.frame_idx)
                mask[place] = self._to_mask(output.pred_masks)
                seen.add(place)
                ahead = any((place - other) * (1 if reverse else -1) > 0 for other in prompts)
                within = limits is not None and limits[0] <= place <= limits[1]
                if not mask[place].any() and not ahead and not within:
                    break
        return mask, len(seen)

    def _to_mask(self, logits: torch.Tensor) -> np.ndarray:
        stretched = interpolate(logits.float(), self.slices.shape[1:], mode="bilinear", align_corners=False)
        return stretched[0, 0].numpy(force=True) > 0
