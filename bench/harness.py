"""The comparison harness: every contender in its own process, same threads, alternating rounds, medians, ratio.

A benchmark is a pair (or more) of *jobs* and a test that races them:

    def bpnn_job(inputs, size):                 # runs in its own process; imports its library itself
        import bpnn
        x = bpnn.from_numpy(inputs["x"])
        return Job(step=lambda: x @ x, result=lambda last: {"product": last.numpy()})

    def torch_job(inputs, size): ...

    def test_product(race):                     # `race` is a fixture of conftest.py
        race("product 64", {"bpnn": partial(bpnn_job, size=64), "PyTorch": partial(torch_job, size=64)},
             inputs={"x": array}, bars={"PyTorch": 1.0})

A job is a function at the top level of its file. `inputs` is what the test passed (arrays, the same for all), the
keywords of a `partial` come as JSON. Before anything is timed, each job runs a few steps whose results must agree.
pytest-benchmark itself times within one process, where two libraries' thread teams would disturb one another.
"""
import functools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

THREADS = 2
CHECKED_STEPS = 5
WORKER = Path(__file__).with_name("worker.py")

# What a contender imports before its memory is counted, by the beginning of its name; PyTorch's optimizers import _dynamo.
MODULES = {
    "bpnn": ["bpnn", "bpnn.nn", "bpnn.optim", "bpnn.models"],
    "PyTorch": ["torch", "torch._dynamo"],
}


class Job(NamedTuple):
    """What a job function returns: one step of work; what must agree, from a step's return; how to wait for it.

    `wait` is for libraries that return before the work is done (JAX).
    """

    step: Callable[[], object]
    result: Callable[[object], dict]
    wait: Callable[[object], object] = lambda last: None


class Absent(Exception):
    """The contender's library is not installed, or does not work here (raised by a job)."""


class Contender:
    """A job in its own process, driven by lines of JSON: check, run, close."""

    def __init__(self, name, job, inputs_file, modules=()):
        self.name = name
        job = job if isinstance(job, functools.partial) else functools.partial(job)
        settings = {
            "file": job.func.__code__.co_filename,
            "function": job.func.__name__,
            "options": job.keywords,
            "inputs": str(inputs_file),
            "threads": THREADS,
            "modules": modules,
        }
        threads = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "BPNN_NUM_THREADS")
        environment = os.environ | dict.fromkeys(threads, str(THREADS))
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        try:
            self.ask(**settings)
        except BaseException:
            self.close()
            raise

    def ask(self, **message):
        """Sends one message and returns the worker's answer."""
        self.process.stdin.write(json.dumps(message) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}: the worker ended with status {self.process.wait()}")
        answer = json.loads(line)
        if "absent" in answer:
            raise Absent(answer["absent"])
        if "error" in answer:
            raise RuntimeError(f"{self.name}: {answer['error']}")
        return answer

    def check(self, path):
        """The results of the first steps, as arrays with the step as first axis."""
        self.ask(do="check", steps=CHECKED_STEPS, path=str(path))
        with np.load(path) as results:
            return dict(results)

    def run(self, steps):
        """Seconds a step, over this many steps."""
        return self.ask(do="run", steps=steps)["seconds"] / steps

    def memory(self):
        """Bytes in memory after the imports, and the most since; None where the system does not tell (not Linux)."""
        return self.ask(do="memory")["memory"]

    def calibrate(self, seconds):
        """Warms up for about this long; returns how many steps take about that long."""
        steps = 1
        while True:
            taken = self.run(steps) * steps
            if taken > seconds / 2:
                return max(1, round(steps * seconds / taken))
            steps = max(steps + 1, min(10 * steps, round(steps * seconds / max(taken, 1e-9))))

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Rate(NamedTuple):
    """The work of a step in a unit, as 0.3 of "GFLOP/s"; and the most that the processor does in a second, if it was measured."""

    work: float
    unit: str
    peak: float | None = None


@dataclass
class Outcome:
    """Seconds a step of every contender, a list over the rounds; the absent ones with the reason."""

    name: str
    seconds: dict[str, list[float]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    bars: dict[str, float] = field(default_factory=dict)
    limit: float | None = None
    rate: Rate | None = None
    memory: dict[str, list[int]] = field(default_factory=dict)
    memory_bar: float | None = None

    def median(self, contender):
        return statistics.median(self.seconds[contender])

    def ratio(self, rival):
        """How many times faster than the rival bpnn is."""
        return self.median(rival) / self.median("bpnn")

    def rivals(self, prefix=""):
        return [name for name in self.seconds if name != "bpnn" and name.startswith(prefix)]

    def best(self, prefix):
        """The smallest ratio among a library's contenders ("PyTorch" covers eager and compiled)."""
        return min((self.ratio(name) for name in self.rivals(prefix)), default=None)

    def memories(self):
        """`{what: (bytes of bpnn, the most frugal rival, its bytes)}`; nothing where memory was not asked for or is not known."""
        found = {}
        if self.memory.get("bpnn") is not None:
            for what, count in (("the process", lambda after, most: most), ("above the imports", lambda after, most: most - after)):
                taken = {name: count(*pair) for name, pair in self.memory.items()}
                rivals = [name for name in taken if not name.startswith("bpnn")]
                if rivals:
                    rival = min(rivals, key=taken.get)
                    found[f"peak memory, {what}"] = taken["bpnn"], rival, taken[rival]
        return found

    def misses(self, margin=1.0):
        """What falls short of `margin` of its bar, in words."""
        short = []
        for library, bar in self.bars.items():
            ratio = self.best(library)
            if ratio is not None and ratio < margin * bar:
                short.append(f"{ratio:.2f} times {library}'s speed, the bar is {bar:g}")
        if self.limit is not None and margin * self.median("bpnn") > self.limit:
            short.append(f"{1e6 * self.median('bpnn'):.3g} µs, the bar is {1e6 * self.limit:.3g}")
        for what, (ours, rival, theirs) in self.memories().items() if self.memory_bar else ():
            if theirs < margin * self.memory_bar * ours:
                short.append(f"{what}: {rival} takes {theirs / ours:.2f} times ours, the bar is {self.memory_bar:g}")
        return short


def modules_of(contender):
    """What it imports before its memory is counted."""
    return next((modules for start, modules in MODULES.items() if contender.startswith(start)), ())


def alternate(runs, rounds):
    """Calls every run in turn, round after round: `{name: function returning seconds}` → `{name: [seconds]}`."""
    seconds = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            seconds[name].append(run())
    return seconds


def assert_agreement(results, rtol, atol):
    """The contenders' results of the first steps are the same arrays within the tolerance."""
    expected = results["bpnn"]
    for name, got in results.items():
        assert got.keys() == expected.keys(), f"{name} returns {sorted(got)}, bpnn {sorted(expected)}"
        for key, values in got.items():
            np.testing.assert_allclose(
                values, expected[key], rtol=rtol, atol=atol, err_msg=f"{key}: bpnn and {name} do not agree"
            )


def race(
    name, contenders, folder, inputs=None, bars=None, limit=None, rate=None, memory_bar=None, rounds=7, seconds=0.3, rtol=1e-4,
    atol=1e-5,
):
    """Races the jobs of `contenders` ("bpnn" among them) and returns the `Outcome`.

    inputs:      arrays for the jobs.
    bars:        the ratio that bpnn is to reach against a library.
    limit:       the seconds that a step of bpnn may take.
    rate:        the `Rate` that the table shows beside each time.
    memory_bar:  how many times bpnn's memory the most frugal rival is to take; the table then shows the peaks.
    seconds:     about how long one contender runs in one round.
    """
    outcome = Outcome(name, bars=bars or {}, limit=limit, rate=rate, memory_bar=memory_bar)
    inputs_file = Path(folder) / "inputs.npz"
    np.savez(inputs_file, **(inputs or {}))
    running = {}
    try:
        for contender, job in contenders.items():
            modules = () if memory_bar is None else modules_of(contender)
            try:
                running[contender] = Contender(contender, job, inputs_file, modules)
            except Absent as missing:
                outcome.absent[contender] = str(missing)
        if "bpnn" not in running:
            raise RuntimeError(f"bpnn cannot be imported: {outcome.absent['bpnn']}")
        results = {key: one.check(Path(folder) / "results.npz") for key, one in running.items()}
        assert_agreement(results, rtol, atol)
        steps = {key: one.calibrate(seconds) for key, one in running.items()}
        outcome.seconds = alternate({key: lambda key=key: running[key].run(steps[key]) for key in running}, rounds)
        if memory_bar is not None:
            outcome.memory = {key: one.memory() for key, one in running.items()}
    finally:
        for one in running.values():
            one.close()
    return outcome
