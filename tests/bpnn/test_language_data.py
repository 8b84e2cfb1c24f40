"""Running text: files, vocabularies of characters and byte pairs, windows."""
import json

import numpy as np
import pytest

import bpnn
from bpnn.data import (
    BytePairVocabulary, CharacterVocabulary, ConsecutiveWindows, DataError, RandomWindows, compact, load_language_vocabulary,
    read_text,
)

TEXT = "Über den Wolken,\nmuß die Freiheit 很大 sein 🙂.\n\n" * 40


# Files ----------------------------------------------------------------------------------------------------------------


def test_files_and_folders(tmp_path):
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("很大\n", encoding="utf-8")
    (tmp_path / "in" / "other.md").write_text("not read")
    assert read_text([tmp_path / "b.txt"]) == "one\ntwo\nthree"
    assert read_text([tmp_path]) == "one\ntwo\nthree\n很大\n"
    assert read_text([str(tmp_path / "in"), str(tmp_path / "in" / "other.md")]) == "很大\nnot read\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "a.txt: is empty"),
        (b"\xef\xbb\xbf", "a.txt: is empty"),
        (b"one\ntwo \xff three", "a.txt:2: not UTF-8 (invalid start byte, byte 9 of the file)"),
        (b"\xef\xbb\xbfone\ntwo\nthree \xe5\xbe", "a.txt:3: not UTF-8 (unexpected end of data, byte 18 of the file)"),
        (b"one\ntwo\0", "a.txt:2: has a zero byte"),
    ],
)
def test_what_is_no_text(tmp_path, content, words):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_text([tmp_path / "a.txt"])
    assert words in str(caught.value)


def test_missing_files(tmp_path):
    with pytest.raises(DataError, match="has no .txt files"):
        read_text([tmp_path])
    with pytest.raises(DataError, match="b.txt: no such file or folder"):
        read_text([tmp_path / "b.txt"])


# Vocabularies ---------------------------------------------------------------------------------------------------------


def test_characters(tmp_path):
    vocabulary = CharacterVocabulary.build(TEXT)
    assert vocabulary.tokens == sorted(set(TEXT)) and len(vocabulary) == len(set(TEXT))
    numbers = vocabulary.encode(TEXT)
    assert numbers.dtype == np.int64 and numbers.tolist() == [vocabulary.tokens.index(c) for c in TEXT]
    assert vocabulary.decode(numbers) == TEXT
    assert vocabulary.encode("").tolist() == [] and vocabulary.decode([]) == ""
    for wrong in ("Xylophon", "sein!", "\ud800"):
        with pytest.raises(ValueError, match="is none of the"):
            vocabulary.encode(wrong)
    vocabulary.save(tmp_path, 128)
    again = load_language_vocabulary(tmp_path)
    assert isinstance(again, CharacterVocabulary) and again.tokens == vocabulary.tokens


def test_byte_pairs(tmp_path):
    pytest.importorskip("tokenizers")
    vocabulary = BytePairVocabulary.build(TEXT, 300)
    assert 256 < len(vocabulary) <= 300
    numbers = vocabulary.encode(TEXT)
    assert vocabulary.decode(numbers) == TEXT and len(numbers) < len(TEXT.encode()) / 2
    assert vocabulary.decode(vocabulary.encode("anything, 什么都行")) == "anything, 什么都行"
    vocabulary.save(tmp_path)
    again = load_language_vocabulary(tmp_path)
    assert isinstance(again, BytePairVocabulary) and again.encode(TEXT).tolist() == numbers.tolist()
    with pytest.raises(ValueError, match="size: expected 257 or more"):
        BytePairVocabulary.build(TEXT, 256)


def test_long_texts_are_cut_at_line_ends(monkeypatch):
    pytest.importorskip("tokenizers")
    from bpnn.data import subwords

    vocabulary = BytePairVocabulary.build(TEXT, 300)
    monkeypatch.setattr(subwords, "PIECE", 100)
    pieces = list(subwords._pieces(TEXT + "x" * 250))
    assert "".join(pieces) == TEXT + "x" * 250 and max(map(len, pieces)) <= 100 and pieces[0].endswith("\n")
    assert vocabulary.decode(vocabulary.encode(TEXT)) == TEXT


@pytest.mark.parametrize("kind", ["characters", "bpe"])
def test_tokenizers_read_what_is_written(tmp_path, kind):
    """`AutoTokenizer` of bpnn gives the same numbers and texts."""
    pytest.importorskip("tokenizers")
    from bpnn.pretrained import AutoTokenizer

    vocabulary = CharacterVocabulary.build(TEXT) if kind == "characters" else BytePairVocabulary.build(TEXT, 300)
    vocabulary.save(tmp_path, 64)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert tokenizer(TEXT)["input_ids"] == vocabulary.encode(TEXT).tolist()
    assert tokenizer.decode(vocabulary.encode(TEXT)) == TEXT
    assert len(tokenizer) == len(vocabulary) and tokenizer.model_max_length == 64


@pytest.mark.rivals
@pytest.mark.parametrize("kind", ["characters", "bpe"])
def test_transformers_reads_what_is_written(tmp_path, kind):
    transformers = pytest.importorskip("transformers")
    vocabulary = CharacterVocabulary.build(TEXT) if kind == "characters" else BytePairVocabulary.build(TEXT, 300)
    vocabulary.save(tmp_path, 64)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert tokenizer(TEXT)["input_ids"] == vocabulary.encode(TEXT).tolist()
    assert tokenizer.decode(vocabulary.encode(TEXT).tolist()) == TEXT


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"model": {"type": "WordLevel", "vocab": {"a": 1}}}', '{"model": {"type": "BPE"}}']
)
def test_damaged_vocabularies(tmp_path, content):
    if "BPE" in content:
        pytest.importorskip("tokenizers")
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(DataError, match=r"tokenizer\.json: cannot be read as a vocabulary"):
        load_language_vocabulary(tmp_path)


# Windows --------------------------------------------------------------------------------------------------------------


def test_compact():
    assert compact(np.arange(65), 65).dtype == np.uint8 and compact(np.arange(65), 4096).dtype == np.uint16
    assert compact(np.arange(65), 100_000).dtype == np.uint32


def rows(windows):
    return [np.concatenate([x.numpy(), y.numpy()[:, -1:]], 1) for x, y in windows]


def test_random_windows():
    tokens = compact(np.arange(50), 50)
    windows = RandomWindows(tokens, 8, 4, length=30, seed=3)
    x, y = next(iter(windows))
    assert isinstance(x, bpnn.Tensor) and x.numpy().dtype == y.numpy().dtype == np.int64 and x.shape == y.shape == (4, 8)
    first = rows(RandomWindows(tokens, 8, 4, length=30, seed=3))
    assert len(first) == 30 and all((np.diff(row, axis=1) == 1).all() for row in first)
    starts = np.concatenate([row[:, 0] for row in first])
    assert starts.min() == 0 and starts.max() == 41  # every place, the last one too
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], rows(RandomWindows(tokens, 8, 4, length=30, seed=4))[0])


def test_passes():
    windows = RandomWindows(np.arange(50), 8, 4, length=3, total=8)
    passes = [rows(windows) for _ in range(4)]
    assert [len(one) for one in passes] == [3, 3, 2, 0]
    whole = rows(RandomWindows(np.arange(50), 8, 4, length=8))
    assert np.array_equal(np.concatenate(passes[:3]), np.stack(whole))


@pytest.mark.parametrize("before", [0, 1, 3, 4])
def test_windows_go_on(before):
    """From the state between any two batches; at the end of a pass its rest is empty."""
    windows = RandomWindows(np.arange(50), 8, 4, length=3)
    given = []
    for _ in range(1 + before // 3):
        for batch in windows:
            given.append(batch)
            if len(given) == before:
                break
        if len(given) >= before:
            break
    again = RandomWindows(np.arange(50), 8, 4, length=3)
    if before:
        again.load_state_dict(json.loads(json.dumps(windows.state_dict())))
    rest = rows(again)
    assert len(rest) == {0: 3, 1: 2, 3: 0, 4: 2}[before]
    more = rows(again)
    whole = rows(RandomWindows(np.arange(50), 8, 4, length=9))
    assert np.array_equal(np.stack(rest + more), np.stack(whole[before : before + len(rest) + len(more)]))
    with pytest.raises(ValueError, match="batch_size: the state is of windows with 4, not 5"):
        RandomWindows(np.arange(50), 8, 5, length=3).load_state_dict(windows.state_dict())


def test_a_pass_that_is_ended():
    windows = RandomWindows(np.arange(50), 8, 4, length=100)
    seen = 0
    for _ in windows:
        seen += 1
        if seen == 5:
            windows.end_pass()
    assert seen == 5 and windows.state_dict()["given"] == 5


@pytest.mark.parametrize(("count", "full", "left"), [(9, 1, 0), (10, 1, 1), (16, 1, 7), (17, 2, 0), (100, 12, 3)])
def test_consecutive_windows(count, full, left):
    windows = ConsecutiveWindows(np.arange(count), 8, 5)
    found = rows(windows)
    assert sum(map(len, found)) == full and len(found) == len(windows) and max(map(len, found)) <= 5
    assert np.concatenate(found)[:, 0].tolist() == list(range(0, 8 * full, 8))
    rest = windows.rest
    assert (rest is None) == (left == 0)
    predicted = [y.numpy().ravel() for _, y in windows] + ([] if rest is None else [rest[1].numpy().ravel()])
    assert np.concatenate(predicted).tolist() == list(range(1, count))


def test_some_windows():
    windows = ConsecutiveWindows(np.arange(801), 8, 5, windows=10)
    assert windows.starts.tolist() == list(range(0, 800, 80))
    assert len(ConsecutiveWindows(np.arange(801), 8, 5, windows=1000).starts) == 100


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.arange(8), 8, 1), "tokens: expected more than the 8 of a window, got 8"),
        ((np.arange(8.0), 4, 1), "tokens: expected whole numbers"),
        ((np.arange(8), 0, 1), "context, batch_size: expected 1 or more"),
    ],
)
def test_wrong_windows(arguments, words):
    with pytest.raises(ValueError, match=words):
        ConsecutiveWindows(*arguments)
    with pytest.raises(ValueError, match=words):
        RandomWindows(*arguments, length=1)
