"""Synthetic MR studies in DICOM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
PARAMETERS: dict[str, dict[str, Any]] = {
    "T1": {"SeriesDescription": "t1_mprage", "RepetitionTime": 8, "EchoTime": 3, "AcquisitionTime": "100000"},
    "T1c": {
        "SeriesDescription": "t1_mprage post gd",
        "RepetitionTime": 8,
        "EchoTime": 3,
        "AcquisitionTime": "103000",
        "ContrastBolusAgent": "Gadovist",
    },
    "T2": {"SeriesDescription": "t2_tse", "RepetitionTime": 5000, "EchoTime": 95, "AcquisitionTime": "101000"},
    "FLAIR": {
        "SeriesDescription": "t2_flair_dark-fluid",
        "RepetitionTime": 9000,
        "EchoTime": 120,
        "InversionTime": 2500,
        "AcquisitionTime": "102000",
    },
}
PATIENT = {"PatientName": "Muster^Erika", "PatientID": "4711-0815", "StudyDate": "20260401"}


def write_series(
    folder: Path,
    voxels: np.ndarray,
    affine: np.ndarray,
    number: int = 1,
    study: str = "1.2.3.4",
    frame: str = "1.2.3.5",
    order: Sequence[int] | None = None,
    slope: float = 1.0,
    **tags: Any,
) -> list[Path]:
    """Write a volume [H, W, D], whose third axis is that of slices, as one MR series; gives its files by slice.

    `affine` is 4 x 4 in mm, RAS; `order` is that of the instance numbers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lps, series = LPS_TO_RAS @ affine, generate_uid()
    sizes = nib.affines.voxel_sizes(affine)
    numbers = list(order) if order is not None else list(range(voxels.shape[2]))
    paths = []
    for k in range(voxels.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MRImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / f"s{number}-{numbers[k]:03d}"
        dataset = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
        about: dict[str, Any] = {
            **PATIENT,
            "PatientBirthDate": "19600101",
            "PatientSex": "F",
            "StudyTime": "100000",
            "AccessionNumber": "1",
            "ReferringPhysicianName": "",
            "StudyID": "1",
            "Manufacturer": "made",
            "Modality": "MR",
            "SOPClassUID": MRImageStorage,
            "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
            "StudyInstanceUID": study,
            "SeriesInstanceUID": series,
            "FrameOfReferenceUID": frame,
            "PositionReferenceIndicator": "",
            "SeriesNumber": number,
            "InstanceNumber": numbers[k] + 1,
            "ImageType": ["ORIGINAL", "PRIMARY", "M"],
            "ScanningSequence": "SE",
            "SequenceVariant": "NONE",
            "ScanOptions": "",
            "MRAcquisitionType": "3D",
            "EchoTrainLength": 1,
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "Rows": voxels.shape[1],
            "Columns": voxels.shape[0],
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 1,
            "RescaleSlope": slope,
            "RescaleIntercept": 0,
            "PixelSpacing": [sizes[1], sizes[0]],
            "SliceThickness": sizes[2],
            "ImageOrientationPatient": [*(lps[:3, 0] / sizes[0]), *(lps[:3, 1] / sizes[1])],
            "ImagePositionPatient": list(nib.affines.apply_affine(lps, [0, 0, k])),
            **tags,
        }
        for name, value in about.items():
            if value is not None:
                setattr(dataset, name, _rounded(value))
        dataset.PixelData = np.rint(voxels[:, :, k] / slope).astype("<i2").T.tobytes()
        dataset.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def write_study(
    folder: Path, images: Mapping[str, np.ndarray], affine: np.ndarray, study: str = "1.2.3.4", **tags: Any
) -> None:
    """Write channels as the series of one study, with the parameters of their kind."""
    for number, (name, voxels) in enumerate(images.items(), start=1):
        write_series(folder, voxels, affine, number, study, **{**PARAMETERS[name], **tags})


def read_header(path: Path) -> pydicom.Dataset:
    return pydicom.dcmread(path, stop_before_pixels=True)


def _rounded(value: Any) -> Any:
    """Numbers as text of at most 16 characters, which DICOM allows."""
    if isinstance(value, float | np.floating):
        return float(f"{value:.8g}")
    return [_rounded(item) for item in value] if isinstance(value, list) else value
