"""`bpnn generate MODEL "a prompt"`: what a language model writes, word by word."""
from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from .arguments import ranged
from .errors import CliError

NAME = "generate"
HELP = "let a language model write on, or answer"
DESCRIPTION = (
    "Print what a model writes after PROMPT, as it comes. MODEL: a model folder or a name of the Hugging Face hub (GPT-2, LLaMA, "
    "Mistral, Qwen2, SmolLM), a .gguf file, llama2.c's .bin with its tokenizer beside it, or a run of bpnn train lm or of bpnn "
    "finetune --task lm. A model that was trained to talk (its tokenizer has a chat template) answers PROMPT; --no-chat makes it "
    "go on with the text. Without an option that says how to choose tokens, the most probable one is taken, unless the model's "
    "generation_config.json says otherwise."
)


def add_options(parser: argparse.ArgumentParser) -> None:
    add, one = parser.add_argument, ranged(float, 0, 1)
    add("model", metavar="MODEL", help="a folder, a file or a name of the hub")
    add("prompt", metavar="PROMPT", nargs="?", help="the text to go on with, or to answer; - reads standard input")
    add("--max-new-tokens", type=ranged(int, 1), default=100, metavar="N", help="write at most so many tokens (default 100)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--sample", action="store_true", help="draw tokens by their probabilities; --temperature, --top-k and --top-p imply it"
    )
    how.add_argument("--greedy", action="store_true", help="take the most probable token")
    add("--temperature", type=ranged(float, 0), metavar="T", help="below 1 more probable, above 1 more varied text; 0 is --greedy")
    add("--top-k", type=ranged(int, 0), metavar="K", help="draw among the K most probable tokens (default 50; 0: all)")
    add("--top-p", type=one, metavar="P", help="draw among the most probable tokens that have the probability P together")
    add("--repetition-penalty", type=ranged(float, 0, above=True), metavar="X", help="above 1: fewer words that were there already")
    add("--beams", type=ranged(int, 1), metavar="N", help="follow the N most probable texts and print the best, when it is done")
    add("--seed", type=int, metavar="N", help="the same seed draws the same text")
    add("--stop", action="append", metavar="TEXT", help="end before TEXT comes; may be given several times")
    add("--chat", action=argparse.BooleanOptionalAction, help="use the model's chat template, or do not")
    add("--system", metavar="TEXT", help="what a talking model is told first about its part")
    add("--echo", action="store_true", help="print the prompt first")
    add("--tokenizer", metavar="PLACE", help="folder, file or hub name of the tokenizer, if not with the model")
    add("--verbose", action="store_true", help="tell the tokens a second, on standard error")


def run(options: argparse.Namespace) -> int:
    from bpnn.models import AutoModelForCausalLM

    settings = _settings(options)
    tuned = _finetuned(options.model)
    if tuned is None and (Path(options.model) / "model" / "config.json").is_file():  # a run of `bpnn train lm`
        options.model = str(Path(options.model) / "model")
    if options.prompt == "-":
        options.prompt = _standard_input()
    try:
        if tuned is not None:
            tokenizer = tuned.task.tokenizer if options.tokenizer is None else _tokenizer(options.model, options.tokenizer)
            plain = options.prompt and options.chat is None and options.system is None and options.tokenizer is None
            # As in training: a template where it saw conversations, and no token that ends a text.
            ids = tuned.task.prompt_tokens(tuned.task.example(options.prompt)) if plain else _encode(options, tokenizer)
            _write(tuned.model, tokenizer, ids, settings, options)
            return 0
        tokenizer = _tokenizer(options.model, options.tokenizer)
        ids = _encode(options, tokenizer)
        model = AutoModelForCausalLM.from_pretrained(options.model)
        _write(model, tokenizer, ids, settings, options)
    except (ValueError, TypeError, IndexError, RuntimeError, ImportError, FloatingPointError) as error:
        raise CliError(str(error)) from error
    return 0


def _finetuned(folder: str) -> Any:
    """What `bpnn finetune` left in `folder`; None where that is no such run. `CliError` where it does not write on."""
    from .run import Run

    if not (Path(folder) / "config.json").is_file():
        return None
    try:
        run = Run.open(folder)
    except CliError:
        return None  # the configuration of a model
    if run.config["task"] != "finetune":
        return None
    from bpnn.finetune.tuned import Finetuned

    from .finetuned import speaking

    with speaking():
        tuned = Finetuned.load(folder)
    if tuned.task.name != "lm" or tuned.task.masked:
        raise CliError(f"{folder}: its model writes no text; use: bpnn predict {folder}")
    return tuned


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """What the options say, under the names of `generate`."""
    names = {"max_new_tokens": options.max_new_tokens, "temperature": options.temperature, "top_k": options.top_k,
             "top_p": options.top_p, "repetition_penalty": options.repetition_penalty, "num_beams": options.beams,
             "stop": options.stop}
    settings = {name: value for name, value in names.items() if value is not None}
    if options.greedy and settings.keys() & {"temperature", "top_k", "top_p"} and options.temperature != 0:
        raise CliError("--greedy takes the most probable token; leave --temperature, --top-k and --top-p out")
    if options.greedy or options.temperature == 0:
        settings["do_sample"] = False
        settings.pop("temperature", None)
    elif options.sample or settings.keys() & {"temperature", "top_k", "top_p"}:
        settings["do_sample"] = True
    if options.system is not None and options.chat is False:
        raise CliError("--system belongs to a chat; leave --no-chat out")
    return settings


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8").rstrip("\n")
    except UnicodeDecodeError as error:
        raise CliError(f"standard input: is no UTF-8 ({error.reason} at byte {error.start + 1})") from None


def _tokenizer(model: str, place: str | None) -> Any:
    """The model's tokenizer; beside llama2.c's `.bin` it is `tokenizer.bin` or the only `tok*.bin`."""
    from bpnn.pretrained import AutoTokenizer

    path = Path(model)
    if place is None and path.is_file() and path.suffix == ".bin":
        own = path.with_name("tokenizer.bin")
        beside = [own] if own.is_file() else sorted(path.parent.glob("tok*.bin"))
        if len(beside) != 1:
            raise CliError(f"{path}: expected tokenizer.bin beside it, found {len(beside)} files tok*.bin; say --tokenizer FILE")
        place = str(beside[0])
    if place is None and path.is_file() and path.suffix == ".safetensors":
        place = str(path.parent)
    return AutoTokenizer.from_pretrained(place or model)


def _encode(options: argparse.Namespace, tokenizer: Any) -> list[int] | None:
    """The prompt's tokens; None: the model's start token."""
    chat = options.chat
    if chat is None:
        chat = options.system is not None or (tokenizer.chat_template is not None and options.prompt is not None)
    if chat:
        if tokenizer.chat_template is None:
            raise CliError(f"{options.model}: its tokenizer has no chat template; leave --chat and --system out")
        said = [("system", options.system), ("user", options.prompt)]
        messages = [{"role": role, "content": text} for role, text in said if text is not None]
        return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True))
    return list(tokenizer(options.prompt)["input_ids"]) or None if options.prompt else None


def _write(model: Any, tokenizer: Any, ids: list[int] | None, settings: dict[str, Any], options: argparse.Namespace) -> None:
    import numpy as np

    from bpnn.models.generation import TextStream

    text = TextStream(tokenizer, stop=options.stop or ())
    prompt = text.begin(ids or ())
    if options.echo:
        _print(prompt)
    times, count = [time.perf_counter()], 0
    given: dict[str, Any] = {"tokenizer": tokenizer, "seed": options.seed, **settings}
    try:
        if settings.get("num_beams", 1) > 1:
            found = model.generate(None if ids is None else [ids], **given).numpy()[0, len(ids or [0]) :]
            count = len(found)
            _print(text.put(found))
        else:
            for tokens in model.stream(None if ids is None else [ids], **given):
                count += 1
                times.append(time.perf_counter())
                if tokens[0] not in np.asarray(model.generation_config.eos_token_id):
                    _print(text.put(tokens))
    finally:
        _print(text.end() + "\n")
        if options.verbose:
            _tell(len(ids or [0]), count, times)


def _tell(read: int, count: int, times: list[float]) -> None:
    if len(times) < 3:
        times = [times[0], times[-1], time.perf_counter()]
    first, rest = times[1] - times[0], times[-1] - times[1]
    told = f"{count - 1} more at {(count - 1) / max(rest, 1e-9):.1f} tokens/s" if count > 1 else "no more"
    print(f"bpnn: {read} tokens read, the first one after {first:.3g} s; {told}", file=sys.stderr)


def _print(text: str) -> None:
    if text:
        print(text, end="", flush=True)
