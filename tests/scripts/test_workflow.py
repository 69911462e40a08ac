"""Checks of settings and names before a workflow starts."""

import subprocess
import sys

import pytest
import torch
import yaml
from monai.bundle import ConfigParser

from scripts import config_names, config_settings, workflow
from scripts.errors import InputError, input_error_message, report_and_exit

WORKFLOWS = ("train", "evaluate", "inference")


@pytest.mark.parametrize(
    ("name", "section", "expected"),
    [
        ("optimizer", {"lr": 0.1}, r"section optimizer has no _target_.* or write \+optimizer: to change"),
        ("loss", {"_target_": "DiceLoss"}, "loss is DiceLoss: .* write `region_loss:` in place of `loss:`"),
    ],
)
def test_section_that_replaces_a_part_names_the_right_one(name, section, expected):
    own = {"optimizer": {"_target_": "Adam"}, "loss": {"_target_": "scripts.training.losses.DeepSupervisionLoss"}}
    config_settings.refuse_other_kinds(own, own)
    with pytest.raises(InputError, match=expected):
        config_settings.refuse_other_kinds({**own, name: section}, own)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_no_setting_of_a_workflow_is_unused_with_any_task(read_config, at_root, name):
    tasks = sorted(path.name for path in (at_root / "configs" / "tasks").glob("*.yaml"))
    assert len(tasks) >= 8
    config = read_config(f"configs/{name}.yaml").config
    config_settings.refuse_unused_settings(config)
    for task in tasks:  # a task only sets settings of the top level
        settings = yaml.safe_load((at_root / "configs" / "tasks" / task).read_text(encoding="utf-8"))
        assert not any("::" in key or key.startswith("+") for key in settings), task
        config_settings.refuse_unused_settings({**config, **settings})


def test_no_setting_is_unused_with_any_recipe_or_several_processes(read_config, at_root):
    overlays = sorted(path.relative_to(at_root) for path in (at_root / "configs" / "recipes").glob("*.yaml"))
    assert len(overlays) >= 3
    for overlay in [*overlays, "configs/multi_gpu_train.yaml"]:
        config = read_config("configs/train.yaml", "configs/tasks/brats.yaml", str(overlay)).config
        own = read_config("configs/train.yaml").config  # whose settings may be cut off by a recipe's network
        config_settings.refuse_unused_settings(config, own)
        config_settings.refuse_settings_without_effect(config, own, {"config_file": str(overlay)})


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"config_file": ["configs/recipes/segresnet.yaml", "configs/recipes/gelu.yaml"]}, "recipe gelu sets act_name"),
        ({"config_file": ["configs/recipes/segresnet.yaml"], "norm_name": ["batch", {}]}, "the command sets norm_name"),
        ({"config_file": ["configs/recipes/vnet.yaml"], "filters": [4, 8]}, "the command sets filters"),
    ],
)
def test_setting_that_a_recipe_has_cut_off_is_refused(read_config, call, said):
    config = read_config("configs/train.yaml", *call["config_file"]).config
    with pytest.raises(InputError, match=said):
        config_settings.refuse_settings_without_effect(config, read_config("configs/train.yaml").config, call)


def test_run_settings_are_used_by_evaluation_and_inference(small_train, read_config):
    folder = small_train().get_parsed_content("folder")
    folder.write_settings(min_component_ml={"WT": 0.1}, chosen=None)
    for name in ("evaluate", "inference"):
        config = read_config(f"configs/{name}.yaml", str(folder.path / "settings.yaml"))
        config_settings.refuse_unused_settings(config.config)
        assert config["min_component_ml"] == {"WT": 0.1}
        assert config["filters"] == [4, 8, 8]


@pytest.mark.parametrize(
    ("name", "typo", "meant"),
    [
        ("train", "learning_rat", "learning_rate"),
        ("train", "patchsize", "patch_size"),
        ("train", "Fold", "fold"),
        ("evaluate", "data_list", "datalist"),
        ("inference", "over_lap", "overlap"),
        ("inference", "outputdir", "output_dir"),
    ],
)
def test_a_mistyped_setting_is_refused_with_the_nearest_one(read_config, name, typo, meant):
    config = read_config(f"configs/{name}.yaml", **{typo: 1})
    with pytest.raises(InputError, match=rf"no setting '{typo}' in this workflow: .*did you mean {meant}\b"):
        config_settings.refuse_unused_settings(config.config)


def test_setting_similar_to_no_other_is_still_refused(read_config):
    config = read_config("configs/inference.yaml", qqqqqq=1)
    with pytest.raises(InputError, match=r"no setting 'qqqqqq' in this workflow: nothing refers to it\.$"):
        config_settings.refuse_unused_settings(config.config)


def test_a_setting_of_training_is_refused_by_inference(read_config):
    with pytest.raises(InputError, match="no setting 'learning_rate'"):
        config_settings.refuse_unused_settings(read_config("configs/inference.yaml", learning_rate=1.0).config)


def test_beginning_refuses_a_mistyped_setting_and_makes_errors_plain(read_config):
    config = read_config("configs/inference.yaml", input="somewhere", learning_rate=1.0)
    with pytest.raises(RuntimeError) as caught:  # MONAI's, around ours
        config.get_parsed_content("initialize")
    assert "no setting 'learning_rate'" in input_error_message(caught.value)
    assert sys.excepthook is report_and_exit


def test_the_running_config_has_the_overrides_and_the_resolved_macros(read_config):
    config = read_config("configs/train.yaml", "configs/tasks/phantom.yaml", learning_rate=0.5)
    config.update({"seen": "$workflow.running_config()"})
    seen = config.get_parsed_content("seen")
    assert seen["learning_rate"] == 0.5
    assert seen["network_def"]["_target_"] == "DynUNet"
    assert seen["patch_size"] == [32, 32, 32]
    assert "_meta_" not in seen


def test_the_running_config_is_there_for_components_too():
    config = ConfigParser({"setting": 7, "config": {"_target_": "scripts.workflow.running_config"}, "_meta_": {"a": 1}})
    assert config.get_parsed_content("config")["setting"] == 7


def test_there_is_no_running_config_outside_of_a_config():
    with pytest.raises(RuntimeError, match="outside a config"):
        workflow.running_config()


@pytest.mark.parametrize("device", ["gpu", "cuda:x", ""])
def test_unknown_device_is_refused(device):
    with pytest.raises(InputError, match=f"device is '{device}': expected cpu, cuda or cuda:N"):
        workflow.check_device(device)


def test_missing_gpu_is_refused_with_a_remedy():
    workflow.check_device("cpu")
    workflow.check_device(torch.device("cpu"))
    absent = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(InputError, match=rf"device is {absent}, but this machine has .*--device cpu"):
        workflow.check_device(absent)


def test_without_a_gpu_the_cpu_is_the_default(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert workflow.default_device() == "cpu"


def test_each_process_takes_its_own_gpu_or_reports_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert workflow.default_device() == "cuda"
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert workflow.default_device() == "cuda:1"
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    workflow.check_device(workflow.default_device())
    assert current == [torch.device("cuda:1")]
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InputError, match=r"device is cuda:2, but this machine has 2 CUDA devices: .*fewer processes"):
        workflow.check_device(workflow.default_device())


def test_a_training_prepares_its_cases_on_the_cpu():
    workflow.require_host_preparation("cpu")
    with pytest.raises(InputError, match="preprocessing_device is cuda: a training prepares its cases on the CPU"):
        workflow.require_host_preparation("cuda")


def test_training_together_needs_torchrun_and_the_rest_does_not(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    workflow.join_processes("cpu", alone=True)
    assert not torch.distributed.is_initialized()
    with pytest.raises(InputError, match="start it with `torchrun"):
        workflow.join_processes("cpu")


def test_world_size_other_than_the_started_processes_is_refused(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    workflow.check_world_size(1)
    with pytest.raises(InputError, match="world_size is 2, processes started: 1"):
        workflow.check_world_size(2)
    monkeypatch.setenv("WORLD_SIZE", "4")
    workflow.check_world_size(4)
    with pytest.raises(InputError, match=r"world_size is 1, processes started: 4.*multi_gpu_train\.yaml"):
        workflow.check_world_size(1)


def test_a_process_that_torchrun_started_joins_the_group(monkeypatch):
    environment = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in {**environment, "GLOO_SOCKET_IFNAME": "lo"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    workflow.join_processes("cpu")
    try:
        assert torch.distributed.get_world_size() == 1
        assert sys.excepthook is report_and_exit, "torch's own hook loses the sentence of an error"
    finally:
        torch.distributed.destroy_process_group()


def test_a_setting_without_a_default_must_be_given():
    workflow.require_settings(datalist="list.json", fold=0)
    with pytest.raises(InputError, match="input is not given: add --input"):
        workflow.require_settings(datalist="list.json", input=None)


@pytest.mark.parametrize("value", ["1e-4", "strong", None, True, -1, float("nan")])
def test_non_numeric_setting_is_named_with_the_correct_notation(value):
    own = {"learning_rate": 1.0e-3, "batch_size": 2}
    config_settings.refuse_other_kinds({"learning_rate": 1, "batch_size": 0}, own)
    with pytest.raises(InputError, match=r"^learning_rate is .*: expected a number, 0 or more, such as .*1\.0e-4"):
        config_settings.refuse_other_kinds({"learning_rate": value, "batch_size": 2}, own)


@pytest.mark.parametrize(
    ("setting", "default", "value", "expected"),
    [
        ("patch_size", [64, 64, 64], 32, "a list"),
        ("tta", False, 1, "True or False"),
        ("max_epochs", 300, "many", "a whole number"),
        ("max_epochs", 300, True, "a whole number"),
        ("run_dir", "$@bundle_root", 20240115, "a path"),
        ("input", None, 2021, "a path"),
        ("resume", None, True, "a path"),
    ],
)
def test_a_value_of_another_kind_than_the_default_is_refused(setting, default, value, expected):
    with pytest.raises(InputError, match=f"^{setting} is {value!r}: expected {expected}"):
        config_settings.refuse_other_kinds({setting: value}, {setting: default})


def test_an_expression_may_take_the_place_of_any_value():
    config = {"patch_size": "$[16] * 3", "resume": False, "input": None, "spacing": 1}
    config_settings.refuse_other_kinds(config, {"patch_size": [64], "resume": False, "input": None, "spacing": None})


def test_summary_lists_what_was_built(capsys):
    network = torch.nn.Linear(10, 100)
    network.bias.requires_grad = False
    workflow.print_components(network, batch_size=2, run_dir="runs/x")
    printed = capsys.readouterr().out
    assert "Linear, 1,000 trainable parameters" in printed
    assert "batch size" in printed
    assert "runs/x" in printed


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"network_def::_target_": "DynUNeet"}, "names DynUNeet, which does not exist; did you mean DynUNet"),
        (
            {"preprocessing::transforms::0::_target_": "scripts.data.loading.LoadImageChannels"},
            "names scripts.data.loading.LoadImageChannels, which does not exist; did you mean LoadImageChannelsd",
        ),
        (
            {"inferer::_target_": "scripts.inference.sliding_windows.MirroringSlidingWindowInferer"},
            "names scripts.inference.sliding_windows, which does not exist; did you mean sliding_window",
        ),
        (
            {"device": "$workflow.defualt_device()"},
            "names scripts.workflow.defualt_device, which does not exist; did you mean default_device",
        ),
        (
            {"inferer::tta": "$len(@strides) * weights.find_weightz(@preprocessing#transforms, 3)"},
            "names scripts.network.weights.find_weightz, which does not exist; did you mean find_weights",
        ),
        (
            {"imports::7": "$import scripts.inference as scans"},
            "names scripts.inference.exit_if_cases_refused, which does not exist.",
        ),
        ({"amp": "$unheard.of(@device)"}, "names unheard, which does not exist."),
    ],
    ids=["component", "own component", "module", "function", "in an expression", "package in place", "never imported"],
)
def test_missing_name_is_refused_with_the_nearest_one(read_config, change, sentence):
    config = read_config("configs/inference.yaml", input="somewhere", **change)
    with pytest.raises(RuntimeError) as caught:  # MONAI's, around ours
        config.get_parsed_content("initialize")
    assert sentence in input_error_message(caught.value)


@pytest.mark.parametrize(
    "expression",
    [
        "$[scans for scans in (1, 2) if scans.real]",
        "$lambda windows: windows.anything",
        "$@datalist.anything",
        "$'5 @ 3' + str(len(@channels))",
        "$5 per cent",  # which MONAI itself refuses, if it is ever used
        "no expression: windows.nothing",
    ],
)
def test_local_name_of_an_expression_is_not_a_module_name(read_config, expression):
    assert config_names.unresolved_names({**read_config("configs/inference.yaml").config, "about": expression}) == []


def test_check_refuses_a_name_that_does_not_exist(cohort, at_root):
    command = [sys.executable, "-m", "monai.bundle", "run", "check", "--config_file"]
    command += ["['configs/train.yaml','configs/tasks/phantom.yaml']", "--datalist", str(cohort.datalist)]
    command += ["--region_loss#_target_", "scripts.training.losses.RegionDiceLoss"]
    done = subprocess.run(command, cwd=at_root, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1] == (
        "error: the config names scripts.training.losses.RegionDiceLoss, which does not exist; did you mean"
        " RegionDiceCELoss?"
    )
