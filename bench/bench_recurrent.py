"""Training steps of sequence classifiers: table of words, recurrent layer, the last state, cross entropy, Adam; and inference."""
from functools import partial

import numpy as np
import pytest
from harness import THREADS, Job

VOCABULARY, WIDTH, HIDDEN, CLASSES, BATCH, STEPS = 20_000, 128, 256, 2, 32, 100
GATES = {"LSTM": 4, "GRU": 3}


def problem(kind, layers=1, directions=1, ragged=False, seed=0):
    """Initial weights by name, and batches of words (as frequent as in a text, Zipf), lengths and labels."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, VOCABULARY + 1)
    bound = HIDDEN**-0.5

    def draw(*shape):
        return rng.uniform(-bound, bound, shape).astype(np.float32)

    arrays = {
        "x": rng.choice(VOCABULARY, (8, BATCH, STEPS), p=share / share.sum()), "y": rng.integers(0, CLASSES, (8, BATCH)),
        "lengths": np.sort(rng.integers(STEPS // 10, STEPS + 1, (8, BATCH)) if ragged else np.full((8, BATCH), STEPS))[:, ::-1],
        "table.weight": rng.standard_normal((VOCABULARY, WIDTH), np.float32),
        "head.weight": draw(CLASSES, HIDDEN * directions), "head.bias": draw(CLASSES),
    }
    for layer in range(layers):
        inputs = HIDDEN * directions if layer else WIDTH
        for suffix in ("", "_reverse")[:directions]:
            rows = GATES[kind] * HIDDEN
            arrays |= {
                f"net.weight_ih_l{layer}{suffix}": draw(rows, inputs), f"net.weight_hh_l{layer}{suffix}": draw(rows, HIDDEN),
                f"net.bias_ih_l{layer}{suffix}": draw(rows), f"net.bias_hh_l{layer}{suffix}": draw(rows),
            }
    return arrays


def classifier(lib, inputs, kind, layers, directions):
    """The modules, with the initial weights."""
    nn = lib.nn
    model = nn.ModuleDict({
        "table": nn.Embedding(VOCABULARY, WIDTH),
        "net": getattr(nn, kind)(WIDTH, HIDDEN, layers, batch_first=True, bidirectional=directions == 2),
        "head": nn.Linear(HIDDEN * directions, CLASSES),
    })
    model.load_state_dict({key: lib.from_numpy(value) for key, value in inputs.items() if "." in key})
    return model


def step_job(lib, inputs, kind, layers=1, directions=1, packed=False, train=True):
    F, pack = lib.nn.functional, lib.nn.utils.rnn.pack_padded_sequence
    model = classifier(lib, inputs, kind, layers, directions)
    update = lib.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    batches = [[lib.from_numpy(np.ascontiguousarray(one)) for one in batch]
               for batch in zip(inputs["x"], inputs["y"], inputs["lengths"], strict=True)]
    state = {"next": 0}

    def scores(x, lengths):
        rows = model["table"](x)
        _, last = model["net"](pack(rows, lengths, True) if packed else rows)
        h = last[0] if kind == "LSTM" else last
        return model["head"](lib.cat((h[-2], h[-1]), 1) if directions == 2 else h[-1])

    def step():
        x, y, lengths = batches[state["next"]]
        state["next"] = (state["next"] + 1) % len(batches)
        if not train:
            with lib.no_grad():
                return scores(x, lengths)
        loss = F.cross_entropy(scores(x, lengths), y)
        update.zero_grad()
        loss.backward()
        update.step()
        return loss

    return Job(step, result=lambda last: {"result": last.detach().numpy()})


def bpnn_job(inputs, **options):
    import bpnn

    return step_job(bpnn, inputs, **options)


def torch_job(inputs, **options):
    import torch

    torch.set_num_threads(THREADS)
    return step_job(torch, inputs, **options)


def contenders(**options):
    """torch.compile leaves recurrent layers as they are, and they have one memory format."""
    return {"bpnn": partial(bpnn_job, **options), "PyTorch": partial(torch_job, **options)}


@pytest.mark.parametrize("kind", GATES)
def test_classifier_step(race, kind):
    race(f"{kind} 128→256, 32×100 words of 20 k, Adam", contenders(kind=kind), inputs=problem(kind), bars={"PyTorch": 1.4},
         memory_bar=1.25, seconds=0.7)


def test_packed_step(race):
    race("LSTM 128→256, packed, lengths 10–100", contenders(kind="LSTM", packed=True), inputs=problem("LSTM", ragged=True),
         bars={"PyTorch": 1.4}, seconds=0.7)


def test_deep_step(race):
    options = {"kind": "LSTM", "layers": 2, "directions": 2}
    race("LSTM 128→256, 2 layers, both directions", contenders(**options), inputs=problem(**options), bars={"PyTorch": 1.2},
         seconds=0.7)


def test_inference(race):
    race("LSTM 128→256, 32×100, inference", contenders(kind="LSTM", train=False), inputs=problem("LSTM"),
         bars={"PyTorch": 1.0}, seconds=0.5)
