#!/usr/bin/env bash
# Makes a virtual environment with MONAI Label, for `python -m bundle serve` and for tests/monailabel:
#
#   bash tests/monailabel/environment.sh FOLDER [PYTHON]
#
# About 3 GB and 3 minutes. MONAI Label is installed without its own list of requirements: that list would bring pydicom 3, with
# which it does not start (MONAILabel issue 1841), and packages that no bundle needs.
set -euo pipefail
folder=${1:?"usage: bash tests/monailabel/environment.sh FOLDER [PYTHON]"}
python=$folder/bin/python
[ -x "$python" ] || "${2:-python3}" -m venv "$folder"
install() { "$python" -m pip install --quiet --disable-pip-version-check "$@"; }
pins=$(mktemp)
trap 'rm -f "$pins"' EXIT
printf '%s\n' torch==2.13.0 monai==1.6.1 'pydicom<3' 'pynetdicom<3' >"$pins"
install -c "$pins" torch
# what monailabel imports, then what `scripts/` of a package does (tests/scripts/test_travelling.py compares)
install -c "$pins" monai itk pynrrd SimpleITK pydicom pynetdicom girder-client 'dicomweb-client[gcp]>=0.59.1' scikit-learn shapely \
  schedule timeloop expiringdict expiring_dict cachetools watchdog passlib pyjwt bcrypt google-auth requests requests-toolbelt uvicorn \
  fastapi pydantic pydantic-settings python-dotenv python-multipart httpx filelock psutil jsonschema \
  numpy scipy scikit-image nibabel pillow matplotlib pandas pytorch-ignite tensorboard einops rich tqdm fire pyyaml
install --no-deps monailabel==0.8.5 pydicom-seg==0.4.1
if "$python" -c 'from torchvision.utils import make_grid' 2>/dev/null; then exit; fi
# torchvision has no build for a torch without CUDA. MONAI Label wants two functions of it, for pictures that no bundle makes.
stand_in=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/torchvision
mkdir -p "$stand_in"
echo '"""Stands in for torchvision, of which MONAI Label imports two functions."""' >"$stand_in/__init__.py"
cat >"$stand_in/utils.py" <<'END'
"""Tile images, and write them."""

import torch
from PIL import Image


def make_grid(images, nrow=8, **_):
    """One image [3, H, W] of images [N, C, H, W] of 0 to 1, `nrow` in a row."""
    images = torch.as_tensor(images).expand(-1, 3, -1, -1)
    rows = [torch.cat(list(row), dim=-1) for row in images.split(nrow)]
    width = max(row.shape[-1] for row in rows)
    return torch.cat([torch.nn.functional.pad(row, (0, width - row.shape[-1])) for row in rows], dim=-2)


def save_image(images, path, **options):
    """Write the grid of the images."""
    pixels = make_grid(images, **options).mul(255).clamp(0, 255).byte().permute(1, 2, 0)
    Image.fromarray(pixels.cpu().numpy()).save(path)
END
