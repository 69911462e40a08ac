"""Networks are read from their modules: stages, grids, skip connections, heads and weights; and drawn."""

from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from monai.networks.nets import DynUNet, SegResNet
from PIL import Image

from bundle.commands.network import network as draw
from bundle.drawing.network_features import deepest_features, draw_embedding, draw_feature_maps, read_features
from bundle.drawing.network_graph import INPUT, read_graph
from bundle.drawing.network_picture import draw_network
from scripts.errors import InputError
from scripts.network.dense_trans import DenseTrans
from scripts.network.meta_unet import MetaUNet3D
from scripts.network.precision import prepare_network
from tests.made import refused


def default_network(heads: bool = True) -> torch.nn.Module:
    made = DynUNet(3, 2, 3, [3] * 4, [1, 2, 2, 2], [2] * 3, [4, 8, 8, 16], deep_supervision=heads, deep_supr_num=2)
    return prepare_network(made)


def test_u_net_has_skips_on_all_levels_but_the_deepest():
    graph = read_graph(default_network(), 2, [16, 16, 16])
    assert [graph.level(stage) for stage in graph.stages] == [0, 1, 2, 3, 2, 1, 0]
    assert graph.skips() == {(0, 6), (1, 5), (2, 4)}
    assert (INPUT, 0) in graph.edges
    assert [stage.heads for stage in graph.stages] == [0, 0, 0, 0, 1, 1, 1]
    assert [stage.channels for stage in graph.stages] == [4, 8, 8, 16, 8, 8, 4]


@pytest.mark.parametrize(
    ("network", "size"),
    [
        (default_network(), [16, 16, 16]),
        (SegResNet(3, 8, 2, 3), [16, 16, 16]),
        (DenseTrans(2, 3, [4, 8, 8]), [16, 16]),
        (MetaUNet3D(2, 3, [4, 8, 8], prototypes=False), [16, 16, 8]),
    ],
)
def test_weights_of_stages_are_those_of_the_network(network, size):
    graph = read_graph(network, 2, size)
    assert sum(graph.parameters_by_level().values()) == sum(p.numel() for p in network.parameters())


def test_dense_node_takes_features_of_its_whole_level():
    graph = read_graph(DenseTrans(2, 3, [4, 4, 4]), 2, [16, 16])
    last = len(graph.stages) - 1
    finest = {number for number, stage in enumerate(graph.stages) if graph.level(stage) == 0}
    assert {start for start, end in graph.edges if end == last} >= finest - {last}


def test_gate_and_prototypes_belong_to_the_stages_of_their_features():
    graph = read_graph(MetaUNet3D(2, 3, [4, 8, 8]), 2, [16, 16, 8])
    assert [graph.level(stage) for stage in graph.stages] == [0, 1, 2, 1, 0]
    assert [stage.channels for stage in graph.stages] == [4, 8, 8, 8, 4]
    assert [stage.heads for stage in graph.stages] == [0, 0, 0, 1, 1]
    assert (2, 4) in graph.edges  # the gate


def test_stage_has_the_channels_of_its_last_output():
    graph = read_graph(DenseTrans(2, 3, [4, 6, 8], gates="single"), 2, [16, 16])  # depthwise convolutions are wider
    assert {stage.size[0]: stage.channels for stage in graph.stages} == {16: 4, 8: 6, 4: 8}


def test_reading_a_network_leaves_it_as_it_was():
    network = default_network().eval()
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    read_graph(network, 2, [16, 16, 16])
    assert not network.training
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())


def test_drawing_names_every_stage_and_is_sound_xml():
    graph = read_graph(default_network(), 2, [16, 16, 8])
    root = ElementTree.fromstring(draw_network(graph))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("8 channels") == 4
    assert "16 x 16 x 8" in texts
    assert len([*root.iter("{http://www.w3.org/2000/svg}circle")]) == 3


@pytest.mark.parametrize(
    ("network", "deepest"), [(default_network(heads=False), 16), (MetaUNet3D(2, 3, [4, 8, 8, 12]), 12)]
)
def test_feature_maps_and_embedding_are_drawn(network, deepest, tmp_path):
    random = np.random.default_rng(0)
    graph = read_graph(network, 2, [16, 16, 16])
    images = random.normal(size=(9, 2, 16, 16, 16)).astype(np.float32)
    maps = read_features(network, graph, images[0])
    assert [found.shape[0] for found in maps] == [stage.channels for stage in graph.stages]
    vectors = deepest_features(network, graph, list(images))
    assert vectors.shape == (9, deepest)
    patch = {"case": "p1", "image": images[0], "label": np.ones((3, 16, 16, 16))}
    draw_feature_maps(maps, graph, patch, tmp_path / "maps.png")
    draw_embedding({"trained": vectors}, random.random(9), "title", tmp_path / "embedding.png")
    for name in ("maps", "embedding"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert min(picture.size) > 300


def test_embedding_of_few_patches_is_refused(tmp_path):
    with pytest.raises(InputError, match="needs 8 patches or more, found 3"):
        draw_embedding({"trained": np.ones((3, 4))}, np.ones(3), "title", tmp_path / "embedding.png")


@pytest.mark.usefixtures("at_root")
def test_command_draws_a_task_with_recipes_and_settings(tmp_path, capsys):
    outcome = draw("phantom", "dense_trans", out=tmp_path / "n.svg", gates="single", filters="[8,8,8]")
    assert outcome.numbers()["network"] == "SlabNetwork of DenseTrans"
    assert "8 channels" in (tmp_path / "n.svg").read_text()
    assert "DenseTrans" in capsys.readouterr().out


@pytest.mark.usefixtures("at_root")
def test_command_draws_what_a_run_has_learned(package, cohort, tmp_path, capsys):
    run = package.parents[1] / "run"
    where = {"datalist": cohort.datalist, "dataset_dir": cohort.dataset_dir}
    outcome = draw(features=run, **where, patches=8, out=tmp_path / "n.svg")
    assert outcome.numbers()["network"] == "DynUNet"
    drawn = [tmp_path / name for name in ("n.svg", "n_maps.png", "n_embedding.png")]
    assert [line for line in capsys.readouterr().out.splitlines() if "written" in line] == [
        f"written: {path}" for path in drawn
    ]
    for path in drawn[1:]:
        with Image.open(path) as picture:
            assert min(picture.size) > 300


@pytest.mark.usefixtures("at_root")
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "network needs a TASK, such as brats, or --features RUN"),
        ({"names": ["phantom"], "out": "n.png"}, "--out is n.png: give the name of a file that ends in .svg"),
        ({"names": ["phantom"], "filter": "[8,8,8]"}, "there is no setting 'filter' (did you mean filters"),
        ({"features": "runs/x"}, "--features needs --datalist"),
        ({"features": "runs/x", "datalist": "x.json", "patches": 4}, "--patches is 4: an embedding needs 8 or more"),
        ({"names": ["phantom"], "features": "runs/x"}, "leave out task, recipes and settings"),
    ],
)
def test_wrong_arguments_are_refused_in_a_sentence(arguments, sentence):
    names = arguments.pop("names", [])
    assert sentence in refused(draw, *names, **arguments)
