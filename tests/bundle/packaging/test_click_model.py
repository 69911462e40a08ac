"""The folder of the click model shares weights and code with the automatic model."""

import json
import shutil

from bundle.packaging.click_model import takes_clicks, write_click_model


def test_a_network_without_clicks_is_served_once(package):
    assert not takes_clicks(package)


def test_click_model_has_the_weights_of_the_automatic_one(package, tmp_path):
    model = shutil.copytree(package, tmp_path / "tumour_segmentation-1.0.0")
    for _ in range(2):  # anew at each start
        name = write_click_model(model, {"_target_": "scripts.inference.prompts.Session", "_mode_": "callable"})
    made = tmp_path / name
    assert name == "tumour_segmentation-1.0.0_deepgrow"
    (model / "models" / "model.pt").write_bytes(b"tuned")
    assert (made / "models" / "model.pt").read_bytes() == b"tuned"
    assert (made / "scripts" / "inference" / "click_server.py").is_file()
    assert not (made / "configs" / "train.yaml").exists()  # it is not trained by itself
    config = json.loads((made / "configs" / "inference.json").read_text())
    assert config["clicks"]["make_session"]["_target_"] == "scripts.inference.prompts.Session"
    assert sorted(path.name for path in tmp_path.iterdir()) == [model.name, name]
