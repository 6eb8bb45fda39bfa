"""Every way in which an image file can lie, and what the decoder says to it."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageFile

from quantward.core.errors import Refused
from quantward.data import _images
from quantward.data._images import decode, picture, read_image, scale_bits


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def ramp(side: int = 64) -> Image.Image:
    line = np.linspace(0, 255, side).astype(np.uint8)
    return Image.fromarray(np.stack(np.broadcast_arrays(line[:, None], line[None], np.uint8(90)), -1))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def test_plain_colour_comes_back_exactly() -> None:
    assert np.array_equal(decode(encoded(ramp())), np.asarray(ramp()))


def test_zero_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(Refused, match=r"a\.jpg; it has zero bytes"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html><html>404</html>", "web page"),
        (b"  <html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS"),
        (b"hello", "none of PNG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "none of PNG"),
    ],
)
def test_foreign_content_named_jpg(content: bytes, said: str) -> None:
    with pytest.raises(Refused, match=said):
        decode(content, "scan.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("lenient", [False, True])
def test_truncated_file_is_refused_even_when_pillow_is_told_to_be_lenient(
    kind: str, lenient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    whole = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)), kind)
    with pytest.raises(Refused, match=r"scan.*(does not decode|none of)"):
        decode(whole[: len(whole) * 2 // 3], "scan")


def test_a_header_that_claims_too_much_is_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(Refused, match="64 million pixels"):
        decode(png_header(100_000, 100_000), "bomb.png")
    with pytest.raises(Refused, match="64 million pixels"):
        decode(png_header(10_000, 10_000), "quiet_bomb.png")
    with warnings.catch_warnings(), pytest.raises(Refused, match="the header says 10000 x 10000"):
        warnings.simplefilter("ignore")  # as in a user's process, where Pillow only warns
        decode(png_header(10_000, 10_000), "quiet_bomb.png")


def test_the_cap_lies_below_pillows_own_warning() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None
    assert _images.MAX_PIXELS < Image.MAX_IMAGE_PIXELS


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    seen = picture(encoded(Image.fromarray(values)), "deep.png")
    assert np.array_equal(seen.pixels[:, :, 0], np.rint(values / 257).astype(np.uint8))
    assert seen.notes == ("16 bits scaled to 8",)


@given(st.integers(1, 16), st.integers(0, 65535))
def test_scale_bits_is_the_nearest_level(bits: int, value: int) -> None:
    top = 2**bits - 1
    got = int(scale_bits(np.array([value % (top + 1)]), bits)[0])
    assert abs(got - 255 * (value % (top + 1)) / top) <= 0.5


def test_float_tiff_is_rescaled_or_refused() -> None:
    unit = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)
    assert np.array_equal(decode(encoded(Image.fromarray(unit), "TIFF"))[:, :, 1], np.rint(255 * unit).astype(np.uint8))
    for bad in (unit * 1000, unit - 0.5, np.where(unit > 0.9, np.nan, unit)):
        with pytest.raises(Refused, match="float pixels from 0 to 1"):
            decode(encoded(Image.fromarray(bad.astype(np.float32)), "TIFF"))


def test_integers_of_unknown_range_are_refused() -> None:
    with pytest.raises(Refused, match="range is unknown"):
        decode(encoded(Image.fromarray(np.zeros((20, 20), np.int32)), "TIFF"))


@pytest.mark.parametrize(("turn", "back"), [(3, 2), (6, 1), (8, 3)])
def test_exif_orientation_is_applied_and_noted(turn: int, back: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = turn
    upright = np.asarray(ramp())
    seen = picture(encoded(Image.fromarray(np.rot90(upright, back).copy()), "PNG", exif=exif), "phone.png")
    assert np.array_equal(seen.pixels, upright)
    assert "turned as its EXIF says" in seen.notes


@pytest.mark.parametrize("background", [(0, 0, 0), (255, 255, 255), (10, 20, 30)])
def test_what_lies_under_transparency_is_the_declared_background(background: tuple[int, int, int]) -> None:
    rgba = np.full((16, 16, 4), 200, np.uint8)
    rgba[:, :8, 3] = 0
    rgba[:, 8:, 3] = 128
    seen = decode(encoded(Image.fromarray(rgba)), "cut.png", background)
    assert (seen[:, :8] == background).all()
    expected = [round((200 * 128 + under * 127) / 255) for under in background]
    assert seen[0, 8].tolist() == expected


def test_hidden_colours_do_not_make_two_pictures_differ() -> None:
    first, second = np.zeros((2, 16, 16, 4), np.uint8)
    first[:, :, :3] = 77
    assert np.array_equal(decode(encoded(Image.fromarray(first))), decode(encoded(Image.fromarray(second))))


def test_palette_cmyk_grey_and_bilevel_have_a_policy() -> None:
    assert picture(encoded(ramp().quantize(16)), "p.png").notes == ("P converted to RGB",)
    cmyk = picture(encoded(ramp().convert("CMYK"), "JPEG", quality=100), "c.jpg")
    assert cmyk.notes == ("CMYK converted to RGB",)
    assert np.abs(cmyk.pixels.astype(int) - np.asarray(ramp())).mean() < 8
    grey = decode(encoded(ramp().convert("L")))
    assert (grey[:, :, 0] == grey[:, :, 2]).all()
    assert set(np.unique(decode(encoded(ramp().convert("1"))))) == {0, 255}


def test_transparent_palette_is_laid_on_the_background() -> None:
    image = Image.fromarray(np.zeros((16, 16), np.uint8)).convert("P")
    image.putpalette([200, 100, 50] + [0] * 765)
    assert (decode(encoded(image, transparency=0), "p.png", (1, 2, 3)) == (1, 2, 3)).all()


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP"])
def test_several_frames_are_refused(kind: str) -> None:
    frames = [Image.fromarray(np.full((16, 16, 3), 90 * k, np.uint8)) for k in range(3)]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(Refused, match="one frame"):
        decode(data, "film")


def test_a_phones_multi_picture_jpeg_is_its_first_picture() -> None:
    data = encoded(ramp(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 64))], quality=100)
    seen = picture(data, "phone.jpg")
    assert seen.notes == ("first picture of a multi-picture JPEG",)
    assert np.abs(seen.pixels.astype(int) - np.asarray(ramp())).mean() < 2


def test_single_frame_gif_is_a_picture() -> None:
    assert decode(encoded(ramp().convert("L"), "GIF")).shape == (64, 64, 3)


@pytest.mark.parametrize(("size", "said"), [((1, 1), "8 pixels a side"), ((400, 4), "8 pixels"), ((900, 9), "aspect")])
def test_no_picture_has_this_shape(size: tuple[int, int], said: str) -> None:
    with pytest.raises(Refused, match=said):
        decode(encoded(Image.new("L", size)))


@given(st.binary(max_size=400))
def test_any_bytes_give_a_picture_or_a_sentence(data: bytes) -> None:
    for start in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0", b"GIF89a"):
        try:
            decode(start + data, "fuzz")
        except Refused as error:
            assert "fuzz" in str(error)


def test_absent_folder_and_pipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="No such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(Refused, match="no regular file"):
        read_image(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(Refused, match="no regular file"):
        read_image(tmp_path / "pipe.png")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.png").open("wb") as handle:
        handle.truncate(_images.MAX_BYTES + 1)
    with pytest.raises(Refused, match="512 MiB"):
        read_image(tmp_path / "huge.png")
