"""Synthetic patients with gliomas: four contrasts and a label, drawn from a random generator.

A patient is drawn in millimetres and sampled last, so that a seed at another size is the same patient on another grid.
The heads are not real anatomy and the contrasts not a Bloch simulation: which tissue is bright in which contrast, and
which region lies inside which, is right; details are not.
"""

import numpy as np
from numpy.random import Generator
from scipy.spatial.transform import Rotation
from scipy.special import expit

CHANNELS = ("T1", "T1c", "T2", "FLAIR")
NCR, ED, ET = 1, 2, 3  # necrotic or non-enhancing core, oedema, enhancing tumour: the labels of `make_patient`
KINDS = ("typical", "small", "multifocal", "non_enhancing")  # by patient number modulo four
HEAD = 192.0  # mm; a smaller field of view gets a smaller head
REACH = HEAD / 2  # mm from the centre in which random fields vary

# Signal of pure tissue in T1, T1c, T2, FLAIR, relative to white matter on T1
SIGNAL = {
    "white": (1.00, 0.95, 0.60, 0.62),
    "grey": (0.66, 0.70, 0.88, 0.84),
    "fluid": (0.25, 0.26, 1.60, 0.22),
    "ageing": (0.80, 0.78, 0.95, 1.02),  # white matter lesions, caps of the ventricles: bright on FLAIR but no tumour
    "vessel": (0.60, 1.35, 0.50, 0.60),  # bright on T1c but no tumour
    "oedema": (0.60, 0.60, 1.20, 1.12),
    "necrosis": (0.36, 0.38, 1.45, 0.72),
    "solid": (0.55, 0.58, 1.25, 1.02),  # tumour that does not enhance
    "rim": (0.64, 1.45, 0.98, 0.98),
}


def make_patient(
    rng: Generator, size: int, spacing: float, dims: int, kind: str, visit: int = 0, noise: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """One synthetic patient of `size` voxels per side, `spacing` mm apart; with `dims` 2, the slice with most tumour.

    A later visit is another scan of the same head, with the tumour radius grown by a quarter per visit. `noise` is a
    factor on the usual noise, which is 0.03 to 0.07 of the signal of white matter on T1.

    Returns:
        images float32 [4, X, Y, Z] in the order of `CHANNELS`, whole numbers from 1 to 32767 in the brain and 0 in the
        air; label uint8 [X, Y, Z] with 1 NCR, 2 ED, 3 ET. X runs to the left, Y to the back, Z up (LPS, as in BraTS
        files). With `dims` 2 there is no Z.
    """
    anatomy, scanner = rng, rng.spawn(visit + 1)[visit]
    axis = (np.arange(size) - (size - 1) / 2) * spacing * max(1.0, HEAD / (size * spacing))
    place = _head_coordinates(anatomy, axis)
    brain, tissues = _draw_brain(anatomy, axis, place)
    label, tumour = _draw_tumour(anatomy, axis, place, kind, 1.0 + 0.25 * visit, tissues)
    label[~brain] = 0
    images = _scan(scanner, axis, brain, tissues | tumour, _signals(anatomy), noise)
    if dims == 2:
        section = int(np.argmax((label > 0).sum((0, 1))))
        images, label = images[..., section], label[..., section]
    return np.ascontiguousarray(images), np.ascontiguousarray(label)


def _smooth_noise(rng: Generator, axis: np.ndarray, length: float) -> np.ndarray:
    """A Gaussian random field [X, Y, Z] of mean 0 and variance 1 whose bumps are about `length` mm wide."""
    knots = np.arange(-REACH, REACH + length, length / 2)
    weights = np.exp(-0.5 * ((np.clip(axis, -REACH, REACH)[:, None] - knots) / (length / 2)) ** 2)
    weights = (weights / np.linalg.norm(weights, axis=1, keepdims=True)).astype(np.float32)
    field = rng.standard_normal((len(knots),) * 3, dtype=np.float32)
    for _ in range(3):  # one axis at a time; after three turns the axes are back in order
        field = np.tensordot(field, weights, axes=(0, 1))
    return field


def _head_coordinates(rng: Generator, axis: np.ndarray) -> np.ndarray:
    """Where each voxel lies in the head, [3, X, Y, Z] in mm to the left, back and top of its centre."""
    turn = Rotation.from_euler("xyz", rng.normal(0, 5, 3), degrees=True).as_matrix()
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij")).astype(np.float32)
    centre = rng.normal(0, 2, 3).reshape(3, 1, 1, 1)
    return np.tensordot(turn.astype(np.float32), grid - centre.astype(np.float32), axes=1)


def _inside(place: np.ndarray, centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    """About how far inside an ellipsoid each place is, in mm; negative outside."""
    x, y, z = ((place[i] - centre[i]) / radii[i] for i in range(3))
    return (1 - np.sqrt(x * x + y * y + z * z)) * min(radii)


def _draw_brain(rng: Generator, axis: np.ndarray, place: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The brain mask [X, Y, Z] and how much of each tissue a voxel holds, in the order in which they are painted."""
    wide, long, high = np.array([67, 84, 70]) * rng.normal(1, 0.04, 3)
    x, y, z = place
    shape = (np.abs(x) / (wide * (1 + 0.1 * y / long))) ** 2.3 + np.abs(y / long) ** 2.3
    shape += np.abs(z / np.where(z > 0, high, 0.8 * high)) ** 2.3  # flatter below
    depth = (1 - shape ** (1 / 2.3)) * 70 + 1.5 * _smooth_noise(rng, axis, 20)
    folds = _smooth_noise(rng, axis, 13)
    below = np.minimum(depth, 8 * np.abs(folds) + np.maximum(depth - 16, 0))  # mm to the pial surface, sulci included
    fissure = np.abs(x) + 0.5 * np.maximum(depth - 20, 0)
    below = np.minimum(below, fissure)
    mirrored = np.stack([np.abs(x), y, z])
    deep = np.maximum(_inside(mirrored, (13, 8, 0), (8, 14, 10)), _inside(mirrored, (26, -8, 0), (5, 16, 9)))
    swell = rng.uniform(0.7, 1.5)  # ventricles grow with age
    bent = np.stack([np.abs(x) - 0.007 * y * y, y, z])
    ventricle = np.maximum(
        _inside(bent, (7, 2, 12), (5.5 * swell, 34, 8 * swell)), _inside(place, (0, 4, -2), (2.2 * swell, 12, 8))
    )
    lesions = _smooth_noise(rng, axis, 12) + 1.2 * np.exp(-((ventricle / 5) ** 2)) - rng.uniform(1.8, 2.8)
    vessels = _smooth_noise(rng, axis, 7) - 2.3 - np.maximum(below - 3, 0)
    tissues = {
        "grey": np.maximum(expit(4.5 - below), expit(deep)),
        "ageing": expit(6 * lesions) * expit(below - 6),
        "fluid": np.maximum(expit(2 * (0.8 - below)), expit(1.5 * ventricle)),
        "vessel": expit(5 * vessels),
    }
    return depth > 0, tissues


def _draw_tumour(
    rng: Generator, axis: np.ndarray, place: np.ndarray, kind: str, growth: float, tissues: dict[str, np.ndarray]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The label [X, Y, Z] and how much of each tumour tissue a voxel holds, in the order in which they are painted."""
    halo = np.full(place.shape[1:], -np.inf, np.float32)
    core = halo.copy()
    wide, fine, rim_noise = (np.clip(_smooth_noise(rng, axis, length), -1.5, 1.5) for length in (26, 11, 12))
    for centre, radius, share in _foci(rng, kind):
        stretch = Rotation.random(random_state=rng).as_matrix() * rng.uniform(0.8, 1.25, (3, 1))
        away = np.tensordot(stretch.astype(np.float32), place - np.reshape(centre, (3, 1, 1, 1)), axes=1)
        distance = np.sqrt((away**2).sum(0))
        radius *= growth
        halo = np.maximum(halo, radius - distance + radius * (0.25 * wide + 0.1 * fine))
        core = np.maximum(core, radius * share - distance + radius * share * (0.2 * wide - 0.18 * fine))
    halo = np.maximum(halo - 5 * tissues["grey"], core)  # oedema follows the white matter
    thickness = 0.0 if kind == "non_enhancing" else rng.uniform(4, 7)  # mm
    inner = core - thickness * np.clip(1 + 0.35 * rim_noise, 0.3, 2)
    label = np.zeros(halo.shape, np.uint8)
    label[(halo > 0) & (tissues["fluid"] < 0.5)] = ED
    label[core > 0] = ET
    label[(core > 0) & (inner > 0)] = NCR
    heart = "solid" if kind == "non_enhancing" else "necrosis"
    tumour = {"oedema": expit(halo / 1.5) * (1 - tissues["fluid"]), "rim": expit(1.5 * core), heart: expit(1.5 * inner)}
    return label, tumour


def _foci(rng: Generator, kind: str) -> list[tuple[np.ndarray, float, float]]:
    """Centre (mm in the head), radius of the whole (mm), and the core's share of it, of each focus."""
    side = rng.choice([-1, 1])
    radius = rng.uniform(14, 17) if kind == "small" else rng.uniform(23, 34)
    centre = np.array([side * rng.uniform(24, 38), rng.uniform(-42, 42), rng.uniform(-8, 28)], np.float32)
    foci = [(centre, radius, rng.uniform(0.5, 0.7))]
    for _ in range(rng.integers(1, 3) if kind == "multifocal" else 0):
        other = np.array([side * rng.uniform(18, 42), -np.sign(centre[1]) * rng.uniform(15, 48), rng.uniform(-10, 30)])
        foci.append((other.astype(np.float32), rng.uniform(12, 18), rng.uniform(0.5, 0.75)))
    return foci


def _signals(rng: Generator) -> dict[str, np.ndarray]:
    """Signal of each tissue in this patient, [4] each: tissue varies between people, diseased tissue more."""
    return {
        name: np.array(values) * np.exp(rng.normal(0, 0.04 if name in ("white", "grey", "fluid") else 0.1, 4))
        for name, values in SIGNAL.items()
    }


def _scan(
    rng: Generator,
    axis: np.ndarray,
    brain: np.ndarray,
    tissues: dict[str, np.ndarray],
    signals: dict[str, np.ndarray],
    factor: float,
) -> np.ndarray:
    """The four images [4, X, Y, Z]: tissue, texture, coil shading, Rician noise and the scanner's own units."""
    images = np.empty((len(CHANNELS), *brain.shape), np.float32)
    texture = 0.05 * _smooth_noise(rng, axis, 9)
    for c in range(len(CHANNELS)):
        signal = np.full(brain.shape, signals["white"][c], np.float32)
        for name, amount in tissues.items():
            signal += amount * (signals[name][c] - signal)
        signal *= np.exp(texture + 0.03 * _smooth_noise(rng, axis, 9) + 0.1 * _smooth_noise(rng, axis, 90))
        noise = factor * rng.uniform(0.03, 0.07)
        real, imaginary = (noise * rng.standard_normal(brain.shape, dtype=np.float32) for _ in range(2))
        signal = np.hypot(signal + real, imaginary)
        unit = np.exp(rng.uniform(np.log(200), np.log(2000)))
        images[c] = np.where(brain, np.clip(np.rint(unit * (signal + rng.uniform(0, 0.3))), 1, 32767), 0)
    return images
