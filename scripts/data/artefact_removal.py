"""Removal of artefacts from scans before normalisation, on the brain alone, by SimpleITK's filters."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import SimpleITK as sitk
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type, convert_to_tensor
from scipy.ndimage import distance_transform_edt

from scripts.errors import InputError

COARSE = 24  # most voxels per axis of the grid on which N4 fits the field, which is smooth
LEVELS = [50, 50]  # iterations by level; a third one (a quarter of the brain) removes the contrast of large tumours
ITERATIONS, CONDUCTANCE = 5, 1.0  # of the diffusion: few steps, and edges of an average contrast stay


def estimate_gain(voxels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The smooth gain of the coil at each voxel, whose geometric mean in the mask is 1, by N4 (Tustison et al. 2010).

    Args:
        voxels: [H, W, D] or [H, W], of which those in the mask are positive.
        mask: where the gain is fitted.
    """
    image, inside = (sitk.GetImageFromArray(array) for array in (voxels, mask.astype(np.uint8)))
    shrink = [-(-size // COARSE) for size in image.GetSize()]
    fit = sitk.N4BiasFieldCorrectionImageFilter()
    fit.SetNumberOfThreads(1)  # or the sums, and with them the result, would depend on the machine
    fit.SetMaximumNumberOfIterations(LEVELS)
    fit.Execute(sitk.Shrink(image, shrink), sitk.Shrink(inside, shrink))
    log_field = sitk.GetArrayFromImage(fit.GetLogBiasFieldAsImage(image))
    return np.exp(log_field - log_field[mask].mean())


class _OnBrain(MapTransform):
    """Change each channel of an image [C, ...] where it is not 0; background stays 0."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace each image by a float32 one."""
        changed = dict(data)
        for key in self.key_iterator(changed):
            image = convert_to_tensor(changed[key], track_meta=False).float()
            channels = np.zeros(image.shape, np.float32)
            for channel, voxels in zip(channels, image.numpy(force=True), strict=True):
                if (brain := voxels != 0).any():
                    file = getattr(changed[key], "meta", {}).get("filename_or_obj", key)
                    channel[brain] = self._change(voxels, brain, file)[brain]
            changed[key] = convert_to_dst_type(channels, changed[key], dtype=image.dtype)[0]
        return changed

    def _change(self, voxels: np.ndarray, brain: np.ndarray, file: object) -> np.ndarray:
        raise NotImplementedError


class CorrectBiasFieldd(_OnBrain):
    """N4: divide by the smooth gain of the coil (`estimate_gain`).

    Raises:
        InputError: an image has negative voxels: N4 takes logarithms, and a gain needs intensities as scanned.
    """

    def _change(self, voxels: np.ndarray, brain: np.ndarray, file: object) -> np.ndarray:
        if voxels.min() < 0:
            raise InputError(
                f"{file} has negative voxels, {voxels.min():g}: n4 needs the intensities of an MRI as scanned; use"
                " scans that were not normalised, or n4: false."
            )
        return voxels / estimate_gain(voxels, brain)


class SmoothKeepingEdgesd(_OnBrain):
    """Remove noise but no edges, by curvature anisotropic diffusion (Whitaker and Xue 2001).

    The brain is continued by its nearest voxels, so that its rim does not mix with the background.
    """

    def _change(self, voxels: np.ndarray, brain: np.ndarray, file: object) -> np.ndarray:
        nearest = distance_transform_edt(~brain, return_distances=False, return_indices=True)
        image = sitk.GetImageFromArray(voxels[tuple(nearest)])
        step = 0.5 / 2 ** (voxels.ndim + 1)  # of time, half of the largest that is stable
        smooth = sitk.CurvatureAnisotropicDiffusion(image, step, CONDUCTANCE, 1, ITERATIONS)
        return sitk.GetArrayFromImage(smooth)
