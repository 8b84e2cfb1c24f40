"""Which of PyTorch's operators bpnn exposes, and how each is called in both libraries.

PyTorch tests itself from a database of operators (`op_db`), each an `OpInfo` with a name, a generator of sample
inputs, and its forms: function, method, operator, in-place method, aliases. A form belongs to the comparison when
bpnn has something callable under the same name: `nn.functional.gelu` is looked up as `bpnn.nn.functional.gelu`,
`cumsum` as `bpnn.cumsum` and as `bpnn.Tensor.cumsum`. Nothing is listed by hand, so a new operator joins by existing.
"""
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import bpnn
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal.common_methods_invocations import op_db

LIST = Path(__file__).parent / "listed.txt"


@dataclass
class Form:
    """One way to call an operator: `theirs` in PyTorch, `ours` in bpnn, with the sample's arguments."""

    kind: str
    theirs: Callable
    ours: Callable
    in_place: bool = False


@dataclass
class Operator:
    """An entry of the database that bpnn exposes, and what `listed.txt` says of it."""

    info: object
    forms: list[Form]
    treatment: str = "compare"  # or "skip", "random", "shape", "fails"
    reason: str = ""

    @property
    def name(self):
        return f"{self.info.name}:{self.info.variant_test_name}" if self.info.variant_test_name else self.info.name

    @cached_property
    def dtype(self):
        """float64 where the operator takes it, else the first other type it takes (`bitwise_and`, `one_hot`)."""
        choices = (torch.float64, torch.int64, torch.bool)
        return next((dtype for dtype in choices if dtype in self.info.dtypes), None)

    def sample_inputs(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            grad = self.info.supports_autograd and self.dtype.is_floating_point
            return list(self.info.sample_inputs("cpu", self.dtype, requires_grad=grad))


def both(name):
    """A method of this name in PyTorch and in bpnn; None where there is none."""
    return look_up(torch.Tensor, name), look_up(bpnn.Tensor, name)


def look_up(root, path):
    """The callable at a dotted path below a module or class, or None."""
    for part in path.split("."):
        root = getattr(root, part, None)
    return root if callable(root) and not isinstance(root, type) else None


def rebind(function, library):
    """The same lambda with `torch` meaning the library, and without a seed set for each call.

    The database wraps some operators: `lambda x, y: torch.f(y, x)`, `lambda x: wrapper_set_seed(torch.f, x)`.
    """
    names = {"torch": library, "wrapper_set_seed": lambda op, *args, **kwargs: op(*args, **kwargs)}
    bound = types.FunctionType(
        function.__code__, function.__globals__ | names, function.__name__, function.__defaults__, function.__closure__
    )
    bound.__kwdefaults__ = function.__kwdefaults__
    return bound


def forms_of(info):
    """Every form of the operator that both libraries have."""
    forms = []

    def add(kind, theirs, ours, in_place=False):
        if theirs is not None and ours is not None:
            forms.append(Form(kind, theirs, ours, in_place))

    wrapped = isinstance(info.op, types.FunctionType) and info.op.__name__ == "<lambda>"
    names = [info.name] + [alias.name for alias in info.aliases]
    for index, name in enumerate(names):
        theirs = info.op if index == 0 else info.aliases[index - 1].op
        ours, short = look_up(bpnn, name), name.split(".")[-1]
        if index == 0 and wrapped:
            # A lambda around a method (`x.T`, `x.expand(shape)`) is exposed when the method is.
            called = theirs.__code__.co_names
            if "torch" not in called or "Tensor" in called:
                ours = hasattr(bpnn.Tensor, short) or hasattr(bpnn.Tensor, short + "_")
            ours = rebind(theirs, bpnn) if ours else None
            theirs = rebind(theirs, torch)
        add(f"function {name}", theirs, ours)
        if ours is None and "." in name:
            continue  # `Tensor.sum` alone does not expose `masked.sum`
        # `nn.functional.relu` is also `Tensor.relu`, where both libraries have it.
        if short.endswith("_") and not short.endswith("__"):
            add(f"method {short}", *both(short), in_place=True)
        else:
            add(f"method {short}", *both(short))
            add(f"method {short}_", *both(short + "_"), in_place=True)
    if forms:
        add("operator", info.operator_variant, info.operator_variant)
        add("in-place operator", info.inplace_operator_variant, info.inplace_operator_variant, in_place=True)
    return forms


def read_list():
    """`listed.txt`: operator name → (treatment, reason)."""
    entries = {}
    for line in LIST.read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            treatment, name, reason = line.split(None, 2)
            entries[name] = treatment, reason
    return entries


def exposed():
    """Every operator of the database that bpnn exposes, in alphabetical order."""
    listed, found = read_list(), []
    for info in op_db:
        if info.name.startswith(("_", "torch.")) and not info.name.startswith("__"):
            continue
        forms = forms_of(info)
        if forms:
            one = Operator(info, forms)
            one.treatment, one.reason = listed.get(one.name, listed.get(info.name, ("compare", "")))
            if one.dtype is not None:
                found.append(one)
    return sorted(found, key=lambda one: one.name)


def absent():
    """Names of the database that bpnn does not expose."""
    names = {info.name for info in op_db if not info.name.startswith(("torch.", "jiterator"))}
    return sorted(names - {one.info.name for one in exposed()})


def summary(verdicts):
    """The line that the bar is about: operators that pass every sample among those that have one."""
    passed = sum(verdict.passed for verdict in verdicts.values())
    calls = sum(verdict.compared + len(verdict.failures) for verdict in verdicts.values())
    share = 100 * passed / len(verdicts) if verdicts else 0.0
    return f"conformance: {passed} of {len(verdicts)} exposed operators pass all samples ({share:.1f} %, {calls} calls)"
