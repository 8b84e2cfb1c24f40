"""Compare a model of bpnn with that of `transformers`: outputs, loss, every gradient, traces of training.

    reference = Reference("bert", "ForMaskedLM", "small", folder)      # random weights, saved to the folder
    own = reference.own(dtype="float64")                               # bpnn's model of that folder
    agree(reference, own, inputs(...), 1e-9)
"""
import contextlib
from unittest import mock

import numpy as np
import pytest
import safetensors.torch  # noqa: F401  before `widened`: it makes tables of types
import torch
import transformers
from architectures import ARCHITECTURES
from comparing import Results, arrays, differences, probe, run_own
from drawing import weight
from safetensors.numpy import load_file

import bpnn
from bpnn import models

transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()


@contextlib.contextmanager
def widened():
    """`transformers` computes norms, rotations and softmax in float32 even in a float64 model; here in float64."""
    with mock.patch.multiple(torch, float32=torch.float64, float=torch.float64), \
            mock.patch.object(torch.Tensor, "float", torch.Tensor.double):
        yield


class Reference:
    """A model of `transformers` with weights drawn from their names, which are those of its file. It computes in float64."""

    def __init__(self, name, head, size, folder, **changes):
        self.about = ARCHITECTURES[name]
        self.name, self.head, self.size, self.folder = name, head, size, folder
        self.config = self.about.config(size, **changes)
        self.model = build(self.about.prefix, head, self.config)
        self.names = draw_weights(self.model, folder)
        self.model.double().train()

    def own(self, **arguments):
        """bpnn's model of the folder."""
        return getattr(models, self.about.prefix + self.head).from_pretrained(self.folder, **arguments)

    def run(self, given, **arguments):
        """Outputs, loss and gradients for a model's arguments."""
        self.model.zero_grad()
        with widened():
            output = self.model(**{key: torch.from_numpy(np.array(value)) for key, value in given.items()}, **arguments)
            loss = output.loss if "loss" in output else probe(output, given, torch.from_numpy)
            loss.backward()
        gradients = {
            self.names[name]: (torch.zeros_like(p) if p.grad is None else p.grad).numpy().copy()
            for name, p in self.model.named_parameters()
        }
        return Results(arrays(output), loss.item(), gradients)


def build(prefix, head, config, **arguments):
    """A model of `transformers`, of float64 constants."""
    made, kind = getattr(transformers, prefix + "Config")(**config), getattr(transformers, prefix + head)
    with widened():
        for key, value in arguments.items():
            setattr(made, key, value)
        return kind(made)


def draw_weights(model, folder):
    """Give a model the weights of `drawing.weight` and save it; the names that its parameters have in the file."""
    parameters = list(model.named_parameters())
    with torch.no_grad():
        for index, (_, parameter) in enumerate(parameters):  # what a parameter's name becomes in a file is seen by its content
            parameter.fill_(index)
        model.save_pretrained(folder)
        names = {}
        for stored, array in load_file(f"{folder}/model.safetensors").items():
            index = int(array.flat[0])
            names[parameters[index][0]] = stored
            parameters[index][1].copy_(torch.from_numpy(weight(stored, array.shape)))
    assert len(names) == len(parameters)
    model.save_pretrained(folder)
    return names


def agree(reference, own, given, tolerance, **arguments):
    """Assert that both compute the same: in training mode, and the outputs in evaluation too."""
    want = reference.run(given, **arguments)
    mask = given.get("attention_mask")
    own.train()
    lines = differences(run_own(own, given, **arguments), want, tolerance, mask)
    own.eval()
    with bpnn.no_grad():
        dtype = next(iter(own.parameters())).dtype
        alone = {key: value for key, value in given.items() if key not in ("labels", "start_positions", "end_positions")}
        alone = {key: value.astype(dtype) if value.dtype.kind == "f" else value for key, value in alone.items()}
        output = arrays(own(**alone, **arguments))
    quiet = Results(output, want.loss, want.gradients)
    lines += [f"without labels, {line}" for line in differences(quiet, want, tolerance, mask)]
    if lines:
        pytest.fail(f"{type(own).__name__}, {len(lines)} differences:\n  " + "\n  ".join(lines[:40]), pytrace=False)


def trace(model, steps, optimizer, batches, wrap):
    """The losses of some steps of training."""
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = model(**{key: wrap(value) for key, value in batches[step % len(batches)].items()}).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


def theirs(prefix, head, folder, **arguments):
    """The model of `transformers` of a folder."""
    return getattr(transformers, prefix + head).from_pretrained(folder, **arguments)
