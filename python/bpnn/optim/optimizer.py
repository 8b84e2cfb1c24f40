"""What all optimizers share: groups of parameters, state, and the step."""
from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import numpy as np

from bpcore.memory import empty_cache
from bpcore.optim import Step
from bpcore.optim import zero_grad as drop_gradients
from bpcore.tensor import RemovableHandle, Tensor, from_array, set_grad_mode


class Optimizer:
    """Base class of the optimizers.

    Args:
        params: the Tensors to train, `(name, Tensor)` pairs (`module.named_parameters()`), or dicts, one for each group: their
            "params" and the options that differ from the defaults. A single Tensor will do. Their order is what a saved state
            is matched by.
        defaults: the options of groups that do not set them.

    `param_groups` is a list of dicts that may be changed between steps (`group["lr"] = 0.1`); `state` maps a parameter to the
    dict of what the optimizer remembers of it; `grad_norm` is the norm that the last step with `max_norm` found.

    A new optimizer defines `_add(step, group)`, which gives the group to one of the updates of `bpcore.optim.Step`, or its own
    `step`.
    """

    def __init__(self, params: Iterable, defaults: dict[str, Any]):
        self.defaults = defaults
        self.state: dict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.param_groups: list[dict[str, Any]] = []
        self.grad_norm: float | None = None
        self._step_called = False           # asked by the schedules, which come after it
        self._pre_hooks: list[Callable] = []
        self._post_hooks: list[Callable] = []
        groups: list[Any] = [params] if isinstance(params, Tensor) else list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def __repr__(self):
        lines = []
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return f"{type(self).__name__} (\n" + "\n".join(lines) + "\n)"

    # --- groups ---

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Train more parameters: a dict with "params" and any options that differ from the defaults.

        Raises `TypeError` where they are not Tensors in an ordered collection; `ValueError` for a Tensor that is not a leaf, is
        in another group already, or where some parameters have names and others have not.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        if "params" not in param_group:
            raise KeyError("param_group: expected the key 'params'")
        given = param_group["params"]
        if isinstance(given, set):
            raise TypeError("params: expected an ordered collection such as a list, got a set, whose order changes")
        items = [given] if isinstance(given, Tensor) else list(given)
        names = [item[0] for item in items if isinstance(item, tuple)]
        params = [item[1] if isinstance(item, tuple) else item for item in items]
        if names and len(names) != len(params):
            raise ValueError("all optimizer params should be with/without names. Some param names are missing")
        for i, param in enumerate(params):
            if not isinstance(param, Tensor):
                raise TypeError(f"params[{i}]: optimizer can only optimize Tensors, but got {type(param).__name__}")
            if not param.is_leaf:
                raise ValueError(f"params[{i}]: can't optimize a non-leaf Tensor")
        if len({id(param) for param in params}) != len(params):
            warnings.warn("optimizer contains a parameter group with duplicate parameters; each is updated once", stacklevel=2)
            first: dict[int, int] = {}
            for i, param in enumerate(params):
                first.setdefault(id(param), i)
            params, names = [params[i] for i in first.values()], [names[i] for i in first.values()] if names else []
        taken = {id(param) for group in self.param_groups for param in group["params"]}
        if any(id(param) in taken for param in params):
            raise ValueError("some parameters appear in more than one parameter group")
        if any(("param_names" in group) != bool(names) for group in self.param_groups):
            kind = "with" if names else "without"
            raise ValueError(
                "all optimizer param groups should be with/without names. "
                f"cannot add param group {kind} names to the optimizer"
            )
        param_group["params"] = params
        if names:
            param_group["param_names"] = names
        for name, default in self.defaults.items():
            param_group.setdefault(name, default)
        self.param_groups.append(param_group)

    # --- the step ---

    def step(
        self, closure: Callable[[], Any] | None = None, *, max_norm: float | None = None, zero_grad: bool = False
    ) -> Any:
        """Update all parameters that have a gradient, in one pass over the memory.

        Args:
            closure: computes the loss again and calls `backward`; called first, and its result is returned.
            max_norm: clip as `clip_grad_norm_(params, max_norm)` before the step would, with all parameters of this optimizer
                taken together. The factor is folded into the update: the gradients are read once for their norm and once for
                the update and stay as they are. The norm is left in `grad_norm`. bpnn's own, not PyTorch's.
            zero_grad: fill the gradients with zeros in the same pass. bpnn's own, not PyTorch's.
        """
        for hook in self._pre_hooks:
            hook(self, (closure,), {"max_norm": max_norm, "zero_grad": zero_grad})
        loss = None
        if closure is not None:
            before = set_grad_mode(True)
            try:
                loss = closure()
            finally:
                set_grad_mode(before)
        if not self._step_called:
            empty_cache()                   # else the first states would lie beside what the first backward no longer needs
        step = Step()
        for group in self.param_groups:
            self._add(step, group)
        self.grad_norm = step.run(max_norm, zero_grad)
        self._step_called = True
        for hook in self._post_hooks:
            hook(self, (closure,), {"max_norm": max_norm, "zero_grad": zero_grad})
        return loss

    def _add(self, step: Step, group: dict[str, Any]) -> None:
        raise TypeError(f"{type(self).__name__}: expected a method _add(step, group), or step(closure) of its own")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients; with `set_to_none=False`, fill them with zeros."""
        for group in self.param_groups:
            drop_gradients(group["params"], set_to_none)

    def register_step_pre_hook(self, hook: Callable) -> RemovableHandle:
        """Call `hook(optimizer, args, kwargs)` before every step. Returns a handle with `remove()`."""
        self._pre_hooks.append(hook)
        return RemovableHandle(self._pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable) -> RemovableHandle:
        """Call `hook(optimizer, args, kwargs)` after every step. Returns a handle with `remove()`."""
        self._post_hooks.append(hook)
        return RemovableHandle(self._post_hooks, hook)

    # --- saving ---

    def state_dict(self) -> dict[str, Any]:
        """The state as a dict in PyTorch's layout: "state", by the number of the parameter, and "param_groups", whose "params"
        are these numbers. Its Tensors are the optimizer's own, not copies."""
        numbers: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for param in group["params"]:
                numbers[id(param)] = len(numbers)
            groups.append({**group, "params": [numbers[id(param)] for param in group["params"]]})
        state = {numbers.get(id(param), param): dict(slots) for param, slots in self.state.items()}
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over copies of a state and its options. Parameters are matched by their order.

        Raises `ValueError` where the groups or the shapes are other ones; then nothing has changed. PyTorch's state dicts load
        too.
        """
        for key in ("state", "param_groups"):
            if key not in state_dict:
                raise ValueError(f"state_dict: expected the keys 'state' and 'param_groups', got {sorted(state_dict)}")
        saved = state_dict["param_groups"]
        if len(saved) != len(self.param_groups):
            raise ValueError(
                "loaded state dict has a different number of parameter groups: "
                f"expected {len(self.param_groups)}, got {len(saved)}"
            )
        params: dict[int, Tensor] = {}
        for i, (group, new) in enumerate(zip(self.param_groups, saved)):
            if len(group["params"]) != len(new["params"]):
                raise ValueError(
                    "loaded state dict contains a parameter group that doesn't match the size of optimizer's group: "
                    f"group {i}: expected {len(group['params'])} parameters, got {len(new['params'])}"
                )
            params.update(zip(new["params"], group["params"]))
        state: dict[Tensor, dict[str, Any]] = defaultdict(dict)
        # The states of an update of bpcore have the shape of their parameter; another optimizer's may be anything.
        strict = type(self)._add is not Optimizer._add
        for i, slots in state_dict["state"].items():
            if i not in params:
                raise ValueError(f"state_dict: state of parameter {i!r}, which no group has")
            state[params[i]] = {key: _copied(value, key, params[i], i, strict) for key, value in slots.items()}
        for group, new in zip(self.param_groups, saved):
            group.update({key: deepcopy(value) for key, value in new.items() if key != "params"})
        self.state = state


def _copied(value, key, param, i, strict):
    """One entry of a saved state. What has the parameter's shape gets its dtype too; counts keep theirs."""
    if not hasattr(value, "shape"):
        return deepcopy(value)
    array = np.asarray(value)
    if array.shape == param.shape and key not in ("step", "mu_product"):
        return from_array(array.astype(param.dtype, order="C"))
    if strict and array.ndim:
        raise ValueError(f"state_dict: {key!r} of parameter {i}: expected shape {param.shape}, got {array.shape}")
    return from_array(array.copy())


# --- what constructors check ---

def number(name: str, value: Any) -> float:
    """A number, where PyTorch also takes a Tensor of one element."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"Tensor {name} must be 1-element, got shape {value.shape}")
        return value.item()
    return value


def not_negative(**values: float) -> None:
    """Refuse options below zero, or NaN."""
    for name, value in values.items():
        if not value >= 0:
            what = "learning rate" if name == "lr" else f"{name} value"
            raise ValueError(f"Invalid {what}: {value}, expected a number of 0 or more")


def fractions(betas: tuple[float, float]) -> tuple[float, float]:
    """The two decay rates of Adam and its kin, each in [0, 1)."""
    checked = tuple(number(f"betas[{i}]", beta) for i, beta in enumerate(betas))
    if len(checked) != 2:
        raise ValueError(f"betas: expected two numbers, got {len(checked)}")
    for i, beta in enumerate(checked):
        if not 0 <= beta < 1:
            raise ValueError(f"Invalid beta parameter at index {i}: {beta}, expected a number in [0, 1)")
    return checked[0], checked[1]


def options(**values: Any) -> dict[str, Any]:
    """The default options of an optimizer. Among them are PyTorch's choices of an implementation: here there is one, a fused
    pass over all tensors, so `foreach` and `fused` change nothing, and `capturable` and `differentiable` it cannot do."""
    if values.get("capturable"):
        raise ValueError("capturable=True is for steps recorded on a GPU, which bpnn does not have; expected False")
    if values.get("differentiable"):
        raise ValueError("differentiable=True: steps are not recorded on the tape; expected False")
    if values.get("fused") and values.get("foreach"):
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
    return values
