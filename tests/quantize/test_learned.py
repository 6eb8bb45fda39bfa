"""Learned rounding against its definition, and the network that trains with it against what it becomes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from quantward.core.contracts import Batch, Context
from quantward.core.values import Node, Plan
from quantward.graph.network import Network
from quantward.graph.simulate import simulate
from quantward.graph.stored import stored_weight
from quantward.graph.walk import input_key, layers
from quantward.quantize._learned import Learned, Method, grids, lsq, rounded, scaled_gradient
from quantward.quantize._norm import folding, live_norms
from quantward.quantize._static import Bits, Static, static_plan, uniform

GRIDS = [(0, 15), (-7, 7), (-5, 10), (0, 3)]


def values(seed: int = 0) -> Tensor:
    """Values in and around a grid of step 0.3, none of them where a derivative jumps."""
    return torch.from_numpy(np.random.default_rng(seed).uniform(-4, 6, (40, 5)))


@pytest.mark.parametrize(("low", "high"), GRIDS)
def test_lsq_is_its_definition(low: int, high: int) -> None:
    """Esser et al., eq. 1 to 3, in NumPy."""
    x, step = values().requires_grad_(), torch.full((5,), 0.3, dtype=torch.float64, requires_grad=True)
    upstream = torch.from_numpy(np.random.default_rng(1).normal(size=(40, 5)))
    y = lsq(x, step, low, high)
    dx, ds = torch.autograd.grad((y * upstream).sum(), (x, step))
    v, g = x.detach().numpy() / 0.3, upstream.numpy()
    inside = (v > low) & (v < high)
    np.testing.assert_allclose(y.detach().numpy(), np.rint(np.clip(v, low, high)) * 0.3)
    np.testing.assert_allclose(dx.numpy(), g * inside)
    slope = np.where(v <= low, low, np.where(v >= high, high, np.rint(v) - v))
    np.testing.assert_allclose(ds.numpy(), (g * slope).sum(0))


def test_away_from_the_rounding_lsq_has_the_slope_of_a_finite_difference() -> None:
    """Outside the clip y = high s exactly, so the derivative that is learned is the true one."""
    x, high, small = torch.tensor([9.0, 12.0], dtype=torch.float64), 7, 1e-6
    ends = [lsq(x, torch.tensor(0.3 + d, dtype=torch.float64), -7, high).sum() for d in (small, -small)]
    step = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(lsq(x, step, -7, high).sum(), step)[0]
    assert float(slope) == pytest.approx(float(ends[0] - ends[1]) / (2 * small))


@pytest.mark.parametrize(("low", "high"), GRIDS)
def test_the_fast_form_is_lsq(low: int, high: int) -> None:
    x = values().float()
    found = []
    for fast in (True, False):
        leaf, step = x.clone().requires_grad_(), torch.tensor(0.3, requires_grad=True)
        scaled = scaled_gradient(step, 0.125)
        y = rounded(leaf, scaled, step.item(), low, high, "lsq") if fast else lsq(leaf, scaled, low, high)
        found.append((y.detach(), *torch.autograd.grad(y.square().sum(), (leaf, step))))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("low", "high"), GRIDS)
def test_pact_learns_from_clipped_values_alone(low: int, high: int) -> None:
    """dy/dalpha is 1 above alpha and 0 inside (Choi et al., eq. 3); below a grid that reaches under zero its own end
    moves with alpha, by low / high."""
    x = values().float().requires_grad_()
    alpha = torch.tensor(0.3 * high, requires_grad=True)
    y = rounded(x, alpha / high, float(alpha.detach() / high), low, high, "pact")
    upstream = torch.from_numpy(np.random.default_rng(1).normal(size=(40, 5))).float()
    dx, da = torch.autograd.grad((y * upstream).sum(), (x, alpha))
    v, g = x.detach().numpy() / 0.3, upstream.numpy()
    np.testing.assert_allclose(y.detach().numpy(), np.rint(np.clip(v, low, high)) * 0.3, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(dx.numpy(), g * ((v > low) & (v < high)))
    assert float(da) == pytest.approx((g * (v >= high)).sum() + (g * (v <= low)).sum() * low / high, rel=1e-4)


def test_a_relu_before_the_grid_is_part_of_it() -> None:
    found = []
    for joined in (False, True):
        x, step = values().float().requires_grad_(), torch.tensor(0.5, requires_grad=True)
        y = rounded(x if joined else torch.nn.functional.relu6(x), step, 0.5, 0, 15, "lsq", (0.0, 6.0))
        found.append(torch.autograd.grad(y.square().sum(), (x, step)))
    for apart, together in zip(*found, strict=True):
        torch.testing.assert_close(together, apart)


def test_a_scaled_gradient_keeps_the_value() -> None:
    x = torch.tensor(0.7, requires_grad=True)
    y = scaled_gradient(x, 0.1)
    assert y.item() == x.item() and torch.autograd.grad(y, x)[0].item() == pytest.approx(0.1)


@pytest.fixture(scope="module")
def start(small_plan: Plan, images: Batch) -> Plan:
    """The small network at 4 bits, uncorrected, with the head in float."""
    lent = Context(images=lambda n: iter([images]))
    kept = {layers(small_plan.program)[-1].name}
    table = uniform(small_plan.program, Bits(4, 4), depthwise=Bits(8, 4), kept=kept)
    return static_plan(small_plan, lent, table, Static(correct=False), "qat")


def shaken(start: Plan, images: Batch, method: Method = "lsq") -> Learned:
    """A network in the middle of a training: norms that are no identity (with negative factors), moved steps."""
    net = Learned(start, method, live_norms(start, [images]), freeze_at=0)
    torch.manual_seed(3)
    with torch.no_grad():
        for name, tensor in net.norms.state_dict().items():
            if name.endswith(("weight", "running_var")):
                tensor.mul_(torch.empty_like(tensor).uniform_(0.5, 1.5))
            elif name.endswith(("bias", "running_mean")):
                tensor.add_(torch.empty_like(tensor).uniform_(-0.2, 0.2))
            if name.endswith("weight"):
                tensor[::3] *= -1
        net.steps.add_(torch.empty_like(net.steps).uniform_(-0.1, 0.1))
        for step in net.weight_steps.values():
            step.add_(torch.empty_like(step).uniform_(-0.1, 0.1))
    return net


def test_a_live_norm_begins_as_the_identity(start: Plan, images: Batch) -> None:
    norms = live_norms(start, np.array_split(images, 3))
    assert set(norms) == {layer.name for layer in layers(start.program)[:-1]}
    outputs: dict[str, Tensor] = {}
    Network(start, on_output=lambda name, x: outputs.setdefault(name, x))(torch.from_numpy(images))
    for name, norm in norms.items():
        torch.testing.assert_close(norm.eval()(outputs[name]), outputs[name], rtol=1e-4, atol=1e-4)
        whole = norm.train()(outputs[name])  # the statistics are those of all these images
        torch.testing.assert_close(whole, outputs[name], rtol=1e-3, atol=1e-3)


def test_layers_of_one_position_and_transformers_get_no_norm(small_plan: Plan, images: Batch) -> None:
    program = (*small_plan.program[:-1], Node("ln", "aten.layer_norm.default"), small_plan.program[-1])
    assert not live_norms(Plan(program, {}, small_plan.preprocess, small_plan.classes), [images])
    smallest = images[:, :, :2, :2]  # after the stem one position is left, and every statistic would be of one value
    assert not live_norms(small_plan, [smallest])


@pytest.mark.parametrize("method", ["lsq", "pact"])
def test_evaluation_is_the_plan_to_the_bit(start: Plan, images: Batch, method: Method) -> None:
    net = shaken(start, images, method).eval()
    batch = torch.from_numpy(images)
    with torch.inference_mode():
        plan = net.settled()
        assert torch.equal(net(batch), simulate(plan).eval()(batch))
        other = shaken(start, images, method)
        net.load_state_dict({name: tensor * 1.01 for name, tensor in other.state_dict().items()})
        assert torch.equal(net(batch), simulate(net.settled()).eval()(batch))
    for name, spec in plan.tensors.items():
        if spec.kind == "weight":
            np.testing.assert_array_equal(stored_weight(plan.weights[name], spec), plan.weights[name])


@pytest.mark.parametrize("method", ["lsq", "pact"])
def test_norms_fold_exactly_with_negative_factors(start: Plan, images: Batch, method: Method) -> None:
    """The training graph with fixed statistics, and the Plan with none: the same numbers, but for the biases' int32
    grid and single values on the other side of a tie."""
    net, batch = shaken(start, images, method), torch.from_numpy(images)
    plan = net.settled()
    free = Plan(plan.program, plan.weights, plan.preprocess, plan.classes,
                tensors={name: spec for name, spec in plan.tensors.items() if spec.kind != "bias"})  # fmt: skip
    with torch.no_grad():
        trained, folded, deployed = net.train()(batch), simulate(free).eval()(batch), simulate(plan).eval()(batch)
    spread = float(trained.std())
    assert float((trained - folded).abs().median()) < 1e-4 * spread
    assert float((trained - deployed).abs().mean()) < 0.05 * spread


def test_the_float_network_behind_the_rounding_is_folded_too(start: Plan, images: Batch) -> None:
    net, batch = shaken(start, images), torch.from_numpy(images)

    def on_output(name: str, x: Tensor) -> Tensor:
        key = name.replace(".", "/")
        return net.norms[key].eval()(x) if key in net.norms else x

    with torch.no_grad():
        torch.testing.assert_close(
            Network(net.latent())(batch), Network(start, on_output=on_output)(batch), rtol=1e-3, atol=1e-3
        )
    norm = next(iter(net.norms.values()))
    factor, shift = folding(norm)  # type: ignore[arg-type]
    y = torch.randn(2, len(factor), 3, 3)
    expected = y * torch.from_numpy(factor)[:, None, None] + torch.from_numpy(shift)[:, None, None]
    torch.testing.assert_close(norm.eval()(y).double(), expected, rtol=1e-4, atol=1e-5)


def test_what_is_one_grid_stays_one(start: Plan, images: Batch) -> None:
    """Behind flatten the pooled tensor keeps its grid, and narrow readers of a stream have one of their own."""
    groups = grids(start)
    plan = shaken(start, images).settled()
    assert any(len(names) > 1 for names in groups.values())
    for names in groups.values():
        assert len({float(plan.tensors[name].scale) for name in names}) == 1
    own = [input_key(layer.name) for layer in layers(start.program) if input_key(layer.name) in start.tensors]
    assert own and all(start.tensors[name].bits == 4 for name in own)
    moved = [float(plan.tensors[n].scale / start.tensors[n].scale) for names in groups.values() for n in names[:1]]
    assert len({round(share, 4) for share in moved}) > 1


def test_second_derivatives_and_activation_gradients(start: Plan, images: Batch) -> None:
    """The gradient of an input gradient, as saliency-guided training takes it. The head is float and linear in its
    weight, so there a finite difference is exact."""
    net = shaken(start, images).train()
    batch = torch.from_numpy(images[:4]).requires_grad_()
    head = net.network.weight("head.weight")
    direction = torch.randn(batch.shape, generator=torch.Generator().manual_seed(0))

    def along() -> Tensor:
        slope = torch.autograd.grad(net(batch)[:, 0].sum(), batch, create_graph=True)[0]
        return (slope * direction).sum()

    second = torch.autograd.grad(along(), [head, net.steps, *net.weight_steps.values()], allow_unused=True)
    assert second[0] is not None and all(g is None or torch.isfinite(g).all() for g in second)
    assert any(g is not None and bool(g.abs().sum() > 0) for g in second[2:])
    with torch.no_grad():
        before = head[0, 2].item()
    ends = []
    for shift in (0.5, -0.5):
        with torch.no_grad():
            head[0, 2] = before + shift
        ends.append(float(along().detach()))
    assert float(second[0][0, 2]) == pytest.approx(ends[0] - ends[1], rel=1e-3, abs=1e-5)


def test_gradients_reach_activations_in_evaluation_mode(start: Plan, images: Batch) -> None:
    """Grad-CAM on the deployed network: the gradient of a logit by a feature map."""
    net = Learned(start).eval()
    with torch.inference_mode():
        net(torch.from_numpy(images[:2]))  # what early stopping did before must not stand in the way
    batch = torch.from_numpy(images[:2]).requires_grad_()
    slope = torch.autograd.grad(net(batch)[:, 1].sum(), batch)[0]
    assert float(slope.abs().sum()) > 0


def test_statistics_stand_still_once_frozen(start: Plan, images: Batch) -> None:
    net = Learned(start, "lsq", live_norms(start, [images]), freeze_at=2).train()
    norm, batch = next(iter(net.norms.values())), torch.from_numpy(images[:8])
    seen = []
    for _ in range(4):
        net.train()(batch)
        seen.append(norm.state_dict()["running_mean"].clone())
    assert not torch.equal(seen[0], seen[1]) and torch.equal(seen[1], seen[2]) and torch.equal(seen[2], seen[3])


@pytest.mark.parametrize("method", ["lsq", "pact"])
def test_parameters_are_those_that_ship(start: Plan, images: Batch, method: Method) -> None:
    """Every trainable parameter is in one group; steps have their own rate and none of them decays."""
    net = Learned(start, method, live_norms(start, [images]))
    chosen = net.parameter_groups(10.0)
    listed = [id(p) for group in chosen for p in group["params"]]
    assert sorted(listed) == sorted(id(p) for p in net.parameters() if p.requires_grad)
    assert chosen[2]["share"] == 10.0 and chosen[2]["weight_decay"] == 0.0
    assert len(chosen[2]["params"]) == (1 if method == "pact" else 1 + len(net.weight_specs))
