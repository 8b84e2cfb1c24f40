"""Runs one sample through PyTorch and bpnn and says where they differ: outputs, then gradients.

The rules. PyTorch's refusal of a call removes the sample (a method may not take what the function takes); bpnn's
refusal of a call that PyTorch accepts is a failure. Structure, shapes, dtypes, `requires_grad` and values of all
outputs must agree, and so must the gradients of every input for one random cotangent an output. A sample that needs
what bpnn does not have at all (complex numbers, sparse layouts) lies outside the comparison and is counted apart.
"""
import warnings
from dataclasses import dataclass, field

import bpnn
import numpy as np
import torch

# PyTorch's own defaults (`torch.testing.assert_close`), by dtype.
TOLERANCE = {"float64": (1e-7, 1e-7), "float32": (1.3e-6, 1e-5), "float16": (1e-3, 1e-5), "bfloat16": (1.6e-2, 1e-5)}
DROPPED = ("device", "memory_format", "layout", "pin_memory")


class Outside(Exception):
    """The sample uses something that bpnn does not have as a matter of design."""


class Differ(AssertionError):
    """The two libraries disagree."""


@dataclass
class Verdict:
    """What became of an operator's samples."""

    compared: int = 0
    outside: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)  # (form and sample, error)

    @property
    def passed(self):
        return not self.failures


def own_copy(tensor):
    """A copy of the tensor and of the whole storage below it, so that strides and overlaps are kept."""
    storage = torch.empty(0, dtype=tensor.dtype).set_(tensor.untyped_storage().clone())
    return storage.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())


def translate(value, tensor, convert):
    """A sample's argument with its tensors passed through `tensor` and its leaves through `convert`."""
    if isinstance(value, torch.Tensor):
        return tensor(value)
    if isinstance(value, (list, tuple)):
        items = [translate(item, tensor, convert) for item in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, dict):
        return {key: translate(item, tensor, convert) for key, item in value.items()}
    if isinstance(value, slice):
        return slice(*(translate(item, tensor, convert) for item in (value.start, value.stop, value.step)))
    return convert(value)


def name_of(dtype):
    return str(dtype).removeprefix("torch.")


def bpnn_leaf(value):
    """What bpnn takes in place of an argument of PyTorch's that is no tensor."""
    if isinstance(value, torch.dtype):
        dtype = getattr(bpnn, name_of(value), None)
        if dtype is None:
            raise Outside(f"{value}")
        return dtype
    if isinstance(value, complex):
        raise Outside("complex number")
    if isinstance(value, torch.nn.Module):
        module = look_up_module(type(value).__name__)
        return module(*(getattr(value, name) for name in value.__constants__))
    return value


def look_up_module(name):
    if not hasattr(bpnn.nn, name):
        raise Outside(f"nn.{name}")
    return getattr(bpnn.nn, name)


def arguments(args, kwargs):
    """Without devices, layouts and memory formats, of which bpnn has one each."""
    places = (torch.device, torch.memory_format, torch.layout)
    args = tuple(arg for arg in args if not isinstance(arg, places) and not (isinstance(arg, str) and arg == "cpu"))
    return args, {key: arg for key, arg in kwargs.items() if key not in DROPPED}


class Torch:
    """PyTorch's side: the sample as it is, on fresh leaves."""

    def __init__(self):
        self.leaves, self.seen = [], {}

    def tensor(self, theirs):
        if id(theirs) not in self.seen:
            mine = self.fresh(theirs)
            self.seen[id(theirs)] = theirs, mine
            if theirs.requires_grad:
                self.leaves.append(mine.requires_grad_())
        return self.seen[id(theirs)][1]

    def fresh(self, theirs):
        return own_copy(theirs.detach())

    def arguments(self, sample):
        args, kwargs = (sample.input, *sample.args), sample.kwargs
        return translate((args, kwargs), self.tensor, lambda value: value)

    def gradients(self, outputs, cotangents):
        cotangents = [torch.from_numpy(c).to(output.dtype) for c, output in zip(cotangents, outputs, strict=True)]
        return torch.autograd.grad(outputs, self.leaves, cotangents, allow_unused=True)

    def numpy(self, tensor):
        tensor = tensor.detach()
        if tensor.dtype == torch.bfloat16:
            return tensor.view(torch.int16).numpy().view("bfloat16")  # a name that NumPy learns from ml_dtypes
        return tensor.resolve_conj().resolve_neg().numpy()


class Bpnn(Torch):
    """bpnn's side: the same arrays with the same strides."""

    def fresh(self, theirs):
        if theirs.layout != torch.strided or theirs.is_complex():
            raise Outside(f"{theirs.layout} {theirs.dtype}")
        return bpnn.from_numpy(own_copy(theirs.detach()).numpy())

    def arguments(self, sample):
        args, kwargs = arguments((sample.input, *sample.args), sample.kwargs)
        return translate((args, kwargs), self.tensor, bpnn_leaf)

    def gradients(self, outputs, cotangents):
        pairs = zip(cotangents, outputs, strict=True)
        cotangents = [bpnn.from_numpy(c.astype(self.numpy(output).dtype)) for c, output in pairs]
        return bpnn.autograd.grad(outputs, self.leaves, cotangents, allow_unused=True)

    def numpy(self, tensor):
        return tensor.detach().numpy()


def call(side, form, function, sample):
    """Calls the function on this side's copy of the sample; an in-place form works on a clone of its input."""
    args, kwargs = side.arguments(sample)
    if not form.in_place:
        return function(*args, **kwargs)
    target = args[0].clone()
    out = function(target, *args[1:], **kwargs)
    if out is not target:
        raise Differ("an in-place form must return its input")
    return out


def flatten(output, kind):
    """The tensors of an output, and its skeleton with the non-tensors."""
    if isinstance(output, kind):
        return [output], "tensor"
    if isinstance(output, (list, tuple)):
        parts = [flatten(item, kind) for item in output]
        return [tensor for tensors, _ in parts for tensor in tensors], [skeleton for _, skeleton in parts]
    return [], output


def check_skeleton(theirs, ours):
    """Tuples of the same length, with the same field names, and equal plain values."""
    if isinstance(theirs, (list, tuple)):
        if not isinstance(ours, (list, tuple)) or len(theirs) != len(ours):
            raise Differ(f"output: expected {len(theirs)} parts, got {describe(ours)}")
        for pair in zip(theirs, ours, strict=True):
            check_skeleton(*pair)
    elif isinstance(theirs, torch.dtype):
        check_skeleton(name_of(theirs), name_of(ours))
    elif isinstance(theirs, float) and isinstance(ours, float):
        check_values("number", np.float64(theirs), np.float64(ours))
    elif type(theirs) is not type(ours) or theirs != ours:
        raise Differ(f"output: expected {describe(theirs)}, got {describe(ours)}")


def check_fields(theirs, ours):
    """PyTorch's named tuples (`values`, `indices`) keep their names."""
    names = [name for name in dir(theirs) if not name.startswith("_") and not name.startswith("n_")]
    if isinstance(theirs, tuple) and type(theirs) is not tuple and not isinstance(theirs, torch.Size):
        missing = [name for name in names if name not in ("count", "index") and not hasattr(ours, name)]
        if missing:
            raise Differ(f"output: no field {', '.join(missing)}")


def check_values(what, theirs, ours, values=True):
    """Shape, dtype, and values within the tolerance of the dtype; NaN equals NaN."""
    if theirs.shape != ours.shape:
        raise Differ(f"{what}: expected shape {theirs.shape}, got {ours.shape}")
    if theirs.dtype != ours.dtype:
        raise Differ(f"{what}: expected dtype {theirs.dtype}, got {ours.dtype}")
    if not values or theirs.size == 0:
        return
    rtol, atol = TOLERANCE.get(theirs.dtype.name, (0, 0))
    if theirs.dtype.name in TOLERANCE:
        theirs, ours = theirs.astype(np.float64), ours.astype(np.float64)
    close = np.isclose(ours, theirs, rtol=rtol, atol=atol, equal_nan=True) if rtol else np.asarray(theirs == ours)
    if not close.all():
        at = tuple(int(i) for i in np.argwhere(~close)[0])
        raise Differ(
            f"{what}: {np.size(close) - close.sum()} of {np.size(close)} values differ, at {list(at)} "
            f"expected {theirs[at]:.9g}, got {ours[at]:.9g}"
        )


def evaluate(side, form, function, sample, kind):
    """The raw output, its tensors, its skeleton, and the gradients as arrays, zeros where an input is not reached.

    The cotangents are random but the same on both sides, since they depend on the shapes alone.
    """
    raw = call(side, form, function, sample)
    tensors, skeleton = flatten(raw, kind)
    differentiable = [tensor for tensor in tensors if tensor.requires_grad]
    gradients = []
    if differentiable and side.leaves:
        rng = np.random.default_rng(0)
        cotangents = [np.asarray(rng.standard_normal(tuple(output.shape))) for output in differentiable]
        pairs = zip(side.leaves, side.gradients(differentiable, cotangents), strict=True)
        gradients = [np.zeros_like(side.numpy(leaf)) if g is None else side.numpy(g) for leaf, g in pairs]
    return raw, tensors, skeleton, gradients


def reference(form, sample, seed=0):
    """What PyTorch makes of the sample, or None where it refuses it."""
    torch.manual_seed(seed)
    side = Torch()
    try:
        raw, tensors, skeleton, gradients = evaluate(side, form, form.theirs, sample, torch.Tensor)
    except Exception:
        return None
    for tensor in tensors:
        if tensor.is_complex() or tensor.layout != torch.strided or not hasattr(bpnn, name_of(tensor.dtype)):
            raise Outside(f"output of {tensor.dtype} {tensor.layout}")
    return raw, [(side.numpy(tensor), tensor.requires_grad) for tensor in tensors], skeleton, gradients


def compare(form, sample, values=True):
    """One sample in one form. Returns False where PyTorch refuses it; raises Outside, Differ, or bpnn's exception."""
    expected = reference(form, sample)
    if expected is None:
        return False
    raw_t, tensors_t, skeleton_t, gradients_t = expected
    ours = Bpnn()
    raw_b, tensors_b, skeleton_b, gradients_b = evaluate(ours, form, form.ours, sample, bpnn.Tensor)
    check_skeleton(skeleton_t, skeleton_b)
    check_fields(raw_t, raw_b)
    for index, ((array, requires_grad), tensor) in enumerate(zip(tensors_t, tensors_b, strict=True)):
        what = "output" if len(tensors_t) == 1 else f"output {index}"
        check_values(what, array, ours.numpy(tensor), values)
        if requires_grad != tensor.requires_grad:
            raise Differ(f"{what}: expected requires_grad={requires_grad}")
    for index, pair in enumerate(zip(gradients_t, gradients_b, strict=True)):
        check_values(f"gradient {index}", *pair, values)
    return True


def draw(side, form, function, sample, kind):
    """atan of all values and gradients of one call, as one array."""
    _, tensors, _, gradients = evaluate(side, form, function, sample, kind)
    arrays = [side.numpy(tensor) for tensor in tensors] + gradients
    return np.arctan(np.concatenate([array.astype(np.float64).ravel() for array in arrays]))


def compare_random(form, sample, draws=60):
    """For random operators: the same shapes, and the same distribution of all values and gradients.

    A sample that PyTorch answers alike from eight seeds (a dropout of 0, of 1, out of training) is compared as usual.
    The others are judged by the mean of atan(x) and of atan(x)² in a draw (they exist for every distribution), of
    which many draws of both libraries must agree within six standard errors.
    """
    seeds = [reference(form, sample, seed) for seed in range(8)]
    if seeds[0] is None:
        return False
    first, *others = ([array for array, _ in tensors] + gradients for _, tensors, _, gradients in seeds)
    alike = all(np.array_equal(*pair, equal_nan=True) for other in others for pair in zip(first, other, strict=True))
    compare(form, sample, values=alike)
    if alike:
        return True
    bpnn.manual_seed(0)
    theirs = [draw(Torch(), form, form.theirs, sample, torch.Tensor) for _ in range(draws)]
    ours = [draw(Bpnn(), form, form.ours, sample, bpnn.Tensor) for _ in range(draws)]
    for power in (1, 2):
        t, b = (np.array([np.mean(values**power) for values in pool]) for pool in (theirs, ours))
        if abs(t.mean() - b.mean()) > 6 * np.sqrt((t.var() + b.var()) / draws) + 1e-9:
            raise Differ(f"statistics: expected a mean atan(x)^{power} of {t.mean():.4f}, got {b.mean():.4f}")
    return True


def describe(value):
    """A short text for an argument: dtype, shape and, where odd, strides instead of values."""
    if isinstance(value, torch.Tensor):
        text = f"{name_of(value.dtype)}{list(value.shape)}"
        if value.ndim == 0 and value.layout == torch.strided:
            text += f"={value.item():.6g}" if value.is_floating_point() else f"={value.item()}"
        return text + ("" if value.is_contiguous() else f" strides {list(value.stride())}")
    if isinstance(value, bpnn.Tensor):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, (list, tuple)):
        inner = ", ".join(describe(item) for item in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    return repr(value)


def describe_sample(form, sample):
    parts = [describe(value) for value in (sample.input, *sample.args)]
    parts += [f"{key}={describe(value)}" for key, value in sample.kwargs.items()]
    return f"{form.kind}({', '.join(parts)})"


def check(one):
    """Every sample of an operator in every form."""
    verdict = Verdict()
    if one.treatment == "skip":
        return verdict
    for sample in one.sample_inputs():
        for form in one.forms:
            if form.in_place and sample.broadcasts_input:
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    if one.treatment == "random":
                        done = compare_random(form, sample)
                    else:
                        done = compare(form, sample, values=one.treatment != "shape")
                verdict.compared += done
            except Outside:
                verdict.outside += 1
            except Exception as error:
                text = str(error).strip().split("\n")[0]
                name = "" if isinstance(error, Differ) else f"{type(error).__name__}: "
                verdict.failures.append((describe_sample(form, sample), name + text))
    return verdict
