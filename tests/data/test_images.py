"""Image and label files of every kind that data sets are known to hold."""

import numpy as np
import pytest
from PIL import Image

from bench.data.coco import read_segment_ids
from bench.data.images import image_size, read_image, read_labels
from bench.errors import BenchError

LABELS = np.array([[0, 1, 2], [3, 150, 255]])


@pytest.mark.parametrize("kind", ["grey", "palette", "16 bits"])
def test_labels_are_the_values_that_are_stored(tmp_path, kind):
    path = tmp_path / "labels.png"
    image = Image.fromarray(LABELS.astype(np.uint16 if kind == "16 bits" else np.uint8))
    if kind == "palette":
        image.putpalette([value * 7 % 256 for value in range(768)])
    image.save(path)
    assert Image.open(path).mode[0] == {"grey": "L", "palette": "P"}.get(kind, "I")
    assert np.array_equal(read_labels(path), LABELS)


def test_labels_of_one_bit(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "x.png")
    assert read_labels(tmp_path / "x.png").tolist() == [[1, 0]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colours_are_no_labels(tmp_path, mode):
    Image.new(mode, (3, 2)).save(tmp_path / "x.png")
    with pytest.raises(BenchError, match=r"x\.png has colours"):
        read_labels(tmp_path / "x.png")


def test_exif_turns_photographs_and_no_labels(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 8
    for name in ("x.png", "x.jpg"):
        Image.fromarray(LABELS.astype(np.uint8)).save(tmp_path / name, exif=exif)
        assert image_size(tmp_path / name) == (3, 2) == read_image(tmp_path / name).shape[:2]
        assert image_size(tmp_path / name, upright=False) == (2, 3) == read_labels(tmp_path / name).shape
    assert np.array_equal(read_labels(tmp_path / "x.png"), LABELS)


@pytest.mark.parametrize("orientation", range(9))
def test_size_in_the_header_is_the_size_after_decoding(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (7, 4)).save(tmp_path / "x.jpg", exif=exif)
    assert image_size(tmp_path / "x.jpg") == read_image(tmp_path / "x.jpg").shape[:2]


def test_photograph_of_16_bits_is_scaled(tmp_path):
    Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16)).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png")[0, :, 0].tolist() == [0, 100, 255]


def test_cmyk_jpeg_is_what_pillow_makes_of_it(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)).convert("CMYK")
    image.save(tmp_path / "x.jpg")
    assert np.array_equal(read_image(tmp_path / "x.jpg"), np.asarray(Image.open(tmp_path / "x.jpg").convert("RGB")))


def test_segment_ids_in_a_palette(tmp_path):
    colours = np.array([[0, 0, 0], [44, 1, 0], [112, 17, 1]], np.uint8)
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8))
    image.putpalette(colours.tobytes())
    image.save(tmp_path / "x.png")
    assert read_segment_ids(tmp_path / "x.png").tolist() == [[0, 300], [112 + 17 * 256 + 65536, 300]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_segment_ids_are_refused(tmp_path, dtype):
    Image.fromarray(np.array([[0, 1]], dtype)).save(tmp_path / "x.png")
    with pytest.raises(BenchError, match="no panoptic PNG"):
        read_segment_ids(tmp_path / "x.png")
