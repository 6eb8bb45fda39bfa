"""DICOM pixels as a physician would see them, and nothing else of the file: no patient tag is ever read out.

Order matters (PS3.3 C.11): stored bits, then the modality's rescale, then the window, then MONOCHROME1's inversion.
Skipping one of them gives pictures that look right and are not.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quantward.core.errors import QuantwardError, Refused
from quantward.data._images import Picture, check_shape, scale_bits

GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420")
PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientAddress", "OtherPatientIDs")

NEEDED = (
    "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelData",
    "FloatPixelData", "DoubleFloatPixelData", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
    "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "BurnedInAnnotation",
    "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData",
)  # fmt: skip

Values = npt.NDArray[np.float64]


def picture(data: bytes, where: Path | str) -> Picture:
    """One DICOM image as RGB, uint8, shape (height, width, 3), with the window that was used among the notes.

    Grey: the first window of the file, or its first VOI table, or the range of the pixels where it has neither.

    Raises Refused for content that is not DICOM, several frames, a missing PhotometricInterpretation or a missing
    decoder (named).
    """
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
    except ImportError:
        raise Refused(
            f"Expected pydicom for the DICOM file {where}; it is not installed. Run pip install 'quantward[dicom]'."
        ) from None
    try:
        # Never force=True: any file at all would then pass for DICOM. Patient tags are asked for only to warn of them.
        header = pydicom.dcmread(io.BytesIO(data), force=False, specific_tags=[*NEEDED, *PATIENT])
    except InvalidDicomError:
        raise Refused(f"Expected a DICOM file at {where}; it has no DICOM header. Remove or replace it.") from None
    except Exception as error:  # a parser that is fed hostile bytes may raise anything
        raise Refused(f"Expected a whole DICOM file at {where}; got: {error}. Copy it again.") from None
    notes = [note for note, said in _private(header) if said]
    for tag in PATIENT:
        if tag in header:
            del header[tag]
    kind = str(header.get("PhotometricInterpretation", ""))
    if kind not in (*GREY, *COLOUR, "PALETTE COLOR"):
        got = repr(kind) if kind else "none"
        raise Refused(
            f"Expected a known PhotometricInterpretation in {where}; got {got}: dark could mean light. Export it anew."
        )
    if int(header.get("NumberOfFrames") or 1) != 1:
        raise Refused(f"Expected one frame in {where}; it holds {header.NumberOfFrames}. Export the frame you mean.")
    try:
        check_shape(int(header.Columns), int(header.Rows), where)
        stored = _stored(header, where)
        if kind in GREY:
            pixels, note = _grey(header, stored)
            notes += note
        else:
            pixels = _colour(header, stored, kind)
    except QuantwardError:
        raise
    except Exception as error:
        raise Refused(f"Expected whole DICOM pixels in {where}; got: {error}. Export the image anew.") from None
    return Picture(np.ascontiguousarray(pixels), tuple(notes))


def _private(header: Any) -> list[tuple[str, bool]]:
    """Warnings about the person. Only raw lengths are looked at: even a parser's complaint would quote the value."""
    raw = (header.get_item(tag) for tag in PATIENT)
    return [
        ("patient tags present", any(item is not None and bool(item.value) for item in raw)),
        ("burned-in text declared", str(header.get("BurnedInAnnotation", "")).upper() == "YES"),
    ]


def _stored(header: Any, where: Path | str) -> npt.NDArray[Any]:
    """The pixel array as the file stores it, decompressed."""
    from pydicom.pixels import get_decoder

    syntax = header.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise Refused(f"Expected image pixels in {where}; {syntax.name} holds none. Export the image anew.") from None
    if not decoder.is_available:
        raise Refused(
            f"Expected a decoder for {syntax.name} to read {where}; none is installed. "
            "Run pip install 'quantward[dicom]' pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg."
        )
    found: npt.NDArray[Any] = header.pixel_array
    return found


def _grey(header: Any, stored: npt.NDArray[Any]) -> tuple[npt.NDArray[np.uint8], list[str]]:
    from pydicom.pixels import apply_modality_lut, apply_voi

    raw = _significant(header, stored)
    padding = raw == int(header.PixelPaddingValue) if "PixelPaddingValue" in header else np.zeros(raw.shape, bool)
    values = np.asarray(apply_modality_lut(raw, header), np.float64)
    centers, widths = _numbers(header.get("WindowCenter")), _numbers(header.get("WindowWidth"))
    if centers and widths:
        function = str(header.get("VOILUTFunction") or "LINEAR")
        light = _window(values, centers[0], widths[0], function)
        note = f"window {centers[0]:g}/{widths[0]:g}" + (f", the first of {len(centers)}" if len(centers) > 1 else "")
    elif "VOILUTSequence" in header:
        table = np.asarray(apply_voi(values.astype(raw.dtype), header, index=0), np.float64)
        light = table / ((1 << int(header.VOILUTSequence[0].LUTDescriptor[2])) - 1)
        note = "first VOI table"
    else:
        shown = values[~padding] if (~padding).any() else values
        low, high = float(shown.min()), float(shown.max())
        light = (values - low) / (high - low) if high > low else np.zeros_like(values)
        note = "no window: range of the pixels"
    light = np.where(padding, 0.0, np.clip(light, 0, 1))
    if header.PhotometricInterpretation == "MONOCHROME1":
        light = np.where(padding, 0.0, 1 - light)
        note += ", MONOCHROME1 inverted"
    return np.repeat(np.rint(255 * light).astype(np.uint8)[:, :, None], 3, axis=2), [note]


def _significant(header: Any, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Only the BitsStored bits below HighBit, sign-extended where signed: overlays may sit in the others."""
    if stored.dtype.kind == "f":
        return stored
    bits, allocated = int(header.BitsStored), int(header.BitsAllocated)
    shift = int(header.get("HighBit", bits - 1)) - (bits - 1)
    if bits == allocated and shift == 0:
        return stored
    whole = (stored.astype(np.int64) >> shift) & ((1 << bits) - 1)
    if int(header.PixelRepresentation) == 1:
        whole = np.where(whole >= 1 << (bits - 1), whole - (1 << bits), whole)
    return whole


def _window(values: Values, center: float, width: float, function: str) -> Values:
    """Display light 0 to 1 (PS3.3 C.11.2.1): linear over [c - 1/2 - (w-1)/2, c - 1/2 + (w-1)/2], exact, or sigmoid.

    >>> _window(np.array([0.0, 50.0, 99.0]), 50, 100, "LINEAR").round(3).tolist()
    [0.0, 0.505, 1.0]
    """
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / max(width, 1e-9), -700, 700)))
    if function == "LINEAR_EXACT":
        return np.clip((values - center) / max(width, 1e-9) + 0.5, 0, 1)
    return np.clip((values - (center - 0.5)) / max(width - 1, 1e-9) + 0.5, 0, 1)


def _colour(header: Any, stored: npt.NDArray[Any], kind: str) -> npt.NDArray[np.uint8]:
    """Colour as RGB; pydicom has turned YBR into RGB already."""
    if kind == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        colours = np.asarray(apply_color_lut(stored, header))
        return scale_bits(colours, 8 * colours.dtype.itemsize)
    return scale_bits(_significant(header, stored), int(header.BitsStored))


def _numbers(value: Any) -> list[float]:
    """A tag that holds one number, several or none."""
    if value is None or value == "":
        return []
    return (
        [float(item) for item in value] if hasattr(value, "__iter__") and not isinstance(value, str) else [float(value)]
    )
