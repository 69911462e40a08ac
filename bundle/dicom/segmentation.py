"""DICOM SEG of a mask: one binary segment per label, in the frame of the series that it was made from.

The mask is passed as a volume with its affine, so that the order of the source's files does not matter, and each file
is read again and compared voxel by voxel before it is kept.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bundle.dicom.stacks import SliceStack
from bundle.dicom.volumes import RAS_TO_LPS, read_datasets
from scripts.errors import InputError
from scripts.files import atomic_write

# by words in the names of labels, in this order: the code in SNOMED CT or the NCI Thesaurus (CID 7159)
NON_ENHANCING = ("C81175", "NCIt", "Non-Enhancing Lesion")
CODES = {
    ("nonenhancing", "net", "nenh"): NON_ENHANCING,
    ("ncr", "necro"): ("6574001", "SCT", "Necrosis"),
    ("ed", "edema", "oedema", "snfh"): ("79654002", "SCT", "Edema"),
    ("et", "enh"): ("C113842", "NCIt", "Enhancing Lesion"),
}
NEOPLASM = ("108369006", "SCT", "Neoplasm")
CATEGORY = ("49755003", "SCT", "Morphologically Abnormal Structure")
BRAIN = ("12738006", "SCT", "Brain")
SERIES_NUMBER = 900


def write_dicom_seg(
    path: Path, mask: np.ndarray, affine: np.ndarray, labels: Mapping[str, int], source: SliceStack, network: Mapping
) -> None:
    """Write a mask as DICOM SEG (BINARY); it holds the patient's name, ID and dates, as its source does.

    Args:
        path: the file to write.
        mask: [H, W, D], values of `labels` and 0.
        affine: 4 x 4, mm, RAS.
        labels: name to value.
        source: the stack on whose grid the mask is.
        network: its `name` and `version`.

    Raises:
        InputError: the mask is empty, the file cannot be written, or it does not hold the mask when it is read again.
    """
    import highdicom
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    present = {name: value for name, value in labels.items() if (mask == value).any()}
    if not present:
        raise InputError(f"{path} is not written: the mask is empty, and a DICOM SEG holds at least one segment.")
    numbered = np.zeros(mask.shape, np.uint8)
    for number, value in enumerate(present.values(), start=1):
        numbered[mask == value] = number
    sources = read_datasets(source)
    volume = highdicom.Volume(
        np.ascontiguousarray(numbered.transpose(2, 1, 0)),
        (RAS_TO_LPS @ affine)[:, [2, 1, 0, 3]],
        "PATIENT",
        frame_of_reference_uid=sources[0].FrameOfReferenceUID,
    )
    version = str(network.get("version") or "unversioned")
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name=str(network["name"])[:64], version=version, family=codes.DCM.ArtificialIntelligence
    )
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=_code(CATEGORY),
            segmented_property_type=_code(choose_code(name)),
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            tracking_uid=generate_uid(),
            tracking_id=name,
            anatomic_regions=[_code(BRAIN)],
        )
        for number, name in enumerate(present, start=1)
    ]
    made = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=volume,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=generate_uid(),
        series_number=SERIES_NUMBER,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="brain-tumour-bundle",
        manufacturer_model_name=str(network["name"])[:64],
        software_versions=version,
        device_serial_number="0",
        content_label="SEGMENTATION",
        content_description="Automatic segmentation, not for diagnosis",
        series_description="Automatic segmentation (research)",
    )
    with atomic_write(path) as temporary:
        made.save_as(temporary)
        _require_same(temporary, volume, path)


def choose_code(label: str) -> tuple[str, str, str]:
    """Value, scheme and meaning of the code for a label, by its name; neoplasm for any other name."""
    name = "".join(letter for letter in label.lower() if letter.isalnum())
    for words, code in CODES.items():
        if any(name == word or (len(word) > 3 and word in name) for word in words):
            return code
    return NEOPLASM


def _code(code: tuple[str, str, str]) -> Any:
    from pydicom.sr.coding import Code

    return Code(*code)


def _require_same(file: Path, volume: Any, path: Path) -> None:
    """Read a DICOM SEG again, and compare it with the volume that it was made of."""
    import highdicom

    read = highdicom.seg.segread(file).get_volume(combine_segments=True).match_geometry(volume)
    if not np.array_equal(read.array, volume.array):
        raise InputError(f"{path} is not written: read again, it differs from the mask; use the NIfTI file.")
