"""Holds the house together: imports only go down, siblings do not know each other, light paths stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import quantward

HOUSE = Path(quantward.__file__).parent
FLOORS = (
    ("core",),
    ("graph",),
    ("data", "train", "quantize", "targets", "audit", "runtimes", "evaluate", "explain"),
    ("report", "serve", "fetch"),
    ("incoming",),
    ("workbench",),
    ("benching",),
    ("bundle", "runs", "candidates"),
    ("judgement", "placing"),
    ("find", "measure", "sweeps", "crossval", "explaining"),
    ("study", "demo"),
    ("cli",),
    ("__main__",),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
TRAINING = {"torch", "timm", "torchvision", "lightning", "lightning_fabric"}
HEAVY = TRAINING | {"onnx", "onnxscript", "openvino", "ai_edge_litert"}
TORCH_ROOMS = {"graph", "train", "quantize", "explain"}


def room_of(path: Path) -> str:
    """The room a source file belongs to: its folder below the package, or its own stem."""
    parts = path.relative_to(HOUSE).parts
    return parts[0] if len(parts) > 1 else path.stem


def imports(path: Path) -> list[tuple[str, bool]]:
    """Every imported module of a file, and whether the import stands at the top level."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guarded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    top = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if id(node) in guarded:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [(name, id(node) in top) for name in names]
    return found


SOURCES = sorted(p for p in HOUSE.rglob("*.py") if p.name != "__init__.py" or p.parent != HOUSE)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(HOUSE).as_posix())
def test_imports_go_down_only(path: Path) -> None:
    room = room_of(path)
    assert room in FLOOR_OF, f"{room} has no floor; give it one in FLOORS"
    for name, _ in imports(path):
        if not name.startswith("quantward.") or name.split(".")[1] == "__version__":
            continue
        other = name.split(".")[1]
        if other == room:
            continue
        assert FLOOR_OF[other] < FLOOR_OF[room], f"{path.name} in {room} imports {name}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(HOUSE).as_posix())
def test_heavy_libraries_are_imported_late_or_in_their_rooms(path: Path) -> None:
    for name, at_top in imports(path):
        library = name.split(".")[0]
        if library in HEAVY and at_top:
            assert room_of(path) in TORCH_ROOMS or path.parent.name in ("targets", "runtimes"), (
                f"{path.relative_to(HOUSE)} imports {library} at its top"
            )


@pytest.mark.parametrize(
    "module", ["core.values", "data", "evaluate", "report", "fetch", "bundle", "cli", "runtimes.onnxruntime"]
)
def test_torch_free_paths_never_load_torch(module: str) -> None:
    code = f"import sys, quantward.{module}; print(sorted({HEAVY!r} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
