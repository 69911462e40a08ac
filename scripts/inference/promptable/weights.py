"""Weights of promptable models: from a file or a folder, or fetched by the model's library, and checked."""

import contextlib
import io
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from scripts.errors import InputError
from scripts.inference.promptable.nninteractive import make_session

KINDS = {"sam2_video": "SAM 2", "sam2": "SAM 2", "sam": "SAM or MedSAM"}  # by `model_type` of a config.json
PLANS = "plans.json"
NNINTERACTIVE_FILES = (PLANS, "dataset.json")


def load_transformers(name: str, source: str, weights: Path | None, device: str | torch.device) -> Any:
    """SAM 2 or MedSAM with weights in the format of transformers.

    Args:
        name: of the class in transformers.
        source: the repository at Hugging Face that has the weights, if none are given.
        weights: the folder with config.json and model.safetensors, or the latter.
        device: of the network.

    Raises:
        InputError: they cannot be fetched or read, are of another model, or incomplete.
    """
    import transformers

    _leave_out_stand_in(transformers)
    made = getattr(transformers, name)
    if weights is not None:
        folder = weights.parent if weights.is_file() and (weights.parent / "config.json").is_file() else weights
        _require_kind(folder, made.config_class.model_type, source)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        network, found = made.from_pretrained(folder if weights else source, output_loading_info=True)
    except Exception as error:  # of the network, the file or the library, each with errors of its own
        if weights is None:
            raise InputError(_not_fetched(source, error)) from error
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"the weights in {folder} cannot be loaded ({reason}): fetch them again.") from error
    if found["missing_keys"] or found["mismatched_keys"]:
        missing = sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]]))
        raise InputError(
            f"the weights in {weights or source} lack {len(missing)} tensors of {name}, such as {missing[0]}: they are"
            f" of another model, or incomplete; give those of {source}."
        )
    return network.eval().to(device)


def load_nninteractive(weights: Path | None, device: str | torch.device) -> dict[str, Any]:
    """What sessions of nnInteractive share: the network with its weights, its plans, and the device.

    Args:
        weights: the folder of a model, with plans.json and fold_*/checkpoint_final.pth, or that file. It is read by
            pickle, which runs code that is in it.
        device: of the network.

    Raises:
        InputError: they cannot be fetched or read, or are of another model.
    """
    from nnInteractive import model_management

    folder = weights
    if weights is None:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                folder = model_management.ensure_model_available(model_management.get_default_model_id())
        except Exception as error:  # of the network or the hub, each with errors of its own
            raise InputError(_not_fetched(model_management.DEFAULT_REPO_ID, error)) from error
    elif weights.is_file() and weights.parent.name.startswith("fold_"):
        folder = weights.parent.parent
    elif not (weights / PLANS).is_file() and len(inside := [*weights.glob(f"*/{PLANS}")]) == 1:
        folder = inside[0].parent  # of the whole repository
    assert folder is not None
    _require_folder(folder, model_management.DEFAULT_REPO_ID)
    if lacking := [name for name in NNINTERACTIVE_FILES if not (folder / name).is_file()]:
        raise InputError(
            f"{folder} has no {lacking[0]}{_kind_of(folder)}: expected a model of nnInteractive, a folder with"
            f" {', '.join(NNINTERACTIVE_FILES)} and fold_0/checkpoint_final.pth, as {model_management.DEFAULT_REPO_ID}"
            " has it."
        )
    session = make_session(device)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints the licence, which is shown before
            return {**session._load_model_artifacts_from_disk(str(folder)), "device": device}
    except Exception as error:  # torch, nnU-Net and pickle raise their own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"the weights in {folder} cannot be loaded as nnInteractive ({reason}): fetch them again from"
            f" {model_management.DEFAULT_REPO_ID}."
        ) from error


def _leave_out_stand_in(transformers: Any) -> None:
    """Have transformers go without torchvision where only a part of it stands in for it, as next to MONAI Label."""
    if find_spec("torchvision") is not None and find_spec("torchvision.io") is None:
        for module in (transformers.utils, transformers.utils.import_utils):
            module.is_torchvision_available = lambda: False


def _require_kind(folder: Path, expected: str, source: str) -> None:
    _require_folder(folder, source)
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{folder} has no config.json{_kind_of(folder)}: expected weights in the format of transformers,"
            f" config.json and model.safetensors, as {source} has them."
        )
    if (kind := _model_type(folder)) != expected:
        raise InputError(
            f"the weights in {folder} are of {KINDS.get(kind, kind or 'an unknown model')}: expected {KINDS[expected]},"
            f" such as those of {source}."
        )


def _require_folder(folder: Path, source: str) -> None:
    if not folder.exists():
        raise InputError(f"the weights {folder} do not exist: give the folder of those of {source}.")
    if not folder.is_dir():
        raise InputError(
            f"{folder} is a file of another format: give the folder of the weights of {source}, with all its files."
        )


def _kind_of(folder: Path) -> str:
    """What a folder of other weights holds, in brackets."""
    if (kind := _model_type(folder)) in KINDS:
        return f" (it holds weights of {KINDS[kind]})"
    return " (it holds weights of nnU-Net or nnInteractive)" if (folder / PLANS).is_file() else ""


def _model_type(folder: Path) -> str:
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def _not_fetched(source: str, error: Exception) -> str:
    return (
        f"the weights of {source} could not be fetched from Hugging Face ({type(error).__name__}): if this machine has"
        f" no network, run `hf download {source} --local-dir FOLDER` on one that has, copy FOLDER here, and give it by"
        " --weights."
    )
