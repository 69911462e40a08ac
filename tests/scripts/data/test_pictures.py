"""Pictures are read completely and with exact values, or refused."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from scripts.data import pictures
from scripts.data.pictures import (
    count_pages,
    file_and_page,
    file_of_page,
    is_picture,
    page_name,
    read_picture,
    write_picture,
)
from scripts.errors import InputError

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20  # [row, column]


def save(path, array, **options) -> str:
    Image.fromarray(array).save(path, **options)
    return str(path)


def stack(path, *arrays) -> str:
    first, *others = map(Image.fromarray, arrays)
    return str(first.save(path, save_all=True, append_images=others) or path)


def png_of_16_bit_colours(path) -> str:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 4, 3, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(4 * 6) for _ in range(3)))
    content = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return str(path)


def test_a_page_is_named_by_its_file_and_its_number(tmp_path):
    name = page_name(tmp_path / "a.tif", 5)
    assert file_and_page(name) == (tmp_path / "a.tif", 5)
    assert file_of_page(name) == tmp_path / "a.tif"
    assert is_picture(name)


def test_hash_sign_in_other_names_is_part_of_the_name(tmp_path):
    assert file_and_page("a#5.png") == (file_of_page("a#5.png"), None)
    assert str(file_of_page("case#5")) == "case#5"
    assert not is_picture("scan.nii.gz")


@pytest.mark.parametrize(
    ("ending", "kind"),
    [(".png", kind) for kind in (bool, np.uint8, np.uint16)]
    + [(ending, kind) for ending in (".tif", ".TIFF") for kind in (bool, np.uint8, np.uint16, np.int32, np.float32)],
)
def test_numbers_come_as_they_were_saved_with_x_first(tmp_path, ending, kind):
    array = (GREY.astype(kind) * (200 if kind == np.uint16 else 1)).astype(kind)
    found = read_picture(save(tmp_path / f"a{ending}", array))
    assert found.shape == (4, 3)
    np.testing.assert_array_equal(found.T, array)


def test_colours_are_the_last_axis(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read_picture(save(tmp_path / "a.png", array)), array.swapaxes(0, 1))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparency_is_no_channel(tmp_path, mode):
    Image.fromarray(GREY).convert(mode).save(tmp_path / "a.png")
    assert read_picture(tmp_path / "a.png").shape == ((4, 3) if mode == "LA" else (4, 3, 3))


def test_each_page_of_a_tiff_is_a_picture(tmp_path):
    name = stack(tmp_path / "a.tif", GREY, GREY + 1)
    assert count_pages(tmp_path / "a.tif") == 2
    np.testing.assert_array_equal(read_picture(f"{name}#1").T, GREY + 1)
    with pytest.raises(InputError, match=r"a\.tif has 2 pages, so there is no page 2"):
        read_picture(f"{name}#2")


def test_file_with_several_pages_is_refused_without_a_page(tmp_path):
    with pytest.raises(InputError, match=r"a\.tif has 2 pages, expected one: name a page, as in a\.tif#0"):
        read_picture(stack(tmp_path / "a.tif", GREY, GREY + 1))


def test_unreadable_file_counts_one_page_so_its_reader_can_report(tmp_path):
    (tmp_path / "a.tif").write_text("hello")
    assert count_pages(tmp_path / "a.tif") == count_pages(tmp_path / "gone.tif") == count_pages(tmp_path / "a.png") == 1


@pytest.mark.parametrize("ending", [".png", ".tif", ".jpg"])
def test_truncated_picture_is_refused_instead_of_half_read(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    save(path, np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(InputError, match=rf"a\{ending} (cannot be read to its end|is damaged)"):
        read_picture(path)


def test_missing_or_invalid_picture_ends_in_one_sentence(tmp_path):
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(InputError, match="is damaged or not a PNG, TIFF or JPEG"):
        read_picture(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"gone\.png does not exist"):
        read_picture(tmp_path / "gone.png")


def test_palette_pictures_are_refused(tmp_path):
    Image.fromarray(GREY).convert("P").save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png has colour mode P, .*save it in grey or RGB"):
        read_picture(tmp_path / "a.png")


def test_16_bit_colours_are_refused_instead_of_cut_to_8(tmp_path):
    with pytest.raises(InputError, match=r"16-bit colours, .*one grey file per channel"):
        read_picture(png_of_16_bit_colours(tmp_path / "a.png"))


def test_written_pictures_are_read_back_in_one_or_several_pages(tmp_path):
    for name in ("a.png", "a.tif"):
        write_picture(tmp_path / "new" / name, GREY.T)
        np.testing.assert_array_equal(read_picture(tmp_path / "new" / name), GREY.T)
    write_picture(tmp_path / "b.tif", GREY.T, GREY.T + 1)
    assert count_pages(tmp_path / "b.tif") == 2
    np.testing.assert_array_equal(read_picture(f"{tmp_path / 'b.tif'}#1"), GREY.T + 1)


def test_grey_picture_in_colours_is_distinguished_from_a_coloured_one():
    coloured = np.stack([GREY, GREY, GREY + 1], -1)
    assert pictures.to_grey(np.stack([GREY] * 3, -1)).shape == GREY.shape
    assert pictures.to_grey(coloured).shape == coloured.shape
    assert pictures.to_grey(GREY).shape == GREY.shape
