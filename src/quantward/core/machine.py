"""What machine and which versions a result was made with: a figure without these cannot be repeated."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

_LIBRARIES = (
    "quantward",
    "numpy",
    "scipy",
    "Pillow",
    "torch",
    "timm",
    "onnx",
    "onnxruntime",
    "openvino",
    "lightning-fabric",
)
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm")


def cpu() -> tuple[str, tuple[str, ...]]:
    """The processor's name and those of its instruction sets that decide how fast integers run."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine(), ()
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    lines = {key.strip(): value.strip() for key, _, value in pairs}
    flags = set(f"{lines.get('flags', '')} {lines.get('Features', '')}".split())
    return lines.get("model name", platform.machine()), tuple(f for f in _FLAGS if f in flags)


def versions() -> dict[str, str]:
    """Installed versions of the libraries that can change a result."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def describe() -> dict[str, Any]:
    """Processor, cores, system, Python and library versions, as plain data. Names no person and no host."""
    name, flags = cpu()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": name,
        "instructions": list(flags),
        "cores": cores,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": versions(),
    }
