"""Registration by mutual information (Mattes et al. 2003), coarse to fine, by SimpleITK.

Rigid transforms climb by steps of a fixed length, shortened where the direction turns, affine ones by line search.
Plain gradient descent stops millimetres away from the optimum.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import SimpleITK as sitk

from bundle.raw.volumes import coarsen, resample

BINS = 32
SAMPLES, SHARE = 300_000, 0.5  # voxels of a level at most, drawn by a fixed seed
STEPS = 150  # of a level at most
RIGID = 6  # parameters
COMPARED_MM = 4.0  # grid on which positions are compared, with all voxels

Found = TypeVar("Found", bound=sitk.Transform)


class MutualInformation:
    """The mutual information of two images in a mask, as a function of the transform.

    Args:
        fixed: the image whose grid is sampled.
        moving: the image that is moved to it.
        mask: of the fixed image: where it is compared.
    """

    def __init__(self, fixed: sitk.Image, moving: sitk.Image, mask: sitk.Image) -> None:
        self.images = [sitk.Cast(image, sitk.sitkFloat32) for image in (fixed, moving)]
        self.mask = mask
        self.levels: dict[float, list[sitk.Image]] = {}

    def measure(self, transform: sitk.Transform) -> float:
        """The mutual information at a transform, in nats; 0 where the images hardly overlap."""
        fixed, moving, mask = self._level(COMPARED_MM)
        method = self._method(mask, sitk.ImageRegistrationMethod.NONE, 1.0)
        method.SetInitialTransform(transform)
        try:
            return -float(method.MetricEvaluate(fixed, moving))
        except RuntimeError:  # too few points of one lie in the other
            return 0.0

    def climb(self, transform: Found, levels_mm: Sequence[float]) -> Found:
        """The transform at the next optimum, level by level; the given one is changed.

        Args:
            transform: where it starts.
            levels_mm: grids from coarse to fine; those finer than a quarter of a voxel are left out.
        """
        finest = min(size for image in self.images for size in image.GetSpacing())
        for mm in [mm for mm in levels_mm if mm >= finest / 4] or levels_mm[:1]:
            fixed, moving, mask = self._level(mm)
            share = min(SHARE, SAMPLES / float(np.prod(fixed.GetSize())))
            method = self._method(mask, sitk.ImageRegistrationMethod.RANDOM, share)
            self._set_optimizer(method, mm, rigid=transform.GetNumberOfParameters() == RIGID)
            method.SetOptimizerScalesFromPhysicalShift()
            method.SetInitialTransform(transform, inPlace=True)
            try:
                method.Execute(fixed, moving)
            except RuntimeError:  # it has left the image; what is checked afterwards says so
                break
        return transform

    def _set_optimizer(self, method: sitk.ImageRegistrationMethod, mm: float, rigid: bool) -> None:
        if rigid:
            method.SetOptimizerAsRegularStepGradientDescent(
                learningRate=mm / 2,
                minStep=mm / 200,
                numberOfIterations=STEPS,
                relaxationFactor=0.6,
                gradientMagnitudeTolerance=1e-8,
            )
        else:  # a first step of a fixed length would distort an affine map
            method.SetOptimizerAsGradientDescentLineSearch(
                learningRate=1.0,
                numberOfIterations=STEPS,
                convergenceMinimumValue=1e-5,
                convergenceWindowSize=8,
                lineSearchUpperLimit=4.0,
                lineSearchMaximumIterations=12,
                estimateLearningRate=sitk.ImageRegistrationMethod.EachIteration,
                maximumStepSizeInPhysicalUnits=mm,
            )

    def _level(self, mm: float) -> list[sitk.Image]:
        if mm not in self.levels:
            fixed, moving = (coarsen(image, mm) for image in self.images)
            self.levels[mm] = [fixed, moving, resample(self.mask, fixed)]
        return self.levels[mm]

    def _method(self, mask: sitk.Image, strategy: int, share: float) -> sitk.ImageRegistrationMethod:
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(BINS)
        method.SetMetricSamplingStrategy(strategy)
        method.SetMetricSamplingPercentage(share, seed=1)
        method.SetMetricFixedMask(mask)
        method.SetInterpolator(sitk.sitkLinear)
        return method
