"""Transforms of a batch, every image with a matrix of its own, against PyTorch and against SciPy or Pillow image by image."""
import numpy as np
import pytest
from harness import THREADS, Absent, Job

SHAPES = {"64×1×28×28": (64, 1, 28, 28), "64×3×32×32": (64, 3, 32, 32), "16×3×256×256": (16, 3, 256, 256)}
TARGET = (224, 224)


def images(shape):
    return np.random.default_rng(0).random(shape, np.float32)


def turned(count):
    """(N, 2, 3): small rotations, scales and moves, from the middle of the image."""
    rng = np.random.default_rng(1)
    angle, scale, move = rng.uniform(-0.2, 0.2, count), rng.uniform(0.9, 1.1, count), rng.uniform(-2, 2, (2, count))
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    return np.stack([cos, -sin, move[0], sin, cos, move[1]], -1).reshape(count, 2, 3)


# Affine maps ---------------------------------------------------------------------------------------------------------


def bpnn_affine(inputs):
    from bpnn.transforms.geometry import warp

    x, matrices = inputs["x"], inputs["matrices"]
    return Job(lambda: warp(x, matrices, x.shape[2:], "bilinear", 0), result=lambda y: {"y": y})


def torch_affine(inputs):
    import torch
    from torch.nn import functional as F

    torch.set_num_threads(THREADS)
    x = torch.from_numpy(inputs["x"])
    h, w = x.shape[2:]
    theta = inputs["matrices"] * np.array([[1, h / w, 2 / w], [w / h, 1, 2 / h]])  # PyTorch counts places from -1 to 1
    theta = torch.from_numpy(theta.astype(np.float32))

    def step():
        return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)

    return Job(step, result=lambda y: {"y": y.numpy()})


def scipy_affine(inputs):
    from scipy import ndimage

    x, y = inputs["x"], np.empty_like(inputs["x"])
    middle = (np.array(x.shape[2:]) - 1) / 2

    def step():
        for image, result, matrix in zip(x, y, inputs["matrices"], strict=True):
            linear = matrix[::-1, 1::-1]
            offset = middle + matrix[::-1, 2] - linear @ middle
            for plane, out in zip(image, result, strict=True):
                ndimage.affine_transform(plane, linear, offset, order=1, mode="grid-constant", output=out)
        return y

    return Job(step, result=lambda y: {"y": y})


@pytest.mark.parametrize("shape", SHAPES)
def test_affine(race, shape):
    inputs = {"x": images(SHAPES[shape]), "matrices": turned(SHAPES[shape][0])}
    contenders = {"bpnn": bpnn_affine, "PyTorch": torch_affine, "SciPy image by image": scipy_affine}
    race(f"affine map, bilinear, {shape}", contenders, inputs=inputs, rtol=1e-3, atol=1e-3)


# Sizes ---------------------------------------------------------------------------------------------------------------


def bpnn_resize(inputs):
    from bpnn.transforms.functional import resize

    return Job(lambda: resize(inputs["x"], TARGET), result=lambda y: {"y": y})


def torch_resize(inputs):
    import torch
    from torch.nn import functional as F

    torch.set_num_threads(THREADS)
    x = torch.from_numpy(inputs["x"])
    return Job(lambda: F.interpolate(x, TARGET, mode="bilinear", antialias=True), result=lambda y: {"y": y.numpy()})


def pillow_resize(inputs):
    try:
        from PIL import Image
    except ImportError as error:
        raise Absent("Pillow is not installed") from error
    x = inputs["x"]
    pictures = [Image.fromarray(plane) for plane in x.reshape(-1, *x.shape[2:])]

    def step():
        planes = [np.asarray(picture.resize(TARGET[::-1], Image.Resampling.BILINEAR)) for picture in pictures]
        return np.stack(planes).reshape(*x.shape[:2], *TARGET)

    return Job(step, result=lambda y: {"y": y})


def test_resize(race):
    contenders = {"bpnn": bpnn_resize, "PyTorch": torch_resize, "Pillow image by image": pillow_resize}
    race("resize, antialiased, 16×3×256×256 to 224×224", contenders, inputs={"x": images((16, 3, 256, 256))})
