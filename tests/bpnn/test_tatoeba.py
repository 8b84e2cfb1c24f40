"""Pairs of sentences: the reader, and parts that share no sentence."""
import numpy as np
import pytest

from bpnn.data import DataError, SentencePairs, chinese_script, find_tatoeba, load_tatoeba, split_pairs


def test_real_pairs(data_dir):
    if find_tatoeba(data_dir) is None:
        pytest.skip(f"no tatoeba-cmn-eng in {data_dir}")
    pairs = load_tatoeba(data_dir)
    assert len(pairs) == len(pairs.target) == 26388
    assert pairs.source[:3] == ["Hi.", "Hi.", "Run."] and pairs.target[1] == "你好。"
    parts = split_pairs(pairs, 1000, 1000, seed=1)
    assert sum(map(len, parts)) == len(pairs) and all(1000 <= len(part) < 1100 for part in parts[1:])
    for i in range(3):
        for other in parts[i + 1 :]:
            assert not set(parts[i].source) & set(other.source) and not set(parts[i].target) & set(other.target)
    again = split_pairs(pairs, 1000, 1000, seed=1)
    assert all(one == other for one, other in zip(parts, again))
    assert split_pairs(pairs, 1000, 1000, seed=2)[2] != parts[2]
    scripts = [chinese_script(text) for text in pairs.target]
    assert 0.4 < scripts.count("traditional") / len(scripts) < 0.5
    lengths = [np.mean([len(text) for text in part.source]) for part in parts]
    assert max(lengths) < 1.1 * min(lengths)  # long and short sentences in all parts


def test_chains_stay_together():
    """a–x, a–y, b–y, b–z are one group; the others stand alone."""
    source = ["a", "a", "b", "b", *(f"s{i}" for i in range(40))]
    target = ["x", "y", "y", "z", *(f"t{i}" for i in range(40))]
    for seed in range(30):
        parts = split_pairs(SentencePairs(source, target), 10, 10, seed)
        assert [("a" in part.source) + ("b" in part.source) for part in parts].count(2) == 1
        assert sum(len(part) for part in parts) == 44 and all(10 <= len(part) <= 13 for part in parts[1:])
    with pytest.raises(ValueError, match="pairs: expected more than 50, got 44"):
        split_pairs(SentencePairs(source, target), 25, 25)


def test_places_and_errors(tmp_path, monkeypatch):
    monkeypatch.delenv("BPNN_DATA", raising=False)
    with pytest.raises(DataError, match=r"no cmn\.txt is known"):
        load_tatoeba()
    with pytest.raises(DataError, match=r"holds no cmn\.txt"):
        load_tatoeba(tmp_path)
    folder = tmp_path / "tatoeba-cmn-eng"
    folder.mkdir()
    file = folder / "cmn.txt"
    file.write_bytes("\ufeffHi.\t嗨。\tsource\r\n\r\nRun.\t跑！\n".encode())
    expected = SentencePairs(["Hi.", "Run."], ["嗨。", "跑！"])
    assert load_tatoeba(tmp_path) == load_tatoeba(folder) == load_tatoeba(file) == expected
    monkeypatch.setenv("BPNN_DATA", str(tmp_path))
    assert load_tatoeba() == expected and load_tatoeba(language="cmn") == expected
    file.write_text("Hi.\t嗨。\nRun.\n")
    with pytest.raises(DataError, match=r"cmn\.txt:2: expected English<TAB>translation, got 'Run\.'"):
        load_tatoeba()
    file.write_bytes(b"Hi.\t\xff\n")
    with pytest.raises(DataError, match=r"cmn\.txt:1: expected UTF-8"):
        load_tatoeba()
    file.write_text("\n")
    with pytest.raises(DataError, match="got none"):
        load_tatoeba()
