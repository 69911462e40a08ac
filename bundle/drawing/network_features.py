"""Feature maps of a patch, and features of many patches in two dimensions, trained against untrained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

from bundle.drawing.network_graph import NetworkGraph
from bundle.drawing.slices import save_figure, tumour_slice
from scripts.errors import InputError

MAPS = 8  # of a stage, those that vary most
FEWEST = 8  # patches of an embedding
PERPLEXITY = 30.0  # of t-SNE at most; a third of the patches where there are few


def read_features(network: nn.Module, graph: NetworkGraph, image: np.ndarray) -> list[np.ndarray]:
    """The last output of each stage, [C, ...], for one patch [C, ...]; for slices one axis less and more of them.

    Args:
        network: the one of the graph.
        graph: from `bundle.drawing.network_graph.read_graph`.
        image: a patch, as the network sees it.
    """
    found: dict[int, np.ndarray] = {}
    hooks = []
    for number, stage in enumerate(graph.stages):
        if stage.last is not None:

            def keep(_: nn.Module, __: Any, output: torch.Tensor, number: int = number) -> None:
                found[number] = output.detach().float().numpy(force=True)

            hooks.append(stage.last.register_forward_hook(keep))
    network.eval()
    with torch.no_grad():
        network(torch.as_tensor(image)[None].float())
    for hook in hooks:
        hook.remove()
    return [found[number][len(found[number]) // 2] for number in sorted(found)]  # of slices, the middle one


def deepest_features(network: nn.Module, graph: NetworkGraph, images: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of the coarsest stage's features over each patch, [patches, features]."""
    place = max(range(len(graph.stages)), key=lambda number: graph.level(graph.stages[number]))
    means = [read_features(network, graph, image)[place] for image in images]
    return np.stack([mean.reshape(len(mean), -1).mean(1) for mean in means])


def draw_feature_maps(
    features: Sequence[np.ndarray], graph: NetworkGraph, patch: Mapping[str, Any], path: Path
) -> None:
    """Write a PNG with one row per stage: the channels that vary most, in the slice with most of the label."""
    depth = patch["image"].shape[-1]
    share = (tumour_slice(patch["label"].any(0), depth, 0) + 0.5) / depth if patch["image"].ndim == 4 else 0.5
    figure = Figure(figsize=(1.2 * MAPS + 1.8, 1.2 * len(features) + 0.8), facecolor="white")
    axes = figure.subplots(len(features), MAPS, squeeze=False)
    figure.subplots_adjust(0.17, 0.01, 0.99, 1 - 0.7 / figure.get_figheight(), 0.04, 0.04)
    figure.suptitle(f"{patch['case']}: feature maps of {graph.name}, by stage", x=0.02, ha="left", fontsize=12)
    for cells, stage, maps in zip(axes, graph.stages, features, strict=True):
        flat = maps[..., int(share * maps.shape[-1])] if maps.ndim == 4 else maps
        chosen = np.argsort(-flat.reshape(len(flat), -1).std(1), kind="stable")[:MAPS]
        for cell, channel in zip(cells, chosen, strict=False):
            cell.imshow(flat[channel].T[::-1], cmap="magma", interpolation="nearest")
        for cell in cells:
            cell.set_axis_off()
        size = " x ".join(map(str, stage.size))
        figure.text(
            0.01, cells[0].get_position().y0 + 0.3 / figure.get_figheight(), f"{size}\n{stage.channels} channels"
        )
    save_figure(figure, path)


def draw_embedding(features: Mapping[str, np.ndarray], shares: np.ndarray, title: str, path: Path) -> None:
    """Write a PNG with the features of patches in two dimensions (t-SNE), one panel each, coloured by tumour.

    Distances between far points mean nothing in t-SNE (van der Maaten and Hinton 2008): only neighbours do.

    Args:
        features: by name, [patches, F].
        shares: of tumour in each patch, 0 to 1.
        title: of the figure.
        path: the PNG to write.

    Raises:
        InputError: there are too few patches.
    """
    from sklearn.manifold import TSNE  # takes a second

    if len(shares) < FEWEST:
        raise InputError(f"an embedding needs {FEWEST} patches or more, found {len(shares)}: give more --patches.")
    figure = Figure(figsize=(4.4 * len(features) + 0.8, 4.6), facecolor="white", layout="constrained")
    panels = figure.subplots(1, len(features), squeeze=False)[0]
    for axes, (name, vectors) in zip(panels, features.items(), strict=True):
        perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
        places = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(vectors)
        drawn = axes.scatter(*places.T, c=100 * shares, cmap="viridis", s=28, edgecolors="black", linewidths=0.3)
        axes.set(xticks=[], yticks=[], title=name)
    figure.colorbar(drawn, ax=panels, label="tumour, % of the patch")
    figure.suptitle(title)
    save_figure(figure, path)
