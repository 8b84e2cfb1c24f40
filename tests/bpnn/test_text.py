"""Texts: tokens, their numbers, batches of them, and corpora."""
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

import bpnn
from bpnn.data import (
    BucketBatchSampler, DataError, PadCollate, SequenceDataset, Vocabulary, characters, find_chnsenticorp, find_sst2,
    load_chnsenticorp, load_labeled_texts, load_sst2, pad, words,
)
from bpnn.utils.data import DataLoader

# --- tokens ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("It's NOT bad; I don't mind.", "it 's not bad ; i do n't mind ."),
        ("wo n't can't they’ve “so”", "wo n't ca n't they 've \" so \""),
        ("`` never again ''", "` ` never again ' '"),
        ("café 1930s 3.5%", "café 1930s 3 . 5 %"),
        ("'tis o'clock rock'n'roll", "' tis o ' clock rock ' n ' roll"),
        ("", ""),
        (" \t\n", ""),
    ],
)
def test_words(text, tokens):
    assert words(text) == tokens.split()
    assert words(" ".join(words(text))) == words(text)


def test_characters():
    assert characters("房间 很好，ＯＫ　！\n") == list("房间很好,ok!")
    assert characters("") == []


# --- vocabulary --------------------------------------------------------------------------------------------------------

TEXTS = [["b", "a", "c"], ["a", "b"], ["a", "d", "<pad>"]]


def test_vocabulary():
    v = Vocabulary.build(TEXTS)
    assert v.tokens == ["<pad>", "<unk>", "a", "b", "c", "d"] and len(v) == 6 and v.padding == 0 and v.unknown == 1
    assert list(v) == v.tokens and "a" in v and "z" not in v and v["z"] == 1 and v["b"] == 3
    ids = v.encode(["d", "z", "a"])
    assert ids.tolist() == [5, 1, 2] and ids.dtype == np.int64 and v.decode(ids) == ["d", "<unk>", "a"]
    assert v.encode([]).tolist() == [] and v.encode([]).dtype == np.int64
    assert Vocabulary.build(TEXTS, min_freq=2).tokens[2:] == ["a", "b"]
    assert Vocabulary.build(TEXTS, max_size=3).tokens[2:] == ["a"]
    assert Vocabulary.build(iter(TEXTS), specials=("<s>",)).tokens == ["<s>", "a", "b", "<pad>", "c", "d"]
    plain = Vocabulary(["x", "y"], specials=(), unknown=None, padding=None)
    assert plain.tokens == ["x", "y"] and plain.padding is None
    with pytest.raises(KeyError, match="'z' is not in the vocabulary, which has no token for unknown ones"):
        plain.encode(["z"])
    for number in (-1, 6):
        with pytest.raises(IndexError, match=rf"numbers: expected them in \[0, 5\], got {number}"):
            v.decode([number])
    with pytest.raises(ValueError, match="tokens: expected each once, got 'a' more often"):
        Vocabulary(["a", "b", "a"])
    with pytest.raises(ValueError, match="min_freq: expected 1 or more, got 0"):
        Vocabulary.build(TEXTS, min_freq=0)
    with pytest.raises(ValueError, match="max_size: expected at least the 2 specials, got 1"):
        Vocabulary.build(TEXTS, max_size=1)
    with pytest.raises(TypeError, match="tokens: expected text, got int"):
        Vocabulary([1])


@pytest.mark.parametrize("name", ["v.json", "v.txt"])
def test_saved_vocabularies(tmp_path, name):
    v = Vocabulary.build([["字", "word", "'", '"', "\\", "é"]] * 2 + [["x"]])
    v.save(tmp_path / name)
    again = Vocabulary.load(tmp_path / name)
    assert again == v and again.specials == v.specials and again.encode(["字", "?"]).tolist() == v.encode(["字", "?"]).tolist()
    assert b"\r" not in (tmp_path / name).read_bytes()
    other = Vocabulary(["a"], specials=("[PAD]", "[UNK]"), unknown="[UNK]", padding="[PAD]")
    other.save(tmp_path / name)
    assert Vocabulary.load(tmp_path / name, "[UNK]", "[PAD]") == other


def test_vocabularies_of_others_and_damaged_ones(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("the\n<unk>\nof\n", encoding="utf-8")
    v = Vocabulary.load(path)
    assert v.tokens == ["the", "<unk>", "of"] and v["x"] == 1 and v.padding is None
    path.write_text("a\nb\na\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"vocab.txt:3: 'a' is the token of line 1 already"):
        Vocabulary.load(path)
    path.write_bytes(b"a\n\xff\n")
    with pytest.raises(DataError, match="vocab.txt: expected UTF-8"):
        Vocabulary.load(path)
    with pytest.raises(ValueError, match=r"cannot be a line of a text file; save as \.json"):
        Vocabulary(["a\nb"]).save(path)
    path = tmp_path / "v.json"
    good = {"format": "bpnn vocabulary", "version": 1, "specials": [], "tokens": ["a"], "unknown": None, "padding": None}
    for change, said in [({"format": "x"}, "not a vocabulary"), ({"version": 2}, "of version 2"), ({"tokens": 3}, "damaged"),
                         ({"tokens": ["a", "a"]}, "damaged")]:
        path.write_text(json.dumps(good | change), encoding="utf-8")
        with pytest.raises(DataError, match=f"v.json: {said}"):
            Vocabulary.load(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="v.json: damaged"):
        Vocabulary.load(path)


# --- batches -----------------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(1, 60, 1003)


def test_pad():
    rows, lengths = pad([np.array([1, 2], np.int32), np.array([], np.int32), [3]], padding_value=9)
    assert rows.tolist() == [[1, 2], [9, 9], [3, 9]] and rows.dtype == np.int32 and lengths.tolist() == [2, 0, 1]
    with pytest.raises(ValueError, match="sequences: expected at least one"):
        pad([])
    with pytest.raises(ValueError, match=r"sequences\[1\]: expected a vector, got shape \(1, 1\)"):
        pad([[1], [[2]]])


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_buckets_cover_everything_with_little_padding(drop_last, shuffle):
    sampler = BucketBatchSampler(LENGTHS, 16, shuffle, drop_last, pool=10)
    batches = sampler.batches(3, 0)
    seen = np.concatenate(batches)
    assert len(batches) == len(sampler) == (62 if drop_last else 63)
    assert len(set(seen.tolist())) == len(seen) == (992 if drop_last else 1003)
    filled = sum(len(b) * LENGTHS[b].max() for b in batches) / LENGTHS[seen].sum()
    usual = sum(len(b) * b.max() for b in np.array_split(LENGTHS, 63)) / LENGTHS.sum()
    assert filled < 1.15 < 1.7 < usual
    if shuffle:
        assert batches == sampler.batches(3, 0) and batches != sampler.batches(3, 1) and batches != sampler.batches(4, 0)
        longest = [LENGTHS[b].max() for b in batches]
        assert longest != sorted(longest)


def test_a_bucket_sampler_by_itself():
    a, b = (BucketBatchSampler(LENGTHS, 100, generator=bpnn.Generator().manual_seed(5)) for _ in range(2))
    first, second = list(a), list(a)
    assert list(b) == first != second == list(b)
    a.set_epoch(0)
    assert list(a) == first
    assert list(BucketBatchSampler([], 4)) == [] and len(BucketBatchSampler([], 4)) == 0
    with pytest.raises(ValueError, match="batch_size: expected an integer above zero, got 0"):
        BucketBatchSampler(LENGTHS, 0)
    with pytest.raises(ValueError, match=r"lengths: expected one axis, got shape \(1, 1\)"):
        BucketBatchSampler([[1]], 1)


def loader(seed=0):
    sequences = [np.arange(n) + 1 for n in LENGTHS[:200]]
    data = SequenceDataset(sequences, np.arange(200) % 2)
    bpnn.manual_seed(seed)
    return DataLoader(data, batch_sampler=BucketBatchSampler(data.lengths, 7, pool=5), collate_fn=PadCollate())


def as_lists(batches):
    return [[part.tolist() for part in batch] for batch in batches]


def test_loading_and_resuming():
    whole = loader()
    assert len(whole) == 29
    one, two = as_lists(whole), as_lists(whole)
    assert one != two and sum(len(labels) for _, _, labels in one) == 200
    for rows, lengths, labels in one:
        assert len(rows) == len(lengths) == len(labels)
        for row, n in zip(rows, lengths, strict=True):
            assert row == [*range(1, n + 1), *[0] * (len(row) - n)]
    half = loader()
    list(half)
    batches = iter(half)
    begun = as_lists(next(batches) for _ in range(11))
    state = half.state_dict()
    assert begun == two[:11] and state["batch_size"] == 7 and state["position"] == 11
    again = loader(seed=99)
    again.load_state_dict(state)
    assert as_lists(again) == two[11:]
    other = loader(seed=1)
    assert as_lists(other) != one


# --- corpora -----------------------------------------------------------------------------------------------------------


def write_sst2(folder, **changed):
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "dev", "test"):
        content = changed.get(part, f"a fine {part}\t1\nbad , and a\ttab \t0\n\n")
        (folder / f"{part}.tsv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def write_chnsenticorp(path, **changed):
    with zipfile.ZipFile(path, "w") as archive:
        for part in ("train", "dev", "test"):
            archive.writestr(f"{part}.tsv", changed.get(part, "label\ttext_a\n1\t很好\n0\t不好\t差\n"))


def test_sst2(tmp_path, monkeypatch):
    folder = write_sst2(tmp_path / "sst2")
    for corpus in (load_sst2(folder), load_sst2(tmp_path)):
        assert corpus.name == "sst2" and corpus.tokens == "words" and corpus.classes == ("negative", "positive")
        assert corpus.train.texts == ["a fine train", "bad , and a\ttab "] and corpus.train.labels.tolist() == [1, 0]
        assert corpus.validation.texts[0] == "a fine dev" and corpus.test.labels.dtype == np.int64 and len(corpus.test) == 2
        assert corpus.source == str(folder)
    monkeypatch.setenv("BPNN_DATA", str(tmp_path))
    assert load_sst2().train.texts == corpus.train.texts and find_sst2() == folder and find_chnsenticorp() is None
    monkeypatch.delenv("BPNN_DATA")
    assert find_sst2() is None
    with pytest.raises(DataError, match="no folder of sst2 is known: give one, or set BPNN_DATA"):
        load_sst2()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"dev": "good\t1\nno tab\n"}, r"dev\.tsv:2: expected text<TAB>label, got no tab in 'no tab'"),
        ({"test": "good\t2\n"}, r"test\.tsv:1: expected text<TAB>label with a label 0 or 1, got '2'"),
        ({"train": "good\t1\n \t1\n"}, r"train\.tsv:2: expected a text, got none"),
        ({"train": b"good\t1\n\xff\xfe\t1\n"}, r"train\.tsv:2: expected UTF-8"),
        ({"train": "\n\n"}, r"train\.tsv: expected lines text<TAB>label, got none"),
    ],
)
def test_damaged_sst2(tmp_path, changed, words):
    write_sst2(tmp_path, **changed)
    with pytest.raises(DataError, match=words):
        load_sst2(tmp_path)


def test_chnsenticorp(tmp_path):
    (tmp_path / "chnsenticorp").mkdir()
    write_chnsenticorp(tmp_path / "chnsenticorp" / "chnsenticorp.zip")
    corpus = load_chnsenticorp(tmp_path)
    assert corpus.name == "chnsenticorp" and corpus.tokens == "characters"
    assert corpus.test.texts == ["很好", "不好\t差"] and corpus.test.labels.tolist() == [1, 0]
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    with zipfile.ZipFile(tmp_path / "chnsenticorp" / "chnsenticorp.zip") as archive:
        archive.extractall(unpacked)
    assert load_chnsenticorp(unpacked).train.texts == corpus.train.texts
    assert find_sst2(unpacked) is None and find_chnsenticorp(write_sst2(tmp_path / "sst2")) is None


def test_damaged_chnsenticorp(tmp_path):
    path = tmp_path / "chnsenticorp.zip"
    write_chnsenticorp(path, dev="label\ttext_a\n1\tgood\nx\tbad\n")
    with pytest.raises(DataError, match=r"chnsenticorp\.zip/dev\.tsv:3: expected label<TAB>text with a label 0 or 1, got 'x'"):
        load_chnsenticorp(tmp_path)
    write_chnsenticorp(path, test="1\tgood\n")
    with pytest.raises(DataError, match=r"test\.tsv:1: expected the header"):
        load_chnsenticorp(tmp_path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match=r"chnsenticorp\.zip: damaged zip archive"):
        load_chnsenticorp(tmp_path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train.tsv", "label\ttext_a\n1\tgood\n")
    with pytest.raises(DataError, match=r"chnsenticorp\.zip: dev\.tsv is missing"):
        load_chnsenticorp(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        load_chnsenticorp(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty: holds no files of chnsenticorp"):
        load_chnsenticorp(tmp_path / "empty")


def test_tables(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("id,Text,Label\n" + "".join(f'{i},"text {i}, ""quoted""\nsecond line",{"abc"[i % 3]}\n' for i in range(40)))
    corpus = load_labeled_texts(path)
    assert corpus.name == "mine" and corpus.classes == ("a", "b", "c") and corpus.tokens == "words"
    assert [len(part) for part in (corpus.train, corpus.validation, corpus.test)] == [32, 4, 4]
    for part in (corpus.train, corpus.validation, corpus.test):
        for text, label in zip(part.texts, part.labels, strict=True):
            number = int(text.split()[1].rstrip(","))
            assert text == f'text {number}, "quoted"\nsecond line' and label == number % 3
    assert load_labeled_texts(path).train.texts == corpus.train.texts != load_labeled_texts(path, seed=1).train.texts
    folder = tmp_path / "folder"
    folder.mkdir()
    for part, count in (("train", 20), ("test", 5)):
        (folder / f"{part}.tsv").write_text("".join(f"{'+-'[i % 2]}\t好吃 {part} {i}\n" for i in range(count)), encoding="utf-8")
    corpus = load_labeled_texts(folder)
    assert [len(part) for part in (corpus.train, corpus.validation, corpus.test)] == [18, 2, 5] and corpus.classes == ("+", "-")
    assert all("test" in text for text in corpus.test.texts)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.csv", "a,one\nb\n", r"x\.csv:2: expected a label and a text, got 1 field"),
        ("x.csv", "a,one\nb,\n", r"x\.csv:2: expected a label and a text, got an empty text"),
        ("x.tsv", "a\tone\n\tx\n", r"x\.tsv:2: expected a label and a text, got an empty label"),
        ("x.csv", 'a,one\nb,"two\n', r"x\.csv:2: unexpected end of data"),
        ("x.csv", "label,text\n", r"x\.csv: expected rows of label and text, got none"),
        ("x.csv", "", r"x\.csv: expected rows of label and text, got none"),
        ("x.csv", "a,one\na,two\n", r"x\.csv: expected at least two labels, got 'a' alone"),
        ("x.csv", "a,one\nb,two\n", r"x\.csv: 2 texts are too few"),
    ],
)
def test_damaged_tables(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=words):
        load_labeled_texts(tmp_path / name)


def test_the_real_corpora():

    folder = Path(os.environ.get("BPNN_DATA") or Path(__file__).parents[3] / "shared" / "data")
    if not (folder / "sst2").is_dir():
        pytest.skip("no SST-2: set BPNN_DATA")
    corpus = load_sst2(folder)
    assert [len(part) for part in (corpus.train, corpus.validation, corpus.test)] == [6920, 872, 1821]
    corpus = load_chnsenticorp(folder)
    assert [len(part) for part in (corpus.train, corpus.validation, corpus.test)] == [9600, 1200, 1200]
