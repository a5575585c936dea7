"""A stack: networks of the same kind that are trained in common operations.

Weights, batches and losses get an additional first dimension, so that a step needs as many
operations as a step of one network. Each member gets the batches and the draws of a separate
training, and ends with the same weights, optimiser states and history, apart from rounding. Before
the first step, the gradient is compared with the one that the module's own code computes. If they
differ, the networks are trained separately.

Members may differ in size along the axes that `TrainableModule.blocks` names. They are padded to
the size of the largest with weights that have no effect.
"""

import time
from collections.abc import Mapping
from copy import deepcopy
from functools import partial, reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from skae._training.averaging import show_latest
from skae._training.checkpoints import StoredState
from skae._training.contexts import stacking
from skae._training.data import Batch
from skae._training.module import Loss
from skae._training.progress import JointProgress
from skae._training.recorded import Recorded, leaves_of
from skae._training.stack_checkpoint import StackCheckpoint
from skae._training.stacked_batches import StackedBatch, StackedBatches
from skae._training.stacked_member import Member, without_twins
from skae._training.stacked_steps import StackedSteps
from skae._training.stacked_weights import Numbers, StackedTensors
from skae._utils.memory import is_lack_of_memory

# Largest difference of losses and gradients, relative to the largest, in float32 and in bfloat16.
_ROUNDING, _ROUNDING_OF_BFLOAT16 = 1e-3, 0.1


class Unequal(Exception):
    """Raised if the stack would not compute the same as its members."""


class _Computed(NamedTuple):
    """Results of a step for all members."""

    gradients: dict[str, Tensor]
    terms: dict[str, Tensor]
    logged: dict[str, Tensor]
    output: Tensor
    aux: tuple[Tensor, ...]


class Stack:
    """Networks that are trained in common operations.

    Parameters
    ----------
    nets : list of Net
        Nets with the same `signature`, prepared for training.
    epochs : list of int
        Number of epochs of each net.
    stored : StoredState, default=None
        File of the checkpoints of the stack.

    Raises
    ------
    Unequal
        If the stack would not compute the same as its members.
    """

    def __init__(
        self, nets: list[Any], epochs: list[int], stored: StoredState | None = None
    ) -> None:
        # Members with equal settings are adjacent, so that one call takes all their steps.
        members = [Member(net, n, i) for i, (net, n) in enumerate(zip(nets, epochs, strict=True))]
        everyone = sorted(members, key=lambda member: repr(member.settings))
        self.members, self.n_nets = without_twins(everyone), len(nets)
        try:
            self._set_up(nets)
        except Unequal:
            for member in everyone:
                member.leave()
            raise
        self.checkpoint = None if stored is None else StackCheckpoint(stored, self.members)

    def _set_up(self, nets: list[Any]) -> None:
        """Stack the states of the members, and compare a step with the members' own code."""
        largest = max(nets, key=lambda net: sum(p.numel() for p in net.module_.parameters()))
        self.precision = largest._precision
        self.template = deepcopy(largest.module_).train()
        self.followed = self.template.followed()
        modules = [member.net.module_ for member in self.members]
        self.tensors = StackedTensors(modules, self.template)
        self.numbers = Numbers(modules, self.template)
        self.batches = StackedBatches([member.net for member in self.members], self.template)
        self._recorded: dict[Any, Recorded] = {}
        self._generations: list[dict[Any, Tensor]] = []
        for i, member in enumerate(self.members):
            member.seed_epoch(0)
            member.push_buffers(self.tensors, i)
        for batch in self.batches.epoch(of_each_size=True):
            found = self._compute(batch.stacked)
            trained = self._proven(batch, found)
        self.steps = StackedSteps(self.members, self.tensors, trained)
        for k in range(len(self.members[0].net.later_)):
            self._prove_phase(k, batch, found)

    # ------------------------------------------- comparison with the members' own code

    def _proven(self, batch: StackedBatch, found: _Computed) -> list[str]:
        """Compare losses and gradients with the members' own code; return the trained weights."""
        names: list[str] = []
        for i, member in enumerate(self.members):
            terms, gradients = member.own_gradients(batch.of_members[i])
            names = list(gradients)
            if terms.keys() != found.terms.keys():
                raise Unequal("its loss has terms of its own")
            pairs = [(terms[name], found.terms[name][i]) for name in terms]
            pairs += [
                (gradients[name], self.tensors.part(name, found.gradients[name], i))
                for name in names
            ]
            self._compare(pairs)
        return names

    def _prove_phase(self, k: int, batch: StackedBatch, found: _Computed) -> None:
        """Compare the loss of a later phase and its gradients with the members' own code."""
        gradients, losses = self._compute_phase(k, batch.stacked, found)
        for i, (member, own) in enumerate(zip(self.members, batch.of_members, strict=True)):
            loss, of_member = member.own_phase(k, own)
            pairs = [
                (value, self.tensors.part(name, gradients[name], i))
                for name, value in of_member.items()
            ]
            self._compare([(loss, losses[i]), *pairs])

    def _compare(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        wide = self.members[0].net.autocast is None
        tolerance = _ROUNDING if wide else _ROUNDING_OF_BFLOAT16
        for own, stacked in pairs:
            limit = tolerance * float(own.abs().max()) + 1e-6
            if not bool(((own - stacked).abs() <= limit).all()):
                raise Unequal("in a stack its gradients would differ")

    # --------------------------------------------------------------------------- training

    def run(self) -> list[BaseException | None]:
        """Train all members; return for each net the error that ended its training early."""
        outcomes: list[BaseException | None] = [None] * self.n_nets
        nets = [one.net for m in self.members for one in (m, *m.twins)]
        progress = JointProgress(nets, self._resume(outcomes))
        try:
            self._end({m: None for m in self.members if m.is_complete}, outcomes)
            while self.members:
                self._epoch(outcomes)
                progress.update()
                self._store()
            if self.checkpoint is not None:
                self.checkpoint.complete()
        finally:  # also after an interruption
            is_complete = not self.members
            self.checkpoint = None
            self._end(dict.fromkeys(self.members), outcomes)
            progress.close(is_complete)
        return outcomes

    def _resume(self, outcomes: list[BaseException | None]) -> int:
        """Restore a checkpoint, if there is one; return the number of complete epochs."""
        ended = None if self.checkpoint is None else self.checkpoint.resume()
        if ended is None:
            return 0
        modules = [member.net.module_ for member in self.members]
        for module in modules:
            show_latest(module)
        self.tensors = StackedTensors(modules, self.template)
        live = [member for member in self.members if member not in ended]
        n_epochs = max(len(member.net.history_) for member in live or self.members)
        n_steps = n_epochs * self.members[0].net.steps_per_epoch
        self.steps.restore(self.members, self.tensors, n_steps)
        for member, error in ended.items():
            for one in (member, *member.twins):
                outcomes[one.place] = error
                one.leave()
        self._keep([i for i, member in enumerate(self.members) if member not in ended])
        if self.members and self.members[0].takes_snapshots:
            self._take_snapshot()
        return n_epochs

    def _store(self) -> None:
        """Write a checkpoint, if it is time."""
        epoch = len(self.members[0].net.history_) if self.members else 0
        if self.checkpoint is None or not self.members or not self.checkpoint.is_due(epoch):
            return
        state = self._state()
        for i, member in enumerate(self.members):
            self._write(member, i, state)
        self.checkpoint.save(epoch)

    def _epoch(self, outcomes: list[BaseException | None]) -> None:
        start = time.perf_counter()
        self._end(_errors({member: member.open_epoch() for member in self.members}), outcomes)
        if not self.members:
            return
        for i, member in enumerate(self.members):
            member.push_buffers(self.tensors, i)
        losses, weights = [], []
        for batch in self.batches.epoch():
            found, logged = self._step(batch)
            losses.append({**found.terms, **logged})
            weights.append(batch.weights)
        means = _means(losses, torch.stack(weights))
        seconds = (time.perf_counter() - start) / len(self.members)
        diverged: dict[Member, BaseException | None] = {}
        for i, member in enumerate(self.members):
            of_member = {name: values[i] for name, values in means.items()}
            diverged[member] = member.record(of_member, list(found.terms), seconds)
        self._end(_errors(diverged), outcomes)
        if not self.members:
            return
        ended: dict[Member, BaseException | None] = {}
        for i, member in enumerate(self.members):
            if member.has_listeners:
                self.tensors.pull(i, member.net.module_)
            error = member.close_epoch()
            if error is not None or member.is_complete:
                ended[member] = error
        if self.members[0].takes_snapshots:
            self._take_snapshot()
        self._end(ended, outcomes)

    def _step(self, batch: StackedBatch) -> tuple[_Computed, dict[str, Tensor]]:
        """Take a step of all members with its phases; return the results and the logged values."""
        found = self._compute(batch.stacked)
        self.steps.step(0, found.gradients)
        logged = dict(found.logged)
        for k, (phase, _) in enumerate(self.members[0].net.later_):
            gradients, logged[phase.name] = self._compute_phase(k, batch.stacked, found)
            self.steps.step(1 + k, gradients)
        if self.template.follows_alone:
            self._follow_one_by_one(batch, found)
        elif self.followed:
            self._follow(batch.stacked, found)
        self.tensors.average([member.net.weight_averaging for member in self.members])
        for member in self.members:
            member.after_step()
        return found, logged

    def _follow_one_by_one(self, batch: StackedBatch, found: _Computed) -> None:
        """Call the members' own `after_step`, which the stack cannot compute."""
        for i, (member, own) in enumerate(zip(self.members, batch.of_members, strict=True)):
            n, module = len(own.x), member.net.module_
            self.tensors.pull(i, module, names=self.followed)
            aux = tuple(value[i, :n] for value in found.aux)
            module.after_step(own, Loss({}, found.output[i, :n], aux))
            self.tensors.push(i, module, self.followed)

    # ---------------------------------------------------------------- computations

    def _compute(self, batch: Batch) -> _Computed:
        """Compute the losses of all members and their gradients."""
        tensors = self.tensors
        arguments = (tensors.weights, tensors.buffers, self.numbers.values, _present(batch))
        return _Computed(*self._run_recorded("loss", self._loss_of_one, arguments))

    def _loss_of_one(self, weights: Any, buffers: Any, numbers: Any, given: Any) -> Any:
        batch = _batch_of(given)

        def objective(weights: dict[str, Tensor]) -> Any:
            def compute() -> tuple[Tensor, Loss]:
                loss = self.template.loss(batch)
                return reduce(torch.add, loss.terms.values()) * self.template.step_scale(), loss

            total, loss = self._call(weights, buffers, numbers, compute)
            return total, (loss.terms, dict(loss.logged), loss.output, loss.aux)

        gradients, (_, found) = grad_and_value(objective, has_aux=True)(weights)
        terms, logged, output, aux = found
        return gradients, terms, logged, output, aux

    def _follow(self, batch: Batch, found: _Computed) -> None:
        """Update the buffers after a step."""
        tensors = self.tensors
        arguments = (
            tensors.weights,
            tensors.buffers,
            self.numbers.values,
            _present(batch),
            (found.output, found.aux),
        )

        def of_one(weights: Any, buffers: Any, numbers: Any, given: Any, loss: Any) -> Any:
            changed = {name: value.clone() for name, value in buffers.items()}
            after = Loss({}, *loss)
            follow = partial(self.template.after_step, _batch_of(given), after)
            self._call(weights, changed, numbers, follow)
            return {name: changed[name] for name in self.followed}

        for name, values in self._run_recorded("follow", of_one, arguments).items():
            tensors.buffers[name].copy_(values)

    def _compute_phase(
        self, k: int, batch: Batch, found: _Computed
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Compute the gradients of a later phase and its losses."""
        trained = self.steps.names_of(1 + k)
        weights = self.tensors.weights
        arguments = (
            {name: weights[name] for name in trained},
            {name: values for name, values in weights.items() if name not in trained},
            self.tensors.buffers,
            self.numbers.values,
            _present(batch),
            (found.output, found.aux),
        )

        def of_one(
            own: Any, others: Any, buffers: Any, numbers: Any, given: Any, before: Any
        ) -> Any:
            def objective(own: dict[str, Tensor]) -> Any:
                def compute() -> Tensor:
                    phase = self.template.phases()[k]
                    return phase.loss(_batch_of(given), Loss({}, *before))

                return self._call({**own, **others}, buffers, numbers, compute)

            return grad_and_value(objective)(own)

        gradients, losses = self._run_recorded(k, of_one, arguments)
        return gradients, losses

    def _call(self, weights: Any, buffers: Any, numbers: Any, compute: Any) -> Any:
        """Return the result of the template module with these weights, buffers and numbers."""
        given = {f"module.{name}": value for name, value in {**weights, **buffers}.items()}
        with self.numbers.set_to(numbers), self.precision():
            return functional_call(_Calls(self.template, compute), given, ())

    def _run_recorded(self, what: Any, of_one: Any, arguments: Any) -> Any:
        """Return `of_one` for every member; its operations are recorded once for these shapes."""
        key = (what, *(tensor.shape for tensor in leaves_of(arguments)))
        if key not in self._recorded:
            with stacking(), torch.enable_grad():
                try:
                    self._recorded[key] = Recorded(vmap(of_one), arguments)
                except (RuntimeError, NotImplementedError, ValueError) as error:
                    if is_lack_of_memory(error):
                        raise
                    raise Unequal(f"its operations cannot be stacked ({error})") from error
        return self._recorded[key](*arguments)

    # ---------------------------------------------------------- states of the members

    def _state(self) -> dict[Any, Tensor]:
        """Return all tensors that training changes."""
        return {**self.tensors.all(), **self.steps.state(len(self.members))}

    def _take_snapshot(self) -> None:
        """Copy all tensors that training changes; the copies of the last two epochs are kept."""
        state = self._state()
        if len(self._generations) == 2 and self._generations[-1].keys() == state.keys():
            copies = self._generations.pop()
            for name, values in state.items():
                copies[name].copy_(values)
        else:
            copies = {name: values.clone() for name, values in state.items()}
        self._generations = [copies, *self._generations[:1]]

    def _end(
        self, ended: Mapping[Member, BaseException | None], outcomes: list[BaseException | None]
    ) -> None:
        """Return the trained states to the members that ended, and continue with the others."""
        if not ended:
            return
        for member, error in ended.items():
            i = self.members.index(member)
            for twin in member.twins:
                twin.live_as(member)
            for one in (member, *member.twins):
                outcomes[one.place] = error
                self._give_back(one, i)
            if self.checkpoint is not None:
                self.checkpoint.end(member, error)
        self._keep([i for i, member in enumerate(self.members) if member not in ended])

    def _keep(self, left: list[int]) -> None:
        """Continue with the members at these positions."""
        self.members = [self.members[i] for i in left]
        if not left:
            return
        index = torch.tensor(left)
        self.tensors.select(index)
        self.numbers.select(index)
        self.steps.select(index, self.members, self.tensors)
        self.batches = StackedBatches([member.net for member in self.members], self.template)
        self._generations = [
            {name: values.index_select(0, index.to(values.device)) for name, values in g.items()}
            for g in self._generations
        ]

    def _give_back(self, member: Member, i: int) -> None:
        """Write the present state of a member to its net, with snapshots of the last epochs."""
        newest = len(member.net.history_) - member.is_amid_epoch
        for age, generation in reversed(list(enumerate(self._generations))):
            self._write(member, i, generation)
            if member.takes_snapshots:
                member.net.snapshot_.take(newest - age)
        self._write(member, i, self._state())
        member.leave()

    def _write(self, member: Member, i: int, state: dict[Any, Tensor]) -> None:
        self.tensors.pull(i, member.net.module_, state)
        self.steps.pull(i, member.net, state, self.tensors)


class _Calls(nn.Module):
    """A module whose forward pass is a function of another module."""

    def __init__(self, module: nn.Module, compute: Any) -> None:
        super().__init__()
        self.module, self.compute = module, compute

    def forward(self) -> Any:
        return self.compute()


def _errors(
    of_members: Mapping[Member, BaseException | None],
) -> dict[Member, BaseException | None]:
    """Return the members whose training has ended with their errors."""
    return {member: error for member, error in of_members.items() if error is not None}


def _present(batch: Batch) -> dict[str, Tensor]:
    """Return the fields of a batch that are not None."""
    return {name: value for name, value in batch._asdict().items() if value is not None}


def _batch_of(given: dict[str, Tensor]) -> Batch:
    return Batch(**{**dict.fromkeys(Batch._fields), **given})  # type: ignore[arg-type]


def _means(losses: list[dict[str, Tensor]], weights: Tensor) -> dict[str, list[float]]:
    """Return the means of all losses over the rows of an epoch; weights (n_steps, n_members)."""
    share = weights / weights.sum(0)
    return {
        name: (torch.stack([step[name] for step in losses]).cpu().double() * share).sum(0).tolist()
        for name in losses[0]
    }
