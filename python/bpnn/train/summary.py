"""A table of a model: what each layer puts out, how many parameters it has, how many multiply-adds it does."""
from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import bpnn
from bpnn import nn

__all__ = ["Layer", "Summary", "summary"]


@dataclass
class Layer:
    """One module. `parameters` are its own, each tensor counted where it is met first; `multiply_adds` of one call."""

    name: str
    kind: str
    depth: int
    output: Any
    parameters: int
    trainable: int
    multiply_adds: int
    children: bool


@dataclass
class Summary:
    """What `summary` found; `str()` of it is the table."""

    layers: list[Layer]
    input: Any
    parameters: int
    trainable: int
    parameter_bytes: int

    @property
    def multiply_adds(self) -> int:
        return sum(layer.multiply_adds for layer in self.layers)

    def __str__(self) -> str:
        head = ("layer", "output", "parameters", "multiply-adds")
        rows = [
            (
                f"{'  ' * layer.depth}{layer.name} ({layer.kind})" if layer.name else layer.kind,
                "not called" if layer.output is None else _shapes(layer.output),
                f"{layer.parameters:,}" if layer.parameters or not layer.children else "",
                f"{layer.multiply_adds:,}" if layer.multiply_adds or not layer.children else "",
            )
            for layer in self.layers
        ]
        width = [max(len(row[i]) for row in (head, *rows)) for i in range(4)]
        line = "─" * (sum(width) + 6)
        table = [
            f"{a:<{width[0]}}  {b:<{width[1]}}  {c:>{width[2]}}  {d:>{width[3]}}".rstrip() for a, b, c, d in (head, *rows)
        ]
        frozen = self.parameters - self.trainable
        total = [
            f"input {_shapes(self.input)}",
            f"parameters {self.parameters:,} ({_bytes(self.parameter_bytes)})" + (f", {frozen:,} frozen" if frozen else ""),
            f"multiply-adds {self.multiply_adds:,} for this input",
        ]
        return "\n".join([line, table[0], line, *table[1:], line, *total, line])

    __repr__ = __str__


def summary(model: Any, input: Any) -> Summary:
    """Runs `model` once on `input` without gradients, in evaluation mode, and tells what its modules did.

    `input` is a tensor, a tuple of positional or a dictionary of keyword arguments, or a shape such as `(1, 784)`, which
    stands for zeros of the default dtype. A module that is called several times shows its last output and the sum of its
    multiply-adds. Those are counted where a module's formula is known (matrix products; an activation counts none), and
    not for functions that a `forward` calls on its own parameters.
    """
    args, named = _arguments(input)
    outputs: dict[int, Any] = {}
    work: dict[int, int] = {}

    def watch(module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        outputs[id(module)] = _shape_of(output)
        work[id(module)] = work.get(id(module), 0) + multiply_adds(module, inputs, output)

    named_modules = list(model.named_modules())
    training = {id(module): module.training for _, module in named_modules}
    handles = [module.register_forward_hook(watch) for _, module in named_modules]
    try:
        model.eval()
        with bpnn.no_grad():
            model(*args, **named)
    finally:
        for handle in handles:
            handle.remove()
        for _, module in named_modules:
            module.training = training[id(module)]

    layers, seen = [], set()
    for name, module in named_modules:
        own = [p for p in module.parameters(recurse=False) if id(p) not in seen]
        seen |= {id(p) for p in own}
        layers.append(
            Layer(
                name=name.rpartition(".")[2],
                kind=type(module).__name__,
                depth=name.count(".") + bool(name),
                output=outputs.get(id(module)),
                parameters=sum(p.numel() for p in own),
                trainable=sum(p.numel() for p in own if p.requires_grad),
                multiply_adds=work.get(id(module), 0),
                children=any(True for _ in module.children()),
            )
        )
    everything = list(model.parameters())
    return Summary(
        layers,
        _shape_of(args if len(args) != 1 or named else args[0]) if args else _shape_of(named),
        sum(p.numel() for p in everything),
        sum(p.numel() for p in everything if p.requires_grad),
        sum(p.numel() * p.element_size() for p in everything),
    )


def multiply_adds(module: Any, inputs: tuple[Any, ...], output: Any) -> int:
    """Products of one call of `module` itself, without its children's; a bias adds none."""
    if isinstance(module, nn.Linear):
        return int(output.numel() * module.in_features)
    if isinstance(module, nn.Bilinear):
        return int(output.numel() * module.in1_features * (module.in2_features + 1))
    return 0


def _arguments(input: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(input, Mapping):
        return (), dict(input)
    if isinstance(input, (tuple, list)):
        if input and all(isinstance(size, int) for size in input):
            return (bpnn.zeros(*input),), {}
        return tuple(input), {}
    return (input,), {}


def _shape_of(value: Any) -> Any:
    """Shapes of tensors, nested as the value is."""
    if hasattr(value, "shape"):
        return tuple(value.shape)
    if isinstance(value, Mapping):
        return {key: _shape_of(entry) for key, entry in value.items()}
    if isinstance(value, (tuple, list)):
        return [_shape_of(entry) for entry in value]
    return type(value).__name__


def _shapes(shape: Any) -> str:
    if isinstance(shape, tuple):
        return " × ".join(map(str, shape)) or "scalar"
    if isinstance(shape, list):
        return ", ".join(map(_shapes, shape))
    if isinstance(shape, dict):
        return ", ".join(f"{key} {_shapes(entry)}" for key, entry in shape.items())
    return str(shape)


def _bytes(count: float) -> str:
    exponent = min(int(math.log(count, 1024)), 4) if count >= 1 else 0
    return f"{count / 1024**exponent:.{1 if exponent else 0}f} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[exponent]}"
