"""Recurrent networks, cells and packed sequences: against their parts, and against PyTorch."""
import math

import numpy as np
import pytest

import bpnn
from bpnn import nn
from bpnn.nn.utils import rnn as U

RNG = np.random.default_rng(0)
MODULES = [
    ("RNN", {}), ("RNN", {"nonlinearity": "relu"}), ("LSTM", {}), ("LSTM", {"proj_size": 3}), ("GRU", {}),
]
SHAPES = [
    {}, {"num_layers": 2}, {"bidirectional": True}, {"num_layers": 3, "bidirectional": True, "batch_first": True},
    {"bias": False, "num_layers": 2}, {"batch_first": True},
]


def build(name, options, **more):
    return getattr(nn, name)(4, 5, **options, **more)


def draw(*shape, dtype=np.float32):
    return bpnn.from_numpy(RNG.normal(size=shape).astype(dtype))


def first_states(model, batch, dtype=np.float32):
    """Random first states, a list."""
    layers = model.num_layers * (2 if model.bidirectional else 1)
    lead = (layers, batch) if batch else (layers,)
    widths = [model.proj_size or model.hidden_size] + [model.hidden_size] * isinstance(model, nn.LSTM)
    return [draw(*lead, width, dtype=dtype) for width in widths]


def call(model, x, states=None):
    """`(output, list of last states)`."""
    output, last = model(x) if states is None else model(x, tuple(states) if isinstance(model, nn.LSTM) else states[0])
    return output, list(last) if isinstance(model, nn.LSTM) else [last]


def same(a, b, rtol=1e-6, atol=1e-6):
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=rtol, atol=atol)


@pytest.mark.parametrize(("name", "options"), MODULES)
@pytest.mark.parametrize("bias", [True, False])
def test_parameters(name, options, bias):
    model = build(name, options, num_layers=2, bidirectional=True, bias=bias)
    gates, state = {"RNN": 5, "LSTM": 20, "GRU": 15}[name], options.get("proj_size", 5)
    expected = {}
    for layer, width in enumerate((4, 2 * state)):
        for suffix in ("", "_reverse"):
            end = f"_l{layer}{suffix}"
            expected |= {"weight_ih" + end: (gates, width), "weight_hh" + end: (gates, state)}
            expected |= {"bias_ih" + end: (gates,), "bias_hh" + end: (gates,)} if bias else {}
            expected |= {"weight_hr" + end: (3, 5)} if "proj_size" in options else {}
    assert {key: value.shape for key, value in model.state_dict().items()} == expected
    assert list(model.state_dict()) == list(expected)
    values = np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])
    assert abs(values).max() <= 1 / math.sqrt(5) and abs(values).max() > 0.9 / math.sqrt(5) and abs(values.mean()) < 0.1
    assert [len(row) for row in model.all_weights] == [2 + 2 * bias + ("proj_size" in options)] * 4
    assert model.flatten_parameters() is None
    twin = build(name, options, num_layers=2, bidirectional=True, bias=bias)
    twin.load_state_dict(model.state_dict())
    x = draw(3, 2, 4)
    same(call(model, x)[0], call(twin, x)[0], 0, 0)


@pytest.mark.parametrize(("name", "options"), MODULES)
def test_layers_and_directions_are_stacked(name, options):
    """Two bidirectional layers equal four single ones, the reverse ones on turned sequences."""
    model = build(name, options, num_layers=2, bidirectional=True)
    x, states = draw(6, 3, 4), first_states(model, 3)
    output, last = call(model, x, states)
    for layer in range(2):
        halves = []
        for direction, suffix in enumerate(("", "_reverse")):
            one = getattr(nn, name)(x.shape[-1], 5, **options)
            for key in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", *(["weight_hr"] if "proj_size" in options else [])):
                setattr(one, key + "_l0", getattr(model, f"{key}_l{layer}{suffix}"))
            at = 2 * layer + direction
            half, finals = call(one, x.flip(0) if direction else x, [state[at:at + 1] for state in states])
            halves.append(half.flip(0) if direction else half)
            for got, whole in zip(finals, last, strict=True):
                same(got[0], whole[at])
        x = bpnn.cat(halves, -1)
    same(output, x)


@pytest.mark.parametrize(("name", "options"), MODULES)
def test_layouts_of_the_input(name, options):
    model = build(name, options, bidirectional=True)
    first = build(name, options, bidirectional=True, batch_first=True)
    first.load_state_dict(model.state_dict())
    x, states = draw(6, 3, 4), first_states(model, 3)
    output, last = call(model, x, states)
    turned, turned_last = call(first, x.transpose(0, 1), states)
    same(turned.transpose(0, 1), output)
    for i in range(3):
        alone, alone_last = call(model, x[:, i], [state[:, i] for state in states])
        assert alone.shape == output[:, i].shape
        same(alone, output[:, i])
        for got, other, whole in zip(alone_last, turned_last, last, strict=True):
            same(got, whole[:, i])
            same(other, whole)
    same(call(first, x[:, 0])[0], call(model, x[:, 0])[0])
    same(call(model, x)[0], call(model, x, [state * 0 for state in states])[0])


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_dropout_acts_between_layers(name):
    bpnn.manual_seed(0)
    model = getattr(nn, name)(4, 50, 2, dropout=1.0)
    x = draw(3, 2, 4)
    once = call(model, x)[0]
    same(once, call(model, draw(3, 2, 4))[0])                  # the second layer sees nothing of the input
    model.eval()
    assert not np.allclose(call(model, x)[0].detach().numpy(), once.detach().numpy())
    half = getattr(nn, name)(4, 50, 2, dropout=0.5)
    first, second = call(half, x)[0], call(half, x)[0]
    assert not np.allclose(first.detach().numpy(), second.detach().numpy())
    half.eval()
    same(call(half, x)[0], call(half, x)[0], 0, 0)
    with pytest.warns(UserWarning, match="num_layers is 1"):
        getattr(nn, name)(4, 5, dropout=0.5)


@pytest.mark.parametrize(("name", "options"), [("RNN", {}), ("RNN", {"nonlinearity": "relu"}), ("LSTM", {}), ("GRU", {})])
@pytest.mark.parametrize("bias", [True, False])
def test_cells_step_as_layers_do(name, options, bias):
    model = build(name, options, bias=bias)
    cell = getattr(nn, name + "Cell")(4, 5, bias=bias, **options)
    cell.load_state_dict({key.removesuffix("_l0"): value for key, value in model.state_dict().items()})
    x, states = draw(4, 3, 4), first_states(model, 3)
    output, last = call(model, x, states)
    now = [state[0] for state in states]
    for t in range(4):
        now = cell(x[t], tuple(now) if name == "LSTM" else now[0])
        now = list(now) if name == "LSTM" else [now]
        same(now[0], output[t])
    for got, whole in zip(now, last, strict=True):
        same(got, whole[0])
    alone = cell(x[0, 1])
    batch = cell(x[0])
    same(alone[0] if name == "LSTM" else alone, (batch[0] if name == "LSTM" else batch)[1])


@pytest.mark.parametrize(("name", "options"), MODULES)
@pytest.mark.parametrize("lengths", [[6, 4, 4, 1], [2, 6, 1, 5]])
def test_packed_sequences_equal_single_ones(name, options, lengths):
    model = build(name, options, num_layers=2, bidirectional=True)
    sequences, states = [draw(n, 4) for n in lengths], first_states(model, 4)
    packed = U.pack_sequence(sequences, enforce_sorted=lengths == sorted(lengths, reverse=True))
    output, last = call(model, packed, states)
    padded, counted = U.pad_packed_sequence(output)
    assert isinstance(output, U.PackedSequence) and counted.tolist() == lengths
    for i, one in enumerate(sequences):
        alone, alone_last = call(model, one, [state[:, i] for state in states])
        same(padded[:lengths[i], i], alone)
        assert not padded.detach().numpy()[lengths[i]:, i].any()
        for got, whole in zip(alone_last, last, strict=True):
            same(whole[:, i], got)


def test_packing():
    x = bpnn.tensor([[1.0, 2, 3], [4, 0, 0], [5, 6, 0]], requires_grad=True)
    packed = U.pack_padded_sequence(x, [3, 1, 2], batch_first=True, enforce_sorted=False)
    assert packed.data.tolist() == [1, 5, 4, 2, 6, 3] and packed.batch_sizes.tolist() == [3, 2, 1]
    assert packed.sorted_indices.tolist() == [0, 2, 1] and packed.unsorted_indices.tolist() == [0, 2, 1]
    (packed.data * bpnn.tensor([1.0, 2, 3, 4, 5, 6])).sum().backward()
    assert x.grad.tolist() == [[1, 4, 6], [3, 0, 0], [2, 5, 0]]
    packed = U.pack_padded_sequence(x, [3, 1, 2], batch_first=True, enforce_sorted=False)
    padded, lengths = U.pad_packed_sequence(packed, batch_first=True, padding_value=-1, total_length=4)
    assert padded.tolist() == [[1, 2, 3, -1], [4, -1, -1, -1], [5, 6, -1, -1]] and lengths.tolist() == [3, 1, 2]
    x.grad = None
    (padded * padded).sum().backward()
    assert x.grad.tolist() == [[2, 4, 6], [8, 0, 0], [10, 12, 0]]
    assert packed.to(bpnn.float64).data.dtype == np.float64 and packed.double().batch_sizes is packed.batch_sizes
    assert packed.to(bpnn.float32) is packed and packed.cpu() is packed and not packed.is_cuda
    assert [one.tolist() for one in U.unpack_sequence(packed)] == [[1, 2, 3], [4], [5, 6]]
    steps = U.pack_padded_sequence(x.t(), bpnn.tensor([3, 2, 2]))
    assert steps.data.tolist() == [1, 4, 5, 2, 0, 6, 3] and steps.sorted_indices is None
    assert U.PackedSequence((steps.data, steps.batch_sizes)).batch_sizes is steps.batch_sizes


def test_padding():
    sequences = [draw(n, 2, 3) for n in (2, 4, 1)]
    for batch_first in (False, True):
        right = U.pad_sequence(sequences, batch_first, -1.0)
        left = U.pad_sequence(sequences, batch_first, -1.0, "left")
        assert right.shape == ((3, 4, 2, 3) if batch_first else (4, 3, 2, 3))
        for i, one in enumerate(sequences):
            a, b = (right[i], left[i]) if batch_first else (right[:, i], left[:, i])
            same(a[:len(one)], one)
            same(b[4 - len(one):], one)
            assert (a[len(one):].numpy() == -1).all() and (b[:4 - len(one)].numpy() == -1).all()
        for one, back in zip(sequences, U.unpad_sequence(right, bpnn.tensor([2, 4, 1]), batch_first), strict=True):
            same(one, back)
    for one, back in zip(sequences, U.unpack_sequence(U.pack_sequence(sequences, enforce_sorted=False)), strict=True):
        same(one, back)


def test_errors():
    x = draw(5, 3, 4)
    model = nn.LSTM(4, 5)
    for error, match, work in [
        (TypeError, "input_size: expected an int, got float", lambda: nn.LSTM(4.0, 5)),
        (ValueError, "hidden_size: expected 1 or more, got 0", lambda: nn.GRU(4, 0)),
        (ValueError, "num_layers: expected 1 or more, got 0", lambda: nn.RNN(4, 5, 0)),
        (TypeError, "bias: expected a bool, got int", lambda: nn.LSTM(4, 5, bias=1)),
        (TypeError, "batch_first: expected a bool", lambda: nn.LSTM(4, 5, batch_first=None)),
        (ValueError, "dropout: expected a probability between 0 and 1, got 1.5", lambda: nn.LSTM(4, 5, 2, dropout=1.5)),
        (ValueError, "proj_size: expected 0", lambda: nn.LSTM(4, 5, proj_size=5)),
        (ValueError, "nonlinearity: expected 'tanh' or 'relu', got 'sin'", lambda: nn.RNN(4, 5, nonlinearity="sin")),
        (ValueError, "nonlinearity: expected", lambda: nn.RNNCell(4, 5, nonlinearity="sin")),
        (ValueError, "LSTM input: expected 2 axes", lambda: model(draw(4))),
        (RuntimeError, r"LSTM input: expected shape \(\*, 4\), the input_size, got \(5, 3, 3\)", lambda: model(x[..., :3])),
        (ValueError, "LSTM input: expected the dtype of the weights, float32, got float64", lambda: model(x.double())),
        (RuntimeError, r"LSTM hx\[1\]: expected shape \(1, 3, 5\), got \(1, 2, 5\)",
         lambda: model(x, (draw(1, 3, 5), draw(1, 2, 5)))),
        (RuntimeError, r"GRU hx: expected shape \(1, 5\), got \(1, 1, 5\)", lambda: nn.GRU(4, 5)(x[:, 0], draw(1, 1, 5))),
        (RuntimeError, r"LSTM hx: expected \(h_0, c_0\), got Tensor", lambda: model(x, draw(1, 3, 5))),
        (RuntimeError, "LSTM input: expected packed data", lambda: model(U.pack_padded_sequence(x[..., 0], [5] * 3))),
        (RuntimeError, r"GRUCell hx: expected shape \(3, 5\), got \(2, 5\)", lambda: nn.GRUCell(4, 5)(x[0], draw(2, 5))),
        (ValueError, "GRUCell input: expected 1 or 2 axes", lambda: nn.GRUCell(4, 5)(x)),
        (RuntimeError, "lengths: expected numbers that do not grow", lambda: U.pack_padded_sequence(x, [1, 2, 3])),
        (ValueError, "lengths: expected numbers between 1 and 5, got 0 to 3", lambda: U.pack_padded_sequence(x, [3, 2, 0])),
        (ValueError, "lengths: expected 3, one for each sequence", lambda: U.pack_padded_sequence(x, [3, 2])),
        (ValueError, "lengths: expected a vector of integers", lambda: U.pack_padded_sequence(x, [3.0, 2.0, 1.0])),
        (ValueError, "total_length: expected at least 5",
         lambda: U.pad_packed_sequence(U.pack_padded_sequence(x, [5, 2, 1]), total_length=4)),
        (ValueError, "padding_side: expected", lambda: U.pad_sequence([x], padding_side="top")),
        (ValueError, r"sequences\[1\]: expected shape", lambda: U.pad_sequence([x, x[:, 0]])),
        (RuntimeError, "sequences: expected at least one", lambda: U.pad_sequence([])),
    ]:
        with pytest.raises(error, match=match):
            work()


def test_printing():
    assert repr(nn.LSTM(4, 5)) == "LSTM(4, 5)"
    model = nn.LSTM(4, 5, 2, bias=False, batch_first=True, dropout=0.25, bidirectional=True, proj_size=3)
    assert repr(model) == ("LSTM(4, 5, proj_size=3, num_layers=2, bias=False, batch_first=True, dropout=0.25, "
                           "bidirectional=True)")
    assert repr(nn.RNNCell(4, 5, nonlinearity="relu")) == "RNNCell(4, 5, nonlinearity=relu)"


# --- PyTorch --------------------------------------------------------------------------------------------------------------

def twins(torch, name, options, dtype):
    """The same network twice."""
    torch.set_num_threads(1)                                    # its threads and ours would wait for one another
    theirs = getattr(torch.nn, name)(4, 5, **options, dtype=getattr(torch, dtype))
    ours = getattr(nn, name)(4, 5, **options, dtype=getattr(bpnn, dtype))
    assert str(ours) == str(theirs)
    ours.load_state_dict({key: bpnn.from_numpy(value.numpy()) for key, value in theirs.state_dict().items()})
    return ours, theirs


def agree(ours, theirs, dtype):
    tolerance = {"rtol": 2e-5, "atol": 2e-6} if dtype == "float32" else {"rtol": 1e-11, "atol": 1e-13}
    np.testing.assert_allclose(ours.detach().numpy(), theirs.detach().numpy(), **tolerance)


def wave(lib, shape, dtype):
    """Fixed numbers, different ones, as a tensor."""
    return lib.tensor(np.cos(np.arange(math.prod(shape))).reshape(shape).astype(dtype))


@pytest.mark.rivals
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", ["batch", "packed", "unsorted", "single", "no state"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "options"), MODULES)
def test_torch_agrees(name, options, shape, form, dtype):
    torch = pytest.importorskip("torch")
    ours, theirs = twins(torch, name, options | shape, dtype)
    first = ours.batch_first
    x = RNG.normal(size=(6, 5, 4) if form != "single" else (6, 4)).astype(dtype)
    x = x.swapaxes(0, 1).copy() if first and form != "single" else x
    states = [state.numpy() for state in first_states(ours, 0 if form == "single" else 5, dtype)]
    lengths = [6, 5, 5, 2, 1] if form == "packed" else [3, 6, 1, 4, 6]
    results = []
    for lib, model, utils in ((bpnn, ours, U), (torch, theirs, torch.nn.utils.rnn)):
        leaf = lib.tensor(x, requires_grad=True)
        starts = [] if form == "no state" else [lib.tensor(state, requires_grad=True) for state in states]
        given = leaf
        if form in ("packed", "unsorted"):
            given = utils.pack_padded_sequence(leaf, lengths, first, enforce_sorted=form == "packed")
        args = () if not starts else (tuple(starts),) if name == "LSTM" else (starts[0],)
        output, last = model(given, *args)
        if given is not leaf:
            output = utils.pad_packed_sequence(output, first, 0.5)[0]
        outputs = [output, *(last if name == "LSTM" else [last])]
        sum((one * wave(lib, one.shape, dtype)).sum() for one in outputs).backward()
        results.append(outputs + [leaf.grad, *(start.grad for start in starts)] + [p.grad for p in model.parameters()])
    for mine, other in zip(*results, strict=True):
        agree(mine, other, dtype)


@pytest.mark.rivals
@pytest.mark.parametrize("batch", [0, 3])
@pytest.mark.parametrize(("name", "options"), [("RNN", {}), ("RNN", {"nonlinearity": "relu"}), ("LSTM", {}), ("GRU", {})])
def test_torch_cells_agree(name, options, batch):
    torch = pytest.importorskip("torch")
    ours, theirs = twins(torch, name + "Cell", options, "float64")
    x, states = RNG.normal(size=(batch, 4)[not batch:]), [RNG.normal(size=(batch, 5)[not batch:]) for _ in range(2)]
    for given in (False, True):
        results = []
        for lib, model in ((bpnn, ours), (torch, theirs)):
            leaf, *starts = [lib.tensor(value, requires_grad=True) for value in (x, *states)]
            last = model(leaf, *((tuple(starts),) if name == "LSTM" else starts[:1]) if given else ())
            last = list(last) if name == "LSTM" else [last]
            sum((one * one).sum() for one in last).backward()
            results.append(last + [leaf.grad] + ([one.grad for one in starts[:len(last)]] if given else []))
        for mine, other in zip(*results, strict=True):
            agree(mine, other, "float64")


@pytest.mark.rivals
@pytest.mark.parametrize("batch_first", [False, True])
def test_torch_packs_and_pads_alike(batch_first):
    torch = pytest.importorskip("torch")
    lengths = [3, 6, 1, 4, 2]
    values = [RNG.normal(size=(n, 2)) for n in lengths]
    ours, theirs = [bpnn.tensor(v) for v in values], [torch.tensor(v) for v in values]
    for side in ("left", "right"):
        mine = U.pad_sequence(ours, batch_first, 2.0, side)
        agree(mine, torch.nn.utils.rnn.pad_sequence(theirs, batch_first, 2.0, side), "float64")
    packed, other = (lib.pack_padded_sequence(padded, lengths, batch_first, False) for lib, padded in (
        (U, mine), (torch.nn.utils.rnn, torch.tensor(mine.numpy()))))
    for a, b in zip(packed, other, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    for total in (None, 9):
        padded = U.pad_packed_sequence(packed, batch_first, -1.0, total)
        for a, b in zip(padded, torch.nn.utils.rnn.pad_packed_sequence(other, batch_first, -1.0, total), strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.rivals
@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_torch_loss_trace(name):
    """100 steps of Adam on a classifier of sequences of tokens: the same losses."""
    torch = pytest.importorskip("torch")
    x = RNG.integers(0, 50, (20, 16, 30))
    y = (x[..., :15] > x[..., 15:]).sum(2) // 4
    torch.set_num_threads(1)
    losses, start = [], None
    for lib in (torch, bpnn):
        net = lib.nn
        model = net.ModuleList([net.Embedding(50, 12), getattr(net, name)(12, 40, 2, batch_first=True, bidirectional=True),
                                net.Linear(80, 4)])
        if start is None:
            start = {key: value.numpy().copy() for key, value in model.state_dict().items()}
        else:
            model.load_state_dict({key: bpnn.from_numpy(value) for key, value in start.items()})
        update = lib.optim.Adam(model.parameters(), lr=1e-3)
        trace = []
        for step in range(100):
            output, _ = model[1](model[0](lib.tensor(x[step % 20])))
            loss = net.functional.cross_entropy(model[2](output[:, -1]), lib.tensor(y[step % 20]))
            update.zero_grad()
            loss.backward()
            update.step()
            trace.append(loss.item())
        losses.append(trace)
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-3)
    assert np.mean(losses[0][-20:]) < 0.9 * np.mean(losses[0][:5])
