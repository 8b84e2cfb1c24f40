"""Every architecture against numbers that `transformers` computed (`make_numbers.py`): needs neither it nor PyTorch."""
import numpy as np
import pytest
from architectures import ARCHITECTURES, MODELS, inputs, named
from comparing import TOLERANCE, run_own, stored_numbers, write_model
from make_numbers import summary

import bpnn
from bpnn import models


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of models with weights drawn from their names, each written once."""
    made = {}

    def folder(name, head):
        if (name, head) not in made:
            made[name, head] = write_model(tmp_path_factory.mktemp(name), name, head)
        return made[name, head]

    return folder


def check(got, want, tolerance):
    """They agree relative to the largest of each tensor; a gradient that is 0 but for rounding, to the largest of all."""
    assert got["loss"] == pytest.approx(want["loss"], rel=tolerance)
    assert got["outputs"].keys() == want["outputs"].keys()
    assert got["gradients"].keys() == want["gradients"].keys()
    largest = max(numbers[0] for numbers in want["gradients"].values())
    for part in ("outputs", "gradients"):
        for name, numbers in want[part].items():
            nothing = part == "gradients" and numbers[0] < 1e-10 * largest
            scales = np.full(len(numbers), largest if nothing else numbers[0])
            scales[1] = max(scales[1], numbers[1])  # the norm is a number of its own size
            off = (np.abs(np.subtract(got[part][name], numbers)) / scales).max()
            assert off <= tolerance, f"{part} {name}: off by {off:.1e}"


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@named(MODELS)
def test_stored_numbers(folders, name, head, dtype):
    """Outputs, loss and all gradients, without a mask and with padding."""
    content, about = stored_numbers(name)[head], ARCHITECTURES[name]
    model = getattr(models, about.prefix + head).from_pretrained(folders(name, head), dtype=dtype).train()
    for side in (None, *about.padding):
        given = inputs(about, head, "small", about.config("small"), side)
        got = summary(run_own(model, given), given.get("attention_mask"))
        got["gradients"] = {key: got["gradients"][key] for key in content["shapes"]}  # tied ones have two names here
        check(got, content["runs"][str(side)], TOLERANCE[dtype])
    assert model.num_parameters() == sum(int(np.prod(shape)) for shape in content["shapes"].values())


@named(MODELS)
def test_same_bits(name, head):
    """One thread and two give the same bits; so does the same again."""
    about = ARCHITECTURES[name]
    kind = getattr(models, about.prefix + head)
    bpnn.manual_seed(0)
    model = kind(kind.config_class.from_dict({**about.config("mid"), "initializer_range": 0.1}))
    given = inputs(about, head, "mid", about.config("mid"), "right" if about.padding else None)
    runs = []
    for count in (1, 2, 2):
        bpnn.set_num_threads(count)
        runs.append(run_own(model, given))
    for other in runs[1:]:
        assert other.loss == runs[0].loss
        for key, value in runs[0].outputs.items():
            assert np.array_equal(other.outputs[key], value), key
        for key, value in runs[0].gradients.items():
            assert np.array_equal(other.gradients[key], value), key
