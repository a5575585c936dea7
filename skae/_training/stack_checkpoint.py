"""The checkpoint of a stack: one file for all members, which must go on from the same epoch.

Rounding in a stack depends on its members. A stack that goes on therefore has the same members
again. When all have ended, each has the file of its own training.
"""

from typing import Any

from skae._training.callbacks import Diverged, StoppedFromOutside, TrainingStopped
from skae._training.checkpoints import StoredState
from skae._training.digests import digest_of
from skae._training.net_state import checkpoint_of, is_usable, restore
from skae._training.stacked_member import Member


def joint_file(nets: list[Any]) -> StoredState | None:
    """Return the file for the checkpoints of these nets together; None if they write none."""
    first = nets[0].checkpoint_
    if first is None:
        return None
    key = digest_of("together", *(net.checkpoint_.stored.key for net in nets))
    return first.stored.beside("together", key)


class StackCheckpoint:
    """The state of all members of a stack, in a file.

    Parameters
    ----------
    stored : StoredState
        The file.
    members : list of Member
        The members, all of which write checkpoints.
    """

    def __init__(self, stored: StoredState, members: list[Member]) -> None:
        self.stored, self.members = stored, list(members)
        self.every = min(member.net.checkpoint_.every for member in members)
        self._ended: dict[Member, BaseException | None] = {}
        self._restored: dict[Member, BaseException | None] = {}  # those that ended before
        self._is_writable = True

    def resume(self) -> dict[Member, BaseException | None] | None:
        """Restore all members; return those that have ended with their outcomes.

        Returns None if there is no file.
        """
        state = self.stored.load()
        if state is None:
            return None
        with self.stored.restoring():
            for member, saved in zip(self.members, state["members"], strict=True):
                for one in (member, *member.twins):
                    restore(one.net, saved["net"])
                    if saved["snapshots"] is not None:
                        one.net.snapshot_.load_state_dict(saved["snapshots"])
                if saved["end"] is not None:
                    self._ended[member] = _outcome(saved["end"])
        self._restored = dict(self._ended)
        return self._restored

    def end(self, member: Member, error: BaseException | None) -> None:
        """Record the outcome of a member."""
        self._ended[member] = error
        if not isinstance(error, Diverged | TrainingStopped | None):
            self._is_writable = False  # the fit will fail

    def is_due(self, epoch: int) -> bool:
        """Return whether the state after this epoch is to be written."""
        return self._is_writable and epoch % self.every == 0

    def save(self, epoch: int) -> None:
        """Write the state of the nets, unless training cannot go on from it."""
        live = (member for member in self.members if member not in self._ended)
        if self._is_writable and all(is_usable(member.net) for member in live):
            state = {"members": [self._state_of(member) for member in self.members]}
            self.stored.save(state, f"after epoch {epoch}")

    def _state_of(self, member: Member) -> dict[str, Any]:
        end, snapshots = None, None
        if member in self._ended:
            error = self._ended[member]
            end = [type(error).__name__, str(error)]
            if isinstance(error, Diverged):  # an earlier state will be restored
                snapshots = member.net.snapshot_.state_dict()
        return {"net": checkpoint_of(member.net), "end": end, "snapshots": snapshots}

    def complete(self) -> None:
        """Write the final state of each member to the file of its own training.

        This file is then removed, unless a member has diverged and has no final state.
        """
        if not self._is_writable:
            return
        # Until all members have their files, a fit that is killed goes on from this one.
        if len(self._restored) < len(self.members):
            self.save(max(len(member.net.history_) for member in self.members))
        if any(isinstance(error, Diverged) for error in self._ended.values()):
            return
        for member in self.members:
            for one in (member, *member.twins):
                one.net.checkpoint_.save_final(one.net, self._ended[member])
        self.stored.remove()


def _outcome(end: list[str]) -> BaseException | None:
    """Return the outcome of a member from its name and text."""
    kind, text = end
    if kind == "NoneType":
        return None
    kinds = (Diverged, StoppedFromOutside, TrainingStopped)
    return {known.__name__: known for known in kinds}[kind](text)
