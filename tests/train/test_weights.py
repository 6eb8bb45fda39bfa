"""Weights from files: tensors only, every key accounted for, nothing in a file or its JSON ever runs."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from train_world import tiny

from quantward.core.errors import Refused
from quantward.train import weights

HEAD = ("5",)


def saved(path: Path, net: torch.nn.Module, **changes: Any) -> Path:
    tensors = {name: t.clone() for name, t in net.state_dict().items()} | changes
    save_file({name: t for name, t in tensors.items() if t is not None}, path)
    return path


def test_half_precision_is_cast_up_and_everything_is_loaded(tmp_path: Path) -> None:
    source, net = tiny(seed=1), tiny(seed=2)
    path = saved(tmp_path / "w.safetensors", source, **{"0.weight": source.state_dict()["0.weight"].half()})
    record = weights.load(net, path, HEAD)
    loaded = net.state_dict()
    assert loaded["0.weight"].dtype == torch.float32
    assert torch.equal(loaded["0.weight"], source.state_dict()["0.weight"].half().float())
    assert torch.equal(loaded["5.weight"], source.state_dict()["5.weight"])
    assert (record["loaded"], record["replaced"], record["left_out"]) == (8, [], [])
    assert record["source"] == "w.safetensors" and len(record["sha256"]) == 64


@pytest.mark.parametrize("absent", [False, True])
def test_a_head_of_another_size_or_none_is_replaced_and_recorded(tmp_path: Path, absent: bool) -> None:
    changes = {"5.weight": None, "5.bias": None} if absent else {}
    path = saved(tmp_path / "w.safetensors", tiny(classes=10), **changes)
    net = tiny(seed=4)
    fresh = net.state_dict()["5.weight"].clone()
    record = weights.load(net, path, HEAD)
    assert record["replaced"] == ["5.bias", "5.weight"] and record["loaded"] == 6
    assert torch.equal(net.state_dict()["5.weight"], fresh)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"0.weight": torch.zeros(8, 3, 3, 3)}, r"0.weight of shape \(8, 3, 5, 5\): the file has \(8, 3, 3, 3\)"),
        ({"1.running_mean": None}, "the file has nothing of that name"),
        ({"1.weight": torch.full((8,), float("nan"))}, "1.weight holds NaN or infinity"),
        ({"0.weight": torch.full((8, 3, 5, 5), float("inf"), dtype=torch.float16)}, "0.weight holds NaN or infinity"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    path = saved(tmp_path / "w.safetensors", tiny(), **changes)
    with pytest.raises(Refused, match=what):
        weights.load(tiny(), path, HEAD)


def test_older_files_without_batch_counts_load(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors", tiny(seed=3), **{"1.num_batches_tracked": None})
    assert weights.load(tiny(), path, HEAD)["loaded"] == 7


@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
def test_torch_files_are_read_as_tensors(tmp_path: Path, wrap: str | None) -> None:
    state = tiny(seed=6).state_dict()
    torch.save({wrap: state} if wrap else state, tmp_path / "w.pt")
    net = tiny()
    weights.load(net, tmp_path / "w.pt", HEAD)
    assert torch.equal(net.state_dict()["0.weight"], state["0.weight"])


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("plain_pickle", [False, True])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, plain_pickle: bool) -> None:
    path, mark = tmp_path / "w.pt", tmp_path / "ran"
    if plain_pickle:
        path.write_bytes(pickle.dumps(Bomb(mark)))
    else:
        torch.save({"weight": torch.zeros(1), "bomb": Bomb(mark)}, path)
    with pytest.raises(Refused, match="Expected nothing but tensors"):
        weights.read(path)
    assert not mark.exists()


def test_a_torch_file_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "w.pt")
    with pytest.raises(Refused, match="Expected a state dict"):
        weights.read(tmp_path / "w.pt")


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x10\x00\x00\x00\x00\x00\x00\x00{}"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(Refused, match="cannot be read"):
        weights.read(path)


def test_the_file_of_an_architecture_is_found_by_name(tmp_path: Path) -> None:
    for name in ("resnet10t.a.safetensors", "resnet10t.a.json", "resnet18.b.safetensors", "resnet18.c.safetensors"):
        (tmp_path / name).touch()
    assert weights.find(tmp_path, "resnet10t") == tmp_path / "resnet10t.a.safetensors"
    assert weights.find(tmp_path / "resnet18.b.safetensors", "resnet10t") == tmp_path / "resnet18.b.safetensors"
    with pytest.raises(Refused, match=r"there are 2 \(resnet18.b.safetensors, resnet18.c.safetensors\)"):
        weights.find(tmp_path, "resnet18")
    with pytest.raises(Refused, match=r"Expected vgg16.\*.safetensors in .* weights=none"):
        weights.find(tmp_path, "vgg16")
    with pytest.raises(Refused, match="there is nothing"):
        weights.find(tmp_path / "elsewhere", "vgg16")
    with pytest.raises(Refused, match="Convert them to safetensors"):
        weights.find(tmp_path / "resnet10t.a.json", "resnet10t")


def test_hints_are_values_and_are_never_executed(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    assert weights.hints(path) == weights.Hints()
    create = "timm.create_model('m', pad_type='same', checkpoint_path='x.pt', bn_eps=1e-3)"
    (tmp_path / "w.json").write_text(json.dumps({"preprocess": {"mean": [0, 0, 0]}, "create": create}))
    assert weights.hints(path) == weights.Hints({"mean": [0, 0, 0]}, {"pad_type": "same", "bn_eps": 1e-3})
    evil = f"timm.create_model(pad_type=open('{tmp_path}/ran', 'w'))"
    (tmp_path / "w.json").write_text(json.dumps({"create": evil}))
    assert weights.hints(path).options == {} and not (tmp_path / "ran").exists()
    (tmp_path / "w.json").write_text("[1]")
    with pytest.raises(Refused, match="Expected a JSON object"):
        weights.hints(path)
