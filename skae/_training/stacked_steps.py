"""Element-wise optimiser steps of a stack, in one call for all members with equal settings."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from skae._training.stacked_member import Member, rate_of
from skae._training.stacked_weights import StackedTensors

# Name of the number of steps among the states of the optimisers.
_N_STEPS = "n_steps"
_STATES = {"adam": ("exp_avg", "exp_avg_sq"), "adamw": ("exp_avg", "exp_avg_sq")}


class _Part:
    """Weights of adjacent members with equal settings, which all decay or all do not."""

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha
        self.names: list[str] = []
        self.weights: list[Tensor] = []
        self.states: list[list[Tensor]] = [[], []]
        self.counts: list[Tensor] = []


class StackedSteps:
    """Optimisers of the loss and of each later phase, for all members.

    Parameters
    ----------
    members : list of Member
        The members; those with equal settings are adjacent.
    tensors : StackedTensors
        Their weights.
    trained : list of str
        Names of the weights for which the loss has a gradient.
    """

    def __init__(self, members: list[Member], tensors: StackedTensors, trained: list[str]) -> None:
        net = members[0].net
        self.solver = net.solver
        named = {id(p): name for name, p in net.module_.named_parameters()}
        self._decayed = {named[id(p)] for p in net.module_.decayed()}
        phases = [phase for phase, _ in net.later_]
        self._names = [trained] + [
            [named[id(p)] for p in phase.parameters if p.requires_grad] for phase in phases
        ]
        self._decays = [True, *(phase.decays for phase in phases)]
        self._states: list[dict[str, list[Tensor]]] = []
        self._kept = _STATES.get(self.solver, ("momentum_buffer",))
        for names in self._names:
            self._states.append(
                {n: [torch.zeros_like(tensors.weights[n]) for _ in self._kept] for n in names}
            )
        self._n_steps = 0
        self._arrange(members, tensors)

    def names_of(self, k: int) -> list[str]:
        """Return the names of the weights that the k-th optimiser changes."""
        return self._names[k]

    def _arrange(self, members: list[Member], tensors: StackedTensors) -> None:
        """Divide the members into groups of neighbours with equal settings."""
        starts = [
            i
            for i in range(len(members))
            if i == 0 or members[i].settings != members[i - 1].settings
        ]
        ends = [*starts[1:], len(members)]
        self._runs = [
            (
                members[a].net,
                slice(a, b),
                [
                    self._parts(k, members[a].net, slice(a, b), tensors)
                    for k in range(len(self._names))
                ],
            )
            for a, b in zip(starts, ends, strict=True)
        ]

    def _parts(self, k: int, net: Any, of: slice, tensors: StackedTensors) -> list[_Part]:
        alpha = float(net.alpha) * self._decays[k]
        parts = {True: _Part(alpha), False: _Part(0.0)}
        for name in self._names[k]:
            part = parts[alpha > 0 and name in self._decayed]
            part.names.append(name)
            part.weights.append(tensors.weights[name][of])
            for kept, state in zip(part.states, self._states[k][name], strict=False):
                kept.append(state[of])
            part.counts.append(torch.tensor(float(self._n_steps), device=part.weights[-1].device))
        return [part for part in parts.values() if part.names]

    @torch.no_grad()
    def step(self, k: int, gradients: dict[str, Tensor]) -> None:
        """Take a step of the k-th optimiser of every member."""
        self._n_steps += k == 0
        for net, of, parts in self._runs:
            rate = rate_of(net) * (net.later_[k - 1][0].rate if k else 1.0)
            for part in parts[k]:
                # Fused steps read memory in sequence, whatever the strides are (torch 2.13).
                own = [gradients[name][of].contiguous() for name in part.names]
                self._step_part(part, rate, net, own)

    def _step_part(self, part: _Part, rate: float, net: Any, gradients: list[Tensor]) -> None:
        if self.solver == "sgd":
            momentum = float(net.momentum)
            sgd(
                part.weights,
                gradients,
                list(part.states[0]) if momentum else [None] * len(gradients),
                fused=True,
                weight_decay=part.alpha,
                momentum=momentum,
                lr=rate,
                dampening=0.0,
                nesterov=momentum > 0,
                maximize=False,
            )
            return
        (adam if self.solver == "adam" else adamw)(
            part.weights,
            gradients,
            part.states[0],
            part.states[1],
            [],  # max_exp_avg_sqs, which only amsgrad uses
            part.counts,
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=rate,
            weight_decay=part.alpha,
            eps=1e-8,
            maximize=False,
        )

    # ------------------------------------------------------------------------- states

    def state(self, n_members: int) -> dict[Any, Tensor]:
        """Return states and step counts by optimiser, weight and name."""
        found: dict[Any, Tensor] = {
            (k, name, j): state
            for k, states in enumerate(self._states)
            for name, kept in states.items()
            for j, state in enumerate(kept)
        }
        found[_N_STEPS] = torch.full((n_members,), float(self._n_steps))
        return found

    def select(self, index: Tensor, members: list[Member], tensors: StackedTensors) -> None:
        """Continue with these members only."""
        for states in self._states:
            for name, kept in states.items():
                states[name] = [s.index_select(0, index.to(s.device)) for s in kept]
        self._arrange(members, tensors)

    def restore(self, members: list[Member], tensors: StackedTensors, n_steps: int) -> None:
        """Copy the states of the members' own optimisers, after this number of steps."""
        self._n_steps = n_steps
        for i, member in enumerate(members):
            for k, name, j, own in self._of_optimizers(member.net):
                tensors.put_part(name, self._states[k][name][j], i, own)
        self._arrange(members, tensors)

    def _of_optimizers(self, net: Any) -> Iterator[tuple[int, str, int, Tensor]]:
        """Yield the states in a net's own optimisers, by optimiser, weight and position."""
        named = dict(net.module_.named_parameters())
        for k, optimizer in enumerate(net.optimizers_):
            for name in self._names[k]:
                states = optimizer.state.get(named[name], {})
                for j, called in enumerate(self._kept):
                    if called in states:
                        yield k, name, j, states[called]

    def pull(self, i: int, net: Any, state: dict[Any, Tensor], tensors: StackedTensors) -> None:
        """Write a member's part of a state to the optimisers of its net, in place.

        Writing in place keeps the tensors that a snapshot may restore later.
        """
        if not self._n_steps or (self.solver == "sgd" and not net.momentum):
            return
        named = dict(net.module_.named_parameters())
        for k, optimizer in enumerate(net.optimizers_):
            for name in self._names[k]:
                own: dict[str, Tensor] = {}
                if self.solver != "sgd":
                    own["step"] = state[_N_STEPS][i].to(named[name].device)
                for j, called in enumerate(self._kept):
                    own[called] = tensors.part(name, state[k, name, j], i)
                mine = optimizer.state[named[name]]
                for called, value in own.items():
                    if called in mine:
                        mine[called].copy_(value)
                    else:
                        mine[called] = value.clone(memory_format=torch.contiguous_format)
