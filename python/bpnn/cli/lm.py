"""`bpnn train lm`: a GPT that learns to write from a text, from its letters to a finished run folder."""
from __future__ import annotations

import argparse
import os
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

import bpnn
from bpnn.data import (
    BytePairVocabulary, CharacterVocabulary, ConsecutiveWindows, DataError, RandomWindows, compact, load_language_vocabulary,
    read_text,
)
from bpnn.train import BestModel, CheckpointWriter, HistoryFile, StopOnInterrupt
from bpnn.utils._files import replacing

from .arguments import ranged
from .errors import CliError
from .lm_training import (
    Clock, KeepModel, LanguageTrainer, Sampler, StepProgress, continue_text, cosine, draw_run, optimizer_groups, text_scores,
)
from .run import Run, refuse_taken
from .training import add_out, carry_on, create_run, may_resume, prepare

HELP = "learn to write from a text (a GPT from scratch)"
DESCRIPTION = (
    "Train a GPT on a text, from scratch, and leave a run folder with the model, its tokenizer, its history, scores and a picture. "
    "The last part of the text is held out for validation."
)
STEPS = 5000


# Options --------------------------------------------------------------------------------------------------------------


def add_options(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data")
    data.add_argument("--data", metavar="PATH", nargs="+", required=True, help="text files (UTF-8), or folders of .txt files")
    data.add_argument(
        "--validation", type=ranged(float, 0, 0.9, above=True), default=0.1, metavar="SHARE",
        help="share of the text, its end, held out to choose the best weights (default 0.1)",
    )
    data.add_argument(
        "--tokens", choices=("characters", "bpe"), default="characters",
        help="what the model reads: characters (default), or byte pairs learned from the text (needs the package tokenizers)",
    )
    data.add_argument("--vocab-size", type=ranged(int, 257), metavar="N", help="of bpe: how many pieces (default 4096)")

    model = parser.add_argument_group("model")
    model.add_argument("--layers", type=ranged(int, 1), default=6, metavar="N", help="blocks of attention and MLP (default 6)")
    model.add_argument(
        "--width", type=ranged(int, 1), default=384, metavar="N", help="features of a token; a multiple of the heads (default 384)"
    )
    model.add_argument("--heads", type=ranged(int, 1), default=6, metavar="N", help="of attention, in each layer (default 6)")
    model.add_argument("--context", type=ranged(int, 2), default=256, metavar="N", help="tokens that the model sees (default 256)")
    model.add_argument(
        "--dropout", type=ranged(float, 0, 0.99), default=0.1, metavar="P", help="of embeddings, attention and layers (default 0.1)"
    )

    training = parser.add_argument_group("training")
    training.add_argument(
        "--lr", type=ranged(float, 0, above=True), default=1e-3, metavar="RATE", help="the peak learning rate (default 0.001)"
    )
    training.add_argument(
        "--final-lr", type=ranged(float, 0, 1), default=0.0, metavar="SHARE",
        help="the rate at the end, as a share of the peak (default 0)",
    )
    training.add_argument(
        "--warmup", type=ranged(int, 0), default=100, metavar="STEPS", help="in which the rate rises from 0 (default 100)"
    )
    training.add_argument("--weight-decay", type=ranged(float, 0), default=0.1, metavar="W", help="of matrices (default 0.1)")
    training.add_argument(
        "--clip", type=ranged(float, 0), default=1.0, metavar="NORM", help="the largest norm of the gradient; 0: any (default 1)"
    )
    training.add_argument(
        "--batch-size", type=ranged(int, 1), default=8, metavar="N", help="windows of the text a batch (default 8)"
    )
    training.add_argument("--accumulate", type=ranged(int, 1), default=1, metavar="N", help="batches a step (default 1)")
    training.add_argument(
        "--steps", type=ranged(int, 1), metavar="N", help=f"how many (default {STEPS}, without limit where --minutes are given)"
    )
    training.add_argument(
        "--epochs", type=ranged(float, 0, above=True), metavar="N", help="instead of steps: how often to read the text"
    )
    training.add_argument(
        "--minutes", type=ranged(float, 0, above=True), metavar="M",
        help="stop after so much time, evaluations included; the learning rate is at its end then",
    )
    training.add_argument("--seed", type=ranged(int, 0, 2**63 - 1), default=0, help="of the weights and the order (default 0)")
    training.add_argument("--threads", type=ranged(int, 1, 1024), help="default: all processors")

    watching = parser.add_argument_group("evaluation")
    watching.add_argument(
        "--eval-every", type=ranged(int, 1), default=250, metavar="STEPS", help="evaluate and save a checkpoint (default 250)"
    )
    watching.add_argument(
        "--eval-windows", type=ranged(int, 1), default=100, metavar="N",
        help="windows of the validation part, evenly spread, to look at then; all of it is scored at the end (default 100)",
    )
    watching.add_argument("--sample-every", type=ranged(int, 1), metavar="STEPS", help="show what it writes (default: never)")
    watching.add_argument("--sample-length", type=ranged(int, 1), default=300, metavar="N", help="tokens of a sample (default 300)")
    watching.add_argument("--temperature", type=ranged(float, 0), default=0.8, metavar="T", help="of samples (default 0.8)")
    watching.add_argument("--top-k", type=ranged(int, 1), metavar="K", help="samples are of the K likeliest tokens (default: all)")
    add_out(parser, "lm")


def complete_options(options: argparse.Namespace) -> None:
    """Fills in what the command does not say, and refuses what does not go together."""
    if options.vocab_size is not None and options.tokens != "bpe":
        raise CliError("--vocab-size: only --tokens bpe takes it")
    if options.tokens == "bpe" and options.vocab_size is None:
        options.vocab_size = 4096
    if options.width % options.heads:
        raise CliError(f"--heads: expected a divisor of the width {options.width}, got {options.heads}")
    if options.steps is not None and options.epochs is not None:
        raise CliError("--epochs: give either steps or epochs")
    if options.threads is None:
        options.threads = bpnn.get_num_threads()
    refuse_taken(options.out)


def settle_steps(options: argparse.Namespace, tokens: int) -> None:
    """The number of steps, from epochs over `tokens` where those were asked for; None where only time ends the run."""
    if options.epochs is not None:
        window = options.batch_size * options.accumulate * options.context
        options.steps = max(1, round(options.epochs * tokens / window))
    elif options.steps is None and options.minutes is None:
        options.steps = STEPS
    if options.steps is not None and options.minutes is None and options.warmup >= options.steps:
        options.warmup = options.steps // 10


# Data -----------------------------------------------------------------------------------------------------------------


class Corpus:
    """A text in two parts, and what the config remembers of it; the checksum tells whether it is the same later."""

    def __init__(self, paths: list[str], validation: float) -> None:
        text = read_text(paths)
        cut = len(text) - round(len(text) * validation)
        self.train, self.validation = text[:cut], text[cut:]
        self.about = {
            "source": ", ".join(paths),
            "paths": [str(Path(path).absolute()) for path in paths],
            "characters": len(text),
            "validation": len(self.validation),
            "crc32": f"{zlib.crc32(text.encode()):08x}",
        }

    @classmethod
    def of(cls, run: Run, data: str | None = None) -> Corpus:
        """The text of a run: in `data` if given, else where it was then. It must be the same."""
        wanted = run.config["data"]
        if data is None and not all(Path(path).exists() for path in wanted["paths"]):
            raise CliError(f"{run.folder}: its text is no longer in {wanted['source']}; bpnn evaluate takes --data")
        corpus = cls(wanted["paths"] if data is None else [data], run.config["options"]["validation"])
        if corpus.about["crc32"] != wanted["crc32"]:
            raise CliError(
                f"{run.folder}: was trained on another text ({wanted['characters']:,} characters from {wanted['source']}) than "
                f"found in {corpus.about['source']} ({corpus.about['characters']:,})"
            )
        return corpus

    def encode(self, vocabulary: Any) -> tuple[np.ndarray, np.ndarray]:
        """Token numbers of the two parts."""
        train, validation = (compact(vocabulary.encode(part), len(vocabulary)) for part in (self.train, self.validation))
        return train, validation

    def check(self, context: int, train: np.ndarray, validation: np.ndarray) -> None:
        """`DataError` where a part is too short for a window."""
        for part, tokens in (("training", train), ("validation", validation)):
            if len(tokens) <= context:
                raise DataError(
                    f"{self.about['source']}: too short: its {part} part has {len(tokens):,} tokens, --context {context} needs "
                    f"{context + 1:,}"
                )


def build_vocabulary(corpus: Corpus, options: argparse.Namespace) -> Any:
    """Characters of the whole text, or byte pairs of its training part."""
    if options.tokens == "characters":
        return CharacterVocabulary.build(corpus.train + corpus.validation)
    try:
        return BytePairVocabulary.build(corpus.train, options.vocab_size)
    except ImportError as error:
        raise CliError(str(error)) from None


def model_folder(run: Run) -> Path:
    """Where the run keeps what `from_pretrained` reads."""
    return run.folder / "model"


def load_vocabulary(run: Run) -> Any:
    folder = model_folder(run)
    if not (folder / "tokenizer.json").is_file():
        raise CliError(f"{folder}: has no tokenizer.json; go on with the run: bpnn train --resume {run.folder}")
    try:
        return load_language_vocabulary(folder)
    except ImportError as error:
        raise CliError(str(error)) from None


# Training -------------------------------------------------------------------------------------------------------------


def make_model(options: argparse.Namespace, tokens: int) -> Any:
    from bpnn.models.gpt2 import GPT2Config, GPT2LMHeadModel

    drop = options.dropout
    return GPT2LMHeadModel(GPT2Config(
        vocab_size=tokens, n_positions=options.context, n_embd=options.width, n_layer=options.layers, n_head=options.heads,
        resid_pdrop=drop, embd_pdrop=drop, attn_pdrop=drop, bos_token_id=None, eos_token_id=None,
    ))  # fmt: skip


def train(options: argparse.Namespace) -> int:
    complete_options(options)
    corpus = Corpus(options.data, options.validation)
    vocabulary = build_vocabulary(corpus, options)
    tokens = corpus.encode(vocabulary)
    corpus.check(options.context, *tokens)
    settle_steps(options, len(tokens[0]))
    run = create_run("lm", options, corpus.about)
    return carry_on(run, lambda: work(run, corpus, vocabulary, *tokens, resumed=False))


def resume(run: Run) -> int:
    if not may_resume(run):
        return 0
    corpus = Corpus.of(run)
    known = (model_folder(run) / "tokenizer.json").is_file()  # byte pairs of another version of tokenizers may differ
    vocabulary = load_vocabulary(run) if known else build_vocabulary(corpus, argparse.Namespace(**run.config["options"]))
    tokens = corpus.encode(vocabulary)
    return carry_on(run, lambda: work(run, corpus, vocabulary, *tokens, resumed=True))


def make_trainer(run: Run, vocabulary: Any, tokens: np.ndarray) -> tuple[LanguageTrainer, RandomWindows]:
    """The trainer of a run and its batches; an "epoch" of the trainer is what lies between two evaluations."""
    o = argparse.Namespace(**run.config["options"])
    total = None if o.steps is None else o.steps * o.accumulate
    windows = RandomWindows(tokens, o.context, o.batch_size, o.eval_every * o.accumulate, total, o.seed)
    model = make_model(o, len(vocabulary))
    optimizer = bpnn.optim.AdamW(optimizer_groups(model, o.weight_decay), lr=o.lr, betas=(0.9, 0.99))
    clock = Clock(windows, o.minutes)
    scheduler = bpnn.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: cosine(step, o.warmup, o.steps, o.final_lr, clock.used)
    )
    progress, best = StepProgress(clock, o.steps, o.context), BestModel("val_loss")

    def sample(trainer: Any) -> str:
        start = tokens[: min(16, o.context // 2)]
        found = continue_text(model, start, o.sample_length, seed=o.seed, temperature=o.temperature, top_k=o.top_k)
        return str(vocabulary.decode(list(found)))

    trainer = LanguageTrainer(
        model,
        optimizer,
        scheduler=scheduler,
        schedule_every="step",
        callbacks=[
            StopOnInterrupt(), clock, *([Sampler(o.sample_every, sample, progress.write)] if o.sample_every else []),
            HistoryFile(run.folder / "history.csv"), best, KeepModel(best, lambda model: model.save_pretrained(model_folder(run))),
            progress, CheckpointWriter(run.checkpoints),
        ],
        accumulate=o.accumulate,
        clip_norm=o.clip or None,
        log_every=max(1, o.eval_every // 20),
    )
    return trainer, windows


def work(
    run: Run, corpus: Corpus, vocabulary: Any, train_tokens: np.ndarray, validation_tokens: np.ndarray, resumed: bool
) -> bool:
    """Trains the run to its end and finishes its folder; False where it was interrupted."""
    o, about = argparse.Namespace(**run.config["options"]), run.config["data"]
    prepare(o)
    model_folder(run).mkdir(exist_ok=True)
    vocabulary.save(model_folder(run), o.context)
    trainer, windows = make_trainer(run, vocabulary, train_tokens)
    validation = ConsecutiveWindows(validation_tokens, o.context, 16, o.eval_windows)
    print(
        f"data   {about['source']}: {about['characters']:,} characters, the last {about['validation']:,} for validation; "
        f"{len(train_tokens):,} + {len(validation_tokens):,} tokens of {len(vocabulary):,} {o.tokens}"
    )
    print(
        f"model  GPT of {o.layers} layers × {o.width}, {o.heads} heads, context {o.context}, dropout {o.dropout:g}, "
        f"{trainer.model.num_parameters():,} parameters"
    )
    size = o.batch_size * o.accumulate
    ends = ([] if o.steps is None else [f"{o.steps:,} steps"]) + ([] if o.minutes is None else [f"{o.minutes:g} minutes"])
    print(
        f"train  adamw, learning rate {o.lr:g} (cosine, warm-up {o.warmup}), {size} × {o.context} tokens a step, "
        f"{' or '.join(ends)}, seed {o.seed}, threads {o.threads}"
    )
    writer = next(callback for callback in trainer.callbacks if isinstance(callback, CheckpointWriter))
    if resumed and writer.latest is not None:
        print(f"resume {writer.resume(trainer)}: step {trainer.state.step}", flush=True)
    else:
        print(f"folder {run.folder}", flush=True)
    trainer.fit(windows, validation, sys.maxsize if o.steps is None else -(-o.steps // o.eval_every))
    state = trainer.state
    if state.interrupted:
        print(f"stopped after step {state.step}; go on with: bpnn train --resume {run.folder}", flush=True)
        return False
    if state.stopped:
        print(f"stopped: {state.stopped}, after step {state.step}")
    finish(run, trainer, text_scores(trainer.model, validation_tokens, len(corpus.validation), o.context))
    return True


def finish(run: Run, trainer: LanguageTrainer, scores: dict[str, Any]) -> None:
    """Writes the model, the picture and the scores, and says so."""
    o, history = argparse.Namespace(**run.config["options"]), trainer.history
    best = next(callback for callback in trainer.callbacks if isinstance(callback, BestModel))
    row = history.rows[best.best_epoch - 1]
    trainer.model.save_pretrained(model_folder(run))
    try:
        with replacing(run.folder / "curves.png") as path:
            name = Path(run.config["data"]["paths"][0]).name
            title = f"{name} · GPT {o.layers} × {o.width} · validation loss {scores['loss']:.4f}"
            draw_run(path, history, title, row["step"])
    except ImportError:
        print("no curves.png: matplotlib is not installed (pip install 'bpnn[demo]')")
    values = {
        "validation": scores, "steps": trainer.state.step, "best_step": row["step"], "best_val_loss": row["val_loss"],
        "minutes": history.rows[-1]["minutes"], "tokens_per_second": float(np.mean(history["samples_per_second"])) * o.context,
    }
    run.write_json("metrics.json", values)
    print(describe(scores))
    print(f"weights of step {row['step']:,} of {trainer.state.step:,}, {history.rows[-1]['minutes']:.1f} minutes")
    names = ("config.json", "model", "history.csv", "metrics.json", "curves.png", "checkpoints")
    print(f"wrote {run.folder}{os.sep}: " + " ".join(name for name in names if (run.folder / name).exists()), flush=True)


# Afterwards -----------------------------------------------------------------------------------------------------------


def describe(scores: dict[str, Any]) -> str:
    """Scores for a person."""
    return (
        f"validation loss {scores['loss']:.4f} a token, perplexity {scores['perplexity']:.3f}, "
        f"{scores['bits_per_character']:.4f} bits a character, over {scores['tokens']:,} tokens"
    )


def load_model(run: Run) -> Any:
    from bpnn.models.gpt2 import GPT2LMHeadModel

    folder = model_folder(run)
    if not (folder / "model.safetensors").is_file():
        raise CliError(f"{folder}: has no model.safetensors; go on with the run: bpnn train --resume {run.folder}")
    try:
        return GPT2LMHeadModel.from_pretrained(folder)
    except OSError:
        raise
    except Exception as error:
        raise CliError(f"{folder}: cannot be read as this run's model ({error})") from error


def evaluate(run: Run, data: str | None) -> str:
    """The scores of the run's model on the validation part, for a person."""
    vocabulary, model, corpus = load_vocabulary(run), load_model(run), Corpus.of(run, data)
    tokens = corpus.encode(vocabulary)[1]
    return describe(text_scores(model, tokens, len(corpus.validation), run.config["options"]["context"]))


def predict(run: Run, prompts: list[str]) -> None:
    """Print each prompt, or standard input as one, and how the model goes on, as it writes; `bpnn generate` has options."""
    from bpnn.models.generation import TextStream

    o = argparse.Namespace(**run.config["options"])
    vocabulary, model = load_vocabulary(run), load_model(run)
    for number, prompt in enumerate(prompts or [sys.stdin.read()]):
        try:
            tokens = vocabulary.encode(prompt)
        except ValueError as error:
            raise CliError(f"INPUT: {error}") from None
        if not len(tokens):
            raise CliError("INPUT: expected a text to go on with, got an empty one")
        print("\n" * (number > 0) + prompt, end="", flush=True)
        text = TextStream(SimpleNamespace(decode=lambda tokens, skip_special_tokens: vocabulary.decode(tokens)))
        text.begin(tokens)
        try:
            for token in continue_text(model, tokens, o.sample_length, seed=o.seed, temperature=o.temperature, top_k=o.top_k):
                print(text.put(token), end="", flush=True)
        except FloatingPointError as error:
            raise CliError(f"{run.folder}: {error}") from error
        finally:
            print(text.end(), flush=True)
