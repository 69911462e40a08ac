"""The pictures of the steps from raw scans to prepared ones, and what they show in words."""

import numpy as np
from scipy.ndimage import distance_transform_edt

from bundle.drawing.raw_steps import Panel, PanelRow, draw_panel_rows
from bundle.raw.steps import PreparedChannels
from scripts.scoring.measures import turn_to_patient

SHOWN_MM = 10.0  # around the brain: bone and the outer rim of the brain are seen, and no face
PLANES = ("axial", "sagittal")


def draw_steps(made: PreparedChannels, affine: np.ndarray, identify: bool) -> dict[str, tuple[str, bytes]]:
    """Name of the file to its caption and its PNG: bias field, co-registration, brain mask.

    Args:
        made: the prepared channels.
        affine: 4 x 4, of their grid.
        identify: draw the whole head, with its face.
    """

    def turn(voxels: np.ndarray) -> np.ndarray:
        return turn_to_patient(voxels, affine).voxels

    brain, spacing = turn(made.brain), turn_to_patient(made.brain, affine).spacing
    visible = np.ones_like(brain) if identify else distance_transform_edt(~brain, spacing) <= SHOWN_MM
    scanned = {name: turn(before) for name, (before, _) in made.corrected.items()}
    corrected = {name: turn(after) for name, (_, after) in made.corrected.items()}
    moved = {name: turn(voxels) for name, voxels in made.moved.items()}
    fixed = moved[made.reference]
    bias = [
        PanelRow(title, [Panel("axial", scan) for scan in scans.values()])
        for title, scans in (("as scanned", scanned), ("corrected", corrected))
    ]
    drawn = {"bias-field.png": ("Bias field, before and after its removal", bias, [*moved])}
    others = [name for name in moved if name != made.reference]
    if others:
        rows = [
            PanelRow(f"{when}, {plane}", [Panel(plane, scans[name], fixed) for name in others])
            for plane in PLANES
            for when, scans in (("before", corrected), ("after", moved))
        ]
        words = f"Co-registration: each channel with the edges of {made.reference}, before and after"
        drawn["co-registration.png"] = (words, rows, others)
    planes = ("axial", "coronal", "sagittal")
    mask = PanelRow(made.reference, [Panel(plane, fixed, None, brain) for plane in planes])
    drawn["brain-mask.png"] = (f"Outline of the brain mask on {made.reference}", [mask], [*planes])
    around = "" if identify else f"; what is more than {SHOWN_MM:.0f} mm from the brain is black"
    return {
        file: (f"{words}{around}", draw_panel_rows(rows, columns, visible, spacing))
        for file, (words, rows, columns) in drawn.items()
    }
