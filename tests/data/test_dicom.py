"""DICOM: the picture a physician sees, from files with every habit, and not a word about the patient."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from quantward.core.errors import Refused
from quantward.core.store import plain
from quantward.data import check, decode, open_dataset
from quantward.data._images import picture

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset as Tags  # noqa: E402
from pydicom.dataset import FileMetaDataset  # noqa: E402
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid  # noqa: E402


def dicom(stored: npt.NDArray[Any], **tags: Any) -> bytes:
    """A DICOM file that stores exactly these integers; tags replace the defaults, None removes one."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = tags.pop("syntax", ExplicitVRLittleEndian)
    made = Tags()
    made.file_meta = meta
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    bits = 8 * stored.dtype.itemsize
    defaults = {
        "Rows": stored.shape[0], "Columns": stored.shape[1], "SamplesPerPixel": 1 if stored.ndim == 2 else 3,
        "PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": bits, "BitsStored": bits,
        "HighBit": (tags.get("BitsStored") or bits) - 1, "PixelRepresentation": int(stored.dtype.kind == "i"),
    }  # fmt: skip
    for key, value in (defaults | tags).items():
        if value is not None:
            setattr(made, key, value)
    made.PixelData = stored.tobytes()
    stream = io.BytesIO()
    made.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def grey(data: bytes) -> npt.NDArray[np.uint8]:
    pixels = decode(data, "scan.dcm")
    assert (pixels[:, :, 0] == pixels[:, :, 1]).all() and (pixels[:, :, 0] == pixels[:, :, 2]).all()
    return pixels[:, :, 0]


RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
CT = np.linspace(0, 4095, 400).astype(np.uint16).reshape(20, 20)


def test_eight_bits_over_their_whole_range() -> None:
    assert np.array_equal(grey(dicom(RAMP)), RAMP)


def test_monochrome1_is_inverted_and_noted() -> None:
    data = dicom(RAMP, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(grey(data), 255 - RAMP)
    assert "MONOCHROME1 inverted" in picture(data, "x").notes[0]


def test_the_rescale_comes_before_the_window() -> None:
    """Soft tissue, -160 to 240 HU, of a CT stored as HU + 1024; witness: the window's definition on HU."""
    data = dicom(CT, BitsStored=12, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
    units = CT.astype(float) - 1024
    expected = np.clip((units - 39.5) / 399 + 0.5, 0, 1) * 255
    assert np.abs(grey(data) - expected).max() <= 0.5
    assert set(np.unique(grey(data))) >= {0, 255}


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_window_functions_agree_with_pydicoms(function: str) -> None:
    data = dicom(CT, BitsStored=12, WindowCenter=2000, WindowWidth=900, VOILUTFunction=function)
    whole = pydicom.dcmread(io.BytesIO(data))
    expected = pydicom.pixels.apply_windowing(whole.pixel_array, whole) / 4095 * 255
    assert np.abs(grey(data) - expected).max() <= 0.51


def test_of_several_windows_the_first_is_used_and_recorded() -> None:
    data = dicom(CT, BitsStored=12, WindowCenter=[1000, 3000], WindowWidth=[500, 100])
    assert np.array_equal(grey(data), grey(dicom(CT, BitsStored=12, WindowCenter=1000, WindowWidth=500)))
    assert picture(data, "x").notes == ("window 1000/500, the first of 2",)


def test_a_voi_table_is_used() -> None:
    item = Tags()
    item.LUTDescriptor = [256, 0, 8]
    item.LUTData = np.arange(256, dtype=np.uint16)[::-1].tobytes()
    data = dicom(RAMP, VOILUTSequence=[item])
    assert np.array_equal(grey(data), 255 - RAMP)


def test_bits_above_bits_stored_are_not_part_of_the_picture() -> None:
    overlay = CT | np.uint16(0x8000)
    assert np.array_equal(grey(dicom(overlay, BitsStored=12, WindowCenter=2048, WindowWidth=4096)),
                          grey(dicom(CT, BitsStored=12, WindowCenter=2048, WindowWidth=4096)))  # fmt: skip


def test_signed_values_of_twelve_bits() -> None:
    values = np.linspace(-1000, 1000, 400).astype(np.int16).reshape(20, 20)
    stored = (values.astype(np.int32) & 0x0FFF).astype(np.int16)
    data = dicom(stored, BitsStored=12, WindowCenter=0, WindowWidth=2001)
    expected = np.clip((values + 0.5) / 2000 + 0.5, 0, 1) * 255
    assert np.abs(grey(data) - expected).max() <= 0.5


def test_padding_stays_black_and_out_of_the_range() -> None:
    stored = CT % 1000 + 500
    stored[:5] = 4000
    shown = grey(dicom(stored, BitsStored=12, PixelPaddingValue=4000))
    assert (shown[:5] == 0).all()
    assert shown[5:].max() == 255
    inverted = grey(dicom(stored, BitsStored=12, PixelPaddingValue=4000, PhotometricInterpretation="MONOCHROME1"))
    assert (inverted[:5] == 0).all()


def test_colour_and_palette() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    assert np.array_equal(
        decode(dicom(colour, PhotometricInterpretation="RGB", PlanarConfiguration=0), "c.dcm"), colour
    )
    tables = {f"{name}PaletteColorLookupTableDescriptor": [256, 0, 16] for name in ("Red", "Green", "Blue")}
    tables |= {f"{name}PaletteColorLookupTableData": (np.arange(256, dtype=np.uint16) * 257 // (k + 1)).tobytes()
               for k, name in enumerate(("Red", "Green", "Blue"))}  # fmt: skip
    seen = decode(dicom(RAMP, PhotometricInterpretation="PALETTE COLOR", **tables), "p.dcm")
    assert np.abs(seen - RAMP[:, :, None] / np.array([1, 2, 3])).max() <= 1


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"NumberOfFrames": 2}, "one frame in"),
        ({"PhotometricInterpretation": None}, "got none: dark"),
        ({"PhotometricInterpretation": "CMYK"}, "got 'CMYK'"),
        ({"Rows": 60000, "Columns": 60000}, "64 million pixels"),
        ({"Rows": 32}, "whole DICOM pixels"),
        ({"BitsStored": None}, "whole DICOM pixels"),
        ({"Rows": None}, "whole DICOM pixels"),
    ],
)
def test_what_cannot_be_shown_rightly_is_refused(tags: dict[str, Any], said: str) -> None:
    with pytest.raises(Refused, match=said) as caught:
        decode(dicom(RAMP, **tags), "scan.dcm")
    assert "scan.dcm" in str(caught.value)


def test_other_content_never_passes_for_dicom() -> None:
    for data in (b"hello" * 100, dicom(RAMP)[132:]):
        with pytest.raises(Refused, match="no DICOM header"):
            decode(data, "scan.dcm")


def test_dicom_is_known_by_its_content_whatever_its_name() -> None:
    assert np.array_equal(decode(dicom(RAMP), "IM0001")[:, :, 0], RAMP)


@pytest.mark.parametrize("cut", [140, 200, 400, -30])
def test_truncated_files_are_refused(cut: int) -> None:
    with pytest.raises(Refused, match=r"scan\.dcm"):
        decode(dicom(RAMP)[:cut], "scan.dcm")


def test_a_missing_decoder_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels.decoders.base import Decoder

    monkeypatch.setattr(Decoder, "is_available", property(lambda self: False))
    with pytest.raises(Refused, match=r"a decoder for Explicit VR Little Endian .* pip install 'quantward\[dicom\]'"):
        decode(dicom(RAMP), "scan.dcm")


def test_without_pydicom_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(Refused, match=r"pip install 'quantward\[dicom\]'"):
        decode(dicom(RAMP), "scan.dcm")


PRIVATE = {"PatientName": "Doe^Jane", "PatientID": "4711", "PatientBirthDate": "19700101", "BurnedInAnnotation": "YES"}


def test_patient_tags_are_warned_of_and_go_nowhere(tmp_path: Path) -> None:
    (tmp_path / "ill").mkdir()
    for k in range(3):
        (tmp_path / "ill" / f"{k}.dcm").write_bytes(dicom(np.roll(RAMP, k * 7, 0), **PRIVATE))
    (tmp_path / "images.csv").write_text("path,label\nill/0.dcm,ill\nill/1.dcm,ill\nill/2.dcm,well\n", encoding="utf-8")
    data = open_dataset(tmp_path)
    report = check(data)
    told = [flaw.text for flaw in report.flaws if flaw.code == "patient-data"]
    assert told == ["3 images: burned-in text declared.", "3 images: patient tags present."]
    everything = repr((plain(report), data, data.attributes, data.groups))
    assert not any(word in everything for word in ("Doe", "4711", "19700101"))


def test_errors_never_quote_the_patient() -> None:
    with pytest.raises(Refused) as caught:
        decode(dicom(RAMP, Rows=32, **PRIVATE), "scan.dcm")
    assert not any(word in str(caught.value) for word in ("Doe", "4711"))
    assert caught.value.__suppress_context__


def test_any_flipped_byte_gives_a_picture_or_a_sentence(recwarn: pytest.WarningsRecorder) -> None:
    import warnings

    data = bytearray(dicom(RAMP, WindowCenter=[100, 50], WindowWidth=[80, 10]))
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(300):
            bad = bytearray(data)
            for at in rng.integers(0, len(data) - 256, 3):
                bad[at] = int(rng.integers(256))
            try:
                assert decode(bytes(bad), "fuzz.dcm").dtype == np.uint8
            except Refused as error:
                assert "fuzz.dcm" in str(error)


def test_lists_of_dicom_files_are_read_like_any_other(tmp_path: Path, picture: Callable[..., Any]) -> None:
    (tmp_path / "a.dcm").write_bytes(dicom(RAMP))
    (tmp_path / "b.dcm").write_bytes(dicom(RAMP.T.copy()))
    (tmp_path / "list.csv").write_text("path,label,group\na.dcm,x,p1\nb.dcm,y,p2\n", encoding="utf-8")
    data = open_dataset(tmp_path / "list.csv")
    assert np.array_equal(data.read(1)[:, :, 0], RAMP.T)
