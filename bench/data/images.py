"""Image files of people: any colour mode and size, possibly broken or hostile."""

import glob
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from bench.errors import BenchError, one_line

# Decoders that run nothing else (Pillow gives EPS to Ghostscript).
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# Endings of the files that are taken from a folder, in small letters.
_ENDINGS = (".bmp", ".gif", ".jpg", ".jpeg", ".png", ".pgm", ".ppm", ".tif", ".tiff", ".webp")


def find_images(arguments: Sequence[Path]) -> list[Path]:
    """The image files that a user names: files, all images that lie directly in a folder, patterns such as *.jpg.

    In the order of the arguments, those of a folder or pattern by name; hidden files only where they are named. A name
    with *, ? or [ is a pattern where no such file exists. Raises BenchError for a folder without images and a pattern
    that fits no file; a single name is returned as it is, whatever lies there.
    """
    found: list[Path] = []
    for argument in map(Path, arguments):
        if argument.is_dir():
            of_folder = [p for p in sorted(argument.iterdir()) if p.suffix.lower() in _ENDINGS and p.name[0] != "."]
            if not of_folder:
                raise BenchError(f"no images in the folder {argument} (of {' '.join(_ENDINGS)}): name another one")
            found += of_folder
        elif glob.has_magic(str(argument)) and not argument.exists():
            matching = [p for p in map(Path, sorted(glob.glob(str(argument), recursive=True))) if p.is_file()]
            if not matching:
                raise BenchError(f"no file fits {argument}: check the pattern")
            found += matching
        else:
            found.append(argument)
    return found


def read_image(path: Path) -> np.ndarray:
    """Pixels uint8 [H, W, 3], upright, of an image file of any colour mode; 16 bits are scaled to 8, alpha is dropped.

    Raises BenchError for a file that is missing, broken, no image, or too large to be meant (Pillow's limit).
    """
    with open_image(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode[0] == "I":  # Pillow would cut off everything above 255
            upright = Image.fromarray((np.clip(np.asarray(upright), 0, 65535) / 257 + 0.5).astype(np.uint8))
        return np.array(upright.convert("RGB"))


def read_labels(path: Path) -> np.ndarray:
    """Values (integers) [H, W] of a label image: its grey, of up to 16 bits, or its palette's indices.

    As it is stored: an EXIF flag turns no labels. Raises BenchError as `read_image`, and for an image with colours.
    """
    with open_image(path) as image:
        if image.mode not in ("1", "L", "P") and image.mode[0] != "I":
            raise BenchError(f"{path} has colours (mode {image.mode}) where one label a pixel should be: correct it")
        values = np.array(image)
        return values.astype(np.uint8) if values.dtype == bool else values


def image_size(path: Path, upright: bool = True) -> tuple[int, int]:
    """Height and width from the file's header; upright: as its EXIF flag turns it. Raises BenchError."""
    with open_image(path) as image:
        width, height = image.size
        # Pillow decodes a whole PNG to look for the flag behind the pixels.
        turnable = upright and (image.format != "PNG" or "exif" in image.info)
        turned = turnable and image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        return (width, height) if turned else (height, width)


def refuse_size(annotation: Path, size: tuple[int, int], image: Path, expected: tuple[int, int]) -> None:
    """Raises BenchError where the annotation's (height, width) are not those of its image."""
    if tuple(size) != tuple(expected):
        raise BenchError(
            f"{annotation} is {size[1]}x{size[0]} but its image {image} is {expected[1]}x{expected[0]}: "
            "download the matching pair again"
        )


def refuse_listed_size(image: Path, size: tuple[int, int], listed: Mapping, annotation: Path | None) -> None:
    """Raises BenchError where `listed` in the annotation file has a height and width that are not the image's."""
    expected = listed.get("height"), listed.get("width")
    if expected not in ((None, None), tuple(size)):
        raise BenchError(
            f"{image} is {size[1]}x{size[0]} but {annotation} says {expected[1]}x{expected[0]}: "
            "download the matching pair again"
        )


def checked_size(dataset, index: int) -> tuple[int, int]:
    """Height and width of a data set's image, upright, from its header.

    Raises BenchError where its label image or the annotation file has others.
    """
    image, *labels = dataset.files(index)
    size = image_size(image)
    for path in labels:
        refuse_size(path, image_size(path, upright=False), image, size)
    refuse_listed_size(image, size, dataset.images[index], getattr(dataset, "annotation_file", None))
    return size


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """The image file, opened as far as its header; whatever goes wrong inside becomes a BenchError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, on odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
                    raise BenchError(f"image {path} has 32 bits a channel, of unknown range: save it with 8 bits")
                yield image
    except BenchError:
        raise
    except FileNotFoundError:
        raise BenchError(f"image {path} is missing: check the name") from None
    except IsADirectoryError:
        raise BenchError(f"{path} is a folder: name the image files in it") from None
    except UnidentifiedImageError:
        raise BenchError(f"{path} is no image of a known format ({', '.join(FORMATS)}): convert it") from None
    except Exception as error:  # of decoders on damaged files, of many types
        raise BenchError(
            f"image {path} cannot be read ({one_line(error)}): get the file again or leave it out"
        ) from error
