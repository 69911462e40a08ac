"""The `network` command: draw the network of a configuration, and what a trained one has learned."""

from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser
from pydantic import NonNegativeInt, PositiveInt
from rich.console import Console
from rich.table import Column

from bundle.analysis.strict_json import to_strict_json
from bundle.cohort.training_view import cut_training_patches, read_training_config, training_dataset
from bundle.commands.arguments import Optional, check_arguments, nearest
from bundle.commands.shared import Outcome, score_table
from bundle.commands.workflows import list_configs as list_choices
from bundle.commands.workflows import parse_settings, run_files, training_files
from bundle.drawing.network_features import FEWEST, deepest_features, draw_embedding, draw_feature_maps, read_features
from bundle.drawing.network_graph import NetworkGraph, read_graph
from bundle.drawing.network_picture import draw_network, name_size
from scripts.data import datalist as lists
from scripts.errors import InputError
from scripts.files import write_text
from scripts.network.ensemble import find_member_weights, load_members
from scripts.network.precision import prepare_network
from scripts.network.shapes import check_patch_size

__all__ = ["list_choices", "network"]


@check_arguments
def network(
    *task_and_recipes: str,
    out: Path = Path("network.svg"),
    features: Optional[Path] = None,
    datalist: Optional[Path] = None,
    dataset_dir: Optional[Path] = None,
    patches: PositiveInt = 64,
    seed: NonNegativeInt = 0,
    **settings: str,
) -> Outcome:
    """Draw any configured network from its modules: grids, channels, weights, skip connections and heads, as SVG.

    With --features RUN and a data list it also draws the feature maps of a patch, and the coarsest features of patches
    of the run's validation cases in two dimensions (t-SNE), trained next to untrained: OUT's name with _maps.png and
    _embedding.png. Patches are cut as in training, without augmentation but mirroring.

    Examples:
        python -m bundle network brats
        python -m bundle network brats dense_trans --gates multi --attention_levels 2 --out dense.svg
        python -m bundle network --features runs/first --datalist brats.json --dataset_dir /data/BraTS2021

    Args:
        task_and_recipes: what is segmented, and how it is trained: names from the list below, or YAML files, the task
            first; none with --features.
        out: the SVG to write.
        features: the folder of a run, as `train` writes it.
        datalist: the data list of the run.
        dataset_dir: the folder that the list's paths start from; by default the one that holds the list.
        patches: of the embedding, eight or more.
        seed: of the patches.
        settings: any setting of configs/train.yaml, such as --filters "[16,32,64]"; not with --features.

    Raises:
        InputError: an argument is wrong, or the network does not accept the patch size.
    """
    if out.suffix != ".svg":
        raise InputError(f"--out is {out}: give the name of a file that ends in .svg.")
    if features and (task_and_recipes or settings):
        raise InputError("--features draws the network of a run: leave out task, recipes and settings.")
    if not (task_and_recipes or features):
        raise InputError("network needs a TASK, such as brats, or --features RUN.")
    if features and datalist is None:
        raise InputError("--features needs --datalist: the data list of the run, whose validation cases are used.")
    if features and patches < FEWEST:
        raise InputError(f"--patches is {patches}: an embedding needs {FEWEST} or more.")
    if features:
        content = lists.read_datalist(datalist)
        config = read_training_config(content, [run_files(features, "configs/inference.yaml")[1]])
        config.update({"deep_supervision": False})  # a run keeps no weights of coarse heads
        config.parse()
    else:
        config = ConfigParser()
        config.read_config(training_files(task_and_recipes[0], task_and_recipes[1:]))
        for name in settings:
            if name.replace("#", "::").split("::")[0] not in config.config:
                raise InputError(f"there is no setting '{name}'{nearest(name, [*config.config])}.")
        config.update({"device": "cpu", **parse_settings(settings)})
        config.parse()
    size, channels = config.get_parsed_content("patch_size"), len(config.get_parsed_content("network_channels"))
    drawn = config.get_parsed_content("network_def")
    check_patch_size(drawn, channels, size)
    graph = read_graph(prepare_network(drawn), channels, size)
    write_text(out, draw_network(graph))
    _print_levels(graph)
    written = [out]
    if features and datalist:
        shown = lists.select_cases(content, dataset_dir or datalist.parent, "validation", config["fold"])
        written += _draw_features(features, config, graph, drawn, shown, patches, seed, out)
    print("\n".join(f"written: {path}" for path in written))
    rows = [{"size": list(grid), "weights": count} for grid, count in graph.parameters_by_level().items()]
    return Outcome(lambda: to_strict_json({"network": graph.name, "weights": graph.parameters, "levels": rows}))


def _print_levels(graph: NetworkGraph) -> None:
    """The weights on each grid."""
    table = score_table(f"{graph.name}: {graph.parameters:,} weights", Column("grid"), "stages", "weights", "share")
    for size, count in graph.parameters_by_level().items():
        stages = sum(stage.size == size for stage in graph.stages)
        table.add_row(name_size(size), str(stages), f"{count:,}", f"{count / graph.parameters:.1%}")
    if rest := graph.parameters - sum(stage.parameters for stage in graph.stages):
        table.add_row("outside of modules", "", f"{rest:,}", f"{rest / graph.parameters:.1%}")
    Console().print(table)


def _draw_features(
    run: Path,
    config: ConfigParser,
    graph: NetworkGraph,
    untrained: torch.nn.Module,
    entries: list[dict],
    count: int,
    seed: int,
    out: Path,
) -> list[Path]:
    """Write the feature maps and the embedding; returns their files."""
    weights = find_member_weights("", None, str(run))
    choice = (config["normalize"], config["normalize_scope"])
    config.update({"augmentation_strength": 0.0, "labelled_case_share": None})
    cut = cut_training_patches(
        config, training_dataset(config, entries, choice, config["intensity_statistics"], seed), count
    )
    images = [patch["image"] for patch in cut]
    found = {"untrained": deepest_features(untrained, graph, images)}
    trained = load_members(untrained, weights)  # the modules that the graph knows
    found["trained"] = deepest_features(trained, graph, images)
    shares = np.array([patch["label"].any(0).mean() for patch in cut])
    fullest = cut[int(shares.argmax())]
    maps, embedding = (out.with_name(f"{out.stem}_{name}.png") for name in ("maps", "embedding"))
    draw_feature_maps(read_features(trained, graph, fullest["image"]), graph, fullest, maps)
    title = f"{run.name}: {len(cut)} patches of {len(entries)} validation cases, t-SNE of the coarsest features"
    draw_embedding(found, shares, title, embedding)
    return [maps, embedding]
