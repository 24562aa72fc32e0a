"""Pictures of one size as one picture."""

import numpy as np
import pytest
from PIL import Image

from fastdeploy_diffusion import contact_sheet
from fastdeploy_diffusion.contact_sheet import make_sheet


@pytest.fixture
def files(tmp_path):
    files = [tmp_path / f"{index}.png" for index in range(5)]
    for index, file in enumerate(files):
        Image.new("RGB", (6, 4), (40 * index, 0, 0)).save(file)
    return files


def read_cells(sheet, width, height):
    pixels = np.asarray(sheet)
    rows, columns = sheet.height // height, sheet.width // width
    cells = pixels.reshape(rows, height, columns, width, 3).swapaxes(1, 2)
    return [cell for row in cells for cell in row]


def test_pictures_stand_in_order_and_are_what_they_are(files):
    sheet = make_sheet(files)
    assert sheet.size == (3 * 6, 2 * 4)
    *cells, last = read_cells(sheet, 6, 4)
    for cell, file in zip(cells, files, strict=True):
        np.testing.assert_array_equal(cell, np.asarray(Image.open(file)))
    assert (last == 255).all()


@pytest.mark.parametrize(("largest", "size"), [(9, (9, 4)), (6, (6, 2)), (1, (3, 2))])
def test_a_large_sheet_is_scaled_down(files, monkeypatch, largest, size):
    monkeypatch.setattr(contact_sheet, "LARGEST", largest)
    sheet = make_sheet(files)
    assert sheet.size == size
    cells = read_cells(sheet, size[0] // 3, size[1] // 2)
    assert [int(cell[..., 0].mean()) for cell in cells] == [0, 40, 80, 120, 160, 255]


def test_as_wide_as_high(files):
    assert make_sheet(files[:4]).size == (12, 8)
    assert make_sheet(files[:2]).size == (12, 4)
