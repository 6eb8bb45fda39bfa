"""The state file: whole or not there, everything in it, damage refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from train_world import tiny

from quantward.core.errors import Refused
from quantward.train import checkpoint
from quantward.train.checkpoint import Progress


def stepped(kind: type[torch.optim.Optimizer], **options: object) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    net = tiny().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = kind(net.parameters(), 0.01, **options)
    for seed in range(3):
        torch.manual_seed(seed)
        net(torch.randn(4, 3, 32, 32)).square().sum().backward()
        optimizer.step()
    return net, optimizer


def test_what_is_written_is_read(tmp_path: Path) -> None:
    progress = Progress({"lr": 0.1}, 2, 5, {"loss": 1 / 3}, [{"epoch": 1.0, "tune_loss": 0.1 + 0.2}], 1, 0.1 + 0.2)
    tensors = {"net.weight": torch.randn(3, 4), "random.cpu": torch.get_rng_state(), "step": torch.tensor(3)}
    checkpoint.write(tmp_path, progress, tensors)
    found = checkpoint.read(tmp_path, {"lr": 0.1})
    assert found is not None and found[0] == progress
    assert all(torch.equal(found[1][name], tensor) for name, tensor in tensors.items())
    checkpoint.discard(tmp_path)
    assert checkpoint.read(tmp_path, {"lr": 0.1}) is None


@pytest.mark.parametrize(
    ("kind", "options"),
    [(torch.optim.AdamW, {"fused": True}), (torch.optim.Adam, {"fused": True}), (torch.optim.SGD, {"momentum": 0.9})],
)
def test_optimizer_state_comes_back_in_the_layout_of_its_parameters(
    kind: type[torch.optim.Optimizer], options: dict[str, object]
) -> None:
    _, source = stepped(kind, **options)
    flat = {name: checkpoint.stored(tensor) for name, tensor in checkpoint.pack_optimizer(source).items()}
    _, other = stepped(kind, **options)
    other.state.clear()
    checkpoint.unpack_optimizer(other, flat)
    before, after = source.state_dict()["state"], other.state_dict()["state"]
    assert before.keys() == after.keys()
    for number, state in before.items():
        for name, value in state.items():
            assert torch.equal(value, after[number][name])
            assert value.stride() == after[number][name].stride()


def test_best_weights_of_older_epochs_are_forgotten_only_after_the_state_names_the_new_ones(tmp_path: Path) -> None:
    checkpoint.write_best(tmp_path, 1, {"w": torch.ones(1)})
    checkpoint.write(tmp_path, Progress({}, best_epoch=1), {})
    checkpoint.write_best(tmp_path, 2, {"w": torch.ones(1) * 2})
    assert checkpoint.read_best(tmp_path, 1)["w"] == 1
    checkpoint.write(tmp_path, Progress({}, best_epoch=2), {})
    assert not checkpoint.best_path(tmp_path, 1).exists()
    assert checkpoint.read_best(tmp_path, 2)["w"] == 2


@pytest.mark.parametrize("keep", [0, 7, 40, -3])
def test_a_damaged_state_is_refused(tmp_path: Path, keep: int) -> None:
    checkpoint.write(tmp_path, Progress({}), {"a": torch.zeros(5)})
    path = tmp_path / "checkpoint" / "last.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(Refused, match="cannot be read"):
        checkpoint.read(tmp_path, {})


def test_a_state_without_progress_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    (tmp_path / "checkpoint").mkdir()
    save_file({"a": torch.zeros(1)}, tmp_path / "checkpoint" / "last.safetensors")
    with pytest.raises(Refused, match="Expected Progress"):
        checkpoint.read(tmp_path, {})
