"""What a model of bpnn computes, and how far that is from what it should be; without PyTorch."""
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from drawing import uniform, weight

import bpnn

TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
NUMBERS = Path(__file__).parent / "numbers"


@cache
def stored_numbers(name):
    """What `make_numbers.py` wrote of an architecture: by head `config`, `shapes` by name, `runs`."""
    return json.loads((NUMBERS / f"{name}.json").read_text())


def write_model(folder, name, head, config=(), tensors=lambda tensors: tensors):
    """Write a small model's folder: weights drawn from their names. config: keys to change; tensors: a change of the weights."""
    content = stored_numbers(name)[head]
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**content["config"], **dict(config)}))
    drawn = {key: weight(key, shape) for key, shape in content["shapes"].items()}
    bpnn.save(tensors(drawn), folder / "model.safetensors")
    return folder


@dataclass
class Results:
    """What a model computed: outputs and gradients by name (those of files), as NumPy arrays."""

    outputs: dict
    loss: float
    gradients: dict


def arrays(output):
    """The tensors of an output as arrays: those that are compared."""
    names = ("last_hidden_state", "pooler_output", "logits", "start_logits", "end_logits")
    return {name: output[name].detach().numpy() for name in names if name in output and output[name] is not None}


def probe(output, given, wrap):
    """A loss for models without one: random weights of all that is real in the output."""
    total = 0
    for name in ("last_hidden_state", "pooler_output"):
        if name in output and output[name] is not None:
            value = output[name]
            factor = uniform(name, tuple(value.shape))
            if name == "last_hidden_state" and "attention_mask" in given:
                factor = factor * given["attention_mask"][..., None]
            total = total + (value * wrap(factor).to(value.dtype)).sum() / value.shape[0]
    return total


def run_own(model, given, **arguments):
    """As `Reference.run`, of bpnn's model."""
    dtype = next(iter(model.parameters())).dtype
    model.zero_grad()
    given = {key: value.astype(dtype) if value.dtype.kind == "f" else value for key, value in given.items()}
    output = model(**given, **arguments)
    loss = output.loss if "loss" in output else probe(output, given, bpnn.from_numpy)
    loss.backward()
    gradients = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.requires_grad:
            gradients[name] = np.zeros(tuple(tensor.shape)) if tensor.grad is None else tensor.grad.numpy().copy()
    return Results(arrays(output), loss.item(), gradients)


def off(got, want, scale=None):
    """The largest difference, relative to the largest number of `want` or to `scale`."""
    if np.shape(got) != np.shape(want):
        return np.inf
    if not np.size(want):
        return 0.0
    scale = np.abs(want).max() if scale is None else scale
    difference = np.abs(np.asarray(got, np.float64) - want).max()
    return float(np.nan_to_num(difference, nan=np.inf) / max(scale, 1e-300)) if difference != 0 else 0.0


def differences(got, want, tolerance, mask=None):
    """Lines that say what of two `Results` differs by more than `tolerance`; at places that are padding nothing counts."""
    lines = []
    if off(got.loss, want.loss) > tolerance:
        lines.append(f"loss: {got.loss}, expected {want.loss}")
    for name, value in want.outputs.items():
        if name not in got.outputs:
            lines.append(f"output {name} is missing")
            continue
        mine = got.outputs[name]
        if mask is not None and value.shape[:2] == mask.shape and mine.shape == value.shape:
            mine, value = mine[mask == 1], value[mask == 1]
        if off(mine, value) > tolerance:
            lines.append(f"{name}: off by {off(mine, value):.2e}; shapes {mine.shape}, {value.shape}")
    lines += gradient_differences(got.gradients, want.gradients, tolerance)
    return lines


def gradient_differences(got, want, tolerance):
    """The same of gradients by name, each relative to its own largest element."""
    largest = max(np.abs(value).max() for value in want.values())
    lines = [f"gradient {name}: missing" for name in want if name not in got]
    for name, value in want.items():
        if name in got:
            own_scale = np.abs(value).max()
            # the gradient of a key's bias is 0 but for rounding, and some never take part
            scale = own_scale if own_scale > 1e-10 * largest else largest
            if off(got[name], value, scale) > tolerance:
                lines.append(f"gradient {name}: off by {off(got[name], value, scale):.2e} of {scale:.2e}; {value.shape}")
    return lines
