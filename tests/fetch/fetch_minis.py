"""Miniatures of every published set: the files its source would serve, in its layout, and what must come of them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from quantward.fetch import SETS

Files = dict[str, bytes]


def picture(seed: int, suffix: str = ".png", side: int = 24) -> bytes:
    """A picture of its own."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}[suffix], quality=95)
    return stream.getvalue()


def zipped(files: Mapping[str, bytes]) -> bytes:
    """A .zip of some files."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # with no date: the same bytes every time
    return stream.getvalue()


def tarred(files: Mapping[str, bytes]) -> bytes:
    """A .tar.gz of some files."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def sheet(rows: list[list[str]]) -> bytes:
    """An .xlsx with one sheet: words in the shared table, numbers in their cells, as Excel writes them."""
    words = sorted({cell for row in rows for cell in row if cell and not cell.replace(".", "").isdigit()})
    lines = []
    for number, row in enumerate(rows, 1):
        cells = []
        for k, cell in enumerate(row):
            place = f"{chr(65 + k)}{number}"
            if cell in words:
                cells.append(f'<c r="{place}" t="s"><v>{words.index(cell)}</v></c>')
            elif cell:
                cells.append(f'<c r="{place}"><v>{cell}</v></c>')
        lines.append(f'<row r="{number}">{"".join(cells)}</row>')
    space = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    shared = "".join(f"<si><t>{word}</t></si>" for word in words)
    return zipped({
        "[Content_Types].xml": b"<Types/>",
        "xl/sharedStrings.xml": f"<sst {space}>{shared}</sst>".encode(),
        "xl/worksheets/sheet1.xml": f"<worksheet {space}><sheetData>{''.join(lines)}</sheetData></worksheet>".encode(),
    })  # fmt: skip


@dataclass(frozen=True)
class Mini:
    """A set in small: the files that its source would serve, and what must come of them."""

    files: Files
    labels: Mapping[str, int]
    splits: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    attributes: frozenset[str] = frozenset()


def brain_mri_sartaj() -> Mini:
    top = "Brain-Tumor-Classification-DataSet-3ea9f4e0"
    files = {f"{top}/README.md": b"# data"}
    for k, (split, folder) in enumerate(
        (s, f)
        for s in ("Training", "Testing")
        for f in ("glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor")
    ):
        for i in range(3):
            files[f"{top}/{split}/{folder}/image({i}).jpg"] = picture(10 * k + i, ".jpg")
    count = dict.fromkeys(("glioma", "meningioma", "no_tumor", "pituitary"), 6)
    return Mini({"brain-mri-sartaj.zip": zipped(files)}, count, frozenset({"train", "test"}))


def brain_mri_nickparvar() -> Mini:
    files = {}
    for k, (split, folder) in enumerate(
        (s, f) for s in ("Training", "Testing") for f in ("glioma", "meningioma", "notumor", "pituitary")
    ):
        for i in range(2):
            files[f"{split}/{folder}/{split[:2]}-{folder[:2]}_{i:04d}.jpg"] = picture(1000 + 10 * k + i, ".jpg")
    count = dict.fromkeys(("glioma", "meningioma", "no_tumor", "pituitary"), 4)
    return Mini({"archive.zip": zipped(files)}, count, frozenset({"train", "test"}))


def covid_radiography() -> Mini:
    files = {
        "COVID-19_Radiography_Dataset/COVID.metadata.xlsx": b"PK",
        "COVID-19_Radiography_Dataset/README.md.txt": b"",
    }
    for k, folder in enumerate(("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")):
        for i in range(3):
            for kind in ("images", "masks"):
                name = f"COVID-19_Radiography_Dataset/{folder}/{kind}/{folder}-{i + 1}.png"
                files[name] = picture(100 * k + i + (50 if kind == "masks" else 0))
    count = dict.fromkeys(("covid19", "lung_opacity", "normal", "viral_pneumonia"), 3)
    return Mini({"archive.zip": zipped(files)}, count)


def chest_xray_talo() -> Mini:
    top = "COVID-19-ee3e2cf0/X-Ray Image DataSet"
    names = {
        "Covid-19": ["auntminnie-a.jpg", "nejmc2001573_f1a.jpeg", "nobody.png"],
        "No_findings": ["00001280_004.png", "00001281_000.png"],
        "Pneumonia": ["00001280_005.png", "00000032_037.png"],
    }
    files = {
        f"{top}/{folder}/{name}": picture(100 * k + i, Path(name).suffix)
        for k, (folder, inner) in enumerate(names.items())
        for i, name in enumerate(inner)
    }
    listed = (
        "patientid,offset,sex,finding,filename,clinical_notes,\n"
        '2,0,M,Pneumonia/Viral/COVID-19,auntminnie-a.jpg,"a, quoted ""note""",\n'
        "4,0,F,Pneumonia/Viral/COVID-19,nejmc2001573_f1a.jpeg,ragged,,,\n"
    )
    groups = {"cohen_2", "cohen_4", "image_nobody", "nih_00001280", "nih_00001281", "nih_00000032"}
    served = {"chest-xray-talo.zip": zipped(files), "metadata.csv": listed.encode()}
    return Mini(served, {"covid19": 3, "no_findings": 2, "pneumonia": 2}, groups=frozenset(groups))


def covid_hannover() -> Mini:
    top = "covid-19-image-repository-ad7ab09c"
    table = ["patient_id,image_id,sex,age,admission_offset,modality,projection"]
    files: Files = {f"{top}/dcm.md": b"", f"{top}/png/unlisted.png": picture(50)}
    for i in range(5):
        table.append(f"{i // 2:08x},{i + 100:08x},f,,-{i},CR,ap")
        files[f"{top}/png/{i + 100:08x}.png"] = picture(i)
    files[f"{top}/data.csv"] = "\n".join(table).encode()
    attributes = frozenset({"sex", "projection", "modality", "admission_offset"})
    groups = frozenset(f"{i:08x}" for i in range(3))
    return Mini({"covid-hannover.zip": zipped(files)}, {"covid19": 5}, frozenset({"external"}), groups, attributes)


def ham10000() -> Mini:
    table = ["lesion_id,image_id,dx,dx_type,age,sex,localization,dataset"]
    parts: list[Files] = [{}, {}]
    for i in range(14):
        label = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")[i % 7]
        table.append(f"HAM_{i % 7:07d},ISIC_{i:07d},{label},histo,{50 + i}.0,male,back,vidir_modern")
        parts[i % 2][f"ISIC_{i:07d}.jpg"] = picture(i, ".jpg")
    served = {
        "HAM10000_metadata.csv": ("\n".join(table) + "\n").encode(),
        "HAM10000_images_part_1.zip": zipped(parts[0]),
        "HAM10000_images_part_2.zip": zipped(parts[1]),
    }
    count = dict.fromkeys(("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"), 2)
    attributes = frozenset({"dx_type", "age", "sex", "localization", "dataset"})
    return Mini(served, count, groups=frozenset(f"HAM_{i:07d}" for i in range(7)), attributes=attributes)


def kvasir() -> Mini:
    classes = SETS.make("kvasir").classes
    files = {
        f"kvasir-dataset-v2/{label}/{i}-ac0d.jpg": picture(10 * k + i, ".jpg")
        for k, label in enumerate(classes)
        for i in range(2)
    }
    return Mini({"kvasir-dataset-v2.zip": zipped(files)}, dict.fromkeys(classes, 2))


def cp_anemic() -> Mini:
    rows = [["IMAGE_ID", "HB_LEVEL", "Severity", "Age(Months)", "GENDER", "REMARK", "HOSPITAL", "REGION"]]
    files: Files = {}
    for i in range(6):
        kind = ("Anemic", "Non-anemic")[i % 2]
        files[f"{kind}/Image_{i:03d}.png"] = picture(i)
        severity = "Moderate" if kind == "Anemic" else "Non-Anemic"
        rows.append([f"Image_{i:03d}", f"{9 + i}.5", severity, "24", "Male", kind, "SDA Hospital ", "Bono"])
    files["Anemia_Data_Collection_Sheet.xlsx"] = sheet(rows)
    attributes = frozenset({"subject", "hb_g_dl", "severity", "age_months", "sex", "hospital", "region"})
    served = {"CP-AnemiC dataset.rar": zipped(files)}  # a stand-in: tests bring a program that unpacks it
    return Mini(served, {"anemic": 3, "non_anemic": 3}, attributes=attributes)


def cifar10() -> Mini:
    draw = np.random.default_rng(0)
    files: Files = {"cifar-10-batches-bin/batches.meta.txt": b"airplane\n", "cifar-10-batches-bin/readme.html": b""}
    for name in (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"):
        records = draw.integers(0, 256, (10, 3073), np.uint8)
        records[:, 0] = np.arange(10)
        files[f"cifar-10-batches-bin/{name}.bin"] = records.tobytes()
    count = dict.fromkeys(SETS.make("cifar10").classes, 6)
    return Mini({"cifar-10-binary.tar.gz": tarred(files)}, count, frozenset({"train", "test"}))


def medmnist(name: str, size: int) -> Mini:
    """Grey sets have pictures of (n, side, side); labels are (n, 1), of ChestMNIST (n, 14)."""
    source = SETS.make(f"{name}:size={size}")
    draw = np.random.default_rng(len(name))
    grey = name in ("chestmnist", "octmnist", "pneumoniamnist", "breastmnist", "tissuemnist") or name.startswith(
        "organ"
    )
    per = 2 * len(source.classes)
    arrays = {}
    for split in ("train", "val", "test"):
        shape = (per, size, size) if grey else (per, size, size, 3)
        arrays[f"{split}_images"] = draw.integers(0, 256, shape, np.uint8)
        labels = np.arange(per, dtype=np.uint8)[:, None] % len(source.classes)
        if name == "chestmnist":  # even rows: the second and the last finding; odd rows: none
            marks = np.zeros((per, 14), np.uint8)
            marks[::2, [1, 13]] = 1
            labels = marks
        arrays[f"{split}_labels"] = labels
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    attributes = frozenset({"cardiomegaly", "hernia", "edema"} if name == "chestmnist" else ())
    count = dict.fromkeys(source.classes, 6)
    served = {source.files[0].name: stream.getvalue()}
    return Mini(served, count, frozenset({"train", "val", "test"}), attributes=attributes)


OTHERS: dict[str, Callable[[], Mini]] = {
    "brain-mri-sartaj": brain_mri_sartaj,
    "brain-mri-nickparvar": brain_mri_nickparvar,
    "covid-radiography": covid_radiography,
    "chest-xray-talo": chest_xray_talo,
    "covid-hannover": covid_hannover,
    "ham10000": ham10000,
    "kvasir": kvasir,
    "cp-anemic": cp_anemic,
    "cifar10": cifar10,
}


def mini(spelled: str) -> Mini:
    """The miniature of a set, for example of `pathmnist:size=64`."""
    name, _, option = spelled.partition(":")
    return OTHERS[name]() if name in OTHERS else medmnist(name, int(option.partition("=")[2] or 28))
