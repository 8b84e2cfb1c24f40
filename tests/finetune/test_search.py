"""Searches with the real Optuna: what is drawn, what is cut off, and that a search goes on as if it had never stopped."""
import sys

import numpy as np
import pytest

import bpnn
from bpnn import nn
from bpnn.finetune.search import Pruning, best_settings, read_space, search, suggest
from bpnn.train import Trainer
from bpnn.utils.data import DataLoader, TensorDataset

SPACE = {
    "lr": ["log", 1e-4, 1e-1], "width": ["int", 2, 9], "kind": ["a", "b", None], "share": ["uniform", 0, "5e-1"],
    "rank": ["log_int", 1, 64], "epochs": 3,
}


class Fixed:
    """A trial that draws what it is told, and notes what it was asked for."""

    def __init__(self):
        self.asked = []

    def suggest_float(self, name, low, high, log=False):
        self.asked.append((name, low, high, log))
        return low

    def suggest_int(self, name, low, high, log=False):
        self.asked.append((name, low, high, log))
        return high

    def suggest_categorical(self, name, choices):
        self.asked.append((name, choices))
        return choices[1]


def bowl(settings, trial):
    return (np.log10(settings["lr"]) + 2) ** 2 + (settings["width"] - 5) ** 2 / 10 + settings["share"]


def tried(study):
    return [(t.state.name, t.params, t.value) for t in study.trials if t.state.name != "FAIL"]


def test_a_space_is_what_it_says():
    trial = Fixed()
    settings = suggest(trial, SPACE)
    assert settings == {"lr": 1e-4, "width": 9, "kind": "b", "share": 0.0, "rank": 64, "epochs": 3}
    assert trial.asked == [
        ("lr", 1e-4, 1e-1, True), ("width", 2, 9, False), ("kind", ["a", "b", None]), ("share", 0.0, 0.5, False),
        ("rank", 1, 64, True),
    ]
    yaml = pytest.importorskip("yaml")
    read = yaml.safe_load("lr: [log, 1e-6, 1e-3]\nbatch_size: [16, 32]\n")
    assert suggest(Fixed(), read) == {"lr": 1e-6, "batch_size": 32}


def test_a_space_in_a_file(tmp_path):
    pytest.importorskip("yaml")
    (tmp_path / "space.yaml").write_text("lr: [log, 1e-6, 1e-3]\nkind: [a, b]\nepochs: 3\n", encoding="utf-8")
    (tmp_path / "space.json").write_text('{"lr": ["log", 1e-6, 1e-3], "kind": ["a", "b"], "epochs": 3}', encoding="utf-8")
    for name in ("space.yaml", "space.json"):
        assert suggest(Fixed(), read_space(tmp_path / name)) == {"lr": 1e-6, "kind": "b", "epochs": 3}
    (tmp_path / "bad.yaml").write_text("lr: [log, 0, 1]\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"bad.yaml: space: lr: expected"):
        read_space(tmp_path / "bad.yaml")


def test_entries_that_say_nothing():
    for entry, message in [
        (["log", 0, 1], "space: x: expected .'log', low, high. with numbers in order, above 0, got"),
        (["uniform", 2, 1], "space: x: expected .'uniform', low, high. with numbers in order"),
        (["int", 1, 2.5], "in order, whole, got"), (["log", 1], "space: x: expected"), (["uniform", "a", 1], "space: x: expected"),
        ([], "space: x: expected a range or choices"), ([[1], [2]], "space: x: expected a range or choices"),
    ]:
        with pytest.raises(ValueError, match=message):
            suggest(Fixed(), {"x": entry})


def test_without_optuna(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match="pip install optuna"):
        search(bowl, SPACE)


@pytest.fixture
def optuna():
    module = pytest.importorskip("optuna")
    module.logging.set_verbosity(module.logging.ERROR)
    return module


def test_a_search_finds_the_bottom(optuna):
    study = search(bowl, SPACE, trials=40, seed=1)
    assert len(study.trials) == 40
    assert study.best_value == min(bowl(t.params, None) for t in study.trials)
    assert study.best_value < 0.5
    assert best_settings(study, SPACE) == {**study.best_params, "epochs": 3}
    assert tried(study)[:9] == tried(search(bowl, SPACE, trials=9, seed=1))
    assert tried(study)[:9] != tried(search(bowl, SPACE, trials=9, seed=2))


@pytest.mark.parametrize("file", ["study.log", "study.db"])
def test_a_search_goes_on_as_if_it_had_never_stopped(optuna, tmp_path, file):
    def objective(settings, trial):
        return bowl(settings, trial) + float(bpnn.rand(1).item())

    whole = tried(search(objective, SPACE, trials=14, seed=3))

    class Killed(BaseException):
        pass

    def dies(settings, trial):
        if trial.number == 5:
            raise Killed
        return objective(settings, trial)

    place = tmp_path / "of" / file
    with pytest.raises(Killed):
        search(dies, SPACE, trials=14, seed=3, storage=place)
    assert len(tried(search(objective, SPACE, trials=9, seed=3, storage=place))) == 9
    study = search(objective, SPACE, trials=14, seed=3, storage=place)
    assert tried(study) == whole
    assert tried(search(objective, SPACE, trials=14, seed=3, storage=place)) == whole  # nothing left to do
    with pytest.raises(ValueError, match="direction: the study in .* is to minimize, got 'maximize'"):
        search(objective, SPACE, direction="maximize", storage=place)


def test_a_trial_that_was_killed_is_tried_again(optuna, tmp_path):
    place = tmp_path / "study.log"
    whole = tried(search(bowl, SPACE, trials=3, seed=0))
    search(bowl, SPACE, trials=1, seed=0, storage=place)
    journal = optuna.storages.journal
    backend = journal.JournalFileBackend(str(place), lock_obj=journal.JournalFileOpenLock(str(place)))
    study = optuna.load_study(study_name="search", storage=optuna.storages.JournalStorage(backend))
    study.ask()  # under way, and never told
    study = search(bowl, SPACE, trials=3, seed=0, storage=place)
    assert [t.state.name for t in study.trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert tried(study) == whole


def regression(rate, callbacks, epochs=6):
    x = bpnn.from_numpy(np.linspace(-1, 1, 20, dtype=np.float32)[:, None])
    bpnn.manual_seed(0)
    model = nn.Linear(1, 1)
    trainer = Trainer(model, bpnn.optim.SGD(model.parameters(), lr=rate), nn.MSELoss(), callbacks=callbacks)
    loader = DataLoader(TensorDataset(x, 3 * x + 1), 10)
    trainer.fit(loader, loader, epochs=epochs)
    return trainer


def test_bad_trials_are_cut_off(optuna):
    rates = [0.3, 0.3, 0.001, 0.25]

    def objective(trial):
        rate = rates[trial.number]
        return regression(rate, [Pruning(trial)]).history["val_loss"][-1]

    study = search(objective, trials=4, pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=2))
    assert [t.state.name for t in study.trials][:3] == ["COMPLETE", "COMPLETE", "PRUNED"]
    assert list(study.trials[0].intermediate_values) == [1, 2, 3, 4, 5, 6]
    assert list(study.trials[2].intermediate_values) == [1, 2]  # the warm-up, then it is worse than the median
    alone = regression(0.3, []).history["val_loss"]
    assert list(study.trials[0].intermediate_values.values()) == alone


def test_reports_are_not_repeated():
    class Trial:
        def __init__(self):
            self.reports = []

        def report(self, value, step):
            self.reports.append(step)

        def should_prune(self):
            return False

    trial = Trial()
    callback = Pruning(trial, "loss")
    trainer = regression(0.1, [callback], 2)
    again = Pruning(trial, "loss")
    again.load_state_dict(callback.state_dict())
    again.on_epoch_end(trainer)
    assert trial.reports == [1, 2]
    with pytest.raises(KeyError, match="monitor: the history has no column 'f1'; it has epoch"):
        regression(0.1, [Pruning(trial, "f1")], 1)


def test_errors(optuna, tmp_path):
    with pytest.raises(ValueError, match="direction: expected 'minimize' or 'maximize', got 'up'"):
        search(bowl, SPACE, direction="up")
    with pytest.raises(ValueError, match="trials: expected at least 1, got 0"):
        search(bowl, SPACE, trials=0)
    with pytest.raises(ValueError, match=r"storage: expected a URL or a file ending in .*got .*study.txt'"):
        search(bowl, SPACE, storage=tmp_path / "study.txt")
    with pytest.raises(ValueError, match="objective: expected a finite number"):
        search(lambda settings, trial: float("nan"), SPACE, trials=2)
    with pytest.raises(ZeroDivisionError):
        search(lambda settings, trial: 1 / 0, SPACE, trials=2)
