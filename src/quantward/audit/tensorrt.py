"""Will TensorRT take this ONNX file, and run it in integers? Its published rules, checked on the graph alone.

A build on the device takes minutes and stops at the first fault; this takes a second, names every fault and its node,
and needs no NVIDIA library. It proves nothing about speed or numbers: docs/tensorrt.md says how to measure both there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from quantward.audit._onnx_graph import read_graph
from quantward.audit._tensorrt_rules import REFUSED, SLOW

RULES = (*REFUSED, *SLOW)


@dataclass(frozen=True)
class Breach:
    """One rule that a file breaks: `refused` keeps TensorRT from building it as meant, `slow` costs a kernel or two."""

    rule: str
    severity: Literal["refused", "slow"]
    nodes: tuple[str, ...]
    sentence: str


def breaches(path: Path) -> tuple[Breach, ...]:
    """Every breach of every rule, those that are refused first.

    Raises Refused for what is no ONNX file.
    """
    graph = read_graph(path)
    found = [Breach(name, "refused", *told) for name, rule in REFUSED.items() for told in rule(graph)]
    found += [Breach(name, "slow", *told) for name, rule in SLOW.items() for told in rule(graph)]
    return tuple(found)


def takes(path: Path) -> bool:
    """Whether no rule is broken that keeps TensorRT from building the file as it is meant."""
    return not any(breach.severity == "refused" for breach in breaches(path))
