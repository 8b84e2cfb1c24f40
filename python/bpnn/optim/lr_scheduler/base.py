"""What all schedules share: counting steps, setting rates, saving."""
import warnings

from bpnn.optim.optimizer import Optimizer


class LRScheduler:
    """Base class of the schedules.

    A schedule sets `group["lr"]` of every group of its optimizer, once when it is made and then at every `step()`. Call
    `step()` after `optimizer.step()`. `last_epoch` counts its steps from 0; `base_lrs` are the rates the groups started with
    (`group["initial_lr"]`).

    A new schedule defines `get_lr`: the list of the groups' rates at `last_epoch`. Those here go from the present rate to the
    next where PyTorch's do, so that a rate changed by hand, or by another schedule, is taken along. `closed_form`, where
    defined, is the rate as a function of `last_epoch` alone; it is used to jump (`step(epoch)`).

    Args:
        optimizer: the optimizer whose rates are set.
        last_epoch: -1, or how many steps a run that is continued has made; its groups must have "initial_lr".
    """

    closed_form = None
    _is_initial = False                # while the schedule sets its first rates

    def __init__(self, optimizer, last_epoch=-1):
        self.optimizer = check_optimizer(optimizer)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param 'initial_lr' is not specified in param_groups[{i}] when resuming scheduler with "
                    f"last_epoch={last_epoch}; load the optimizer's state first"
                )
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._initial_step()

    def _initial_step(self):
        """Set the rates of the first step."""
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            del self._is_initial

    def get_lr(self):
        """The rates at `last_epoch`, one for each group."""
        raise TypeError(f"{type(self).__name__}: expected a method get_lr() of its own")

    def get_last_lr(self):
        """The rates set last, one for each group."""
        return self._last_lr

    def step(self, epoch=None):
        """Set the rates of the next step; with `epoch`, those of that step (PyTorch deprecates this)."""
        self._check_order()
        self._step_count += 1
        if epoch is not None:
            warnings.warn("scheduler.step(epoch) is deprecated; call scheduler.step() without it", stacklevel=2)
        self._update_lr(epoch)

    def _check_order(self):
        """Warn at the first step where the optimizer has made none."""
        # An optimizer with a step of its own does not tell.
        tells = type(self.optimizer).step is Optimizer.step
        if self._step_count == 1 and tells and not self.optimizer._step_called:
            warnings.warn(
                "Detected call of `lr_scheduler.step()` before `optimizer.step()`. Call them in the opposite order: "
                "the first value of the schedule is skipped otherwise.",
                stacklevel=3,
            )

    def _update_lr(self, epoch=None):
        if epoch is None:
            self.last_epoch += 1
            rates = self.get_lr()
        else:
            self.last_epoch = epoch
            rates = self.get_lr() if self.closed_form is None else [self.closed_form(base) for base in self.base_lrs]
        self._set(rates)

    def _set(self, rates):
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        self._last_lr = self._present()

    def _present(self):
        """The rates as they are."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self):
        """Everything but the optimizer, as a dict of numbers, lists and strings."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state_dict):
        """Take over a state. Entries that this schedule does not have are left out."""
        if "last_epoch" not in state_dict:
            raise ValueError(f"state_dict: expected the state of a scheduler, with 'last_epoch', got keys {sorted(state_dict)}")
        self.__dict__.update({key: value for key, value in state_dict.items() if key in self.__dict__ and key != "optimizer"})


def check_optimizer(optimizer):
    """`optimizer`, if it is one."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer: {type(optimizer).__name__} is not an Optimizer")
    return optimizer


def for_each_group(name, optimizer, value):
    """A list with `value`, or its items, for each group of the optimizer."""
    count = len(optimizer.param_groups)
    if not isinstance(value, (list, tuple)):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name} must have the same length as optimizer.param_groups: expected {count}, got {len(value)}")
    return list(value)
