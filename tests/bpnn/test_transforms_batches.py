"""What all transforms share: a batch is its images one by one, seeds, forms of images, composition, errors."""
import bpnn
import numpy as np
import pytest
from bpnn import transforms as T
from bpnn.transforms.base import Draws


def images(*shape, dtype="float32", seed=0):
    values = np.random.default_rng(seed).random(shape)
    return (values * 256).astype(np.uint8) if dtype == "uint8" else values.astype(dtype)


RANDOM = {
    "crop": T.RandomCrop(9, padding=2, padding_mode="reflect"),
    "resized crop": T.RandomResizedCrop((7, 8), interpolation="bicubic"),
    "horizontal": T.RandomHorizontalFlip(),
    "vertical": T.RandomVerticalFlip(),
    "rotation": T.RandomRotation(30, "bilinear"),
    "affine": T.RandomAffine(10, (0.1, 0.1), (0.8, 1.2), 5),
    "jitter": T.ColorJitter(0.4, 0.4, 0.4, 0.2),
    "erasing": T.RandomErasing(value="random"),
    "apply": T.RandomApply([T.RandomErasing(1.0), T.ColorJitter(0.5)], 0.4),
    "compose": T.Compose([T.RandomCrop(10), T.RandomApply([T.RandomHorizontalFlip(), T.ColorJitter(0.3)]), T.RandomErasing()]),
}


@pytest.mark.parametrize("name", RANDOM)
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_batches_are_their_images(name, dtype):
    """A seed gives the same images one by one, in batches of any size, as arrays and as tensors."""
    transform, batch = RANDOM[name], images(13, 3, 11, 12, dtype=dtype)
    before = batch.copy()
    bpnn.manual_seed(7)
    whole = transform(batch)
    assert whole.dtype == batch.dtype
    np.testing.assert_array_equal(batch, before)
    bpnn.manual_seed(7)
    np.testing.assert_allclose(np.concatenate([transform(batch[:5]), transform(batch[5:])]), whole, atol=1e-6)
    bpnn.manual_seed(7)
    np.testing.assert_allclose(np.stack([transform(image) for image in batch]), whole, atol=1e-6)
    bpnn.manual_seed(7)
    tensor = transform(bpnn.from_numpy(batch))
    assert isinstance(tensor, bpnn.Tensor)
    np.testing.assert_array_equal(tensor.numpy(), whole)
    bpnn.manual_seed(8)
    assert (transform(batch) != whole).any()


@pytest.mark.parametrize("name", RANDOM)
def test_forms(name):
    """No images, more axes before the channels, memory in another order, float64, one channel."""
    transform, batch = RANDOM[name], images(6, 3, 11, 12, dtype="float64")
    assert transform(batch[:0]).shape[0] == 0
    bpnn.manual_seed(1)
    whole = transform(batch)
    assert whole.dtype == np.float64
    bpnn.manual_seed(1)
    np.testing.assert_allclose(transform(batch.reshape(2, 3, 3, 11, 12)), whole.reshape(2, 3, *whole.shape[1:]), atol=1e-12)
    bpnn.manual_seed(1)
    strided = np.empty((11, 12, 3, 12))[..., ::2].transpose(3, 2, 0, 1)
    strided[...] = batch
    np.testing.assert_allclose(transform(strided), whole, atol=1e-12)
    bpnn.manual_seed(1)
    assert transform(images(11, 12)).ndim == 2


@pytest.mark.parametrize("threads", [1, 2])
def test_threads(threads):
    bpnn.set_num_threads(threads)
    bpnn.manual_seed(2)
    out = T.Compose([T.RandomResizedCrop(48), T.RandomAffine(9, interpolation="bilinear")])(images(8, 3, 64, 64))
    bpnn.set_num_threads(1)
    bpnn.manual_seed(2)
    again = T.Compose([T.RandomResizedCrop(48), T.RandomAffine(9, interpolation="bilinear")])(images(8, 3, 64, 64))
    np.testing.assert_array_equal(out, again)


def test_own_generator():
    batch, transform = images(5, 3, 8, 8), T.RandomErasing(1.0).seeded(bpnn.Generator().manual_seed(4))
    bpnn.manual_seed(0)
    state = bpnn.get_rng_state().tolist()
    first = transform(batch)
    assert bpnn.get_rng_state().tolist() == state
    np.testing.assert_array_equal(T.RandomErasing(1.0).seeded(bpnn.Generator().manual_seed(4))(batch), first)


def test_draws_are_uniform_and_apart():
    bpnn.manual_seed(0)
    numbers = Draws.make(2000).random(50)
    counts = np.bincount((numbers.ravel() * 64).astype(int), minlength=64)
    assert ((counts - 1562.5) ** 2 / 1562.5).sum() < 120  # chi-squared, 63 degrees of freedom
    table = np.corrcoef(numbers.T)
    assert np.abs(table - np.eye(50)).max() < 0.12
    assert len(np.unique(numbers)) == numbers.size


def test_compose():
    seen = []
    transform = T.Compose([T.Resize(8), lambda x: seen.append(x.shape) or x, T.Normalize(0.5, 0.5)])
    assert transform(images(2, 3, 16, 16)).shape == (2, 3, 8, 8) and seen == [(2, 3, 8, 8)]
    assert repr(T.Compose([T.RandomHorizontalFlip(0.3)])) == "Compose(\n    RandomHorizontalFlip(p=0.3),\n)"
    with pytest.raises(TypeError, match="transforms: expected callables, got int"):
        T.Compose([3])
    bpnn.manual_seed(0)
    with pytest.raises(ValueError, match=r"transforms: expected ones that keep \(3, 8, 8\)"):
        T.RandomApply([T.Resize(4)])(images(40, 3, 8, 8))
    pictures = T.Compose([T.ToTensor(), T.RandomHorizontalFlip(1.0)])(images(4, 5, 3, dtype="uint8"))
    assert pictures.shape == (3, 4, 5)


def test_errors():
    with pytest.raises(TypeError, match="img: expected uint8, float32 or float64, got int64"):
        T.Resize(4)(np.zeros((3, 4, 4), np.int64))
    with pytest.raises(ValueError, match=r"img: expected .* got shape \(4,\)"):
        T.Resize(4)(np.zeros(4))
    with pytest.raises(TypeError, match="img: expected an array or a Tensor .* got list"):
        T.Resize(4)([1.0])
    for make, words in [
        (lambda: T.RandomHorizontalFlip(1.5), "p: expected a probability"),
        (lambda: T.Resize(0), "size: expected one or two whole numbers above 0, got 0"),
        (lambda: T.RandomAffine(10, (0.1, 2)), "translate: expected two shares"),
        (lambda: T.RandomAffine(10, scale=(1.2, 0.8)), "scale: expected two numbers in order"),
        (lambda: T.RandomRotation(-3), "degrees: expected a number of 0 or more"),
        (lambda: T.RandomErasing(value="noise"), "value: expected a number"),
        (lambda: T.RandomAffine(10, fill=(1, 2))(images(3, 4, 4)), "fill: expected a number or one for each of 3 channels"),
    ]:
        with pytest.raises(ValueError, match=words):
            make()


def test_workers_and_loader():
    """In a DataLoader the images follow the seed."""
    from bpnn.utils.data import DataLoader, TensorDataset

    transform = T.RandomCrop(8, padding=2)

    def run():
        bpnn.manual_seed(0)
        loader = DataLoader(TensorDataset(bpnn.from_numpy(images(20, 1, 8, 8))), 6, shuffle=True)
        return np.concatenate([transform(x).numpy() for (x,) in loader])

    np.testing.assert_array_equal(run(), run())
