"""Loggers of runs: TensorBoard's files read back, the others with modules that note what they are told."""
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from trainer_helpers import Recorder, blobs, classifier

import bpnn
from bpnn import nn
from bpnn.train import Accuracy, CheckpointWriter, Trainer
from bpnn.train.loggers import MLflow, TensorBoard, Trackio, WandB
from bpnn.utils.data import DataLoader, TensorDataset


def run(callbacks, epochs=3, resume=None):
    bpnn.manual_seed(0)
    model = classifier()
    loader = DataLoader(TensorDataset(*blobs(40)), 10, shuffle=True)
    trainer = Trainer(
        model, bpnn.optim.Adam(model.parameters(), lr=0.01), nn.CrossEntropyLoss(), metrics=[Accuracy()], callbacks=callbacks,
        log_every=2)
    if resume is not None:
        resume.resume(trainer)
    trainer.fit(loader, loader, epochs=epochs)
    return trainer


def expected(history):
    """(name, step, value) of everything that a log should hold, in order."""
    entries = [(int(step), {"train/loss": loss, "train/lr": lr}) for step, loss, lr in history.steps]
    entries += [(row["step"], {name: value for name, value in row.items() if name != "step"}) for row in history.rows]
    return sorted((name, step, value) for step, values in entries for name, value in values.items() if "second" not in name)


class Service:
    """Stands for a service's module: runs by their numbers, with what is logged to each."""

    def __init__(self):
        self.runs, self.calls, self.current = {}, [], None

    def begin(self, key, config):
        self.current = key or f"run-{len(self.runs)}"
        self.runs.setdefault(self.current, [])
        self.calls.append(("begin", self.current, config))
        return self.current

    def note(self, values, step):
        assert self.current is not None
        self.runs[self.current] += [(name, step, value) for name, value in values.items() if "second" not in name]

    def end(self):
        self.calls.append(("end", self.current, None))
        self.current = None


def wandb(service):
    def init(project, name, config, id=None, resume=None, **options):
        assert (project, name, options) == ("p", "n", {"mode": "offline"})
        assert (resume == "allow") == (id is not None)
        return SimpleNamespace(id=service.begin(id, config), log=service.note, finish=service.end)

    return {"wandb": SimpleNamespace(init=init)}, lambda: WandB("p", "n", {"lr": 0.01}, mode="offline")


def mlflow(service):
    told = []

    def start_run(run_name=None, run_id=None):
        assert told == ["uri", "e"] * (len(told) // 2)
        assert (run_name is None) != (run_id is None)
        return SimpleNamespace(info=SimpleNamespace(run_id=service.begin(run_id, None)))

    module = SimpleNamespace(
        set_tracking_uri=told.append, set_experiment=told.append, start_run=start_run, end_run=service.end,
        log_params=lambda config: service.calls.append(("params", service.current, config)),
        log_metrics=service.note,
    )
    return {"mlflow": module}, lambda: MLflow("e", "n", {"lr": 0.01}, "uri")


def trackio(service):
    def init(project, name, config, resume="never"):
        assert project == "p"
        assert resume == ("allow" if name in service.runs else "never")
        return SimpleNamespace(name=service.begin(name, config))

    module = SimpleNamespace(init=init, log=service.note, finish=service.end)
    return {"trackio": module}, lambda: Trackio("p", config={"lr": 0.01})


@pytest.fixture(params=[wandb, mlflow, trackio])
def made(request, monkeypatch):
    service = Service()
    modules, make = request.param(service)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return service, make


def test_a_service_gets_everything_once(made):
    service, make = made
    trainer = run([make()])
    assert sorted(service.runs["run-0"]) == expected(trainer.history)
    assert service.current is None
    assert ("begin", "params")[service.calls[1][0] == "params"] in [call[0] for call in service.calls if call[2] == {"lr": 0.01}]


@pytest.mark.parametrize("stop", [3, 4, 9])
def test_a_resumed_run_goes_on_in_the_same_log(made, tmp_path, stop):
    service, make = made
    writer = CheckpointWriter(tmp_path)
    run([make(), Recorder(stop), writer])
    assert service.current is None
    again = CheckpointWriter(tmp_path)
    trainer = run([make(), Recorder(), again], resume=again)
    assert list(service.runs) == ["run-0"]
    assert sorted(service.runs["run-0"]) == expected(trainer.history)


def test_a_log_is_closed_after_an_error(made):
    service, make = made

    class Fails(Recorder):
        def on_epoch_end(self, trainer):
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        run([make(), Fails()])
    assert service.calls[-1][0] == "end"


def scalars(folder):
    """(name, step, value) of all the files of a folder, as TensorBoard shows them: what a later file takes back is gone."""
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    found, texts = {}, 0
    for path in sorted(folder.iterdir()):
        data, place = path.read_bytes(), 0
        while place < len(data):  # a record: length (8 bytes), its checksum (4), the event, its checksum (4)
            size = int.from_bytes(data[place : place + 8], "little")
            event = Event.FromString(data[place + 12 : place + 12 + size])
            place += size + 16
            if event.HasField("session_log") and event.session_log.status == event.session_log.START:
                found = {key: value for key, value in found.items() if key[1] < event.step}
            for value in event.summary.value:
                if value.HasField("tensor"):
                    texts += 1
                    continue
                assert (value.tag, event.step) not in found, "written twice"
                found[value.tag, event.step] = value.simple_value
    return sorted((name, step, value) for (name, step), value in found.items() if "second" not in name), texts


def check(found, history):
    wanted = expected(history)
    assert [entry[:2] for entry in found] == [entry[:2] for entry in wanted]
    np.testing.assert_allclose([entry[2] for entry in found], [entry[2] for entry in wanted], rtol=1e-6)


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    trainer = run([TensorBoard(tmp_path / "tb", {"lr": 0.01})])
    found, texts = scalars(tmp_path / "tb")
    check(found, trainer.history)
    assert texts == 1


def test_tensorboard_after_a_kill(tmp_path):
    pytest.importorskip("tensorboardX")

    class Dies(Recorder):
        def on_step_end(self, trainer):
            if trainer.state.step == 11:
                raise KeyboardInterrupt

    writer = CheckpointWriter(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):  # behind the checkpoint of epoch 2, step 8, step 10 was logged
        run([TensorBoard(tmp_path / "tb", {"lr": 0.01}), Dies(), writer])
    assert ("train/loss", 10) in [entry[:2] for entry in scalars(tmp_path / "tb")[0]]
    again = CheckpointWriter(tmp_path / "run")
    trainer = run([TensorBoard(tmp_path / "tb", {"lr": 0.01}), Recorder(), again], resume=again)
    found, texts = scalars(tmp_path / "tb")
    check(found, trainer.history)
    assert texts == 1


@pytest.mark.parametrize(("name", "make"), [
    ("tensorboardX", lambda: TensorBoard("x")), ("wandb", WandB), ("mlflow", MLflow), ("trackio", lambda: Trackio("p")),
])
def test_what_is_not_installed(monkeypatch, name, make):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=f"pip install {name}"):
        make()
