"""Transforms: each equals Pillow, SciPy, PyTorch or a plain formula, image by image."""
import colorsys

import bpnn
import numpy as np
import pytest
from bpnn import transforms as T
from bpnn.transforms import functional as F
from bpnn.transforms.base import Draws
from bpnn.transforms.geometry import inverse_matrices, warp
from bpnn.transforms.resize import random_boxes, resample
from scipy import ndimage

SIZES = [(1, 1), (1, 7), (8, 5), (31, 33)]


def images(*shape, dtype="float32", seed=0):
    values = np.random.default_rng(seed).random(shape)
    return (values * 256).astype(np.uint8) if dtype == "uint8" else values.astype(dtype)


def bilinear_pillow(image, size, filter, box=None):
    """A float image through Pillow's mode F."""
    Image = pytest.importorskip("PIL.Image")
    return np.asarray(Image.fromarray(image.astype(np.float32), "F").resize(size[::-1], getattr(Image.Resampling, filter), box))


# Sizes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*mode.*:DeprecationWarning")
@pytest.mark.parametrize("mode", ["BILINEAR", "BICUBIC", "NEAREST"])
@pytest.mark.parametrize("size", [(1, 1), (5, 9), (13, 4), (64, 40)])
@pytest.mark.parametrize("source", SIZES)
def test_resize_is_pillow(source, size, mode):
    batch = images(3, 2, *source)
    ours = F.resize(batch, size, "nearest-exact" if mode == "NEAREST" else mode.lower())
    assert ours.shape == (3, 2, *size) and ours.dtype == np.float32
    for image, result in zip(batch.reshape(-1, *source), ours.reshape(-1, *size), strict=True):
        np.testing.assert_allclose(result, bilinear_pillow(image, size, mode), atol=2e-6)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(5, 9), (48, 64)])
def test_resize_of_bytes_is_pillow(size, mode):
    Image = pytest.importorskip("PIL.Image")
    image = images(3, 31, 33, dtype="uint8")
    picture = Image.fromarray(image.transpose(1, 2, 0)).resize(size[::-1], Image.Resampling[mode.upper()])
    theirs = np.asarray(picture).transpose(2, 0, 1)
    ours = F.resize(image, size, mode)
    assert ours.dtype == np.uint8
    difference = np.abs(ours.astype(int) - theirs)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01  # Pillow's weights are rounded to 22 bits


@pytest.mark.parametrize("size", [(5, 9), (64, 40)])
def test_bilinear_without_antialias_is_scipy(size):
    image = images(9, 13, dtype="float64")
    rows, columns = ((np.arange(n) + 0.5) * old / n - 0.5 for n, old in zip(size, image.shape, strict=True))
    theirs = ndimage.map_coordinates(image, np.meshgrid(rows, columns, indexing="ij"), order=1, mode="nearest")
    np.testing.assert_allclose(F.resize(image, size, antialias=False), theirs, atol=1e-12)


@pytest.mark.rivals
@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest", "nearest-exact"])
@pytest.mark.parametrize("size", [(5, 9), (48, 64)])
def test_resize_is_pytorch(size, mode):
    torch = pytest.importorskip("torch")
    batch = images(2, 3, 31, 33)
    for antialias in (False, True) if mode.startswith("bi") else (False,):
        theirs = torch.nn.functional.interpolate(torch.from_numpy(batch), size, mode=mode, antialias=antialias).numpy()
        np.testing.assert_allclose(F.resize(batch, size, mode, antialias=antialias), theirs, atol=2e-6)


def test_the_shorter_side():
    batch = images(2, 3, 20, 30)
    assert F.resize(batch, 10).shape == (2, 3, 10, 15) and F.resize(batch, [10]).shape == (2, 3, 10, 15)
    assert F.resize(batch.transpose(0, 1, 3, 2), 10).shape == (2, 3, 15, 10)
    assert F.resize(batch, 10, max_size=12).shape == (2, 3, 8, 12)
    with pytest.raises(ValueError, match="max_size: expected more than the shorter side 10, got 9"):
        F.resize(batch, 10, max_size=9)
    with pytest.raises(ValueError, match="interpolation: expected one of nearest, .* got 'cubic'"):
        F.resize(batch, 10, "cubic")


@pytest.mark.filterwarnings("ignore:.*mode.*:DeprecationWarning")
@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "nearest-exact"])
def test_boxes_of_a_batch_are_pillow(mode):
    batch, size = images(5, 2, 20, 30), (12, 10)
    boxes = np.array([[0, 0, 20, 30], [3, 4, 7, 5], [19, 29, 1, 1], [0, 10, 20, 3], [5, 0, 15, 30]])
    ours = resample(batch, boxes, size, mode, True)
    for image, result, (top, left, tall, wide) in zip(batch, ours, boxes, strict=True):
        for channel, plane in zip(image, result, strict=True):
            filter = "NEAREST" if mode == "nearest-exact" else mode.upper()
            theirs = bilinear_pillow(np.ascontiguousarray(channel[top : top + tall, left : left + wide]), size, filter)
            np.testing.assert_allclose(plane, theirs, atol=2e-6)
        np.testing.assert_allclose(result, F.resized_crop(image, top, left, tall, wide, size, mode), atol=1e-6)


def test_random_boxes():
    bpnn.manual_seed(0)
    boxes, found = random_boxes((40, 60), (0.2, 0.3), (0.5, 2.0), Draws.make(5000))
    top, left, tall, wide = boxes.T
    assert found.all() and (top >= 0).all() and (left >= 0).all() and (top + tall <= 40).all() and (left + wide <= 60).all()
    share, ratio = tall * wide / 2400, wide / tall
    assert share.min() > 0.18 and share.max() < 0.33 and ratio.min() > 0.45 and ratio.max() < 2.2
    assert abs(np.log(ratio).mean()) < 0.05
    boxes, found = random_boxes((10, 1000), (1.0, 1.0), (0.5, 2.0), Draws.make(3))
    assert not found.any() and (boxes == [0, 490, 10, 20]).all()  # the largest that the ratio allows, in the middle
    out = T.RandomResizedCrop((8, 6))(images(7, 3, 20, 30))
    assert out.shape == (7, 3, 8, 6) and T.RandomResizedCrop((8, 6))(images(0, 3, 20, 30)).shape == (0, 3, 8, 6)


# Crops and flips -----------------------------------------------------------------------------------------------------


def test_crops():
    batch = images(2, 3, 7, 9)
    np.testing.assert_array_equal(F.center_crop(batch, 3), batch[..., 2:5, 3:6])
    np.testing.assert_array_equal(F.center_crop(batch, (7, 9)), batch)
    grown = F.center_crop(batch, (9, 12))
    np.testing.assert_array_equal(grown[..., 1:8, 1:10], batch)
    assert grown.sum() == pytest.approx(batch.sum(), rel=1e-5)
    np.testing.assert_array_equal(F.crop(batch, 1, 2, 3, 4), batch[..., 1:4, 2:6])
    outside = F.crop(batch, -1, 5, 4, 6)
    np.testing.assert_array_equal(outside[..., 1:, :4], batch[..., :3, 5:])
    assert not outside[..., 0, :].any() and not outside[..., 4:].any()


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
@pytest.mark.parametrize("margins", [2, (1, 2), (1, 2, 3, 0)])
def test_pad_is_numpy(mode, margins):
    batch = images(2, 3, 7, 9, dtype="uint8")
    left, top, right, bottom = (margins,) * 4 if isinstance(margins, int) else margins * 2 if len(margins) == 2 else margins
    options = {"constant_values": 7} if mode == "constant" else {}
    theirs = np.pad(batch, ((0, 0), (0, 0), (top, bottom), (left, right)), mode, **options)
    np.testing.assert_array_equal(T.Pad(margins, 7, mode)(batch), theirs)


def test_random_crop():
    batch = np.arange(64 * 5 * 6, dtype=np.float32).reshape(64, 1, 5, 6) + 1
    bpnn.manual_seed(0)
    out = T.RandomCrop((4, 3), padding=2)(batch)
    padded = np.pad(batch, ((0, 0), (0, 0), (2, 2), (2, 2)))
    seen = set()
    for image, result in zip(padded[:, 0], out[:, 0], strict=True):
        places = [(i, j) for i in range(6) for j in range(8) if (image[i : i + 4, j : j + 3] == result).all()]
        assert places
        seen.update(places)
    assert len(seen) > 30
    assert T.RandomCrop(8, pad_if_needed=True)(batch).shape == (64, 1, 8, 8)
    with pytest.raises(ValueError, match="size: expected at most the image's 5 × 6, padding included, got 8 × 8"):
        T.RandomCrop(8)(batch)


@pytest.mark.parametrize(("transform", "axis"), [(T.RandomHorizontalFlip, 2), (T.RandomVerticalFlip, 1)])
def test_flips(transform, axis):
    batch = images(400, 2, 3, 4)
    bpnn.manual_seed(0)
    out = transform(0.25)(batch)
    flipped = [bool((result == np.flip(image, axis)).all()) for image, result in zip(batch, out, strict=True)]
    assert all(f or (r == i).all() for f, r, i in zip(flipped, out, batch, strict=True)) and 60 < sum(flipped) < 140
    np.testing.assert_array_equal(transform(0.0)(batch), batch)
    np.testing.assert_array_equal(transform(1.0)(batch), np.flip(batch, axis + 1))
    np.testing.assert_array_equal((F.hflip if axis == 2 else F.vflip)(batch[0]), np.flip(batch[0], axis))


# Geometry ------------------------------------------------------------------------------------------------------------


def through_scipy(image, matrix, order, fill):
    """The image at the places of `matrix` (x, y from the middle), each channel by SciPy."""
    h, w = image.shape[1:]
    middle = np.array([(h - 1) / 2, (w - 1) / 2])
    linear = matrix[:, :2][::-1, ::-1]
    offset = middle + matrix[::-1, 2] - linear @ middle
    return np.stack([ndimage.affine_transform(plane, linear, offset, order=order, mode="grid-constant", cval=value)
                     for plane, value in zip(image, fill, strict=True)])  # fmt: skip


@pytest.mark.parametrize("size", [*SIZES, (40, 50)])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_warp_is_scipy(mode, size):
    batch = images(6, 2, *size, dtype="float64")
    rng = np.random.default_rng(1)
    matrices = np.eye(2, 3) + rng.normal(0, 0.4, (6, 2, 3)) * [1, 1, 5]
    ours = warp(batch, matrices, size, mode, (0.25, 0.5))
    for image, result, matrix in zip(batch, ours, matrices, strict=True):
        np.testing.assert_allclose(result, through_scipy(image, matrix, mode == "bilinear", (0.25, 0.5)), atol=1e-12)
    single = warp(batch.astype(np.float32), matrices, size, mode, (0.25, 0.5))
    off = np.abs(single - ours) > 1e-4
    assert off.sum() <= (2 if mode == "nearest" else 0)  # a place between two pixels may round to the other one


def composed(center, angle, translate, scale, shear):
    """Move to the origin, shear along y and x, turn clockwise, scale, move back and on: as matrices, then inverted."""
    move = lambda x, y: np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])  # noqa: E731
    t, sx, sy = np.radians([angle, *shear])
    turn = np.array([[np.cos(t), -np.sin(t), 0], [np.sin(t), np.cos(t), 0], [0, 0, 1]])
    along_y = np.array([[1, 0, 0], [-np.tan(sy), 1, 0], [0, 0, 1]])
    along_x = np.array([[1, -np.tan(sx), 0], [0, 1, 0], [0, 0, 1]])
    inner = np.diag([scale, scale, 1]) @ turn @ along_y @ along_x
    return np.linalg.inv(move(*translate) @ move(*center) @ inner @ move(-center[0], -center[1]))[:2]


@pytest.mark.parametrize(
    "values",
    [
        ((0, 0), 0, (0, 0), 1, (0, 0)),
        ((0, 0), 30, (3, -2), 0.8, (0, 0)),
        ((2, -1), -70, (1, 1), 1.3, (10, 0)),
        ((1, 3), 15, (0, 2), 1.1, (10, -20)),
    ],
)
def test_matrices(values):
    np.testing.assert_allclose(inverse_matrices(*values)[0], composed(*values), atol=1e-12)


@pytest.mark.rivals
def test_matrices_are_torchvisions():
    """The same places as `affine_grid` gives for torchvision's matrix; it counts them from -1 to 1."""
    torch = pytest.importorskip("torch")
    image, matrix = images(1, 3, 12, 17, dtype="float64"), inverse_matrices((0, 0), 25, (2, 1), 1.2, (5, 0))
    theta = torch.from_numpy(matrix) * torch.tensor([[1.0, 12 / 17, 2 / 17], [17 / 12, 1.0, 2 / 12]], dtype=torch.float64)
    grid = torch.nn.functional.affine_grid(theta, (1, 3, 12, 17), align_corners=False)
    theirs = torch.nn.functional.grid_sample(torch.from_numpy(image), grid, align_corners=False).numpy()
    np.testing.assert_allclose(F.affine(image, 25, (2, 1), 1.2, 5, "bilinear"), theirs, atol=1e-12)


def test_impossible_matrices():
    """Places that are no numbers, or far outside, hold something, and never anything of other memory."""
    assert np.isfinite(warp(images(1, 1, 8, 8), np.full((1, 2, 3), np.nan), (8, 8), "bilinear", 0.5)).all()
    far = warp(images(2, 1, 8, 8), np.full((1, 2, 3), 1e30), (8, 8), "nearest", 0.5)
    np.testing.assert_array_equal(far, np.full((2, 1, 8, 8), np.float32(0.5)))


def test_rotation():
    image = images(2, 8, 8, dtype="float64")
    for turns in range(4):
        np.testing.assert_allclose(F.rotate(image, 90 * turns), np.rot90(image, turns, (1, 2)))
    long = images(2, 5, 9, dtype="float64")
    np.testing.assert_allclose(F.rotate(long, 90, "bilinear", expand=True), np.rot90(long, 1, (1, 2)), atol=1e-12)
    theirs = np.stack([ndimage.rotate(plane, 20, reshape=False, order=1, mode="grid-constant") for plane in long])
    np.testing.assert_allclose(F.rotate(long, 20, "bilinear"), theirs, atol=1e-12)
    around = F.rotate(long, 90, "nearest", center=(0, 5))
    assert not around[:, :, 5:].any()
    np.testing.assert_allclose(around[:, :5, :5], np.rot90(F.crop(long, 0, -5, 5, 10), 1, (1, 2))[:, 5:, :5])


def test_rotation_is_pillow():
    Image = pytest.importorskip("PIL.Image")
    image = images(32, 32, dtype="uint8")
    theirs = np.asarray(Image.fromarray(image).rotate(33, Image.Resampling.NEAREST))
    assert (F.rotate(image, 33) != theirs).mean() < 0.02
    turned = np.asarray(Image.fromarray(image).rotate(33, Image.Resampling.BILINEAR)).astype(int)
    ours = F.rotate(image, 33, "bilinear").astype(int)
    inside = ndimage.binary_erosion(np.asarray(Image.new("L", (32, 32), 255).rotate(33)) > 0, iterations=2)
    assert np.abs(ours - turned)[inside].max() <= 1


def test_random_affine_is_its_matrices():
    """The images of a seed are those of the drawn angles, moves and scales, each alone through SciPy."""
    batch = images(9, 2, 20, 24, dtype="float64")
    bpnn.manual_seed(3)
    out = T.RandomAffine(20, (0.1, 0.2), (0.8, 1.2), (-5, 5, -3, 3), "bilinear", 0.5)(batch)
    bpnn.manual_seed(3)
    draws = Draws.make(9)
    u = [draws.random()[:, 0] for _ in range(6)]
    low_high = [(-20, 20), (-2.4, 2.4), (-4, 4), (0.8, 1.2), (-5, 5), (-3, 3)]
    angle, dx, dy, scale, sx, sy = (low + (high - low) * v for v, (low, high) in zip(u, low_high, strict=True))
    for k in range(9):
        matrix = composed((0, 0), angle[k], (round(dx[k]), round(dy[k])), scale[k], (sx[k], sy[k]))
        np.testing.assert_allclose(out[k], through_scipy(batch[k], matrix, 1, (0.5, 0.5)), atol=1e-12)
    assert len(set(angle)) == 9


def test_random_rotation():
    batch = images(50, 1, 16, 16, dtype="float64")
    bpnn.manual_seed(0)
    out = T.RandomRotation((10, 20), "bilinear")(batch)
    for image, result in zip(batch[:5], out, strict=False):
        errors = [np.abs(F.rotate(image, a, "bilinear") - result).max() for a in np.linspace(10, 20, 101)]
        assert min(errors) < 0.02 < max(errors)
    assert T.RandomRotation(45, expand=True)(batch[0]).shape[1] > 16
    with pytest.raises(ValueError, match="expand: expected a single image, got 50"):
        T.RandomRotation(45, expand=True)(batch)


# Color ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [0.0, 0.3, 1.0, 1.7])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_color_is_pillow(name, factor):
    Image, Enhance = pytest.importorskip("PIL.Image"), pytest.importorskip("PIL.ImageEnhance")
    image = images(3, 20, 30, dtype="uint8")
    kind = {"brightness": "Brightness", "contrast": "Contrast", "saturation": "Color"}[name]
    theirs = getattr(Enhance, kind)(Image.fromarray(image.transpose(1, 2, 0))).enhance(factor)
    ours = getattr(F, f"adjust_{name}")(image, factor)
    assert ours.dtype == np.uint8
    difference = np.abs(ours.transpose(1, 2, 0).astype(int) - np.asarray(theirs))
    assert difference.max() <= 1  # Pillow's gray is rounded, torchvision's is cut off
    fine = getattr(F, f"adjust_{name}")(image.astype(np.float32) / 255, factor) * 255
    assert np.abs(fine.transpose(1, 2, 0) - np.asarray(theirs)).max() < 2


@pytest.mark.parametrize("shift", [-0.5, -0.2, 0.0, 0.1, 0.5])
def test_hue(shift):
    image = np.concatenate([images(3, 9, 10, dtype="float64"), np.full((3, 1, 10), 0.4)], 1)
    image[:, 0, 0] = 0, 0.3, 0.3
    theirs = np.empty_like(image)
    for place in np.ndindex(image.shape[1:]):
        h, s, v = colorsys.rgb_to_hsv(*image[(slice(None), *place)])
        theirs[(slice(None), *place)] = colorsys.hsv_to_rgb((h + shift) % 1, s, v)
    np.testing.assert_allclose(F.adjust_hue(image, shift), theirs, atol=1e-12)
    coarse = F.adjust_hue((image * 255).astype(np.uint8), shift)
    assert coarse.dtype == np.uint8 and np.abs(coarse / 255 - theirs).max() < 3 / 255


def test_color_jitter():
    batch = images(24, 3, 6, 7, dtype="float64")
    bpnn.manual_seed(5)
    out = T.ColorJitter(0.4, (0.5, 1.5), 0.3, 0.1)(batch)
    bpnn.manual_seed(5)
    draws = Draws.make(24)
    order = np.argsort(draws.random(4), 1)
    factors = [draws.uniform(*r) for r in ((0.6, 1.4), (0.5, 1.5), (0.7, 1.3), (-0.1, 0.1))]
    functions = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    for k in range(24):
        image = batch[k]
        for which in order[k]:
            image = functions[which](image, float(factors[which][k]))
        np.testing.assert_allclose(out[k], image, atol=1e-12)
    assert len({tuple(row) for row in order}) > 10
    np.testing.assert_array_equal(T.ColorJitter()(batch), batch)
    assert T.ColorJitter(0.5, 0.5, 0.5, 0.5)(images(2, 1, 4, 4)).shape == (2, 1, 4, 4)
    with pytest.raises(ValueError, match="img: expected 1 or 3 channels, got 4"):
        T.ColorJitter(0, 0.5)(images(2, 4, 4, 4))
    with pytest.raises(ValueError, match="hue: expected a number between 0 and 0.5"):
        T.ColorJitter(hue=0.6)


def test_gray():
    Image = pytest.importorskip("PIL.Image")
    image = images(3, 20, 30, dtype="uint8")
    theirs = np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L")).astype(int)
    assert np.abs(T.Grayscale()(image)[0] - theirs).max() <= 1
    assert T.Grayscale(3)(image).shape == (3, 20, 30)


# Values --------------------------------------------------------------------------------------------------------------


def test_normalize():
    batch, mean, std = images(2, 3, 4, 5), (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    ours = T.Normalize(mean, std)(bpnn.from_numpy(batch))
    expected = (batch - np.float32(mean).reshape(3, 1, 1)) / np.float32(std).reshape(3, 1, 1)
    np.testing.assert_array_equal(ours.numpy(), expected)
    with pytest.raises(TypeError, match="img: expected floating-point values, got uint8"):
        T.Normalize(0.5, 0.5)(images(3, 4, 5, dtype="uint8"))
    with pytest.raises(ValueError, match="mean: expected 1 or 2 values, one a channel, got 3"):
        T.Normalize(mean, std)(images(2, 2, 4, 5))
    with pytest.raises(ValueError, match="std: expected no zeros"):
        T.Normalize(0.5, 0)


def test_to_tensor():
    Image = pytest.importorskip("PIL.Image")
    image = images(4, 5, 3, dtype="uint8")
    for pic in (image, Image.fromarray(image)):
        ours = T.ToTensor()(pic)
        assert isinstance(ours, bpnn.Tensor) and ours.shape == (3, 4, 5) and ours.dtype == bpnn.float32
        np.testing.assert_array_equal(ours.numpy(), image.transpose(2, 0, 1).astype(np.float32) / np.float32(255))
    assert T.ToTensor()(Image.fromarray(image[..., 0])).shape == (1, 4, 5)
    assert T.ToTensor()(Image.fromarray(image).convert("RGBA")).shape == (4, 4, 5)
    assert T.ToTensor()(Image.new("1", (3, 2), 1)).tolist() == [[[1.0] * 3] * 2]
    assert T.ToTensor()(Image.fromarray(np.full((2, 3), 60000, np.uint16))).tolist() == [[[60000] * 3] * 2]
    with pytest.raises(TypeError, match="pic: expected a picture of Pillow or an array, got list"):
        T.ToTensor()([1])


def test_types():
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    spread = T.ConvertImageDtype(bpnn.float64)(every)
    np.testing.assert_array_equal(spread, every / 255)
    np.testing.assert_array_equal(T.ConvertImageDtype("uint8")(spread), every)
    np.testing.assert_array_equal(T.ConvertImageDtype("uint8")(T.ConvertImageDtype("float32")(every)), every)
    with pytest.raises(ValueError, match="dtype: expected uint8, float32 or float64, got int64"):
        T.ConvertImageDtype("int64")


# Erasing -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, (2.0, 3.0, 4.0), "random"])
def test_erasing(value):
    batch = images(300, 3, 20, 30)
    bpnn.manual_seed(11)
    out = T.RandomErasing(0.5, value=value)(batch)
    changed = (out != batch).any(1)
    boxes = 0
    for k in np.flatnonzero(changed.any((1, 2))):
        rows, columns = np.flatnonzero(changed[k].any(1)), np.flatnonzero(changed[k].any(0))
        box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        assert changed[k][box].all()
        assert 0.01 < changed[k].mean() < 0.36
        if value != "random":
            assert (out[k][(slice(None), *box)] == np.reshape(value, (-1, 1, 1))).all()
        boxes += 1
    assert 110 < boxes < 190
    if value == "random":
        noise = out[out != batch]
        assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02
    np.testing.assert_array_equal(F.erase(batch[0], 1, 2, 3, 4, 9.0)[:, 1:4, 2:6], np.full((3, 3, 4), 9))
