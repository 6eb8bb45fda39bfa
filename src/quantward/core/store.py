"""Writing so that a reader never sees half a file: atomic writes, hashes, and dataclasses as JSON.

A killed process must leave either the old file or the new one. So everything is written to a temporary
sibling, flushed to the disk, then renamed. Nothing here reads or writes a pickle.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from quantward.core.errors import Refused

T = TypeVar("T")


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path`; on a clean exit it becomes `path`, on an error it is removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write `text` (UTF-8, newline as given) atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def plain(value: Any) -> Any:
    """Turn a value made of dataclasses, arrays and mappings into what JSON can hold; NaN becomes null.

    >>> plain({"a": np.float64(0.5), "b": (1, float("nan"))})
    {'a': 0.5, 'b': [1, None]}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Path):
        return value.as_posix()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path | str, value: Any) -> None:
    """Write any value that `plain` understands as indented JSON, atomically."""
    write_text(path, json.dumps(plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file; a file that is absent or broken is refused with its line."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise Refused(f"Expected a file at {path}; there is none. Check the path.") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        line = getattr(error, "lineno", 1)
        raise Refused(f"Expected JSON in {path}; line {line} is not ({error}). Write the file anew.") from None


def decode(kind: type[T], data: Any, where: Path | str = "the given data") -> T:
    """Build a (nested) dataclass of type `kind` from plain JSON data, checking every field's type."""
    import pydantic

    try:
        return pydantic.TypeAdapter(kind).validate_python(data)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the top level"
        raise Refused(
            f"Expected {kind.__name__} in {where}; at {place}: {first['msg']}. Write the file anew."
        ) from None


def digest_file(path: Path | str) -> str:
    """SHA-256 of a file's bytes, as hex."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_folder(folder: Path | str) -> str:
    """SHA-256 over the names and contents of all files below a folder (names sorted)."""
    folder = Path(folder)
    whole = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        whole.update(f"{path.relative_to(folder).as_posix()}\0{digest_file(path)}\n".encode())
    return whole.hexdigest()


def digest_arrays(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """SHA-256 over names, types, shapes and bytes of some arrays, whatever their order."""
    whole = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        whole.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        whole.update(array.tobytes())
    return whole.hexdigest()


def digest_text(*parts: str) -> str:
    """SHA-256 over some strings, kept apart by a zero byte."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
