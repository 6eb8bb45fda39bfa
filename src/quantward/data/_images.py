"""From bytes to an RGB picture, or a refusal with a reason: a silently wrong picture is worse than none.

Image libraries are lenient: they fill truncated files with grey, clip 16-bit pictures to white, show what lies
under transparency and ignore the camera's orientation. Every such case is decided here, once, for all readers.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError

from quantward.core.errors import QuantwardError, Refused
from quantward.core.values import ImageArray

Colour = tuple[int, int, int]
BLACK: Colour = (0, 0, 0)

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP", "PPM")
"""Pillow's readers that may run. The others (EPS, PSD, ...) have no place in a picture folder and widen the attack."""

MAX_PIXELS = 64_000_000
"""Above this a header is taken for a decompression bomb. It lies below Pillow's own warning on purpose."""

MAX_BYTES = 1 << 29
MIN_SIDE = 8
MAX_ASPECT = 20

DECODER = 1
"""Part of every fingerprint; raised whenever the same file would decode to other pixels."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded image, uint8, shape (height, width, 3), and what had to be decided on the way there."""

    pixels: ImageArray
    notes: tuple[str, ...] = ()


def read_image(path: Path | str, background: Colour = BLACK) -> ImageArray:
    """The image file at `path` as RGB, uint8, shape (height, width, 3).

    Raises Refused for anything that is not one whole picture.
    """
    return picture(read_bytes(Path(path)), path, background).pixels


def decode(data: bytes, where: Path | str = "the given bytes", background: Colour = BLACK) -> ImageArray:
    """An encoded image (PNG, JPEG, DICOM, ...) as RGB, uint8, shape (height, width, 3); `where` names it in errors.

    >>> stream = io.BytesIO()
    >>> Image.new("RGB", (10, 9), (255, 0, 0)).save(stream, "PNG")
    >>> decode(stream.getvalue()).shape
    (9, 10, 3)
    """
    return picture(data, where, background).pixels


def look(reader: Callable[[int], ImageArray], i: int) -> Picture:
    """Image i of any Dataset's reader, with its notes where the reader keeps them."""
    whole: Callable[[int], Picture] | None = getattr(reader, "picture", None)
    return whole(i) if whole is not None else Picture(reader(i))


def read_bytes(path: Path) -> bytes:
    """A regular file's content; a device, a pipe, an absent or a huge file is refused before a byte is read."""
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise Refused(f"Expected an image file at {path}; it is no regular file. Remove it.")
        if state.st_size > MAX_BYTES:
            raise Refused(
                f"Expected an image of at most {MAX_BYTES >> 20} MiB at {path}; got {state.st_size >> 20} MiB. "
                "Export the picture itself."
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise Refused(f"Expected a readable image at {path}; got: {reason}. Check the path.") from None


def picture(data: bytes, where: Path | str, background: Colour = BLACK) -> Picture:
    """Decode wholly and say what was decided; the one entrance for every format.

    Raises Refused for empty, foreign, truncated, huge, tiny, multi-frame or unscalable content.
    """
    if not data:
        raise Refused(f"Expected an image in {where}; it has zero bytes. Copy the file again.")
    if data[128:132] == b"DICM" or Path(where).suffix.lower() in (".dcm", ".dicom"):
        from quantward.data import _dicom

        return _dicom.picture(data, where)
    try:
        return _ordinary(data, where, background)
    except QuantwardError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large(where, "more than Pillow itself allows") from None
    except UnidentifiedImageError:
        raise Refused(f"Expected an image in {where}; {_what_it_is(data)}. Remove or replace the file.") from None
    except Exception as error:  # a decoder that is fed hostile bytes may raise anything
        raise Refused(f"Expected a whole image in {where}; it does not decode ({error}). Copy it again.") from None


def check_shape(width: int, height: int, where: Path | str) -> None:
    """Refuse, from the header alone, sizes that no picture has.

    >>> check_shape(640, 480, "a.png")
    """
    if width * height > MAX_PIXELS:
        raise _too_large(where, f"{width} x {height}")
    if min(width, height) < MIN_SIDE:
        raise Refused(
            f"Expected at least {MIN_SIDE} pixels a side in {where}; got {width} x {height}. Remove the file."
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise Refused(
            f"Expected an aspect ratio of at most {MAX_ASPECT}:1 in {where}; got {width} x {height}. Crop it first."
        )


def _too_large(where: Path | str, got: str) -> Refused:
    return Refused(
        f"Expected at most {MAX_PIXELS // 1_000_000} million pixels in {where}; the header says {got}. "
        "Shrink the picture or cut it into tiles."
    )


def _what_it_is(data: bytes) -> str:
    """A guess at foreign content, because the usual causes have usual cures."""
    start = data[:200].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "it is a web page, so the download went wrong"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer (run git lfs pull)"
    return "its content is none of " + ", ".join(FORMATS)


def _ordinary(data: bytes, where: Path | str, background: Colour) -> Picture:
    # Another library may have switched this on; it would turn a torn file into a picture with a grey part.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        check_shape(*image.size, where)
        notes = []
        if image.format == "MPO":
            notes.append("first picture of a multi-picture JPEG")
        elif getattr(image, "is_animated", False):
            raise Refused(f"Expected one frame in {where}; it holds several. Export the frame you mean.")
        image.load()
        if image.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1):
            notes.append("turned as its EXIF says")
        upright = ImageOps.exif_transpose(image)
        pixels, note = _to_rgb(upright, image.format or "", where, background)
    return Picture(np.ascontiguousarray(pixels), (*notes, *note))


def _to_rgb(image: Image.Image, kind: str, where: Path | str, background: Colour) -> tuple[ImageArray, tuple[str, ...]]:
    """Every pixel layout that Pillow knows, with its policy."""
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and kind in ("PNG", "PPM")):
        return _grey(scale_bits(np.asarray(image), 16)), ("16 bits scaled to 8",)
    if mode == "F":
        return _grey(_unit_float(np.asarray(image), where)), ("float scaled to 8 bits",)
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        return _over(np.asarray(image.convert("RGBA")), background), ("transparency laid on the background",)
    if mode in ("1", "L", "RGB"):
        return np.asarray(image.convert("RGB")), ()
    if mode in ("P", "CMYK", "YCbCr"):
        return np.asarray(image.convert("RGB")), (f"{mode} converted to RGB",)
    raise Refused(
        f"Expected grey or colour pixels in {where}; got Pillow mode {mode!r}, whose range is unknown. "
        "Export it as 8- or 16-bit PNG."
    )


def scale_bits(values: npt.NDArray[np.integer[Any]], bits: int) -> ImageArray:
    """Unsigned integers of `bits` bits as 8-bit ones: round(255 v / (2^bits - 1)), never clipped.

    >>> scale_bits(np.array([0, 32768, 65535], np.uint16), 16).tolist()
    [0, 128, 255]
    """
    top = (1 << bits) - 1
    return ((values.astype(np.uint64) * 255 + top // 2) // top).astype(np.uint8)


def _unit_float(values: npt.NDArray[np.floating[Any]], where: Path | str) -> ImageArray:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # NaN fails this too
        raise Refused(
            f"Expected float pixels from 0 to 1 in {where}; got {low:g} to {high:g}. Export it as 8- or 16-bit."
        )
    scaled: ImageArray = np.rint(values * 255).astype(np.uint8)
    return scaled


def _grey(values: ImageArray) -> ImageArray:
    return np.repeat(values[:, :, None], 3, axis=2)


def _over(rgba: ImageArray, background: Colour) -> ImageArray:
    """Lay a picture on a background: (rgb alpha + background (255 - alpha)) / 255, rounded."""
    alpha = rgba[:, :, 3:].astype(np.uint32)
    under = np.asarray(background, np.uint32)
    return ((rgba[:, :, :3] * alpha + under * (255 - alpha) + 127) // 255).astype(np.uint8)
