"""Each variant of a study is built from its recipes and settings, and takes a training step on shapes."""

import pytest

from bundle.commands.workflows import parse_settings, training_files
from bundle.studies.ablation import read_study
from scripts.errors import input_error_message
from tests.made import ROOT

STUDIES = {name: read_study(ROOT / "configs" / "studies" / f"{name}.yaml") for name in ("claims", "ten_cells")}
VARIANTS = {f"{name}-{one.name}": (study.task, one) for name, study in STUDIES.items() for one in study.variants}
CHILDREN = {"ET": 2, "NETC": 1, "CC": 1, "ED": 1, "TC": 1, "WT": 1}  # region_weights, as documented
NARROW = 0.125  # of `width`, which takes less time


@pytest.fixture
def take_step(read_config):
    def take(task, variant, **further):
        settings = parse_settings(variant.options()) | further
        parser = read_config(*training_files(task, variant.recipes))
        assert {name.split("::")[0] for name in settings} <= {*parser.config}
        settings |= {"width": NARROW} if "width" in settings else {}
        parser.update(settings)
        parser.parse()
        parser.get_parsed_content("check_network")

    return take


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_takes_a_step_of_shapes(name, take_step):
    take_step(*VARIANTS[name])


def test_weights_of_too_few_regions_need_no_data_list(take_step):
    with pytest.raises(Exception, match="evaluate") as caught:
        take_step("brats2015", VARIANTS["claims-minmax"][1], region_weights={"WT": 1})
    assert "expected a weight for each of WT, TC, ET, in this order" in str(input_error_message(caught.value))


def test_last_cell_is_built_for_children(take_step):
    take_step("brats_ped", VARIANTS["ten_cells-cell9"][1], region_weights=CHILDREN)
