"""The loader's worker processes."""
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import bpnn
from bpnn.utils.data import DataLoader, TensorDataset

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import loader_helpers as helpers  # noqa: E402  workers import it by this name too


def alive(pid):
    """Whether process `pid` runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids, seconds=10):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")


def numbers(n):
    x = np.repeat(np.arange(n, dtype=np.float32)[:, None], 3, axis=1)
    return TensorDataset(bpnn.from_numpy(x), bpnn.from_numpy(np.arange(n)))


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("num_workers", [1, 3])
def test_same_batches_in_the_same_order(method, num_workers):
    if method == "forkserver" and sys.platform == "win32":
        pytest.skip("no fork server on Windows")

    def passes(**arguments):
        bpnn.manual_seed(4)
        loader = DataLoader(numbers(50), batch_size=4, shuffle=True, **arguments)
        return [[(x.tolist(), y.tolist()) for x, y in loader] for _ in range(2)]

    assert passes(num_workers=num_workers, multiprocessing_context=method) == passes()


def test_who_works():
    loader = DataLoader(helpers.Who(), batch_size=2, num_workers=2)
    rows = np.concatenate([np.stack([column.numpy() for column in batch], 1) for batch in loader])
    assert rows[:, 0].tolist() == list(range(12))
    assert rows[:, 1].tolist() == [0, 0, 1, 1] * 3 and set(rows[:, 2]) == {2}
    seeds = {tuple(row) for row in rows[:, [1, 3]]}
    assert len(seeds) == 2 and len({seed for _, seed in seeds}) == 2
    assert set(rows[:, 4]) == {1}
    assert len(set(rows[:, 5])) == 2 and os.getpid() not in rows[:, 5]
    assert gone(set(rows[:, 5].tolist()))


def test_persistent_workers_stay():
    loader = DataLoader(helpers.Who(), batch_size=2, num_workers=2, persistent_workers=True)
    pids = [set(np.concatenate([batch[5].numpy() for batch in loader]).tolist()) for _ in range(2)]
    assert pids[0] == pids[1] and all(alive(pid) for pid in pids[0]) is sys.platform.startswith("linux")
    next(iter(loader))
    assert [batch[0].tolist() for batch in loader] == [[i, i + 1] for i in range(0, 12, 2)]  # nothing is left of the pass before
    old = iter(loader)
    next(old)
    new = iter(loader)
    assert next(new)[0].tolist() == [0, 1]
    with pytest.raises(RuntimeError, match="ended by a newer one"):
        next(old)
    assert [batch[0].tolist() for batch in new] == [[i, i + 1] for i in range(2, 12, 2)]
    del loader, old, new
    assert gone(pids[0])


def test_random_numbers_belong_to_the_batch():
    def rows(num_workers):
        loader = DataLoader(helpers.Noisy(12), batch_size=2, num_workers=num_workers, collate_fn=helpers.as_is)
        loader.load_state_dict({"seed": 77, "epoch": 0, "position": 0, "batch_size": 2, "samples": 12})
        return [list(loader) for _ in range(2)]

    one, two = rows(1), rows(2)
    assert one == two
    assert one[0] != one[1]
    drawn = [number for batch in one[0] for row in batch for number in row[1:]]
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("workers", [(2, 2), (2, 3), (3, 1)])
def test_resume_in_the_middle(workers):
    bpnn.manual_seed(8)

    def loader(num_workers):
        return DataLoader(helpers.Noisy(30), batch_size=4, shuffle=True, drop_last=True, num_workers=num_workers)

    def plain(batches):
        return [[column.tolist() for column in batch] for batch in batches]

    first = loader(workers[0])
    whole = plain(first) + plain(first)
    again = loader(workers[0])
    again.load_state_dict({**first.state_dict(), "epoch": 0, "position": 0})
    batches = iter(again)
    for _ in range(3):
        next(batches)
    state = again.state_dict()
    assert (state["epoch"], state["position"]) == (0, 3)
    batches.close()
    resumed = loader(workers[1])
    resumed.load_state_dict(state)
    assert plain(resumed) + plain(resumed) == whole[3:]


def test_streams_in_shares():
    loader = DataLoader(helpers.Share(11), batch_size=2, num_workers=3)
    # worker 0 has 0 3 6 9, worker 1 has 1 4 7 10, worker 2 has 2 5 8; in turn until each has ended
    expected = [[0, 3], [1, 4], [2, 5], [6, 9], [7, 10], [8]]
    assert [x.tolist() for x in loader] == expected
    assert [x.tolist() for x in DataLoader(helpers.Share(11), batch_size=2, num_workers=3, drop_last=True)] == expected[:-1]
    for _ in range(2):
        batches = iter(loader)
        for _ in range(4):
            next(batches)
        state = loader.state_dict()
        batches.close()
    again = DataLoader(helpers.Share(11), batch_size=2, num_workers=3)
    again.load_state_dict(state)
    assert [x.tolist() for x in again] == expected[4:]


def test_each_worker_of_a_stream_has_its_own_seed():
    rows = list(DataLoader(helpers.Whole(), batch_size=None, num_workers=2, persistent_workers=True))
    assert [i for i, _ in rows] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert len({value for _, value in rows}) == 10


def test_large_and_structured_batches():
    for batch, expected in zip(DataLoader(helpers.Big(), batch_size=2, num_workers=2), range(0, 20, 2), strict=True):
        x, empty, names = batch
        assert x.shape == (2, 200_000) and x.dtype == np.float32 and empty.shape == (2, 0)
        assert (x.numpy() == np.array([[expected], [expected + 1]])).all()
        assert names == {"name": [str(expected), str(expected + 1)]}
        x.numpy()[:] = 0  # batches are the receiver's own
    batch = next(iter(DataLoader(helpers.Slow(), batch_size=3, num_workers=1, collate_fn=helpers.to_tensor_and_text)))
    assert isinstance(batch["x"], bpnn.Tensor) and batch["x"].tolist() == [0, 1, 2]
    assert batch["text"] == ("a", None) and batch["n"] == 3


def test_tensors_in_messages():
    from bpnn.utils.data.worker import dumps

    def sent(value):
        return pickle.loads(dumps(value))

    tensor = bpnn.from_numpy(np.arange(3.0))
    assert type(sent(tensor)) is bpnn.Tensor and sent(tensor).tolist() == [0, 1, 2] and not sent(tensor).requires_grad
    parameter = sent({"p": bpnn.nn.Parameter(tensor)})["p"]
    assert isinstance(parameter, bpnn.nn.Parameter) and parameter.requires_grad and parameter.tolist() == [0, 1, 2]
    with pytest.raises(pickle.PicklingError, match=r"history.*detach"):
        sent(parameter * 2)


def test_single_samples_from_workers():
    assert list(DataLoader(helpers.Slow(), batch_size=None, num_workers=2)) == list(range(8))


def test_init_function():
    loader = DataLoader(helpers.Started(), batch_size=1, num_workers=2, worker_init_fn=helpers.seed_by_worker)
    assert [x.item() for x in loader] == [0, 1, 0, 1]
    with pytest.raises(OSError, match="worker 0 has no disk"):
        list(DataLoader(helpers.Slow(), num_workers=1, worker_init_fn=helpers.fail_to_start))


@pytest.mark.parametrize(("how", "kind", "words"), [
    ("value", ValueError, "row 5 is bad"),
    ("key", KeyError, "'five'"),
    ("custom", RuntimeError, r"Custom: \(1, 2\)"),
    ("local", RuntimeError, "made here"),
    ("unsendable", (TypeError, AttributeError, RuntimeError), "lambda"),
])
def test_exceptions_come_back_with_their_traceback(how, kind, words):
    loader = DataLoader(helpers.Trouble(how), batch_size=2, num_workers=2, collate_fn=helpers.as_is)
    batches = iter(loader)
    assert [next(batches), next(batches)] == [[0, 1], [2, 3]]
    with pytest.raises(kind, match=words) as caught:
        next(batches)
    assert "in worker 0 of the data loader:\nTraceback" in str(caught.value)
    if how != "unsendable":
        assert "loader_helpers.py" in str(caught.value)
    assert loader.state_dict()["position"] == 2


@linux
@pytest.mark.parametrize(("how", "words"), [("kill", "killed by SIGKILL"), ("exit", "exit code 3")])
def test_a_worker_that_dies_is_named(how, words):
    loader = DataLoader(helpers.Trouble(how), batch_size=2, num_workers=2)
    batches = iter(loader)
    next(batches), next(batches)
    with pytest.raises(RuntimeError, match=f"worker 0 of the data loader .*{words}"):
        next(batches)


def test_persistent_workers_start_again_after_a_failure():
    loader = DataLoader(helpers.Trouble("value"), batch_size=2, num_workers=2, persistent_workers=True)
    for _ in range(2):
        with pytest.raises(ValueError, match="row 5"):
            list(loader)


def test_timeout():
    loader = DataLoader(helpers.Trouble("sleep"), batch_size=2, num_workers=2, timeout=1)
    batches = iter(loader)
    next(batches), next(batches)
    begin = time.monotonic()
    with pytest.raises(RuntimeError, match=r"worker 0 .* within 1 s"):
        next(batches)
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize("name", ["collate_fn", "worker_init_fn", "dataset"])
def test_what_cannot_be_sent_is_named(name):
    arguments = {"dataset": helpers.Slow(), "num_workers": 1, name: lambda *_: None}
    with pytest.raises(TypeError, match=f"{name}: .*lambda.* num_workers=0"):
        next(iter(DataLoader(**arguments)))


@linux
def test_leaving_early_ends_the_workers():
    loader = DataLoader(helpers.Who(), batch_size=1, num_workers=2, prefetch_factor=1)
    for batch in loader:
        pid = batch[5].item()
        assert alive(pid)
        break
    del batch
    assert gone([pid])


def run(folder, code, **keywords):
    script = folder / "script.py"
    script.write_text(textwrap.dedent(code))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)])}
    return subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, env=environment, **keywords)


def test_a_script_without_a_guard_is_told(tmp_path):
    result = run(tmp_path, """
        import bpnn
        from bpnn.utils.data import DataLoader
        from loader_helpers import Slow
        print(next(iter(DataLoader(Slow(), num_workers=1, multiprocessing_context="spawn"))))
    """)
    assert result.returncode != 0
    assert '`if __name__ == "__main__":`' in result.stderr.rstrip().splitlines()[-1]


def test_a_script_with_a_guard_ends(tmp_path):
    result = run(tmp_path, """
        from bpnn.utils.data import DataLoader
        from loader_helpers import Slow
        if __name__ == "__main__":
            kept = iter(DataLoader(Slow(), num_workers=2, persistent_workers=True))
            print(next(kept).tolist(), [x.tolist() for x in DataLoader(Slow(), batch_size=4, num_workers=1)])
    """)
    assert result.returncode == 0 and result.stderr == ""
    assert result.stdout == "[0] [[0, 1, 2, 3], [4, 5, 6, 7]]\n"


@linux
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_do_not_outlive_the_training_process(tmp_path, number):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent("""
        import time
        from bpnn.utils.data import DataLoader
        from loader_helpers import Who
        if __name__ == "__main__":
            batches = iter(DataLoader(Who(), batch_size=1, num_workers=2))
            print(next(batches)[5].item(), next(batches)[5].item(), flush=True)
            time.sleep(60)
    """))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)])}
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                          env=environment) as process:
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) == 2 and all(alive(pid) for pid in pids)
        process.send_signal(number)
        process.wait(timeout=30)
    assert gone(pids)
