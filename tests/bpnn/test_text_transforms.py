"""Changes of texts: what stays, how often what changes, and that a seed decides it."""
from collections import Counter

import numpy as np
import pytest

import bpnn
from bpnn.transforms import text as T

ENGLISH = "It isn't a well-known film, but (as they say) a moving one!"
CHINESE = "今天天气很好,我们去公园。"
EVERY = [
    T.RandomSwap(0.3), T.RandomDeletion(0.3), T.RandomInsertion(0.3), T.EasyAugmentation(0.3), T.BlankNoise(0.3, "[MASK]"),
    T.BackoffNoise([ENGLISH, CHINESE], 0.3), T.BackoffNoise([ENGLISH, CHINESE], 0.5, "kneser-ney"), T.CharacterNoise(0.2),
]
each = pytest.mark.parametrize("transform", EVERY, ids=lambda t: f"{type(t).__name__}-{getattr(t, 'kind', '')}")


def test_words_of_many_scripts():
    assert T.split_words(ENGLISH)[0] == ["It", "isn't", "a", "well-known", "film", "but", "as", "they", "say", "a", "moving", "one"]
    assert T.split_words(CHINESE)[0] == list("今天天气很好我们去公园")
    assert T.split_words("GPT-2用了40GB")[0] == ["GPT-2", "用", "了", "40GB"]
    assert T.split_words("Größe, café; снег_idет") == (["Größe", "café", "снег", "idет"], ["", ", ", "; ", "_", ""])
    for text in ("", "  ?! ", ENGLISH, CHINESE, " x\n\ty "):
        words, gaps = T.split_words(text)
        assert "".join(gap + word for gap, word in zip(gaps, [*words, ""], strict=True)) == text


@each
@pytest.mark.parametrize("text", ["", " … ", "word", ENGLISH, CHINESE])
def test_a_seed_decides(transform, text):
    bpnn.manual_seed(3)
    alone = [transform(text) for _ in range(20)]
    bpnn.manual_seed(3)
    assert transform([text] * 20) == alone
    assert transform.seeded(bpnn.Generator().manual_seed(3))([text] * 20) == alone
    transform.generator = None
    if len(text) > 10:
        assert len(set(alone)) > 3
    if not T.split_words(text)[0]:
        assert set(alone) == {text}
    else:
        assert all(T.split_words(new)[0] or isinstance(transform, T.BlankNoise) for new in alone)


def test_swapping_moves_words_and_no_marks():
    bpnn.manual_seed(0)
    for text in (ENGLISH, CHINESE):
        words, gaps = T.split_words(text)
        for new in T.RandomSwap(0.01)([text] * 50):
            moved = T.split_words(new)
            assert moved[1] == gaps
            assert Counter(moved[0]) == Counter(words)
            assert sum(a != b for a, b in zip(words, moved[0], strict=True)) in (0, 2)  # two words may be equal
    assert T.RandomSwap(0.5)("one") == "one"
    assert T.RandomSwap(0.0)(ENGLISH) == ENGLISH


def test_deleting():
    bpnn.manual_seed(0)
    words = T.split_words(ENGLISH)[0]
    left = [T.split_words(new)[0] for new in T.RandomDeletion(0.25)([ENGLISH] * 2000)]
    assert abs(np.mean([len(new) for new in left]) - 0.75 * len(words)) < 0.15  # deviation of a mean: 0.034
    for new in left[:100]:
        rest = iter(words)
        assert all(word in rest for word in new)  # in order
    assert {T.RandomDeletion(1.0)("a b c") for _ in range(60)} == {"a", "b", "c"}
    for new in T.RandomDeletion(0.5)(["one two, three (four) five."] * 200):
        assert "  " not in new
        assert not new.startswith(" ")
        assert new.endswith(".")
    assert set(T.RandomDeletion(0.5)(["one two"] * 99)) == {"one two", "one", "two"}


def test_inserting():
    bpnn.manual_seed(0)
    words = T.split_words(ENGLISH)[0]
    for alpha, times in ((0.01, 1), (0.25, 3)):
        for new in T.RandomInsertion(alpha)([ENGLISH] * 50):
            found = T.split_words(new)[0]
            assert len(found) == len(words) + times
            assert set(found) == set(words)
            rest = iter(found)
            assert all(word in rest for word in words)
    for new in T.RandomInsertion(0.2)([CHINESE] * 30):
        assert " " not in new
        assert len(new) == len(CHINESE) + 2
    assert T.RandomInsertion(0.1)("one") == "one one"


def test_easy_augmentation_takes_each_way_as_often():
    bpnn.manual_seed(0)
    text = " ".join(f"w{i}" for i in range(10))
    lengths = np.array([len(T.split_words(new)[0]) for new in T.EasyAugmentation(0.1)([text] * 3000)])
    assert abs((lengths == 11).mean() - 1 / 3) < 0.03
    shorter = (1 - 0.9**10) / 3
    assert abs((lengths < 10).mean() - shorter) < 0.03


def test_blanks():
    bpnn.manual_seed(0)
    found = [T.split_words(new.replace("[MASK]", "@"))[0] for new in T.BlankNoise(0.2, "[MASK]")([ENGLISH] * 1000)]
    assert abs(np.mean([12 - len(words) for words in found]) - 2.4) < 0.2
    assert T.BlankNoise(1.0)("a b, c") == "_ _, _"


def test_unigram_noise():
    bpnn.manual_seed(0)
    noise = T.BackoffNoise(["a a a b", "a b c"], 0.5)
    drawn = Counter("".join(noise(["x"] * 7000)))
    for word, share in {"x": 0.5, "a": 0.5 * 4 / 7, "b": 0.5 * 2 / 7, "c": 0.5 / 7}.items():
        assert abs(drawn[word] / 7000 - share) < 0.02


def test_kneser_ney_noise():
    bpnn.manual_seed(0)
    noise = T.BackoffNoise(["a b", "a b", "a c", "b c", "c c"], 0.9, "kneser-ney")
    # N(a ·) / c(a ·) = 2 / 3, N(b ·) / c(b ·) = 1; different pairs: ab, ac, bc, cc, so N(· b) = 1, N(· c) = 3
    second = Counter(new[2] for new in noise(["a x"] * 6000))
    rate = 0.9 * 2 / 3
    for word, share in {"x": 1 - rate, "b": rate / 4, "c": rate * 3 / 4}.items():
        assert abs(second[word] / 6000 - share) < 0.02
    assert abs(np.mean([new[2] != "x" for new in noise(["b x"] * 3000)]) - 0.9) < 0.02
    assert all(new == "z x" for new in noise(["z x"] * 50))  # nothing is known behind z, nothing before it


def test_slips_of_the_pen():
    bpnn.manual_seed(0)
    transform = T.CharacterNoise(0.1)
    assert T.CharacterNoise(0.0)(ENGLISH) == ENGLISH
    for new in transform([CHINESE] * 50):
        assert set(new) <= set(CHINESE)
    changed = [new != "abcdefgh" for new in transform(["abcdefgh"] * 3000)]
    never = (1 - 0.1 * (1 - 1 / 4 / 8)) ** 7 * (1 - 0.1 * (1 - 2 / 4 / 8))  # a letter may become itself; the last has no next
    assert abs(np.mean(changed) - (1 - never)) < 0.03
    assert all(T.CharacterNoise(1.0)(["a"] * 50))


def test_errors():
    with pytest.raises(ValueError, match="p: expected a probability"):
        T.RandomDeletion(1.5)
    with pytest.raises(TypeError, match="texts: expected a string or a list of strings, got int"):
        T.RandomSwap()([3])
    with pytest.raises(ValueError, match="kind: expected 'unigram' or 'kneser-ney', got 'bigram'"):
        T.BackoffNoise(["a"], kind="bigram")
    with pytest.raises(ValueError, match="texts: expected some with two words, got none"):
        T.BackoffNoise(["a", "b"], kind="kneser-ney")
    assert repr(T.RandomSwap(0.2)) == "RandomSwap(alpha=0.2)"
