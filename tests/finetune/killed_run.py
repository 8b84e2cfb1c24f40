"""Fine-tunes as its arguments say and kills itself with SIGKILL at a given place: `killed_run.py PLACE:NUMBER OPTIONS-as-JSON`.

PLACE: `step` after the NUMBERth step of this process; `file` in the middle of the NUMBERth file of a checkpoint; `folder` before
the NUMBERth time that a folder's names are brought to the disk; `prune` before the NUMBERth folder is removed; `model`, `card`
while the run's folder is finished; `never`. With "resume" among the options the run in that folder goes on.
"""
import json
import os
import signal
import sys
from pathlib import Path

from bpnn.finetune import api, report
from bpnn.train import Trainer, checkpoint


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def counted(number, before=None, after=None):
    """Wraps a function so that its NUMBERth call ends the process, before or after what it does."""
    def wrap(function):
        calls = 0

        def wrapped(*args, **named):
            nonlocal calls
            calls += 1
            if calls == number and before is not None:
                before(*args)
                die()
            result = function(*args, **named)
            if calls == number and after:
                die()
            return result

        return wrapped

    return wrap


def half(content, path):
    Path(path).write_bytes(b"half a file")


PLACES = {
    "step": lambda n: setattr(Trainer, "_step", counted(n, after=True)(Trainer._step)),
    "file": lambda n: setattr(checkpoint, "save_new", counted(n, before=half)(checkpoint.save_new)),
    "folder": lambda n: setattr(checkpoint, "sync_folder", counted(n, before=lambda *a: None)(checkpoint.sync_folder)),
    "prune": lambda n: setattr(checkpoint.shutil, "rmtree", counted(n, before=lambda *a: None)(checkpoint.shutil.rmtree)),
    "model": lambda n: setattr(report, "write_model", counted(1, after=True)(report.write_model)),
    "card": lambda n: setattr(report, "model_card", counted(1, before=lambda *a: None)(report.model_card)),
    "never": lambda n: None,
}

if __name__ == "__main__":
    place, _, number = sys.argv[1].partition(":")
    options = json.loads(sys.argv[2])
    PLACES[place](int(number or 0))
    if "resume" in options:
        api.resume(options["resume"])
    else:
        api.finetune(**options)
