"""The `raters` command: masks of several raters in any file format become one page."""

import json
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bundle.__main__ import main
from bundle.commands.raters import raters
from scripts.errors import InputError

SIDE = 30  # pixels of the pictures made here


def square(left: int = 5, top: int = 5, width: int = 10, height: int = 10) -> np.ndarray:
    mask = np.zeros((SIDE, SIDE), bool)
    mask[left : left + width, top : top + height] = True
    return mask


def save(path: Path, mask: np.ndarray, inside: int = 255, outside: int = 0) -> Path:
    """A mask [x, y] as a picture, [x, y, z] as NIfTI with voxels of 2 x 2 x 5 mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.where(mask, inside, outside).astype(np.uint8)
    if mask.ndim == 3:
        nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 2.0, 5.0, 1.0])), path)
    else:
        Image.fromarray(voxels.T).save(path)
    return path


def three(folder: Path, images: int = 2, **values) -> list[str]:
    """Anna's squares, Ben's two pixels to the right, Carla's two pixels wider, named differently."""
    for number in range(images):
        save(folder / "anna" / f"seg_X{number}.png", square(top=5 + number), **values)
        save(folder / "ben" / f"SEG_x{number}.PNG", square(left=7, top=5 + number), **values)
        save(folder / "carla" / f"x{number}_mask.tif", square(top=5 + number, width=12), **values)
    return [str(folder / name) for name in ("anna", "ben", "carla")]


def results(out: Path) -> tuple[pd.DataFrame, dict]:
    return pd.read_csv(out / "pairs.csv", keep_default_na=False), json.loads((out / "raters.json").read_text())


def row(pairs: pd.DataFrame, image: str, first: str, second: str) -> pd.Series:
    found = pairs[(pairs["image"] == image) & (pairs["first"] == first) & (pairs["second"] == second)]
    assert len(found) == 1
    return found.iloc[0]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Three raters, and a model that draws as Anna does but leaves out an image."""
    folder = tmp_path_factory.mktemp("compared")
    folders = three(folder, images=6)
    for number in range(5):
        save(folder / "model" / f"x{number}.png", square(top=5 + number))
        save(folder / "scans" / f"X{number}.png", np.add.outer(np.arange(SIDE), np.arange(SIDE)) % 2 == 0)
    raters(*folders, model=str(folder / "model"), images=str(folder / "scans"), out=str(folder / "out"), workers=2)
    return folder


def test_agreement_of_shifted_squares_matches_a_calculation_by_hand(compared):
    pairs, _ = results(compared / "out")
    found = row(pairs, "X0", "anna", "ben")  # 100 pixels each, 80 in common
    assert found["dice"] == pytest.approx(0.8)
    assert found["iou"] == pytest.approx(80 / 120)
    # of 36 border pixels 16 lie on the other border, 4 at 1 pixel and 16 at 2
    assert (found["hd95"], found["nsd_1mm"], found["nsd_2mm"]) == pytest.approx((2, 20 / 36, 1))
    assert (found["size_first"], found["length_unit"], found["size_unit"]) == (100, "pixel", "pixel")
    assert row(pairs, "X0", "anna", "carla")["dice"] == pytest.approx(2 * 100 / 220)


def test_names_match_whatever_their_case_and_words_like_mask(compared):
    _, summary = results(compared / "out")
    assert list(summary["images"]) == [f"X{number}" for number in range(6)]
    assert summary["incomplete"] == {}
    assert summary["without_model"] == ["X5"]


def test_size_bias_gives_how_much_more_a_rater_draws(compared):
    _, summary = results(compared / "out")
    bias = {rater: own["size_bias"]["absolute"]["mean"] for rater, own in summary["by_rater"].items()}
    assert bias == {"anna": -10, "ben": -10, "carla": 20}  # 100, 100 and 120 pixels
    assert summary["by_rater"]["carla"]["size_bias"]["relative"]["median"] == pytest.approx(0.2)


def test_the_spread_of_all_pairs_is_in_the_json(compared):
    _, summary = results(compared / "out")
    dice = summary["between_raters"]["dice"]
    assert (dice["n"], dice["images"]) == (18, 6)
    assert dice["mean"] == pytest.approx((0.8 + 2 * 200 / 220) / 3)  # ben lies within carla as well
    assert dice["median"] == pytest.approx(200 / 220)
    assert len(summary["pairs"]) == 3


def test_saved_consensus_can_be_read_as_a_mask(compared, tmp_path):
    folders = [str(compared / name) for name in ("anna", "ben", "carla")]
    raters(*folders, model=str(compared / "out/masks/majority"), out=str(tmp_path / "out"), workers=1)
    pairs, summary = results(tmp_path / "out")
    assert set(pairs.loc[(pairs["first"] == "model") & (pairs["second"] == "majority"), "dice"]) == {1.0}
    assert summary["without_model"] == []
    saved = np.asarray(Image.open(compared / "out/masks/majority/X0.png"))
    assert sorted(np.unique(saved)) == [0, 255]
    assert np.count_nonzero(saved) == 100 + 20  # ben and carla, or anna and carla


def test_the_page_holds_everything_and_closes_what_it_opens(compared):
    page = (compared / "out/raters.html").read_text(encoding="utf-8")
    open_elements, images = [], []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            images.extend([dict(attrs)] * (tag == "img"))
            if tag not in {"meta", "img", "br", "link", "hr"}:
                open_elements.append(tag)

        def handle_endtag(self, tag):
            assert open_elements.pop() == tag

    Reader().feed(page)
    assert open_elements == []
    assert len(images) == 6
    assert all(image["alt"] and image["src"].startswith("data:image/png") for image in images)
    assert "http" not in page.replace("http://www.w3.org", "")
    for text in (
        "Agreement of 3 raters",
        "The model compared with the raters",
        "STAPLE",
        "patient count as independent",
    ):
        assert text in page


def test_every_image_has_its_picture_of_disagreement(compared):
    pictures = sorted((compared / "out/disagreement").iterdir())
    assert [path.name for path in pictures] == [f"X{number}.png" for number in range(6)]
    assert all(path.stat().st_size < 100_000 for path in pictures)


def test_the_order_of_the_folders_changes_nothing(compared, tmp_path):
    folders = [str(compared / name) for name in ("carla", "anna", "ben")]
    raters(*folders, model=str(compared / "model"), out=str(tmp_path / "out"), workers=1)
    before, after = results(compared / "out")[0], results(tmp_path / "out")[0]
    for pairs in (before, after):
        pairs["pair"] = ["+".join(sorted(pair)) for pair in zip(pairs["first"], pairs["second"], strict=True)]
    metrics = ["dice", "iou", "hd95", "nsd_2mm"]
    tables = [pairs.set_index(["image", "pair"]).sort_index()[metrics] for pairs in (before, after)]
    tables[1].index = tables[1].index.set_levels(tables[0].index.levels[0], level=0)  # names are the first rater's
    pd.testing.assert_frame_equal(*tables)


def test_object_drawn_as_0_is_compared_and_saved_as_0(tmp_path):
    folders = three(tmp_path, inside=0, outside=255)
    raters(*folders, foreground=0, out=str(tmp_path / "out"), workers=1)
    pairs, _ = results(tmp_path / "out")
    assert row(pairs, "X0", "anna", "ben")["dice"] == pytest.approx(0.8)
    saved = np.asarray(Image.open(tmp_path / "out/masks/staple/X0.png"))
    assert (saved == 0).sum() == 120
    assert saved[0, 0] == 255


def test_masks_of_the_background_raise_a_warning(tmp_path, capsys):
    raters(*three(tmp_path, inside=0, outside=255), out=str(tmp_path / "out"), workers=1)
    assert "WARNING: The masks cover 88% of the images" in capsys.readouterr().out
    assert "--foreground 0" in (tmp_path / "out/raters.html").read_text()


def test_stray_value_is_reported_and_not_counted_as_the_object(tmp_path, capsys):
    folders = three(tmp_path, images=1, inside=0, outside=255)
    odd = np.where(square(), 0, 255).astype(np.uint8).T
    odd[0, 0] = 24
    Image.fromarray(odd).save(tmp_path / "anna/seg_X0.png")
    raters(*folders, foreground=0, out=str(tmp_path / "out"), workers=1)
    pairs, summary = results(tmp_path / "out")
    assert row(pairs, "X0", "anna", "ben")["dice"] == pytest.approx(0.8)
    assert "holds 0 (100 voxels), 24 (1 voxel), 255 (799 voxels): only 0 is the object" in summary["notes"][0]
    assert "24 (1 voxel)" in capsys.readouterr().out


def test_volumes_are_compared_in_mm_and_ml(tmp_path):
    for name, shift in (("anna", 0), ("ben", 2)):
        mask = np.zeros((12, 12, 12), bool)
        mask[2 + shift : 8 + shift, 2:8, 2:8] = True
        save(tmp_path / name / "p1" / "seg.nii.gz", mask, inside=2)
    raters(str(tmp_path / "anna"), str(tmp_path / "ben"), out=str(tmp_path / "out"), workers=1)
    pairs, summary = results(tmp_path / "out")
    found = row(pairs, "p1/seg", "anna", "ben")
    assert (found["dice"], found["hd95"]) == pytest.approx((2 / 3, 4))  # two voxels of 2 mm
    assert (found["size_first"], found["size_unit"]) == (pytest.approx(216 * 20 / 1000, rel=1e-12), "ml")
    saved = nib.load(tmp_path / "out/masks/majority/p1/seg.nii.gz")
    assert np.array_equal(saved.affine, np.diag([2, 2, 5, 1]))
    assert np.count_nonzero(np.asarray(saved.dataobj) == 2) == 4 * 6 * 6  # of two raters what both drew
    assert (tmp_path / "out/disagreement/p1/seg.png").is_file()
    assert summary["model"] is None


def test_pages_of_a_tiff_are_images(tmp_path):
    for name, shift in (("anna", 0), ("ben", 2)):
        (tmp_path / name).mkdir()
        pages = [Image.fromarray(np.uint8(255 * square(5 + shift, 5 + number).T)) for number in range(3)]
        pages[0].save(tmp_path / name / "stack.tif", save_all=True, append_images=pages[1:])
    raters(str(tmp_path / "anna"), str(tmp_path / "ben"), out=str(tmp_path / "out"), workers=1)
    assert list(results(tmp_path / "out")[1]["images"]) == ["stack_0", "stack_1", "stack_2"]
    assert (tmp_path / "out/masks/staple/stack_2.tif").is_file()


def test_images_not_drawn_by_all_are_listed_and_used_pairwise(tmp_path, capsys):
    folders = three(tmp_path)
    (tmp_path / "ben/SEG_x1.PNG").unlink()
    save(tmp_path / "carla/only.png", square())
    raters(*folders, out=str(tmp_path / "out"), workers=1)
    pairs, summary = results(tmp_path / "out")
    assert summary["incomplete"] == {"X1": ["ben"], "only": ["anna", "ben"]}
    assert row(pairs, "X1", "anna", "carla")["dice"] == pytest.approx(200 / 220)
    assert "only" not in set(pairs["image"])
    assert "not drawn by ben: X1" in capsys.readouterr().out


def test_two_empty_masks_agree_and_one_has_no_distance(tmp_path):
    folders = three(tmp_path)
    for name in ("anna/seg_X1.png", "ben/SEG_x1.PNG"):
        save(tmp_path / name, np.zeros((SIDE, SIDE), bool))
    raters(*folders, out=str(tmp_path / "out"), workers=1)
    pairs, summary = results(tmp_path / "out")
    assert (row(pairs, "X1", "anna", "ben")["dice"], row(pairs, "X1", "anna", "ben")["note"]) == (1, "both empty")
    assert row(pairs, "X1", "anna", "carla")["hd95"] == np.inf
    assert (summary["between_raters"]["hd95"]["infinite"], summary["between_raters"]["hd95"]["mean"]) == (2, "inf")
    assert summary["images"]["X1"]["sizes"]["majority"] == 0


def test_a_damaged_file_is_named_and_the_others_are_compared(tmp_path, capsys):
    folders = three(tmp_path)
    broken = tmp_path / "anna/seg_X1.png"
    broken.write_bytes(broken.read_bytes()[:50])
    with pytest.raises(SystemExit) as ended:
        main(["raters", *folders, "--out", str(tmp_path / "out"), "--workers", "1"])
    assert ended.value.code == 1
    assert f"Left out: {broken}" in " ".join(capsys.readouterr().out.split())
    pairs, summary = results(tmp_path / "out")
    assert list(summary["failed"]) == [str(broken)]
    assert summary["incomplete"] == {"X1": ["anna"]}
    assert set(pairs.loc[pairs["image"] == "X1", "first"]) == {"ben", "carla"}


def test_unreadable_scan_is_noted_and_changes_no_number(tmp_path):
    folders = three(tmp_path, images=1)
    save(tmp_path / "scans/x0.png", np.zeros((7, 9), bool))
    raters(*folders, images=str(tmp_path / "scans"), out=str(tmp_path / "out"), workers=1)
    assert "it has 7 x 9 voxels, the masks 30 x 30" in results(tmp_path / "out")[1]["notes"][0]


def test_colour_pictures_are_masks_only_if_their_channels_are_equal(tmp_path):
    folders = three(tmp_path)
    path = tmp_path / "anna/seg_X0.png"
    Image.open(path).convert("RGB").save(path)
    raters(*folders, out=str(tmp_path / "out"), workers=1)
    assert row(results(tmp_path / "out")[0], "X0", "anna", "ben")["dice"] == pytest.approx(0.8)
    coloured = np.asarray(Image.open(path)).copy()
    coloured[0, 0] = (255, 0, 0)
    Image.fromarray(coloured).save(path)
    raters(*folders, out=str(tmp_path / "again"), workers=1)
    (reason,) = results(tmp_path / "again")[1]["failed"].values()
    assert "seg_X0.png is a colour picture" in reason


def break_shape(folder: Path, folders: list[str]) -> dict:
    save(folder / "ben/SEG_x0.PNG", np.zeros((9, 9), bool))
    return {}


def break_affine(folder: Path, folders: list[str]) -> dict:
    for number, name in enumerate(("d", "e")):
        path = save(folder / name / "v.nii", np.ones((3, 3, 3), bool))
        nib.save(nib.Nifti1Image(np.ones((3, 3, 3), np.uint8), np.diag([2, 2, 5 + number, 1])), path)
    folders[:] = [str(folder / "d"), str(folder / "e")]
    return {}


def break_formats(folder: Path, folders: list[str]) -> dict:
    save(folder / "d/x0.nii.gz", np.ones((3, 3, 3), bool))
    folders.append(str(folder / "d"))
    return {}


def break_names(folder: Path, folders: list[str]) -> dict:
    save(folder / "d/other.png", square())
    folders.append(str(folder / "d"))
    return {}


def break_model(folder: Path, folders: list[str]) -> dict:
    save(folder / "d/other.png", square())
    return {"model": str(folder / "d")}


def break_twins(folder: Path, folders: list[str]) -> dict:
    save(folder / "anna/x0_mask.png", square())
    return {}


def break_values(folder: Path, folders: list[str]) -> dict:
    Image.fromarray(np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE)).save(folder / "anna/seg_X0.png")
    return {}


def break_fractions(folder: Path, folders: list[str]) -> dict:
    for name in ("d", "e"):
        (folder / name).mkdir()
        nib.save(nib.Nifti1Image(np.full((3, 3, 3), 0.5, np.float32), np.eye(4)), folder / name / "v.nii.gz")
    folders[:] = [str(folder / "d"), str(folder / "e")]
    return {}


def break_all_files(folder: Path, folders: list[str]) -> dict:
    for path in [*(folder / "anna").iterdir(), *(folder / "ben").iterdir()]:
        path.write_bytes(b"no picture")
    return {}


def break_dimensions(folder: Path, folders: list[str]) -> dict:
    for name in ("d", "e"):
        save(folder / name / "v.nii.gz", np.ones((3, 3, 3), bool))
        nib.save(nib.Nifti1Image(np.ones((3, 3), np.uint8), np.eye(4)), folder / name / "w.nii.gz")
    folders[:] = [str(folder / "d"), str(folder / "e")]
    return {}


def break_axes(folder: Path, folders: list[str]) -> dict:
    for name in ("d", "e"):
        (folder / name).mkdir()
        nib.save(nib.Nifti1Image(np.ones((3, 3, 3, 2), np.uint8), np.eye(4)), folder / name / "v.nii.gz")
    folders[:] = [str(folder / "d"), str(folder / "e")]
    return {}


def break_folder(folder: Path, folders: list[str]) -> dict:
    (folder / "empty").mkdir()
    folders.append(str(folder / "empty"))
    return {}


def break_number(folder: Path, folders: list[str]) -> dict:
    del folders[1:]
    return {}


def break_twice(folder: Path, folders: list[str]) -> dict:
    folders.append(f"{folders[0]}/")
    return {}


def break_out(folder: Path, folders: list[str]) -> dict:
    save(folder / "out/mine.png", square())
    return {}


def break_nothing(**options):
    return lambda folder, folders: options


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (break_formats, r"is a picture and .*x0\.nii\.gz a NIfTI file"),
        (break_names, r"d has no name in common with the other raters: it holds other, the first of them x0, x1"),
        (break_model, r"d has no name in common with the raters: it holds other, they have x0, x1"),
        (break_twins, r"seg_X0\.png and .*x0_mask\.png have the same name"),
        (break_fractions, r"v\.nii\.gz holds the label 0\.5: labels must be whole numbers"),
        (break_dimensions, "some masks are 2D and others 3D"),
        (break_axes, r"v\.nii\.gz holds 2 maps"),
        (break_all_files, "no image has two masks that can be read; "),
        (break_folder, "empty holds no image"),
        (break_number, "one per rater: got 1"),
        (break_twice, "anna is given twice"),
        (break_out, "out exists and is not empty"),
        (break_nothing(foreground=7), "no mask holds the value 7"),
        (break_nothing(foreground="tumour"), "foreground is 'tumour'"),
    ],
)
def test_wrong_input_ends_in_one_sentence_and_leaves_nothing_behind(tmp_path, broken, sentence):
    folders = three(tmp_path)
    options = broken(tmp_path, folders)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=sentence):
        raters(*folders, out=str(tmp_path / "out"), workers=1, **options)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (break_shape, "SEG_x0.PNG are masks of one image on different grids (30 x 30 and 9 x 9 voxels)"),
        (break_values, "seg_X0.png holds 256 values: a mask has two"),
    ],
)
def test_one_bad_mask_is_named_and_the_others_compared(tmp_path, broken, sentence):
    folders = three(tmp_path)
    broken(tmp_path, folders)
    assert raters(*folders, out=str(tmp_path / "out"), workers=2).exit_code == 1
    pairs, summary = results(tmp_path / "out")
    (reason,) = summary["failed"].values()
    assert sentence in reason
    assert {"X0", "X1"} <= set(pairs["image"])


def test_masks_elsewhere_in_space_are_not_compared(tmp_path):
    folders = three(tmp_path)
    break_affine(tmp_path, folders)
    with pytest.raises(InputError, match=r"on different grids .the same shape elsewhere in space"):
        raters(*folders, out=str(tmp_path / "out"), workers=1)


def test_a_full_disk_leaves_no_half_result(tmp_path, full_disk):
    folders = three(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with full_disk(2000), pytest.raises(InputError, match="cannot be written"):
        raters(*folders, out=str(tmp_path / "out"), workers=1)
    assert sorted(tmp_path.rglob("*")) == before


def test_five_experts_on_real_cells_agree_as_measured(shared_data, tmp_path):
    folder = shared_data("multirater")
    people = sorted(map(str, (folder / "ExpertsAnnotations").glob("Person*_Amira")))
    raters(*people, foreground=0, out=str(tmp_path / "out"), workers=2)
    _, summary = results(tmp_path / "out")
    dice = summary["between_raters"]["dice"]
    assert (dice["n"], dice["images"], len(summary["incomplete"])) == (120, 12, 0)
    assert (dice["mean"], dice["p5"], dice["p95"]) == pytest.approx((0.859, 0.757, 0.927), abs=0.0005)
    assert len(summary["notes"]) == 1
    assert "Person5_Amira/seg_B04.png holds 0 (116050 voxels), 24 (1 voxel)" in summary["notes"][0]
