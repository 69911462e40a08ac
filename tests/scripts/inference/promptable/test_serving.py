"""A click server with a promptable model answers with masks on the scan's own grid."""

import numpy as np
import pytest

from scripts.inference.click_server import ClickServer
from scripts.inference.promptable.serving import PromptSessions
from tests.made.clicks import AFFINES, REGIONS, SHAPE, write_head
from tests.made.promptable import WRITERS, require

PLACE, OTHER = (6, 5, 10), (12, 9, 4)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    require("medsam")
    return str(WRITERS["medsam"](tmp_path_factory.mktemp("weights") / "medsam"))


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_clicks_are_answered_on_the_grid_of_the_file(read_config, tmp_path, weights, affine):
    config = read_config("configs/inference.yaml", "configs/tasks/phantom.yaml", device="cpu", profile="$None")
    settings = {name: config.get(name) for name in ("channels", "channel_files")}
    sessions = PromptSessions("medsam", "FLAIR", **settings, regions=[*REGIONS], weights=weights)
    server = ClickServer(config.get_parsed_content("preprocessing"), sessions, REGIONS)
    (tmp_path / "X").mkdir()
    write_head(tmp_path / "X", affine)
    answers = []
    for clicks in ({"foreground": [PLACE]}, {"foreground": [PLACE], "background": [OTHER]}):
        data = server.read_request({"image": str(tmp_path / "X"), "label": "tc", **clicks})
        pred = server.click(data["image"].as_tensor()[None], None)[0]
        answers.append(server.write_answer({**data, "pred": pred}))
    masks = [np.asarray(answer["pred"])[0] for answer in answers]
    assert masks[0].shape == SHAPE
    assert masks[0][PLACE] == masks[1][PLACE] == 1
    assert masks[1][OTHER] == 0
    assert [answer["result"]["kept"] for answer in answers] == [False, True]
    assert len(sessions.networks) == 1
