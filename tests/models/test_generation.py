"""Writing on: tokens, scores and filters equal those of `transformers`; streams, stops, seeds and the context's end."""
import numpy as np
import pytest

import bpnn
from bpnn.models._generation_config import GenerationConfig, merge
from bpnn.models._sampling import draw, draw_several, processors, softmax
from bpnn.models.generation import TextStream, TextStreamer
from bpnn.models.gpt2 import GPT2Config, GPT2LMHeadModel
from bpnn.models.llama import LlamaConfig, LlamaForCausalLM
from bpnn.models.mistral import MistralConfig, MistralForCausalLM

SIZES = {"vocab_size": 59, "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "max_position_embeddings": 48}
# Random models say the same token for ever unless their weights are large.
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3, "initializer_range": 0.6}


def gpt2(**changes):
    bpnn.manual_seed(5)
    return GPT2LMHeadModel(GPT2Config.from_dict({**SIZES, **TOKENS, **changes})).eval()


def llama(**changes):
    bpnn.manual_seed(6)
    return LlamaForCausalLM(LlamaConfig.from_dict(
        {**SIZES, "intermediate_size": 48, "num_key_value_heads": 2, **TOKENS, **changes})).eval()


def mistral(**changes):
    bpnn.manual_seed(7)
    return MistralForCausalLM(MistralConfig.from_dict(
        {**SIZES, "intermediate_size": 48, "num_key_value_heads": 2, "sliding_window": 5, **TOKENS, **changes})).eval()


MODELS = pytest.mark.parametrize("make", [gpt2, llama])


def prompts(rows=3, length=7, seed=0):
    """Tokens with 0, 1, 2, … places of padding on the left, and their mask."""
    ids = np.random.default_rng(seed).integers(4, SIZES["vocab_size"], (rows, length))
    mask = np.arange(length) >= 2 * np.arange(rows)[:, None]
    return np.where(mask, ids, 3), mask.astype(np.int64)


def naive(model, ids, count):
    """The most probable token, `count` times, reading everything again each time."""
    ids = np.array(ids)
    for _ in range(count):
        with bpnn.no_grad():
            logits = model(ids).logits.numpy()[:, -1]
        ids = np.concatenate([ids, logits.argmax(1)[:, None]], 1)
    return ids


# --- greedy ------------------------------------------------------------------------------------------------------------------


@MODELS
def test_greedy_takes_the_most_probable_token(make):
    model, ids = make(), prompts(1)[0]
    assert np.array_equal(model.generate(ids, max_new_tokens=20, eos_token_id=None).numpy(), naive(model, ids, 20))


@MODELS
def test_padding_on_the_left_changes_nothing(make):
    model = make()
    ids, mask = prompts(3)
    together = model.generate(ids, mask, max_new_tokens=12, eos_token_id=None).numpy()
    for row, text, real in zip(together, ids, mask):
        alone = model.generate(text[real == 1], max_new_tokens=12, eos_token_id=None).numpy()[0]
        assert np.array_equal(row[real.argmin() if real[0] else (real == 0).sum():], alone)


@MODELS
def test_the_mask_is_seen_in_the_padding(make):
    model = make()
    ids, mask = prompts(3)
    assert np.array_equal(model.generate(ids, max_new_tokens=9).numpy(), model.generate(ids, mask, max_new_tokens=9).numpy())


def test_a_text_ends_and_is_filled_up():
    model, ids = gpt2(), prompts(4, seed=3)[0]
    free = model.generate(ids, np.ones_like(ids), max_new_tokens=25, eos_token_id=None).numpy()
    end = int(free[0, 12])
    found = model.generate(ids, np.ones_like(ids), max_new_tokens=25, eos_token_id=end).numpy()
    for row, wanted in zip(found, free):
        places = np.flatnonzero(wanted[7:] == end)
        stop = 7 + places[0] + 1 if places.size else len(wanted)
        assert np.array_equal(row[:stop], wanted[:stop][: len(row)])
        assert (row[stop:] == 3).all()


def test_no_end_before_min_new_tokens():
    model, ids = gpt2(), prompts(1)[0]
    end = int(model.generate(ids, max_new_tokens=1, eos_token_id=None).numpy()[0, -1])
    assert model.generate(ids, max_new_tokens=9, eos_token_id=end).shape == (1, 8)
    later = model.generate(ids, max_new_tokens=9, min_new_tokens=4, eos_token_id=end).numpy()
    assert later.shape[1] >= 7 + 4 and end not in later[0, 7:11]


def test_stops_at_tokens_and_starts_without_a_prompt():
    model, ids = llama(), prompts(1)[0]
    free = model.generate(ids, max_new_tokens=20, eos_token_id=None).numpy()
    pair = free[0, 12:14].tolist()
    assert np.array_equal(model.generate(ids, max_new_tokens=20, eos_token_id=None, stop=[pair]).numpy(), free[:, :14])
    assert model.generate(max_new_tokens=3, eos_token_id=None).numpy()[0, 0] == 1


def test_float64_models_write_the_same():
    model, ids = gpt2(), prompts(2)[0]
    wide = gpt2().double()
    assert np.array_equal(model.generate(ids, max_new_tokens=8).numpy(), wide.generate(ids, max_new_tokens=8).numpy())


def test_what_is_only_drawn_with_is_not_looked_at_without():
    """Files have such values for "do not draw"."""
    model, ids = llama(), prompts(1)[0]
    wanted = model.generate(ids, max_new_tokens=6).numpy()
    for said in ({"temperature": 0.0, "top_k": -1}, {"top_p": -1.0, "min_p": 2.0}):
        assert np.array_equal(model.generate(ids, max_new_tokens=6, do_sample=False, **said).numpy(), wanted)


@MODELS
def test_a_negative_pad_is_none(make):
    ids = prompts(1)[0]
    wanted = make(pad_token_id=None).generate(ids, max_new_tokens=9).numpy()
    assert np.array_equal(make(pad_token_id=-1).generate(ids, max_new_tokens=9).numpy(), wanted)
    settings = merge(GenerationConfig(eos_token_id=[2, 8], pad_token_id=-1), None, {}, 4)
    assert settings.pad == 2 and merge(GenerationConfig(pad_token_id=-1), None, {}, 4).pad is None


def test_other_names_of_what_is_read():
    model, (ids, mask) = gpt2(), prompts(2)
    wanted = model.generate(ids, mask, max_new_tokens=6).numpy()
    assert np.array_equal(model.generate(inputs=ids, attention_mask=mask, token_type_ids=None, max_new_tokens=6).numpy(), wanted)
    steps = np.stack(list(model.stream(inputs=ids, attention_mask=mask, max_new_tokens=6)), 1)
    assert np.array_equal(steps, wanted[:, 7:])


@pytest.mark.parametrize("said", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_segments_go_on(said):
    """What is written belongs to the last segment."""
    model, ids = gpt2(), prompts(2)[0]
    ids[ids == 3] = 4
    types = np.where(np.arange(7) < 3, 5, 9) + np.arange(2)[:, None]
    texts = model.generate(ids, token_type_ids=types, max_new_tokens=6, eos_token_id=None, **said).numpy()
    with pytest.raises(ValueError, match=r"token_type_ids: expected shape \(2, 7\)"):
        model.generate(ids, token_type_ids=types[:1], **said)
    with pytest.raises(ValueError, match="token_type_ids: expected None"):
        llama().generate(ids, token_type_ids=types, **said)
    if said:
        for row, own, text in zip(texts, types, ids):
            alone = model.generate(text, token_type_ids=own, max_new_tokens=6, eos_token_id=None, **said).numpy()[0]
            assert np.array_equal(row, alone)
    else:
        for _ in range(6):
            with bpnn.no_grad():
                ids = np.append(ids, model(ids, token_type_ids=types).logits.numpy()[:, -1].argmax(1)[:, None], 1)
            types = np.append(types, types[:, -1:], 1)
        assert np.array_equal(texts, ids)


# --- drawing -----------------------------------------------------------------------------------------------------------------


def test_a_seed_gives_the_same_text():
    model, ids = gpt2(initializer_range=0.05), prompts(2, seed=1)[0]
    texts = [model.generate(ids, do_sample=True, max_new_tokens=15, seed=seed).numpy() for seed in (1, 1, 2)]
    assert np.array_equal(texts[0], texts[1]) and not np.array_equal(texts[0], texts[2])
    bpnn.manual_seed(9)
    first = model.generate(ids, do_sample=True, max_new_tokens=15).numpy()
    bpnn.manual_seed(9)
    assert np.array_equal(first, model.generate(ids, do_sample=True, max_new_tokens=15).numpy())
    several = model.generate(ids, do_sample=True, max_new_tokens=15, num_return_sequences=3, seed=1).numpy()
    assert several.shape[0] == 6 and not np.array_equal(several[0], several[1]) and (several[:3, :7] == ids[0]).all()


def test_tokens_are_drawn_by_their_probabilities():
    random = np.random.default_rng(0)
    scores = np.log(np.array([0.5, 0.0, 0.3, 0.2], np.float32) + np.float32(0), where=np.array([1, 0, 1, 1], bool),
                    out=np.full(4, -np.inf, np.float32))
    counts = np.bincount(draw(np.tile(scores, (20000, 1)), random), minlength=4) / 20000
    np.testing.assert_allclose(counts, [0.5, 0, 0.3, 0.2], atol=0.015)
    pairs = draw_several(np.tile(scores, (20000, 1)), 2, random)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    np.testing.assert_allclose(np.bincount(pairs[:, 0], minlength=4) / 20000, [0.5, 0, 0.3, 0.2], atol=0.015)
    second = np.bincount(pairs[pairs[:, 0] == 0, 1], minlength=4) / (pairs[:, 0] == 0).sum()
    np.testing.assert_allclose(second, [0, 0, 0.6, 0.4], atol=0.02)
    with pytest.raises(FloatingPointError):
        draw(np.full((1, 3), np.nan, np.float32), random)


def filtered(scores, tokens=None, prompt=4, **said):
    settings = merge(GenerationConfig(eos_token_id=2), None, {"max_new_tokens": 9, **said}, prompt)
    tokens = np.zeros((len(scores), prompt), np.int64) if tokens is None else tokens
    for change in processors(settings):
        scores = change(tokens, scores)
    return scores


def test_filters_by_hand():
    scores = np.log(np.array([[0.4, 0.3, 0.15, 0.1, 0.05]], np.float32))
    possible = lambda **said: np.flatnonzero(filtered(scores.copy(), do_sample=True, **said)[0] > -np.inf).tolist()  # noqa: E731
    assert possible() == [0, 1, 2, 3, 4]
    assert possible(top_k=2) == [0, 1]
    assert possible(top_k=0, top_p=0.69) == [0, 1] and possible(top_k=0, top_p=0.71) == [0, 1, 2] and possible(top_p=0.0) == [0]
    assert possible(min_p=0.3) == [0, 1, 2]
    np.testing.assert_allclose(softmax(filtered(scores.copy(), do_sample=True, temperature=0.5)), softmax(2 * scores), rtol=1e-6)
    penalized = filtered(np.array([[2.0, -2.0, 1.0, 3.0]], np.float32), np.array([[0, 1, 0, 1]]), repetition_penalty=2.0)
    assert penalized.tolist() == [[1.0, -4.0, 1.0, 3.0]]
    repeats = filtered(np.zeros((1, 5), np.float32), np.array([[3, 1, 4, 3, 1]]), 5, no_repeat_ngram_size=3)
    assert np.flatnonzero(repeats[0] == -np.inf).tolist() == [4]
    assert filtered(np.zeros((1, 5), np.float32), min_new_tokens=1)[0].tolist() == [0, 0, -np.inf, 0, 0]


# --- streams, stops, limits ---------------------------------------------------------------------------------------------------


class Letters:
    """A tokenizer of bytes: token 256 is special."""

    def decode(self, ids, skip_special_tokens=False):
        return bytes(int(i) for i in np.asarray(ids).reshape(-1) if i < 256).decode("utf-8", "replace")


def test_characters_are_shown_when_they_are_whole():
    stream = TextStream(Letters())
    assert [stream.put(byte) for byte in "aé漢z".encode()] == ["a", "", "é", "", "", "漢", "z"]
    assert stream.put([0xE6, 0xBC]) == "" and stream.end() == "\ufffd"  # a character that never became whole
    assert stream.put(list(b"new")) == "new"
    held = TextStream(Letters(), stop=["END", "\n\n"])
    assert [held.put(byte) for byte in b"aE.\nENDb"] == ["a", "", "E.", "", "\n", "", "", ""] and held.end() == ""
    assert [held.put(byte) for byte in b"xEN"] == ["x", "", ""] and held.end() == "EN"


def test_streamers_get_the_prompt_and_every_token(capsys):
    model, ids = gpt2(), prompts(1)[0]
    wanted = model.generate(ids, max_new_tokens=6, eos_token_id=None).numpy()
    steps = [int(tokens[0]) for tokens in model.stream(ids, max_new_tokens=6, eos_token_id=None)]
    called = []
    model.generate(ids, max_new_tokens=6, eos_token_id=None, streamer=lambda tokens: called.append(int(tokens[0])))
    assert steps == called == wanted[0, 7:].tolist()
    model.generate(ids, max_new_tokens=6, eos_token_id=None, streamer=TextStreamer(Letters()))
    assert capsys.readouterr().out == Letters().decode(wanted) + "\n"
    model.generate(ids, max_new_tokens=6, eos_token_id=None, streamer=TextStreamer(Letters(), skip_prompt=True))
    assert capsys.readouterr().out == Letters().decode(wanted[0, 7:]) + "\n"


def test_the_line_is_ended_when_somebody_interrupts():
    class Stopping:
        seen, ended = 0, False

        def put(self, tokens):
            self.seen += 1
            if self.seen == 4:
                raise KeyboardInterrupt

        def end(self):
            self.ended = True

    streamer, model = Stopping(), gpt2()
    with pytest.raises(KeyboardInterrupt):
        model.generate(prompts(1)[0], max_new_tokens=20, streamer=streamer, eos_token_id=None)
    assert streamer.seen == 4 and streamer.ended


def test_stops_at_texts():
    model, ids = llama(), prompts(1)[0]
    free = model.generate(ids, max_new_tokens=20, eos_token_id=None).numpy()
    text = Letters().decode(free[0, 7:])
    stop = text[5:8]
    found = model.generate(ids, max_new_tokens=20, eos_token_id=None, stop=stop, tokenizer=Letters()).numpy()
    assert Letters().decode(found[0, 7:]) == text[: text.index(stop) + len(stop)]
    with pytest.raises(ValueError, match="tokenizer"):
        model.generate(ids, stop="a")


@MODELS
def test_ends_with_the_context(make):
    model, ids = make(), np.random.default_rng(0).integers(4, 59, (1, 44))
    with pytest.warns(UserWarning, match="context of 48"):
        assert model.generate(ids, max_new_tokens=9, eos_token_id=None).shape == (1, 48)
    full = np.random.default_rng(0).integers(4, 59, (1, 48))
    assert model.generate(full, max_new_tokens=1, eos_token_id=None).shape == (1, 49)
    with pytest.raises(ValueError, match="input_ids: expected at most 48 tokens, the model's context, got 49"):
        model.generate(np.full((1, 49), 5))


def test_what_makes_no_sense_is_refused():
    model, ids = gpt2(), prompts(2)[0]
    for said, match in [
        ({"temperature": 0.0, "do_sample": True}, "temperature"), ({"top_p": 1.5, "do_sample": True}, "top_p"),
        ({"top_k": -1, "do_sample": True}, "top_k"), ({"min_p": -0.1, "do_sample": True}, "min_p"), ({"inputs": ids}, "inputs"),
        ({"max_new_tokens": 0}, "max_new_tokens"), ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences"),
        ({"num_return_sequences": 2}, "num_return_sequences"),
        ({"max_length": 7}, "max_length"), ({"early_stopping": "soon"}, "early_stopping"), ({"stop": [[]]}, "stop"),
        ({"attention_mask": np.ones((2, 6))}, "attention_mask"), ({"attention_mask": np.eye(2, 7)}, "left"),
        ({"num_beams": 2, "streamer": print}, "streamer"),
    ]:
        with pytest.raises(ValueError, match=match):
            model.generate(ids, **said)
    with pytest.raises(TypeError, match="no setting 'beams'"):
        model.generate(ids, beams=2)
    with pytest.raises(IndexError, match="input_ids"):
        model.generate([[59]])
    with pytest.raises(ValueError, match="rows of one length"):
        model.generate([[1, 4], [1]])


def test_settings_beside_the_weights(tmp_path):
    model, ids = gpt2(), prompts(1)[0]
    model.generation_config = GenerationConfig(max_new_tokens=5, eos_token_id=[2, 8], do_sample=True, top_k=1)
    model.save_pretrained(tmp_path)
    again = GPT2LMHeadModel.from_pretrained(tmp_path)
    assert again.generation_config.eos_token_id == [2, 8] and again.generation_config.pad_token_id == 3
    assert np.array_equal(again.generate(ids).numpy(), model.generate(ids, do_sample=False).numpy())
    (tmp_path / "generation_config.json").write_text('{"typical_p": 0.5, "_from_model_config": true}')
    with pytest.warns(UserWarning, match="typical_p"):
        config = GPT2LMHeadModel.from_pretrained(tmp_path).generation_config
    assert config.eos_token_id == 2 and config.to_dict()["typical_p"] == 0.5


# --- beams -------------------------------------------------------------------------------------------------------------------


def test_beams_find_the_best_text_of_few_tokens():
    model = gpt2(vocab_size=5, bos_token_id=1, eos_token_id=None, initializer_range=0.9)
    ids = np.array([[1, 4, 0]])
    asked = {"return_dict_in_generate": True, "output_scores": True}
    out = model.generate(ids, max_new_tokens=3, num_beams=25, num_return_sequences=5, **asked)
    texts = np.array([[a, b, c] for a in range(5) for b in range(5) for c in range(5)])
    with bpnn.no_grad():
        logits = model(np.concatenate([np.repeat(ids, 125, 0), texts], 1)).logits.numpy()[:, 2:5].astype(np.float64)
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    totals = np.take_along_axis(logs, texts[..., None], 2).sum((1, 2)) / 3
    order = np.argsort(-totals)[:5]
    assert np.array_equal(out.sequences.numpy()[:, 3:], texts[order])
    np.testing.assert_allclose(out.sequences_scores.numpy(), totals[order], rtol=1e-4)


# --- against transformers ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Our models, and `transformers` with the same weights."""
    pytest.importorskip("torch").set_num_threads(1)
    transformers = pytest.importorskip("transformers")
    found = {}
    for name, make, scales in (("gpt2", gpt2, (0.6, 0.15)), ("llama", llama, (0.6, 0.15)), ("mistral", mistral, (0.6,))):
        for scale in scales:
            folder = tmp_path_factory.mktemp(name)
            ours = make(initializer_range=scale)
            ours.save_pretrained(folder)
            found[name, scale] = ours, getattr(transformers, type(ours).__name__).from_pretrained(folder).eval()
    return found


CASES = {
    "greedy": {"max_new_tokens": 15},
    "several ends": {"max_new_tokens": 15, "eos_token_id": [2, 9, 14, 21, 33]},
    "no end": {"max_new_tokens": 10, "eos_token_id": None},
    "penalty": {"max_new_tokens": 15, "repetition_penalty": 1.7},
    "no repeats": {"max_new_tokens": 15, "no_repeat_ngram_size": 2},
    "later": {"max_new_tokens": 15, "min_new_tokens": 6, "eos_token_id": [2, 9, 14, 21, 33, 40, 41, 42, 43]},
    "max_length": {"max_length": 17},
    "default length": {},
    "beams": {"max_new_tokens": 12, "num_beams": 4},
    "beams with ends": {
        "max_new_tokens": 12, "num_beams": 3, "num_return_sequences": 3, "eos_token_id": [2, 9, 14, 21, 33, 40, 41]},
    "beams, early": {"max_new_tokens": 12, "num_beams": 3, "early_stopping": True, "eos_token_id": [9, 14, 21, 33, 40, 41, 42, 50]},
    "beams, never": {
        "max_new_tokens": 12, "num_beams": 3, "early_stopping": "never", "eos_token_id": [2, 9, 14, 21], "length_penalty": 2.0},
    "beams, short": {"max_new_tokens": 12, "num_beams": 5, "length_penalty": -0.5, "eos_token_id": 9, "num_return_sequences": 2},
    "beams, penalty": {
        "max_new_tokens": 12, "num_beams": 3, "repetition_penalty": 1.3, "no_repeat_ngram_size": 3, "min_new_tokens": 3},
    "pad 0": {"max_new_tokens": 12, "num_beams": 3, "pad_token_id": 0, "eos_token_id": [2, 9, 14, 21, 33, 40, 41]},
}


@pytest.mark.rivals
@pytest.mark.parametrize("case", CASES)
def test_as_transformers(pairs, case):
    import torch

    for (name, scale), (ours, theirs) in pairs.items():
        for seed, (rows, length) in enumerate([(1, 5), (3, 7), (4, 9)]):
            ids, mask = prompts(rows, length, seed)
            said = {**CASES[case], "return_dict_in_generate": True, "output_scores": True}
            found = ours.generate(ids, mask, **said)
            wanted = theirs.generate(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), **said)
            where = f"{name} {scale} {rows}"
            assert np.array_equal(found.sequences.numpy(), wanted.sequences.numpy()), where
            if "num_beams" in said:
                both = found.sequences_scores.numpy(), wanted.sequences_scores.numpy()
                np.testing.assert_allclose(*both, rtol=1e-4, atol=1e-5, err_msg=where)
                assert np.array_equal(found.beam_indices.numpy(), wanted.beam_indices.numpy()), where
            assert len(found.scores) == len(wanted.scores)
            for a, b in zip(found.scores, wanted.scores):
                np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-3, atol=2e-4, err_msg=where)


@pytest.mark.rivals
@pytest.mark.parametrize("said", [
    {}, {"temperature": 0.7}, {"top_k": 5}, {"top_k": 0, "top_p": 0.8}, {"top_p": 0.95, "temperature": 1.4}, {"min_p": 0.1},
    {"top_k": 7, "top_p": 0.6, "min_p": 0.2, "temperature": 0.9, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
    {"num_beams": 3, "top_k": 2, "top_p": 0.1}, {"num_beams": 2, "min_p": 0.9}, {"min_new_tokens": 3, "top_k": 100},
])
def test_filters_as_transformers(pairs, said):
    """The same probabilities, bit for bit but for the division in softmax."""
    import torch

    theirs = pairs["gpt2", 0.6][1]
    said = {"do_sample": True, "max_new_tokens": 9, "eos_token_id": [2, 5], **said}
    random = np.random.default_rng(3)
    ids = random.integers(0, 59, (40, 6))
    scores = (3 * random.standard_normal((40, 59))).astype(np.float32)
    config, _ = theirs._prepare_generation_config(None, **said)
    theirs._prepare_special_tokens(config, True, device="cpu")
    config.min_length = 6 + said.get("min_new_tokens", 0) if "min_new_tokens" in said else 0
    process = theirs._get_logits_processor(config, input_ids_seq_length=6)
    wanted = process(torch.from_numpy(ids), torch.from_numpy(scores.copy())).numpy()
    settings = merge(GenerationConfig(), None, said, 6)
    found = scores.copy()
    for change in processors(settings):
        found = change(ids, found)
    assert np.array_equal(found, wanted)
    np.testing.assert_allclose(softmax(found), torch.softmax(torch.from_numpy(wanted), -1).numpy(), rtol=1e-6)
