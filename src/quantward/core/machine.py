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
    "ai-edge-litert",
    "torch",
    "timm",
    "onnx",
    "onnxruntime",
    "openvino",
    "ai-edge-litert",
    "litert-torch",
    "ai-edge-quantizer",
    "tensorrt",
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


def cores() -> int:
    """How many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory() -> int | None:
    """Bytes that new processes may still take; None where the system does not tell."""
    return _memory("MemAvailable")


def _memory(key: str) -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii", errors="replace").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))
    except (OSError, StopIteration, ValueError):
        return None


def board() -> str:
    """The model of a single-board device (`NVIDIA Jetson Orin Nano ...`), as its firmware names it; else empty."""
    try:
        text = Path("/proc/device-tree/model").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.strip("\0 \n")


def governor() -> str:
    """How the first core's clock is governed (`performance`, `powersave`, ...); empty where nobody tells."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return ""
    return text.strip()


def describe() -> dict[str, Any]:
    """Processor, cores, memory, system, Python and library versions, as plain data. Names no person and no host."""
    name, flags = cpu()
    told = {"board": board(), "governor": governor()}
    return {
        "processor": name,
        "instructions": list(flags),
        "cores": cores(),
        "memory": _memory("MemTotal"),
        **{key: text for key, text in told.items() if text},
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": versions(),
    }
