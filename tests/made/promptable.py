"""Weights of promptable models that are small and random, in the files of their own libraries."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from scripts.errors import InputError
from scripts.inference.promptable.models import PromptableModel, require_promptable

SIDE = 64  # of the picture that the small models of pictures take, in pixels


def write_sam2(folder: Path) -> Path:
    """SAM 2 with two channels of features at its finest level."""
    from transformers import Sam2VideoConfig, Sam2VideoModel

    torch.manual_seed(1)
    backbone = {
        "model_type": "sam2_hiera_det_model", "hidden_size": 8, "image_size": [SIDE, SIDE],
        "embed_dim_per_stage": [8, 16, 32, 64], "blocks_per_stage": [1, 1, 2, 1],
        "num_attention_heads_per_stage": [1, 1, 1, 1], "window_size_per_stage": [8, 4, 4, 2],
        "global_attention_blocks": [3],
    }  # fmt: skip
    sizes = [[SIDE // 4] * 2, [SIDE // 8] * 2, [SIDE // 16] * 2]
    config = Sam2VideoConfig(
        vision_config={
            "model_type": "sam2_vision_model", "backbone_config": backbone, "fpn_hidden_size": 128,
            "backbone_channel_list": [64, 32, 16, 8], "backbone_feature_sizes": sizes,
        },
        prompt_encoder_config={"hidden_size": 128, "image_size": SIDE},
        mask_decoder_config={"hidden_size": 128, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
        image_size=SIDE, memory_attention_hidden_size=128, memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=32, memory_attention_rope_feat_sizes=sizes[-1],
        memory_encoder_hidden_size=128, mask_downsampler_embed_dim=128,
        memory_fuser_embed_dim=128, memory_fuser_intermediate_dim=32, initializer_range=0.4,
    )  # fmt: skip
    model = Sam2VideoModel(config)
    torch.nn.init.constant_(model.mask_decoder.pred_obj_score_head.proj_out.bias, 9.0)  # the object is in each frame
    model.save_pretrained(folder)
    return folder


def write_medsam(folder: Path) -> Path:
    """A SAM of two layers."""
    from transformers import SamConfig, SamModel

    torch.manual_seed(0)
    config = SamConfig(
        vision_config={"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIDE,
                       "output_channels": 32, "num_pos_feats": 16, "window_size": 4, "global_attn_indexes": [1],
                       "initializer_range": 0.2},
        prompt_encoder_config={"hidden_size": 32, "image_size": SIDE},
        mask_decoder_config={"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
        initializer_range=0.2,
    )  # fmt: skip
    SamModel(config).save_pretrained(folder)
    return folder


def write_nninteractive(folder: Path, box3d: bool = True) -> Path:
    """An nnInteractive of two levels, with a patch of 16 voxels."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet

    torch.manual_seed(1)
    common = {
        "n_stages": 2, "features_per_stage": [4, 8], "kernel_sizes": [[3, 3, 3]] * 2, "strides": [[1, 1, 1], [2, 2, 2]],
        "n_conv_per_stage": [1, 1], "n_conv_per_stage_decoder": [1], "conv_bias": True,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True}, "dropout_op_kwargs": None, "nonlin_kwargs": {"inplace": True},
    }  # fmt: skip
    named = {"conv_op": "torch.nn.modules.conv.Conv3d", "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
             "dropout_op": None, "nonlin": "torch.nn.LeakyReLU"}  # fmt: skip
    parts = {"conv_op": torch.nn.Conv3d, "norm_op": torch.nn.InstanceNorm3d, "dropout_op": None,
             "nonlin": torch.nn.LeakyReLU}  # fmt: skip
    network = PlainConvUNet(input_channels=8, num_classes=2, deep_supervision=False, **common, **parts)
    plans = {
        "dataset_name": "Dataset000_made", "plans_name": "made", "label_manager": "LabelManager",
        "configurations": {"3d": {
            "patch_size": [16, 16, 16], "spacing": [1.0, 1.0, 1.0], "batch_size": 1,
            "architecture": {
                "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
                "arch_kwargs": {**common, **named},
                "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
            },
        }},
    }  # fmt: skip
    dataset = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "object": 1}, "file_ending": ".nii.gz"}
    info = {"supported_interactions": {"bbox3d": box3d}, "interaction_decay": 0.98}
    (folder / "fold_0").mkdir(parents=True)
    for name, content in {"plans": plans, "dataset": dataset, "inference_info": info}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    checkpoint = {"trainer_name": "nnInteractiveTrainer_stub", "init_args": {"configuration": "3d"},
                  "network_weights": network.state_dict()}  # fmt: skip
    torch.save(checkpoint, folder / "fold_0" / "checkpoint_final.pth")
    return folder


WRITERS = {"sam2": write_sam2, "medsam": write_medsam, "nninteractive": write_nninteractive}


def require(name: str) -> PromptableModel:
    """The model of this name; the test is skipped where its packages are not installed."""
    try:
        return require_promptable(name)
    except InputError as error:
        pytest.skip(f"{error} (docs/prompt.md)")
