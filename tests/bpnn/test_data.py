"""Data sets, samplers, collating and the loader in one process. Workers: test_data_workers.py."""
import collections
import itertools

import numpy as np
import pytest

import bpnn
from bpnn.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
    default_convert,
    get_worker_info,
    random_split,
)
from bpnn.utils.data.dataset import gatherer
from bpnn.utils.data.sampler import bits, derived_seed, permutation

Point = collections.namedtuple("Point", "x y")


def numbers(n, width=3):
    """A data set whose row i is full of i, with label i."""
    x = np.repeat(np.arange(n, dtype=np.float32)[:, None], width, axis=1)
    return TensorDataset(bpnn.from_numpy(x), bpnn.from_numpy(np.arange(n)))


def labels(loader):
    return [batch[1].tolist() for batch in loader]


def joined(batches):
    return list(itertools.chain.from_iterable(batches))


class Squares(Dataset):
    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        if not 0 <= index < self.n:
            raise IndexError(index)
        return float(index * index)


class Counting(IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return iter(range(self.n))


# --- the order ------------------------------------------------------------------------------------------------------------

def philox(key, counter):
    """Philox4x64-10 as published (Salmon et al. 2011), with Python's integers."""
    mask = 2**64 - 1
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        a, b = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [(b >> 64) ^ c[1] ^ k0, b & mask, (a >> 64) ^ c[3] ^ k1, a & mask]
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return c


@pytest.mark.parametrize("n", [0, 1, 2, 31, 32, 33, 1000])
def test_permutation_is_philox_keyed_by_seed_and_epoch(n):
    seed, epoch = 2**63 - 5, 7
    # NumPy counts up before each block of four
    words = [word for block in range(1, n // 4 + 2) for word in philox((seed, epoch), (block, 0, 0, 0))][:n]
    width = max(n - 1, 0).bit_length()
    expected = sorted(range(n), key=lambda i: (words[i] >> width, i))
    assert permutation(n, seed, epoch).tolist() == expected


def test_order_never_changes():
    # pinned: a run that was saved with one version resumes with the next
    assert permutation(10, 0, 0).tolist() == PINNED[0]
    assert permutation(10, 0, 1).tolist() == PINNED[1]
    assert permutation(10, 1, 0).tolist() == PINNED[2]


PINNED = [
    [0, 2, 9, 1, 8, 5, 4, 3, 6, 7],
    [5, 3, 7, 8, 2, 4, 1, 0, 6, 9],
    [3, 5, 2, 9, 7, 0, 8, 6, 1, 4],
]


def test_permutation_is_uniform():
    counts = np.zeros((5, 5))
    for epoch in range(4000):
        counts[np.arange(5), permutation(5, 3, epoch)] += 1
    expected = 800
    assert ((counts - expected) ** 2 / expected).sum() < 45  # chi-squared of 16 degrees of freedom: p < 0.0002


def test_streams_do_not_meet():
    seen = {derived_seed(seed, epoch, purpose, number)
            for seed, epoch, purpose, number in itertools.product(range(3), range(3), range(3), range(3))}
    assert len(seen) == 81
    assert (np.asarray(bits(1, 2).random_raw(4)) != np.asarray(bits(1, 2, 1).random_raw(4))).all()


def test_random_sampler():
    sampler = RandomSampler(range(50))
    first, second = list(sampler), list(sampler)
    assert sorted(first) == sorted(second) == list(range(50)) and first != second
    assert len(sampler) == 50
    few = list(RandomSampler(range(5), num_samples=3))
    assert len(few) == len(set(few)) == 3
    many = list(RandomSampler(range(5), num_samples=12))
    assert sorted(many[:5]) == sorted(many[5:10]) == list(range(5)) and len(many) == 12
    drawn = list(RandomSampler(range(5), replacement=True, num_samples=5000))
    assert len(drawn) == 5000
    counts = np.bincount(drawn, minlength=5)
    assert counts.min() > 880 and counts.max() < 1120
    assert list(RandomSampler([])) == []


def test_samplers_follow_manual_seed_and_generator():
    def draw(generator=None):
        return list(RandomSampler(range(20), generator=generator))

    bpnn.manual_seed(3)
    a = draw()
    bpnn.manual_seed(3)
    assert draw() == a
    assert draw() != a
    b = draw(bpnn.Generator().manual_seed(3))
    assert draw(bpnn.Generator().manual_seed(3)) == b


def test_subset_and_weighted_samplers():
    assert sorted(SubsetRandomSampler([3, 5, 9])) == [3, 5, 9]
    assert len(SubsetRandomSampler([3, 5, 9])) == 3
    weights = [0.0, 1.0, 0.0, 3.0, 0.0]
    counts = np.bincount(list(WeightedRandomSampler(weights, 8000)), minlength=5)
    assert counts[[0, 2, 4]].sum() == 0 and abs(counts[3] / 8000 - 0.75) < 0.03
    assert sorted(WeightedRandomSampler(weights, 2, replacement=False)) == [1, 3]
    # the first of a draw without replacement is distributed as one draw; the second as one of the rest
    pairs = [list(WeightedRandomSampler([1.0, 2.0, 3.0], 2, replacement=False)) for _ in range(3000)]
    first = np.bincount([a for a, _ in pairs], minlength=3) / 3000
    assert np.abs(first - [1 / 6, 2 / 6, 3 / 6]).max() < 0.04
    after_2 = np.bincount([b for a, b in pairs if a == 2], minlength=3)
    assert abs(after_2[1] / after_2.sum() - 2 / 3) < 0.06
    for bad in ([], [1, -1], [np.nan, 1], [0, 0], [[1]]):
        with pytest.raises(ValueError, match="weights"):
            WeightedRandomSampler(bad, 1)
    with pytest.raises(ValueError, match="num_samples"):
        WeightedRandomSampler(weights, 3, replacement=False)
    with pytest.raises(ValueError, match="num_samples"):
        WeightedRandomSampler(weights, 0)


def test_batch_sampler():
    assert list(BatchSampler(SequentialSampler(range(7)), 3, False)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(BatchSampler(SequentialSampler(range(7)), 3, True)) == [[0, 1, 2], [3, 4, 5]]
    assert len(BatchSampler(range(7), 3, False)) == 3 and len(BatchSampler(range(7), 3, True)) == 2
    with pytest.raises(ValueError, match="batch_size"):
        BatchSampler(range(7), 0, False)


# --- data sets ------------------------------------------------------------------------------------------------------------

def test_tensor_dataset():
    x, y = bpnn.from_numpy(np.arange(6.0).reshape(3, 2)), bpnn.from_numpy(np.arange(3))
    dataset = TensorDataset(x, y)
    assert len(dataset) == 3
    a, b = dataset[1]
    assert a.tolist() == [2, 3] and b.item() == 1
    with pytest.raises(ValueError, match=r"\[3, 2\]"):
        TensorDataset(x, bpnn.from_numpy(np.arange(2)))
    with pytest.raises(TypeError, match="list"):
        TensorDataset([1, 2])
    with pytest.raises(ValueError, match="at least one"):
        TensorDataset()


def test_concat_and_subset():
    both = Squares(3) + Squares(2)
    assert isinstance(both, ConcatDataset)
    assert [both[i] for i in range(5)] == [0, 1, 4, 0, 1]
    assert both[-1] == 1 and both[-5] == 0 and len(both) == 5
    for index in (5, -6):
        with pytest.raises(IndexError, match=str(index)):
            both[index]
    part = Subset(both, [4, 2, 2])
    assert [part[i] for i in range(len(part))] == [1, 4, 4]
    with pytest.raises(TypeError, match="IterableDataset"):
        ConcatDataset([Counting(3)])
    with pytest.raises(ValueError, match="at least one"):
        ConcatDataset([])
    assert len(ConcatDataset([Squares(0), Squares(2)])) == 2


def test_random_split():
    bpnn.manual_seed(0)
    a, b = random_split(Squares(10), [7, 3])
    assert (len(a), len(b)) == (7, 3)
    assert sorted([*a.indices, *b.indices]) == list(range(10))
    bpnn.manual_seed(0)
    again, _ = random_split(Squares(10), [7, 3])
    assert again.indices == a.indices
    # shares of 3.33 each: the whole numbers, and what is left over to the first
    assert [len(part) for part in random_split(range(10), [1 / 3, 1 / 3, 1 / 3])] == [4, 3, 3]
    assert [len(part) for part in random_split(range(11), [0.5, 0.25, 0.25])] == [6, 3, 2]
    assert [len(part) for part in random_split(range(5), [1.0, 0.0])] == [5, 0]
    for bad in ([7, 4], [0.5, 0.4], [-1, 11], []):
        with pytest.raises(ValueError, match="lengths"):
            random_split(range(10), bad)


def test_undefined_methods_are_named():
    class Nothing(Dataset):
        pass

    class NoStream(IterableDataset):
        pass

    with pytest.raises(TypeError, match="Nothing does not define __getitem__"):
        Nothing()[0]
    with pytest.raises(TypeError, match="NoStream does not define __iter__"):
        list(DataLoader(NoStream()))
    with pytest.raises(TypeError, match="Sampler does not define __iter__"):
        list(Sampler())
    assert get_worker_info() is None


# --- collating ------------------------------------------------------------------------------------------------------------

def test_collate_kinds():
    x = default_collate([bpnn.ones(2), bpnn.zeros(2)])
    assert isinstance(x, bpnn.Tensor) and x.tolist() == [[1, 1], [0, 0]] and x.dtype == np.float32
    assert default_collate([np.float32(1), np.float32(2)]).dtype == np.float32
    assert default_collate([np.zeros((2, 3), np.int16)] * 4).shape == (4, 2, 3)
    assert default_collate([1.5, 2]).dtype == np.float64
    assert default_collate([1, 2]).dtype == np.int64
    assert default_collate([True, False]).dtype == np.bool_
    assert default_collate(["a", "b"]) == ["a", "b"] and default_collate([b"a"]) == [b"a"]
    batch = default_collate([{"x": (1, 2.0), "n": "a"}, {"x": (3, 4.0), "n": "b"}])
    assert batch["x"][0].tolist() == [1, 3] and batch["x"][1].tolist() == [2.0, 4.0] and batch["n"] == ["a", "b"]
    point = default_collate([Point(1, 2), Point(3, 4)])
    assert isinstance(point, Point) and point.y.tolist() == [2, 4]
    assert isinstance(default_collate([(1, 2)]), list)
    assert type(default_collate([collections.OrderedDict(a=1)])) is collections.OrderedDict
    assert default_collate([collections.defaultdict(int, a=1)])["a"].tolist() == [1]


def test_collate_errors():
    with pytest.raises(RuntimeError, match=r"\(2,\) and \(3,\)"):
        default_collate([np.zeros(2), np.zeros(3)])
    with pytest.raises(RuntimeError, match=r"\(2,\) and \(3,\)"):
        default_collate([bpnn.ones(2), bpnn.ones(3)])
    with pytest.raises(RuntimeError, match="lengths"):
        default_collate([[1, 2], [1]])
    with pytest.raises(TypeError, match="object"):
        default_collate([object()])
    with pytest.raises(TypeError, match="NoneType"):
        default_collate([None])
    with pytest.raises(TypeError, match="dtype <U1"):
        default_collate([np.array("a")])
    with pytest.raises(ValueError, match="empty"):
        default_collate([])


def test_gradients_flow_into_samples():
    w = bpnn.from_numpy(np.arange(6.0).reshape(3, 2))
    w.requires_grad = True
    assert gatherer(TensorDataset(w)) is None
    batch, = next(iter(DataLoader(TensorDataset(w), batch_size=2)))
    (batch * batch).sum().backward()
    assert w.grad.tolist() == [[0, 2], [4, 6], [0, 0]]


def test_convert():
    sample = default_convert({"a": np.ones(2), "b": [np.float32(2), "text"], "c": Point(np.zeros(1), 3), "d": (1, None)})
    assert isinstance(sample["a"], bpnn.Tensor) and sample["b"][0].item() == 2 and sample["b"][1] == "text"
    assert isinstance(sample["c"], Point) and isinstance(sample["c"].x, bpnn.Tensor) and sample["d"] == (1, None)
    assert [type(x) for x in DataLoader(np.ones((2, 3)), batch_size=None)] == [bpnn.Tensor] * 2


@pytest.mark.rivals
def test_collate_like_pytorch():
    torch = pytest.importorskip("torch")
    from torch.utils.data import default_collate as reference

    def plain(value):
        if isinstance(value, (torch.Tensor, bpnn.Tensor)):
            return ("tensor", str(value.dtype).removeprefix("torch."), value.tolist())
        if isinstance(value, dict):
            return (type(value), {key: plain(item) for key, item in value.items()})
        if isinstance(value, (list, tuple)):
            return (type(value), [plain(item) for item in value])
        return value

    samples = [
        [1, 2], [1.5, 2.5], [True, False], ["a", "b"], [(1, "x"), (2, "y")], [[1, 2.0], [3, 4.0]],
        [np.float32(1), np.float32(2)], [np.arange(3), np.arange(3)], [np.int16(4), np.int16(5)],
        [{"a": 1, "b": {"c": (1.0, [2, 3])}}, {"a": 2, "b": {"c": (4.0, [5, 6])}}], [Point(1, 2.0), Point(3, 4.0)],
        [np.ones((2, 2), np.uint8)] * 3, [np.bool_(True), np.bool_(False)],
    ]
    for batch in samples:
        assert plain(default_collate(batch)) == plain(reference(batch)), batch


# --- one gather -----------------------------------------------------------------------------------------------------------

def sample_by_sample(dataset, rows):
    return default_collate([dataset[int(i)] for i in rows])


@pytest.mark.parametrize("rows", [range(2, 7), range(0), np.array([5, 0, 5, 3]), np.array([-1, 2]), np.array([], np.intp)])
def test_gather_equals_collated_samples(rows):
    data = numbers(8)
    cases = [
        data,
        Subset(data, [7, 6, 5, 4, 3, 2, 1, 0]),
        Subset(Subset(data, range(8)), np.arange(8)[::-1]),
        ConcatDataset([numbers(2), numbers(0), numbers(6)]),
        Subset(ConcatDataset([numbers(2), numbers(6)]), [7, 1, 2, 0, 3, 4, 5, 6]),
        TensorDataset(bpnn.from_numpy(np.arange(48.0).reshape(3, 2, 8).transpose(2, 1, 0))),
    ]
    for dataset in cases:
        batch = gatherer(dataset)(rows)
        assert isinstance(batch, list)
        if len(rows) == 0:
            assert all(t.shape == (0, *s.shape) for t, s in zip(batch, dataset[0]))
            continue
        for got, expected in zip(batch, sample_by_sample(dataset, rows), strict=True):
            assert got.dtype == expected.dtype and got.shape == expected.shape and got.tolist() == expected.tolist()


def test_gather_gives_way_to_other_ways_of_reading():
    class Doubled(TensorDataset):
        def __getitem__(self, index):
            return tuple(np.asarray(t._array[index]) * 2 for t in self.tensors)

    assert gatherer(Doubled(bpnn.from_numpy(np.arange(3)))) is None
    assert [x.tolist() for x, in DataLoader(Doubled(bpnn.from_numpy(np.arange(3))), batch_size=2)] == [[0, 2], [4]]

    class Late(Subset):
        def __getitem__(self, index):
            return (index,)

    assert gatherer(Late(numbers(3), [0, 1])) is None
    assert gatherer(Squares(3)) is None and gatherer(Subset(Squares(3), [0])) is None
    assert gatherer(ConcatDataset([numbers(2), numbers(2, width=4)])) is None
    assert gatherer(ConcatDataset([numbers(2), Squares(2)])) is None

    class Several(Squares):
        def __getitems__(self, indices):
            return [100.0 + index for index in indices]

    assert [x.tolist() for x in DataLoader(Several(3), batch_size=2)] == [[100, 101], [102]]
    calls = []
    list(DataLoader(numbers(4), batch_size=2, collate_fn=calls.append))
    assert [len(call) for call in calls] == [2, 2] and isinstance(calls[0][0], tuple)


def test_gather_refuses_what_is_out_of_range():
    for dataset in (numbers(4), ConcatDataset([numbers(2), numbers(2)])):
        with pytest.raises(IndexError):
            list(DataLoader(dataset, batch_size=2, sampler=[0, 4]))


def test_batches_do_not_share_memory_with_the_data():
    data = numbers(4)
    for shuffle in (False, True):
        for x, y in DataLoader(data, batch_size=4, shuffle=shuffle):
            x.numpy()[:] = -1
            y.numpy()[:] = -1
    assert data.tensors[1].tolist() == [0, 1, 2, 3] and data.tensors[0].numpy()[3, 0] == 3


# --- the loader -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("n", [0, 1, 31, 32, 33])
def test_sequential_batches(n, drop_last):
    loader = DataLoader(numbers(n), batch_size=8, drop_last=drop_last)
    batches = labels(loader)
    expected = [list(range(i, min(i + 8, n))) for i in range(0, n, 8)]
    if drop_last:
        expected = [batch for batch in expected if len(batch) == 8]
    assert batches == expected and len(loader) == len(expected)


def test_shuffled_passes_cover_the_data_and_differ():
    bpnn.manual_seed(1)
    loader = DataLoader(numbers(100), batch_size=7, shuffle=True)
    passes = [joined(labels(loader)) for _ in range(3)]
    assert all(sorted(order) == list(range(100)) for order in passes)
    assert passes[0] != passes[1] != passes[2]
    bpnn.manual_seed(1)
    loader = DataLoader(numbers(100), batch_size=7, shuffle=True)
    assert [joined(labels(loader)) for _ in range(3)] == passes
    # rows and labels stay together
    x, y = next(iter(loader))
    assert (x.numpy() == y.numpy()[:, None]).all()


def test_order_is_a_function_of_seed_and_epoch():
    bpnn.manual_seed(5)
    loader = DataLoader(numbers(30), batch_size=10, shuffle=True)
    list(loader)
    loader.set_epoch(9)
    seed = loader.state_dict()["seed"]
    assert joined(labels(loader)) == permutation(30, seed, 9).tolist()


def test_generator_decides_and_the_global_one_is_left_alone():
    def order(generator):
        return joined(labels(DataLoader(numbers(30), batch_size=10, shuffle=True, generator=generator)))

    before = bpnn.get_rng_state().tolist()
    a = order(bpnn.Generator().manual_seed(2))
    assert order(bpnn.Generator().manual_seed(2)) == a
    assert list(DataLoader(numbers(3)))  # nothing random, nothing drawn
    assert bpnn.get_rng_state().tolist() == before
    assert order(None) != order(None)
    sampler = RandomSampler(range(30), generator=bpnn.Generator().manual_seed(2))
    assert joined(labels(DataLoader(numbers(30), batch_size=10, sampler=sampler))) == a


def test_samplers_of_ones_own():
    assert labels(DataLoader(numbers(9), batch_size=2, sampler=[8, 1, 5])) == [[8, 1], [5]]
    assert labels(DataLoader(numbers(9), batch_size=2, sampler=[8, 1, 5], drop_last=True)) == [[8, 1]]
    assert labels(DataLoader(numbers(9), batch_sampler=[[8], [1, 5]])) == [[8], [1, 5]]
    loader = DataLoader(numbers(9), batch_sampler=BatchSampler(RandomSampler(range(9)), 4, True))
    assert len(loader) == 2 and [len(batch) for batch in labels(loader)] == [4, 4]
    assert loader.batch_size is None

    class Reversed(RandomSampler):
        def __iter__(self):
            return iter(range(len(self.data_source) - 1, -1, -1))

    assert labels(DataLoader(numbers(3), batch_size=2, sampler=Reversed(range(3)))) == [[2, 1], [0]]

    class ByEpoch:
        epoch = None

        def set_epoch(self, epoch):
            self.epoch = epoch

        def __iter__(self):
            return iter([self.epoch])

    loader = DataLoader(numbers(9), sampler=ByEpoch())
    assert [labels(loader) for _ in range(3)] == [[[0]], [[1]], [[2]]]
    assert isinstance(DataLoader(numbers(9), batch_size=4).batch_sampler, BatchSampler)


def test_single_samples_and_streams():
    assert list(DataLoader(Squares(3), batch_size=None)) == [0, 1, 4]
    assert sorted(DataLoader(Squares(3), batch_size=None, shuffle=True)) == [0, 1, 4]
    assert [x.tolist() for x in DataLoader(Counting(5), batch_size=2)] == [[0, 1], [2, 3], [4]]
    assert [x.tolist() for x in DataLoader(Counting(5), batch_size=2, drop_last=True)] == [[0, 1], [2, 3]]
    assert list(DataLoader(Counting(3), batch_size=None)) == [0, 1, 2]
    with pytest.raises(TypeError):
        len(DataLoader(Counting(3)))
    assert list(DataLoader(Squares(4), batch_size=2, collate_fn=sum)) == [1, 13]


@pytest.mark.parametrize(("arguments", "name"), [
    ({"batch_size": 0}, "batch_size"), ({"batch_size": 2.0}, "batch_size"), ({"batch_size": True}, "batch_size"),
    ({"shuffle": True, "sampler": [0]}, "sampler"), ({"batch_sampler": [[0]], "batch_size": 2}, "batch_sampler"),
    ({"batch_size": None, "drop_last": True}, "drop_last"), ({"num_workers": -1}, "num_workers"),
    ({"timeout": -1}, "timeout"), ({"prefetch_factor": 2}, "prefetch_factor"),
    ({"persistent_workers": True}, "persistent_workers"), ({"num_workers": 1, "prefetch_factor": 0}, "prefetch_factor"),
    ({"num_workers": 1, "multiprocessing_context": "fork"}, "multiprocessing_context"),
    ({"num_workers": 1, "multiprocessing_context": "threads"}, "multiprocessing_context"),
    ({"timeout": 3}, "timeout"),
])
def test_wrong_arguments_are_named(arguments, name):
    with pytest.raises(ValueError, match=name):
        DataLoader(numbers(3), **arguments)


def test_streams_refuse_an_order():
    for name, value in (("shuffle", True), ("sampler", [0]), ("batch_sampler", [[0]])):
        with pytest.raises(ValueError, match=name):
            DataLoader(Counting(3), **{name: value})


# --- resuming -------------------------------------------------------------------------------------------------------------

def make_loader(kind):
    if kind == "stream":
        return DataLoader(Counting(50), batch_size=4)
    data = numbers(50)
    return {
        "sequential": lambda: DataLoader(data, batch_size=4),
        "shuffled": lambda: DataLoader(data, batch_size=4, shuffle=True),
        "drop_last": lambda: DataLoader(data, batch_size=4, shuffle=True, drop_last=True),
        "single": lambda: DataLoader(data, batch_size=None, shuffle=True),
        "weighted": lambda: DataLoader(data, batch_size=4, sampler=WeightedRandomSampler(np.arange(50), 50)),
        "replacement": lambda: DataLoader(data, batch_size=4, sampler=RandomSampler(data, True, 70)),
        "batch_sampler": lambda: DataLoader(data, batch_sampler=BatchSampler(RandomSampler(data), 4, False)),
        "own sampler": lambda: DataLoader(data, batch_size=4, sampler=list(range(49, -1, -1))),
        "own batches": lambda: DataLoader(data, batch_sampler=[[i, 49 - i] for i in range(25)]),
    }[kind]()


KINDS = ["sequential", "shuffled", "drop_last", "single", "weighted", "replacement", "batch_sampler", "own sampler",
         "own batches", "stream"]


def content(batch):
    return batch.tolist() if isinstance(batch, bpnn.Tensor) else [part.tolist() for part in batch]


@pytest.mark.parametrize("kind", KINDS)
def test_resume_anywhere(kind):
    bpnn.manual_seed(11)
    loader = make_loader(kind)
    whole, states = [], [loader.state_dict()]
    for _ in range(3):
        for batch in loader:
            whole.append(content(batch))
            states.append(loader.state_dict())
    assert loader.state_dict()["epoch"] == 3 and loader.state_dict()["position"] == 0
    steps = len(whole) // 3
    for done in (0, 1, 5, steps - 1, steps, steps + 1, 2 * steps + 3):
        bpnn.manual_seed(11 if done == 0 else 99)  # before the first batch the seed is not drawn yet
        again = make_loader(kind)
        again.load_state_dict(states[done])
        rest = []
        for _ in range(3 - (max(done - 1, 0)) // steps):
            rest += [content(batch) for batch in again]
        assert rest == whole[done:], done


def test_states_survive_a_file(tmp_path):
    loader = make_loader("shuffled")
    batches = iter(loader)
    next(batches)
    bpnn.save(loader.state_dict(), tmp_path / "loader.safetensors")
    again = make_loader("shuffled")
    again.load_state_dict(bpnn.load(tmp_path / "loader.safetensors"))
    assert labels(again) == [batch[1].tolist() for batch in batches]


def test_passes_left_in_the_middle():
    bpnn.manual_seed(0)
    loader = make_loader("shuffled")
    batch = next(iter(loader))
    assert loader.state_dict()["epoch"] == 0 and loader.state_dict()["position"] == 1
    second = next(iter(loader))
    assert loader.state_dict()["epoch"] == 1
    assert content(batch) != content(second)
    # the rest of this pass, on request
    state = loader.state_dict()
    loader.load_state_dict(state)
    order = permutation(50, state["seed"], 1).tolist()
    assert joined(labels(loader)) == order[4:]


def test_two_passes_at_once():
    bpnn.manual_seed(0)
    loader = DataLoader(numbers(20), batch_size=5, shuffle=True)
    pairs = [(a[1].tolist(), b[1].tolist()) for a, b in zip(loader, loader)]
    seed = loader.state_dict()["seed"]
    assert joined(a for a, _ in pairs) == permutation(20, seed, 0).tolist()
    assert joined(b for _, b in pairs) == permutation(20, seed, 1).tolist()
    list(loader)
    assert loader.state_dict()["epoch"] == 3


def test_resuming_with_other_sizes_is_refused():
    loader = make_loader("shuffled")
    next(iter(loader))
    state = loader.state_dict()
    with pytest.raises(ValueError, match=r"batch_size.*4, not 5"):
        DataLoader(numbers(50), batch_size=5, shuffle=True).load_state_dict(state)
    with pytest.raises(ValueError, match=r"samples.*50, not 49"):
        DataLoader(numbers(49), batch_size=4, shuffle=True).load_state_dict(state)
    with pytest.raises(ValueError, match="epoch"):
        loader.set_epoch(-1)


def test_loader_needs_no_pinning():
    loader = DataLoader(numbers(3), pin_memory=True, pin_memory_device="cpu")
    assert loader.pin_memory and len(list(loader)) == 3


def test_documented_examples(tmp_path, monkeypatch):
    import doctest
    import importlib

    monkeypatch.chdir(tmp_path)
    for name in ("utils.data", "utils.data.collate", "utils.data.dataset", "utils.data.sampler", "utils.data.dataloader",
                 "serialization", "train.checkpoint"):
        result = doctest.testmod(importlib.import_module(f"bpnn.{name}"))
        assert result.attempted and not result.failed, name
