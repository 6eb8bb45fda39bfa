"""Images a second in training: this loop against the plain PyTorch loop, step by step in turns, as ratios of medians.

The plain loop is the one in every tutorial: torchvision's ImageFolder and DataLoader, contiguous tensors, AdamW as it
comes. Both train the same network on the same pictures with the same augmentation strength. Each lives in a process
of its own, as memory that one keeps would serve the other, and they take steps in turns, so a busy machine slows both
alike; look at the ratios. Where others use the machine, `--threads 1 --cpu-time` counts what each loop costs and not
how long it had to wait.

    python benchmarks/training.py --threads 1 --cpu-time                      # the eight backbones at 224 px
    python benchmarks/training.py --arch mobilenetv2_100 --sizes 160 --parts  # what each measure is worth
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from quantward.core import machine
from quantward.core.preprocess import geometry
from quantward.core.values import Preprocess
from quantward.train.augment import AUGMENTS
from quantward.train.batches import Images
from quantward.train.course import Course
from quantward.train.losses import cross_entropy
from quantward.train.memory import kept_memory
from quantward.train.optimizer import default_groups, freeze_norm, keep_inputs, make_optimizer

EIGHT = (
    "resnet18",
    "resnet50",
    "densenet121",
    "efficientnet_b0",
    "mobilenetv2_100",
    "convnext_tiny",
    "swin_tiny_patch4_window7_224",
    "vit_base_patch16_224",
)
CLASSES = 4
PLAIN, OURS = "plain PyTorch, ImageFolder", "quantward"
WITHOUT = ("kept_memory", "channels_last", "kept_inputs", "fused_optimizer", "augmentation")
WITH = ("bf16", "flush_denormal", "frozen_norm")
Step = Callable[[], None]


def pictures(folder: Path, count: int) -> list[tuple[Path, int]]:
    """JPEG files of blurred noise, 256 x 256, in class folders: what decoding costs does not depend on the motif."""
    chance = np.random.default_rng(0)
    made = []
    for number in range(count):
        label = number % CLASSES
        small = Image.fromarray(chance.integers(0, 256, (32, 32, 3)).astype(np.uint8))
        path = folder / f"class_{label}" / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        small.resize((256, 256), Image.Resampling.BICUBIC).save(path, quality=92)
        made.append((path, label))
    return made


def endless(make: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    """One epoch after the other."""
    while True:
        yield from make()


def plain(arch: str, folder: Path, size: int, batch: int, workers: int) -> Step:
    """The loop of the tutorials."""
    transform = v2.Compose(
        [
            v2.Resize((size, size)),
            v2.RandomHorizontalFlip(),
            v2.RandomAffine(12, translate=(0.05, 0.05), scale=(0.9, 1.1)),
            v2.ColorJitter(0.15, 0.15),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(Preprocess().mean, Preprocess().std),
        ]
    )
    data = torchvision.datasets.ImageFolder(folder, transform)
    loader = torch.utils.data.DataLoader(data, batch, shuffle=True, num_workers=workers, drop_last=True)
    net = timm.create_model(arch, num_classes=CLASSES).train()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    batches = endless(lambda: iter(loader))

    def step() -> None:
        inputs, labels = next(batches)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()

    return step


def ours(arch: str, files: list[tuple[Path, int]], size: int, batch: int, change: str = "") -> Step:
    """The loop of this package, built from its own parts; `change` leaves one measure out, or adds one."""
    how = Preprocess(size=size, resize=size, squash=True)
    pixels = np.stack([geometry(np.asarray(Image.open(path)), how) for path, _ in files])
    labels = np.array([label for _, label in files])
    everything = np.arange(len(files))
    images = Images(pixels, labels, everything, everything, tuple("abcd"), how)
    train = images.to_train(batch, AUGMENTS["none" if change == "augmentation" else "standard"], seed=0)
    net = timm.create_model(arch, num_classes=CLASSES).train()
    if change != "channels_last":
        net.to(memory_format=torch.channels_last)
    if change != "kept_inputs":
        keep_inputs(net)
    course = Course()
    optimizer = make_optimizer(course, default_groups(net, course))
    if change == "fused_optimizer":
        optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    loss = cross_entropy()
    forward: Any = torch.compile(net) if change == "torch.compile" else net
    batches = endless(lambda: train.epoch(0))

    def step() -> None:
        given = next(batches)
        if change == "channels_last":
            given = given._replace(inputs=given.inputs.contiguous())
        if change == "frozen_norm":
            freeze_norm(net)
        torch.set_flush_denormal(change == "flush_denormal")
        with torch.autocast("cpu", torch.bfloat16, enabled=change == "bf16"):
            terms = loss(forward, given)
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def at_work(told: Connection, loop: str, files: list[tuple[Path, int]], folder: Path, given: Mapping[str, Any]) -> None:
    """One loop in its own process: a step whenever it is told to, and the seconds that took."""
    torch.set_num_threads(given["threads"])
    arch, size, batch = given["arch"], given["size"], given["batch"]
    change = loop.rpartition(" ")[2] if loop not in (PLAIN, OURS) else ""
    keeps = kept_memory() if loop != PLAIN and change != "kept_memory" else nullcontext()
    clock = time.process_time if given["cpu_time"] else time.perf_counter
    with keeps:
        if loop == PLAIN:
            step = plain(arch, folder, size, batch, given["workers"])
        else:
            step = ours(arch, files, size, batch, change)
        while told.recv():
            started = clock()
            step()
            told.send(clock() - started)


def in_turns(loops: list[str], rounds: int, *given: Any) -> dict[str, float]:
    """Median seconds of a step of each, after one round that warms up."""
    context = multiprocessing.get_context("spawn")
    lines, workers = {}, []
    for loop in loops:
        lines[loop], other = context.Pipe()
        workers.append(context.Process(target=at_work, args=(other, loop, *given)))
        workers[-1].start()
    seconds: dict[str, list[float]] = {loop: [] for loop in loops}
    for turn in range(rounds + 1):
        for loop, line in lines.items():
            line.send(True)
            took = line.recv()
            if turn:
                seconds[loop].append(took)
    for line, worker in zip(lines.values(), workers, strict=True):
        line.send(False)
        worker.join()
    return {loop: statistics.median(times) for loop, times in seconds.items()}


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", default=EIGHT)
    parser.add_argument("--sizes", nargs="+", type=int, default=[224])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0, help="loader processes of the plain loop")
    parser.add_argument("--parts", action="store_true", help="leave our measures out one by one, and try others")
    parser.add_argument("--compile", action="store_true", help="with --parts: torch.compile too (minutes to compile)")
    parser.add_argument("--threads", type=int, default=0, help="0: what torch chooses")
    parser.add_argument(
        "--cpu-time", action="store_true", help="count processor seconds: for a machine that others use"
    )
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    told = machine.describe()
    print(f"{told['processor']}, {told['cores']} cores, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| network | px | loop | images/s | against the plain loop |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        files = pictures(Path(name), 4 * given.batch)
        for arch in given.arch:
            for size in given.sizes:
                loops = [PLAIN, OURS]
                if given.parts:
                    loops += [f"{OURS} {'without' if part in WITHOUT else 'with'} {part}" for part in (*WITHOUT, *WITH)]
                if given.compile:
                    loops.append(f"{OURS} with torch.compile")
                options = {**vars(given), "arch": arch, "size": size, "threads": torch.get_num_threads()}
                medians = in_turns(loops, given.steps, files, Path(name), options)
                base = medians[PLAIN]
                for label, seconds in medians.items():
                    print(f"| {arch} | {size} | {label} | {given.batch / seconds:.1f} | {base / seconds:.2f}x |",
                          flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
