"""Steps of all members at once are those of torch's optimisers, of each by itself."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from helpers import normal
from skae._training.module import Phase
from skae._training.optimizers import make_optimizer
from skae._training.stacked_steps import StackedSteps
from skae._training.stacked_weights import StackedTensors

N_STEPS = 5


class Module(nn.Module):
    """Weights that decay, and biases that do not; codes of some size."""

    average = None

    def __init__(self, n_codes, seed):
        super().__init__()
        self.weight = nn.Parameter(normal(4, n_codes, seed=seed))
        self.bias = nn.Parameter(normal(n_codes, seed=seed + 50))
        self.other = nn.Parameter(normal(3, 2, seed=seed + 70))

    def decayed(self):
        return [p for p in self.parameters() if p.ndim > 1]

    def all_blocks(self):
        n = (self.bias.numel(),)
        return SimpleNamespace(axes={"weight": {1: n}, "bias": {0: n}}, fills={})


class Net:
    """What the steps read of a net."""

    def __init__(self, solver, n_codes, seed, lr=0.1, alpha=0.0, momentum=0.0, phase_rate=None):
        self.module_ = Module(n_codes, seed)
        self.solver, self.alpha, self.momentum = solver, alpha, momentum
        settings = {"lr": lr, "momentum": momentum}
        parameters = list(self.module_.parameters())
        own = parameters if phase_rate is None else parameters[:2]
        self.optimizer_ = make_optimizer(solver, self.module_, own, alpha=alpha, **settings)
        self.later_ = []
        if phase_rate is not None:
            phase = Phase("later", None, parameters[2:], phase_rate, decays=False)
            later = make_optimizer(solver, self.module_, parameters[2:], alpha=0.0, **settings)
            self.later_.append((phase, later))

    @property
    def optimizers_(self):
        return [self.optimizer_, *(optimizer for _, optimizer in self.later_)]


def members_of(nets):
    return [SimpleNamespace(net=net, settings=settings_of(net)) for net in nets]


def settings_of(net):
    rate = net.optimizer_.param_groups[0]["lr"]
    return (rate, net.alpha, net.momentum, *(phase.rate for phase, _ in net.later_))


def gradients_of(tensors, names, step, transposed):
    """Of all members, as they may lie in memory."""
    found = {}
    for name in names:
        gradient = normal(*tensors.weights[name].shape, seed=100 * step + len(name))
        if transposed and gradient.ndim == 3:
            gradient = gradient.transpose(1, 2).contiguous().transpose(1, 2)
            assert not gradient.is_contiguous()
        found[name] = gradient
    return found


SETTINGS = {
    "adam": ("adam", [{}, {}, {"lr": 0.01}]),
    "adam, decay": ("adam", [{"alpha": 0.1}, {"alpha": 0.0}, {"alpha": 0.1, "lr": 0.5}]),
    "adamw": ("adamw", [{"alpha": 0.1}, {"alpha": 0.3}, {"alpha": 0.3}]),
    "sgd": ("sgd", [{}, {"alpha": 0.1}, {"lr": 0.2}]),
    "sgd, momentum": ("sgd", [{"momentum": 0.9}, {"momentum": 0.0}, {"momentum": 0.5}]),
    "phases": ("adam", [{"phase_rate": 0.5, "alpha": 0.1}, {"phase_rate": 0.5}, {"phase_rate": 2}]),
}


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("solver", "settings"), SETTINGS.values(), ids=SETTINGS)
def test_steps_are_those_of_each_optimiser(solver, settings, transposed):
    """Of members of two sizes, some of which leave; rates change in between, as schedules do."""
    stacked = [Net(solver, 2 + i % 2, i, **params) for i, params in enumerate(settings)]
    alone = [Net(solver, 2 + i % 2, i, **params) for i, params in enumerate(settings)]
    tensors = StackedTensors([net.module_ for net in stacked], stacked[1].module_)
    has_phase = bool(stacked[0].later_)
    members, left = members_of(stacked), list(range(3))
    steps = StackedSteps(members, tensors, ["weight", "bias"] + ["other"] * (not has_phase))
    for step in range(N_STEPS):
        for k in range(1 + has_phase):
            gradients = gradients_of(tensors, steps.names_of(k), step, transposed)
            steps.step(k, gradients)
            for i, j in enumerate(left):
                net = alone[j]
                optimizer = net.optimizers_[k]
                if k:
                    for group in optimizer.param_groups:
                        group["lr"] = net.later_[0][0].rate * net.optimizer_.param_groups[0]["lr"]
                for name, p in net.module_.named_parameters():
                    own = tensors.part(name, gradients[name], i) if name in gradients else None
                    p.grad = None if own is None else own.clone().contiguous()
                optimizer.step()
        for net in [*stacked, *alone]:
            for group in net.optimizer_.param_groups:
                group["lr"] *= 0.9
        if step == 2:  # the second leaves
            leave(steps, tensors, 1, stacked[1])
            tensors.select(torch.tensor([0, 2]))
            members, left = [members[0], members[2]], [0, 2]
            steps.select(torch.tensor([0, 2]), members, tensors)
    for i, j in enumerate(left):
        leave(steps, tensors, i, stacked[j])
    for mine, theirs in zip(stacked, alone, strict=True):
        for p, q in zip(mine.module_.parameters(), theirs.module_.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-6)
        for own, other in zip(mine.optimizers_, theirs.optimizers_, strict=True):
            found, expected = own.state_dict()["state"], other.state_dict()["state"]
            found, expected = without_none(found), without_none(expected)
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
            assert all(v.is_contiguous() for kept in found.values() for v in kept.values())


def without_none(states):
    """SGD without momentum keeps None of every weight, which is as good as nothing."""
    found = {k: {n: v for n, v in s.items() if v is not None} for k, s in states.items()}
    return {k: s for k, s in found.items() if s}


def leave(steps, tensors, i, net):
    state = {**tensors.weights, **steps.state(len(next(iter(tensors.weights.values()))))}
    tensors.pull(i, net.module_, state)
    steps.pull(i, net, state, tensors)


def test_states_are_written_in_place():
    """So that copies of an earlier state can be put back where they are read from."""
    net = Net("adam", 2, 0)
    tensors = StackedTensors([net.module_], net.module_)
    steps = StackedSteps(members_of([net]), tensors, ["weight", "bias", "other"])
    steps.step(0, gradients_of(tensors, steps.names_of(0), 0, False))
    earlier = {k: v.clone() for k, v in {**tensors.weights, **steps.state(1)}.items()}
    steps.pull(0, net, earlier, tensors)
    kept = {k: dict(v) for k, v in net.optimizer_.state.items()}
    steps.step(0, gradients_of(tensors, steps.names_of(0), 1, False))
    steps.pull(0, net, {**tensors.weights, **steps.state(1)}, tensors)
    for p, state in kept.items():
        assert net.optimizer_.state[p].keys() == {"step", "exp_avg", "exp_avg_sq"}
        for name, value in state.items():
            assert net.optimizer_.state[p][name] is value
        assert float(state["step"]) == 2
    steps.pull(0, net, earlier, tensors)
    assert {float(state["step"]) for state in net.optimizer_.state.values()} == {1.0}


def test_nothing_is_kept_before_the_first_step():
    net = Net("adam", 2, 0)
    tensors = StackedTensors([net.module_], net.module_)
    steps = StackedSteps(members_of([net]), tensors, ["weight", "bias", "other"])
    leave(steps, tensors, 0, net)
    assert not net.optimizer_.state
