"""One contender's process: builds a job, then obeys one line of JSON at a time (see harness.py)."""
import importlib.util
import json
import os
import sys
import time
import traceback
from pathlib import Path

import numpy as np
from harness import Absent


def limit_processors(count):
    """The same processors for everyone, also for libraries that size their thread pools by the machine."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def bytes_of(field):
    """A line of /proc/self/status in bytes, None where there is none: VmRSS is the memory now, VmHWM the most so far.

    (getrusage's ru_maxrss begins with the memory of the process that started this one.)
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)


def load(settings):
    """The module of the job's file, after the modules that the settings name, as far as they are installed."""
    for name in settings["modules"]:
        if importlib.util.find_spec(name.split(".")[0]):
            importlib.import_module(name)
    path = Path(settings["file"])
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def build(module, settings):
    """The job that the settings name: its function, its options, the file of its inputs."""
    with np.load(settings["inputs"]) as inputs:
        return getattr(module, settings["function"])(dict(inputs), **settings["options"])


def check(job, steps, path):
    """Runs the first steps and saves what must agree, one row a step."""
    rows = [{key: np.array(value) for key, value in job.result(job.step()).items()} for _ in range(steps)]
    np.savez(path, **{key: np.stack([row[key] for row in rows]) for key in rows[0]})


def run(job, steps):
    """Seconds that the steps take, to the end of the work."""
    step = job.step
    start = time.perf_counter()
    for _ in range(steps):
        last = step()
    job.wait(last)
    return time.perf_counter() - start


def main():
    # Libraries print as they please; the answers go to a copy of standard output that only this loop knows.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    job = imported = None
    for line in sys.stdin:
        message = json.loads(line)
        answer = {}
        try:
            if job is None:
                limit_processors(message["threads"])
                module = load(message)
                imported = bytes_of("VmRSS")
                job = build(module, message)
            elif message["do"] == "check":
                check(job, message["steps"], message["path"])
            elif message["do"] == "memory":
                answer["memory"] = None if imported is None else [imported, bytes_of("VmHWM")]
            else:
                answer["seconds"] = run(job, message["steps"])
        except (ModuleNotFoundError, Absent) as error:
            answer["absent"] = str(error)
        except Exception:
            answer["error"] = traceback.format_exc()
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
