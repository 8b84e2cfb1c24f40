"""One epoch of a 784-500-10 classifier over 6400 rows, as a user of scikit-learn's MLPClassifier would train it."""
from functools import partial

import numpy as np
import pytest
from harness import Job

ROWS, BATCH, WIDTH, HIDDEN, CLASSES = 6400, 64, 784, 500, 10
RATE = {"adam": 1e-3, "sgd": 0.05}


def problem():
    rng = np.random.default_rng(0)
    bounds = WIDTH**-0.5, HIDDEN**-0.5
    return {
        "x": rng.random((ROWS, WIDTH), np.float32),
        "y": rng.integers(0, CLASSES, ROWS),
        "w0": rng.uniform(-bounds[0], bounds[0], (WIDTH, HIDDEN)).astype(np.float32),
        "b0": np.zeros(HIDDEN, np.float32),
        "w1": rng.uniform(-bounds[1], bounds[1], (HIDDEN, CLASSES)).astype(np.float32),
        "b1": np.zeros(CLASSES, np.float32),
    }


def bpnn_job(inputs, optimizer):
    import bpnn
    from bpnn import nn, optim
    from bpnn.nn import functional as F
    from bpnn.utils.data import DataLoader, TensorDataset

    model = nn.Sequential(nn.Linear(WIDTH, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))
    with bpnn.no_grad():
        for layer, linear in enumerate((model[0], model[2])):
            linear.weight.copy_(bpnn.from_numpy(inputs[f"w{layer}"].T))
            linear.bias.copy_(bpnn.from_numpy(inputs[f"b{layer}"]))
    if optimizer == "adam":
        update = optim.Adam(model.parameters(), lr=RATE["adam"])
    else:
        update = optim.SGD(model.parameters(), lr=RATE["sgd"], momentum=0.9, nesterov=True)
    data = TensorDataset(bpnn.from_numpy(inputs["x"]), bpnn.from_numpy(inputs["y"]))
    loader = DataLoader(data, batch_size=BATCH)

    def epoch():
        total = 0.0
        for x, y in loader:
            update.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            update.step()
            total += loss.item() * len(y)
        return total / ROWS

    return Job(epoch, result=lambda loss: {"loss": loss})


def sklearn_job(inputs, optimizer):
    from sklearn.neural_network import MLPClassifier

    x, y = inputs["x"], inputs["y"]
    model = MLPClassifier(
        (HIDDEN,), activation="relu", solver=optimizer, alpha=0.0, batch_size=BATCH, shuffle=False,
        learning_rate_init=RATE[optimizer], momentum=0.9, nesterovs_momentum=True,
    )
    # The first call makes the weights; ours take their place, and the optimizer starts afresh.
    model.partial_fit(x[:BATCH], y[:BATCH], classes=range(CLASSES))
    for layer in range(2):
        model.coefs_[layer][...] = inputs[f"w{layer}"]
        model.intercepts_[layer][...] = inputs[f"b{layer}"]
    del model._optimizer

    return Job(lambda: model.partial_fit(x, y).loss_, result=lambda loss: {"loss": loss})


@pytest.mark.parametrize(("optimizer", "title"), [("adam", "Adam"), ("sgd", "SGD with momentum")])
def test_epoch(race, optimizer, title):
    race(
        f"MLP 784-500-10, batch 64, {title}: epoch of {ROWS} rows",
        {"bpnn": partial(bpnn_job, optimizer=optimizer), "scikit-learn": partial(sklearn_job, optimizer=optimizer)},
        inputs=problem(), bars={"scikit-learn": 5}, rtol=1e-3,
    )
