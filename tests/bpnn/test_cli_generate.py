"""`bpnn generate`: what a model writes on the terminal."""
import json
import shutil
import signal
import subprocess
import sys
import time

import cli_helpers
import pytest
from cli_helpers import environment, fails

pytest.importorskip("tokenizers")
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball."
)


def bpnn(*arguments):
    return cli_helpers.bpnn(*arguments, cwd=".")


def bytes_to_letters():
    """GPT-2's letter for each byte: itself where it can be printed, else one from 256 on."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + i) for i, byte in enumerate(hidden)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small GPT-2 that writes nonsense, with a token for each byte and a chat template."""
    import bpnn as package
    from bpnn.models.gpt2 import GPT2Config, GPT2LMHeadModel

    place = tmp_path_factory.mktemp("model")
    package.manual_seed(1)
    config = GPT2Config(
        vocab_size=257, n_positions=64, n_embd=32, n_layer=2, n_head=2, initializer_range=0.5, bos_token_id=256, eos_token_id=256)
    GPT2LMHeadModel(config).save_pretrained(place)
    vocabulary = {letter: byte for byte, letter in bytes_to_letters().items()} | {"<|endoftext|>": 256}
    (place / "vocab.json").write_text(json.dumps(vocabulary))
    (place / "merges.txt").write_text("#version: 0.2\n")
    template = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
    (place / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return place


@pytest.fixture
def story(data_dir):
    place = data_dir / "stories260K" / "stories260K.bin"
    if not place.is_file():
        pytest.skip("no stories260K among the data sets")
    return place


def test_tells_the_story(story):
    done = bpnn("generate", story, "--max-new-tokens", "60", "--greedy", "--verbose")
    assert done.returncode == 0 and done.stdout.startswith(STORY)
    assert "tokens/s" in done.stderr and "tokens/s" not in done.stdout


def test_writes_on(story):
    done = bpnn("generate", story, "Once upon a time, there was a", "--max-new-tokens", "20", "--echo", "--stop", " Lily")
    assert done.returncode == 0 and done.stdout == STORY[: STORY.index(" Lily")] + "\n"


def test_chat_and_text(folder):
    answer = bpnn("generate", folder, "hi", "--max-new-tokens", "8", "--echo")
    assert answer.returncode == 0 and answer.stdout.startswith("u:hi;a:")
    told = bpnn("generate", folder, "hi", "--max-new-tokens", "8", "--echo", "--system", "be brief")
    assert told.stdout.startswith("s:be brief;u:hi;a:")
    plain = bpnn("generate", folder, "hi", "--max-new-tokens", "8", "--echo", "--no-chat")
    assert plain.stdout.startswith("hi") and not plain.stdout.startswith("hi;")


def test_a_seed_draws_the_same_text(folder):
    say = lambda *more: bpnn("generate", folder, "abc", "--temperature", "1.5", "--top-k", "0", *more).stdout  # noqa: E731
    assert say("--seed", "3") == say("--seed", "3") != say("--seed", "4")


def test_beams_and_standard_input(folder):
    options = ["--beams", "3", "--max-new-tokens", "5", "--no-chat", "--echo"]
    command = [sys.executable, "-m", "bpnn", "generate", folder, "-", *options]
    done = subprocess.run(command, input="line\n", capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0 and done.stdout.startswith("line")


def test_what_is_wrong_is_said(folder, tmp_path):
    fails(bpnn("generate", tmp_path / "none", "x"), "none")
    fails(bpnn("generate", folder, "x" * 80, "--no-chat"), "input_ids: expected at most 64 tokens, the model's context, got 80")
    fails(bpnn("generate", folder, "x", "--greedy", "--top-k", "4"), "--greedy")
    fails(bpnn("generate", folder, "x", "--no-chat", "--system", "y"), "--system")
    assert bpnn("generate", folder, "x", "--max-new-tokens", "0").returncode == 2


def test_broken_weights_are_said(folder, tmp_path):
    """No traceback where the scores are NaN."""
    from bpnn.models.gpt2 import GPT2LMHeadModel

    shutil.copytree(folder, tmp_path / "broken")
    model = GPT2LMHeadModel.from_pretrained(folder)
    model.transformer.ln_f.weight.detach().fill_(float("nan"))
    model.save_pretrained(tmp_path / "broken")
    done = bpnn("generate", tmp_path / "broken", "x", "--no-chat", "--sample", "--max-new-tokens", "4")
    fails(done, "logits: expected finite numbers to draw a token from, got NaN")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_ends_the_line(story):
    command = [sys.executable, "-m", "bpnn", "generate", story, "--max-new-tokens", "500", "--sample"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        first = process.stdout.read(8)
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, told = process.communicate(timeout=60)
    assert process.returncode in (0, 130) and (first + out).endswith(b"\n")
    assert process.returncode == 0 or told == b"bpnn: interrupted\n"
