"""The server of clicks keeps the scans that were clicked last, and says what is wrong with a request."""

import os
from functools import partial

import numpy as np
import pytest
import torch

from scripts.inference.click_server import ClickServer
from scripts.inference.click_session import ClickSession, Correction
from tests.made import refused
from tests.made.clicks import AFFINES, CHANNELS, REGIONS, SHAPE, Obedient, write_head

PLACE = [6, 5, 10]


class Counted:
    """A `ClickServer`, its network, and how many scans it has prepared."""

    def __init__(self, read_config, make_session=None) -> None:
        config = read_config(
            "configs/inference.yaml", "configs/tasks/phantom.yaml", device="cpu", profile="$None",
            patch_size=[8] * 3, window_channels=CHANNELS,
        )  # fmt: skip
        prepare = config.get_parsed_content("preprocessing")
        inferer, decision = (config.get_parsed_content(name) for name in ("inferer", "region_decision"))

        own = partial(ClickSession, inferer=inferer, preprocessing=prepare, decision=decision)
        self.server, self.network, self.prepared = ClickServer(prepare, make_session or own, REGIONS), Obedient(), 0
        load = self.server.loader.load_image

        def count(named):
            self.prepared += 1
            return load(named)

        self.server.loader.load_image = count

    def ask(self, image, **request) -> dict:
        """What MONAI Label writes and sends, of a request as from 3D Slicer."""
        data = self.server.read_request({"image": str(image), "label": "tc", "foreground": [PLACE], **request})
        inputs = data["image"].as_tensor()[None]
        return self.server.write_answer({**data, "pred": self.server.click(inputs, self.network)[0]})


@pytest.fixture
def server(read_config) -> Counted:
    return Counted(read_config)


@pytest.fixture
def scans(tmp_path):
    """The folders of three scans."""
    folders = [tmp_path / name / "X" for name in "abc"]
    for folder in folders:
        folder.mkdir(parents=True)
        write_head(folder, AFFINES["LPS"])
    return folders


def test_an_answer_is_the_region_on_the_scans_grid(server, scans):
    answer = server.ask(scans[0], client_id="anna")
    mask = answer["pred"].numpy()[0]
    assert mask.shape == SHAPE
    assert mask.dtype == np.uint8
    assert mask[tuple(PLACE)] == 1
    assert answer["result"]["notes"] == []
    assert answer["result"]["windows"] > 0


def test_a_scan_is_prepared_once_until_its_files_change(server, scans):
    kept = [server.ask(scans[0], background=[[8, 8, 8]] * more)["result"]["kept"] for more in (0, 1, 0)]
    assert (server.prepared, kept) == (1, [False, True, True])
    os.utime(scans[0] / "X_t2.nii.gz", (1, 1))
    assert not server.ask(scans[0])["result"]["kept"]
    assert server.prepared == 2


def test_the_scans_clicked_last_are_kept(server, scans):
    first, second, third = scans
    for scan in (first, second, first, third, first):
        server.ask(scan)
    assert server.prepared == 3
    server.ask(second)
    assert server.prepared == 4
    assert len(server.server.scans) == 2


def test_masks_of_eight_annotators_are_kept(server, scans):
    kept = [server.ask(scans[0], client_id=f"{number}")["result"]["kept"] for number in (*range(9), 8)]
    assert kept == [False, *[True] * 7, False, True]
    assert server.prepared == 1


def test_fine_tuned_weights_open_a_new_session(server, scans):
    server.ask(scans[0])
    server.network = Obedient(obeys=0.0)
    answer = server.ask(scans[0])
    assert not answer["result"]["kept"]
    assert server.prepared == 1
    assert len(answer["result"]["notes"]) == 1


@pytest.mark.parametrize(
    ("request_of", "sentence"),
    [
        ({"label": "ncr"}, "label is 'ncr': expected the region to click on, one of wt, tc, et."),
        ({"label": None}, "label is None: expected the region"),
        ({"foreground": None}, "no click on TC is given"),
        ({"foreground": [[20, 1, 1]]}, "lies outside the scan"),
        ({"image": ""}, "there is no scan of this name on the server"),
    ],
)
def test_a_wrong_request_is_answered_by_a_sentence(server, scans, request_of, sentence):
    assert sentence in refused(server.ask, **{"image": scans[0], **request_of})


class Cubes:
    """Another promptable model: a cube around each click."""

    def __init__(self, case, network, device) -> None:
        self.shape = tuple(case["image"].meta["spatial_shape"])

    def click(self, region, foreground, background, annotator) -> Correction:
        mask = np.zeros(self.shape, bool)
        for voxel in foreground:
            mask[tuple(slice(place - 1, place + 2) for place in voxel)] = True
        return Correction(mask, [f"{annotator} clicked on {region}"], 0)


def test_another_promptable_model_is_served_alike(read_config, scans):
    answer = Counted(read_config, Cubes).ask(scans[0], client_id="anna")
    assert torch.count_nonzero(answer["pred"]) == 27
    assert answer["result"]["notes"] == ["anna clicked on TC"]
