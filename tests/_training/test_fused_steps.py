"""Steps that are taken without torch's optimiser are its own steps, bit for bit."""

import copy

import pytest
import torch
from skorch.callbacks import Callback
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from helpers import make_rows, network
from skae._training.fused_steps import FusedSteps

N_STEPS = 6


class Trained:
    """A small network, its optimiser, and what takes the steps."""

    def __init__(self, kind, decay, fused):
        generator = torch.Generator().manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
        for p in self.net.parameters():
            nn.init.normal_(p, generator=generator)
        groups = [
            {"params": [p for p in self.net.parameters() if p.ndim > 1], "weight_decay": decay},
            {"params": [p for p in self.net.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ]
        self.optimizer = kind(groups, lr=0.01, fused=True)
        self.stepper = FusedSteps(self.optimizer) if fused else self.optimizer

    def train(self, between):
        """Some steps on the same rows."""
        x = torch.linspace(-1, 1, 28).reshape(7, 4)
        for step in range(N_STEPS):
            self.stepper.zero_grad()
            (self.net(x) - 1).square().mean().backward()
            self.stepper.step()
            between(step, self)

    def values(self):
        """Weights and states."""
        state = [v for p in self.net.parameters() for v in self.optimizer.state[p].values()]
        return [*self.net.parameters(), *(v for v in state if isinstance(v, torch.Tensor))]


@pytest.fixture
def n_own_steps(monkeypatch):
    """Of every optimiser's own `step`, how often it was called, while `FusedSteps` are taken."""
    calls = []
    for kind in (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD):
        if "step" not in vars(kind):  # it is inherited, and counted there
            continue
        step = kind.step

        def counted(self, closure=None, step=step):
            calls.append(self)
            return step(self, closure)

        monkeypatch.setattr(kind, "step", counted)
    return lambda optimizer: sum(called is optimizer for called in calls)


def same_steps(kind, decay, n_own_steps, between=lambda step, trained: None):
    """How many of the steps the optimiser took itself, where all are as if it had taken all."""
    by_itself, fused = (Trained(kind, decay, fused) for fused in (False, True))
    for trained in (by_itself, fused):
        trained.train(between)
    for first, second in zip(by_itself.values(), fused.values(), strict=True):
        assert torch.equal(first, second)
    return n_own_steps(fused.optimizer)


@pytest.mark.parametrize(
    ("kind", "decay", "expected"),
    [
        (torch.optim.Adam, 0.0, 1),
        (torch.optim.Adam, 0.1, 1),
        (torch.optim.AdamW, 0.1, 1),
        (torch.optim.SGD, 0.1, N_STEPS),
    ],
)
def test_steps_are_those_of_the_optimiser(kind, decay, expected, n_own_steps):
    """Of Adam only the first is left to it, which makes the states; of SGD all are."""
    assert same_steps(kind, decay, n_own_steps) == expected


def test_settings_that_change_count_at_once(n_own_steps):
    """Of one group, of both, and once they are no longer the same for both."""

    def change(step, trained):
        first, second = trained.optimizer.param_groups
        if step == 1:
            first["lr"] = second["lr"] = 0.2
        if step == 2:
            first["lr"] = 0.003
        if step == 3:
            second["weight_decay"], first["betas"] = 0.5, (0.5, 0.6)

    assert same_steps(torch.optim.Adam, 0.0, n_own_steps, change) == 1


def test_states_that_are_replaced_count_at_once(n_own_steps):
    """As by a callback that loads a checkpoint."""
    kept = {}

    def load(step, trained):
        if step == 1:
            kept[trained] = copy.deepcopy(trained.optimizer.state_dict())
        if step == 3:
            trained.optimizer.load_state_dict(kept[trained])

    assert same_steps(torch.optim.Adam, 0.1, n_own_steps, load) == 1


def test_frozen_parameters_are_left_alone(n_own_steps):
    """They have no gradient, and stay as they are: at first, in between, and to the end."""

    def freeze(step, trained):
        trained.net[0].weight.requires_grad_(step not in (1, 2))
        trained.net[2].bias.requires_grad_(step < 4)

    assert same_steps(torch.optim.Adam, 0.1, n_own_steps, freeze) == 1


def test_parameters_that_are_added_are_trained(n_own_steps):
    """As by a callback that opens a layer: the step makes their states."""

    def add(step, trained):
        if step == 2:
            trained.extra = nn.Parameter(torch.ones(3))
            trained.optimizer.add_param_group({"params": [trained.extra], "weight_decay": 0.0})
        if step >= 2:
            trained.net[2].register_forward_hook(
                lambda module, args, out, extra=trained.extra: out * extra
            )

    same_steps(torch.optim.Adam, 0.0, n_own_steps, add)


def test_hooks_hear_of_every_step(n_own_steps):
    """A step that someone watches is the optimiser's own."""
    heard = {}

    def hook(step, trained):
        if step == 2:
            mine = heard.setdefault(trained, [])
            trained.optimizer.register_step_post_hook(lambda *args: mine.append(args))

    assert same_steps(torch.optim.Adam, 0.0, n_own_steps, hook) == 4
    first, second = heard.values()
    assert len(first) == len(second) >= N_STEPS - 3


def test_hooks_of_all_optimisers_hear_of_every_step(n_own_steps):
    """As of a profiler."""
    heard = []
    handle = register_optimizer_step_post_hook(lambda *args: heard.append(args))
    try:
        assert same_steps(torch.optim.Adam, 0.0, n_own_steps) == N_STEPS
    finally:
        handle.remove()
    assert len(heard) >= 2 * N_STEPS


def test_an_optimiser_that_a_callback_makes_anew_takes_the_steps():
    """With states of its own, from that epoch on."""

    class Anew(Callback):
        def on_epoch_begin(self, net, **kwargs):
            if len(net.history) == 3:
                net.initialize_optimizer()

    X = make_rows()
    plain, anew = network().fit(X), network(callbacks=[Anew()]).fit(X)
    losses = [[epoch["train_loss"] for epoch in model.history_] for model in (plain, anew)]
    assert losses[0][:2] == losses[1][:2]
    assert losses[0][3] != losses[1][3]
    steps = {int(state["step"]) for state in anew.net_.optimizer_.state.values()}
    assert steps == {2 * 4}


def test_schedules_of_skorch_hear_of_steps(recwarn):
    """torch warns where a rate changes before a step was taken."""
    from skorch.callbacks import LRScheduler

    network(callbacks=[LRScheduler("StepLR", step_size=1)]).fit(make_rows())
    assert not [w for w in recwarn if "lr_scheduler" in str(w.message)]


def test_training_takes_them(n_own_steps):
    """A fit leaves the first step to Adam; one whose callback hears of gradients, every step."""
    X = make_rows()

    class Hearing(Callback):
        def on_grad_computed(self, net, **kwargs):
            pass

    plain, heard = network().fit(X), network(callbacks=[Hearing()]).fit(X)
    assert n_own_steps(plain.net_.optimizer_) == 1
    assert n_own_steps(heard.net_.optimizer_) == 4 * 4
    for first, second in zip(
        plain.net_.module_.parameters(), heard.net_.module_.parameters(), strict=True
    ):
        torch.testing.assert_close(first, second)
