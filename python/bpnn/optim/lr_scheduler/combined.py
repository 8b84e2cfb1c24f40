"""Schedules made of others: one after the other, or all at once."""
from bisect import bisect_right

from bpnn.optim.lr_scheduler.base import LRScheduler
from bpnn.optim.lr_scheduler.plateau import ReduceLROnPlateau


class _Combined(LRScheduler):
    """What both share: the parts, checked, and their states."""

    def _take(self, schedulers, optimizer):
        name = type(self).__name__
        if len(schedulers) < 1:
            raise ValueError(f"{name} expects at least one scheduler, but got no scheduler.")
        optimizer = schedulers[0].optimizer if optimizer is None else optimizer
        for i, scheduler in enumerate(schedulers):
            if not hasattr(scheduler, "optimizer"):
                raise TypeError(f"{name} at index {i} should have `optimizer` as its attribute.")
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ValueError(
                    f"{name} does not support `ReduceLROnPlateau`, whose `step` needs a value, but got one at index {i}"
                )
            if scheduler.optimizer is not optimizer:
                raise ValueError(
                    f"{name} expects all schedulers to belong to the same optimizer, but the one at index {i}, "
                    f"{type(scheduler).__name__}, belongs to another"
                )
        self._schedulers = list(schedulers)
        self.optimizer = optimizer

    def _to_initial(self):
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"]

    def state_dict(self):
        """The states of the parts are in "_schedulers"."""
        return {**super().state_dict(), "_schedulers": [scheduler.state_dict() for scheduler in self._schedulers]}

    def load_state_dict(self, state_dict):
        parts = state_dict["_schedulers"]
        if len(parts) != len(self._schedulers):
            raise ValueError(f"state_dict: expected the states of {len(self._schedulers)} schedulers, got {len(parts)}")
        for key in (self.__dict__.keys() & state_dict.keys()) - {"optimizer", "_schedulers"}:
            setattr(self, key, state_dict[key])
        for scheduler, part in zip(self._schedulers, parts):
            scheduler.load_state_dict(part)


class SequentialLR(_Combined):
    """One schedule after the other: `schedulers[i]` until step `milestones[i]`, where the next starts from its first step.

    Args:
        optimizer: the optimizer that all of them have.
        schedulers: the parts, in order.
        milestones: the steps at which the second, third, … begins.
        last_epoch: see `LRScheduler`.
    """

    def __init__(self, optimizer, schedulers, milestones, last_epoch=-1):
        self._take(schedulers, optimizer)
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(
                "Sequential Schedulers expects number of schedulers provided to be one more than the number of milestone "
                f"points, but got number of schedulers {len(schedulers)} and the number of milestones to be equal to "
                f"{len(milestones)}"
            )
        self._milestones = list(milestones)
        self.last_epoch = last_epoch + 1
        # Each part set its first rates when it was made; take all of that back and start the one that is first.
        self._to_initial()
        _undo(self)
        first = self._schedulers[bisect_right(self._milestones, 0)]
        first._initial_step()
        self._last_lr = first.get_last_lr()

    def step(self):
        """Set the rates of the next step."""
        self.last_epoch += 1
        i = bisect_right(self._milestones, self.last_epoch)
        part = self._schedulers[i]
        if i > 0 and self._milestones[i - 1] == self.last_epoch:
            part._update_lr(0)
        else:
            part.step()
        self._last_lr = part.get_last_lr()

    def _update_lr(self, epoch=None):
        """Start again from the first step: what a schedule around this one asks for at its milestone."""
        self.last_epoch = 0
        part = self._schedulers[bisect_right(self._milestones, 0)]
        part._update_lr(0)
        self._last_lr = part.get_last_lr()


class ChainedScheduler(_Combined):
    """All schedules at once: each changes the rate that the one before it left.

    Args:
        schedulers: the parts, all of one optimizer.
        optimizer: that optimizer; the first part's where not given.
    """

    def __init__(self, schedulers, optimizer=None):
        self._take(schedulers, optimizer)
        self._last_lr = self._present()

    def step(self):
        """Set the rates of the next step."""
        for scheduler in self._schedulers:
            scheduler.step()
        self._last_lr = self._present()

    def _update_lr(self, epoch=None):
        """Start again from the first step: what a schedule around this one asks for at its milestone."""
        self._to_initial()
        _undo(self, to=-1)
        for scheduler in self._schedulers:
            scheduler._initial_step()
        self._last_lr = self._present()


def _undo(scheduler, to=None):
    """Take back the first step of a schedule and of all its parts; with `to`, all steps."""
    if hasattr(scheduler, "_schedulers"):
        for part in scheduler._schedulers:
            _undo(part, to)
    else:
        scheduler.last_epoch = scheduler.last_epoch - 1 if to is None else to
