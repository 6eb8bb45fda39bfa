"""Backbones by name: from scratch, from a file, from a download that fails in one sentence; the head starts quiet."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from quantward.core.errors import Refused, UsageError
from quantward.train.backbones import build, create, preprocess_of

EIGHT = {
    "resnet18": 64,
    "resnet50": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "mobilenetv2_100": 64,
    "convnext_tiny": 64,
    "swin_tiny_patch4_window7_224": 224,
    "vit_base_patch16_224": 224,
}


def state(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return net.state_dict()


@pytest.mark.parametrize("arch", EIGHT)
def test_the_eight_backbones_of_the_study_are_known_and_sized(arch: str) -> None:
    assert preprocess_of(arch, "none", EIGHT[arch]).size == EIGHT[arch]
    assert preprocess_of(arch, "none").size == 224


@pytest.mark.parametrize("arch", ["resnet10t", "mobilenetv2_035", "mobilevit_xxs"])
def test_from_scratch_starts_at_the_loss_of_a_guess(arch: str) -> None:
    backbone = build(arch, 4, weights="none", size=64)
    inputs = torch.from_numpy(np.random.default_rng(0).normal(size=(8, 3, 64, 64)).astype(np.float32))
    with torch.no_grad():
        logits = backbone.net(inputs)
    loss = torch.nn.functional.cross_entropy(logits, torch.arange(8) % 4)
    assert logits.shape == (8, 4) and float(loss) == pytest.approx(math.log(4), abs=0.35)
    assert backbone.record["source"] == "none"


def test_the_seed_draws_the_weights_and_leaves_the_caller_s_generator_alone() -> None:
    before = torch.get_rng_state()
    nets = [build("resnet10t", 3, weights="none", seed=seed).net for seed in (1, 1, 2)]
    assert torch.equal(before, torch.get_rng_state())
    first, again, other = (state(net)["conv1.0.weight"] for net in nets)
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_transformer_takes_another_size() -> None:
    backbone = build("deit_tiny_patch16_224", 2, weights="none", size=32)
    assert backbone.record["options"] == {"img_size": 32}
    assert backbone.net(torch.zeros(1, 3, 32, 32)).shape == (1, 2)


def test_unknown_names_and_options_are_answered() -> None:
    with pytest.raises(UsageError, match="Did you mean 'mobilenetv2_100'"):
        build("mobilenet_v2_100", 2, weights="none")
    with pytest.raises(UsageError, match="mobilenetv2_100 for one"):
        build("zzzz", 2, weights="none")
    with pytest.raises(UsageError, match="Expected options that resnet10t has"):
        create("resnet10t", 2, {"no_such_thing": 1})
    with pytest.raises(UsageError, match="at least 16"):
        preprocess_of("resnet10t", "none", 8)


def test_offline_is_one_sentence_with_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("[Errno -3] Temporary failure in name resolution\nand a long story")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(Refused) as caught:
        build("resnet10t", 2)
    text = str(caught.value)
    assert "\n" not in text and "name resolution" in text and "weights=none" in text


def test_a_name_timm_has_no_weights_for_is_refused_before_any_download() -> None:
    with pytest.raises(Refused, match=r"it has none\. Use weights=none"):
        build("mobilenetv2_075", 2)


def test_imagenet_weights_load_with_their_own_preprocessing_and_padding(real_weights: Path) -> None:
    backbone = build("mobilenetv1_100", 4, weights=real_weights)
    assert backbone.preprocess.mean == (0.5, 0.5, 0.5) and backbone.preprocess.squash
    assert backbone.preprocess.interpolation == "bilinear"
    assert backbone.record["options"] == {"pad_type": "same"}
    assert backbone.record["replaced"] == ["classifier.bias", "classifier.weight"]
    assert backbone.record["loaded"] == 135 and backbone.record["left_out"] == []


def test_a_head_with_the_same_classes_is_kept(real_weights: Path) -> None:
    kept = build("mobilenetv2_100", 1000, weights=real_weights)
    assert kept.record["replaced"] == [] and kept.record["loaded"] == 262
    assert float(state(kept.net)["classifier.weight"].std()) > 0.02


def test_a_backbone_without_a_head_gets_one(real_weights: Path) -> None:
    backbone = build("mobilenetv2_035", 2, weights=real_weights)
    assert backbone.record["replaced"] == ["classifier.bias", "classifier.weight"]
    assert float(state(backbone.net)["classifier.weight"].std()) == pytest.approx(0.01, rel=0.1)


def test_weights_of_another_architecture_are_refused(real_weights: Path) -> None:
    with pytest.raises(Refused, match="tensors do not fit"):
        build("resnet10t", 2, weights=real_weights / "mobilenetv2_100.tv_in1k.safetensors")
