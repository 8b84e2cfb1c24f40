"""The encoder-decoder: against nn.Transformer of both libraries and Marian, packed and padded, generation against all sequences."""
import itertools

import numpy as np
import pytest
from drawing import integers, weight

import bpnn
from bpnn.models.transformer import TransformerConfig, TransformerForConditionalGeneration, TransformerModel

SIZES = {
    "vocab_size": 31, "d_model": 24, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 3,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 40, "decoder_ffn_dim": 36, "max_position_embeddings": 20, "dropout": 0.0,
}
SOURCE, TARGET = np.array([9, 4, 1]), np.array([5, 8, 2])
IDS = integers("sources", (3, 9), 3, 31)
MASK = (np.arange(9) < SOURCE[:, None]).astype(np.int64)
LABELS = np.where(np.arange(8) < TARGET[:, None], integers("targets", (3, 8), 3, 29), -100)
rivals = pytest.mark.rivals


def made(dtype="float64", **changes):
    model = TransformerForConditionalGeneration(TransformerConfig(**{**SIZES, **changes}))
    model.to(dtype=np.dtype(dtype))
    for name, parameter in model.state_dict(keep_vars=True).items():
        parameter.detach().copy_(bpnn.from_numpy(weight(name, tuple(parameter.shape)).astype(dtype)))
    return model


def gradients(model, *given, **named):
    model.zero_grad()
    output = model(*given, **named)
    output.loss.backward()
    return output.loss.item(), {name: p.grad.numpy().copy() for name, p in model.named_parameters()}


def alike(got, want, tolerance):
    """Losses and gradients by name, the latter relative to the largest number of each."""
    assert abs(got[0] - want[0]) <= tolerance * abs(want[0])
    largest = max(np.abs(gradient).max() for gradient in want[1].values())
    for name, gradient in want[1].items():
        scale = np.abs(gradient).max()  # that of a key's bias is 0 but for rounding
        scale = scale if scale > 1e-10 * largest else largest
        np.testing.assert_allclose(got[1][name], gradient, rtol=0, atol=tolerance * scale, err_msg=name)


# --- the same as others ----------------------------------------------------------------------------------------------------------

STACKS = ("encoder", "decoder")
PLACES = {  # nn.Transformer's names → ours
    "linear1": "fc1", "linear2": "fc2", "self_attn.out_proj": "self_attn.out_proj",
    "multihead_attn.out_proj": "encoder_attn.out_proj",
}
NORMS = {
    "encoder": {"norm1": "self_attn_layer_norm", "norm2": "final_layer_norm"},
    "decoder": {"norm1": "self_attn_layer_norm", "norm2": "encoder_attn_layer_norm", "norm3": "final_layer_norm"},
}


def as_nn_transformer(arrays):
    """Our parameters, or their gradients, under the names of nn.Transformer."""
    renamed = {}
    for stack in STACKS:
        for kind in ("weight", "bias"):
            renamed[f"{stack}.norm.{kind}"] = arrays[f"model.{stack}.layer_norm.{kind}"]
            for i in range(2):
                own, other = f"model.{stack}.layers.{i}", f"{stack}.layers.{i}"
                names = {**NORMS[stack], **{a: b for a, b in PLACES.items() if stack == "decoder" or "multihead" not in a}}
                for theirs, ours in names.items():
                    renamed[f"{other}.{theirs}.{kind}"] = arrays[f"{own}.{ours}.{kind}"]
                for theirs, ours in (("self_attn", "self_attn"), ("multihead_attn", "encoder_attn"))[: 1 + (stack == "decoder")]:
                    joint = [arrays[f"{own}.{ours}.{part}_proj.{kind}"] for part in "qkv"]
                    renamed[f"{other}.{theirs}.in_proj_{kind}"] = np.concatenate(joint)
    return renamed


def as_whole(lib, model, before, dtype):
    """Loss and gradients of the same model made of a library's own nn.Transformer, embeddings and padding masks."""
    E = SIZES["d_model"]
    body = lib.nn.Transformer(E, 4, 2, 2, 40, 0.0, batch_first=True, norm_first=before)
    body.to(dtype=getattr(lib, dtype))
    arrays = {name: p.detach().numpy() for name, p in model.state_dict().items()}
    body.load_state_dict({name: lib.from_numpy(np.ascontiguousarray(a)) for name, a in as_nn_transformer(arrays).items()})
    table = lib.from_numpy(arrays["model.encoder.embed_tokens.weight"].copy()).requires_grad_()
    places = lib.from_numpy(model.model.encoder._sinusoids.astype(dtype))
    functional = lib.nn.functional
    tokens = np.concatenate([np.ones((3, 1), np.int64), np.where(LABELS < 0, 0, LABELS)[:, :-1]], 1)
    x, y = (functional.embedding(lib.from_numpy(t), table) * E**0.5 + places[: t.shape[1]] for t in (IDS, tokens))
    hidden = lib.from_numpy(MASK == 0)
    out = body(
        x, y, tgt_mask=lib.from_numpy(~np.tri(8, dtype=bool)), src_key_padding_mask=hidden, memory_key_padding_mask=hidden,
        tgt_is_causal=True,
    )
    logits = out @ table.T
    loss = functional.cross_entropy(logits.reshape(-1, 31), lib.from_numpy(LABELS.reshape(-1)), label_smoothing=0.1)
    loss.backward()
    found = {name: p.grad.numpy() for name, p in body.named_parameters()}
    return logits.detach().numpy(), (loss.item(), {**found, "embedding": table.grad.numpy()})


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
@pytest.mark.parametrize("library", ["bpnn", pytest.param("torch", marks=rivals)])
def test_equals_nn_transformer(library, dtype, tolerance, before):
    lib = pytest.importorskip(library)
    model = made(
        dtype, normalize_before=before, final_norm=True, label_smoothing=0.1, encoder_attention_heads=4, decoder_ffn_dim=40,
    )
    logits, want = as_whole(lib, model, before, dtype)
    loss, found = gradients(model, IDS, MASK, labels=LABELS)
    got = loss, {**as_nn_transformer(found), "embedding": found["model.encoder.embed_tokens.weight"]}
    alike(got, want, tolerance)
    output = model(IDS, MASK, labels=LABELS)
    real = LABELS >= 0
    difference = np.abs(output.logits.detach().numpy() - logits)[real].max()
    assert difference <= tolerance * np.abs(logits[real]).max()
    assert not output.logits.detach().numpy()[0, 5:].any()  # nothing is computed behind the last label


@rivals
def test_equals_marian():
    """Marian's names are ours; logits, gradients, and what it generates."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = made(activation_function="silu")
    config = transformers.MarianConfig(
        **{**SIZES, "activation_function": "silu"}, decoder_vocab_size=31, scale_embedding=True, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1, forced_eos_token_id=None,
    )
    rival = transformers.MarianMTModel(config).double()
    arrays = {name: p.detach().numpy() for name, p in model.state_dict().items()}
    with torch.no_grad():
        rival.model.shared.weight.copy_(torch.from_numpy(arrays["lm_head.weight"]))
        for name, parameter in rival.named_parameters():
            if name in arrays:
                parameter.copy_(torch.from_numpy(arrays[name]))
            elif "embed_positions" in name:
                parameter.copy_(torch.from_numpy(model.model.encoder._sinusoids))
    expected = rival(torch.from_numpy(IDS), torch.from_numpy(MASK), labels=torch.from_numpy(LABELS))
    expected.loss.backward()
    want = {name: p.grad.numpy() for name, p in rival.named_parameters() if name in arrays and p.grad is not None}
    alike(gradients(model, IDS, MASK, labels=LABELS), (expected.loss.item(), want), 1e-9)
    for beams, penalty in ((1, 1.0), (3, 1.0), (5, 0.3)):
        theirs = rival.eval().generate(
            torch.from_numpy(IDS), attention_mask=torch.from_numpy(MASK), num_beams=beams, max_new_tokens=12,
            length_penalty=penalty, bad_words_ids=[[0]], do_sample=False,
        ).numpy()
        after = np.cumsum(theirs == 2, 1) - (theirs == 2) > 0  # a pad token 0 is taken for none there: eos fills rows up
        ours = model.generate(IDS, MASK, num_beams=beams, max_new_tokens=12, length_penalty=penalty)
        np.testing.assert_array_equal(ours.numpy(), np.where(after, 0, theirs))


# --- without padding, without a cache --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [
    {}, {"normalize_before": True}, {"position_embedding_type": "learned"}, {"final_norm": True, "scale_embedding": False},
    {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 29, "tie_word_embeddings": False},
])
def test_alone_and_in_a_batch(changes):
    """Each text gets what it gets alone; the loss is the mean over all labels that count."""
    model = made(**changes)
    output = model(IDS, MASK, labels=LABELS)
    total = 0.0
    for b in range(3):
        s, t = SOURCE[b], TARGET[b]
        alone = model(IDS[b : b + 1, :s], labels=LABELS[b : b + 1, :t])
        np.testing.assert_allclose(output.logits[b, :t].detach().numpy(), alone.logits[0].detach().numpy(), atol=1e-12)
        memory = output.encoder_last_hidden_state.detach().numpy()[b]
        np.testing.assert_allclose(memory[:s], alone.encoder_last_hidden_state.detach().numpy()[0], atol=1e-12)
        assert not memory[s:].any()
        total += alone.loss.item() * t
    assert abs(output.loss.item() - total / TARGET.sum()) < 1e-12


def test_padding_on_the_left():
    """Positions count from the first column; where the padding is makes no other difference."""
    model = made(position_embedding_type="learned")
    mask = MASK[:, ::-1]
    output = model(IDS, mask, labels=LABELS).logits.detach().numpy()
    changed = np.where(mask == 1, IDS, 7)
    np.testing.assert_array_equal(model(changed, mask, labels=LABELS).logits.detach().numpy(), output)


def test_many_rows_are_one_product():
    """From d_model rows on query, key and value are one product; gradients do not change."""
    model = made()
    parts = [gradients(model, IDS[b : b + 1], MASK[b : b + 1], labels=LABELS[b : b + 1]) for b in (0, 1)]  # 13 rows each, or fewer
    twice = gradients(model, *(np.concatenate([x[:2]] * 8) for x in (IDS, MASK)), labels=np.concatenate([LABELS[:2]] * 8))
    shares = TARGET[:2] / TARGET[:2].sum()
    mean = {name: sum(share * part[1][name] for share, part in zip(shares, parts)) for name in twice[1]}
    alike(twice, (sum(share * part[0] for share, part in zip(shares, parts)), mean), 1e-11)


def test_given_decoder_inputs():
    """Labels make the decoder's input by themselves; given inputs and a mask give the same, the base model too."""
    model = made()
    want = gradients(model, IDS, MASK, labels=LABELS)
    tokens = np.concatenate([np.ones((3, 1), np.int64), np.where(LABELS < 0, 0, LABELS)[:, :-1]], 1)
    alike(gradients(model, IDS, MASK, tokens, labels=LABELS), want, 1e-12)
    mask = (LABELS != -100).astype(np.int64)
    alike(gradients(model, IDS, MASK, tokens, mask, labels=LABELS), want, 1e-12)
    base = model.model(IDS, MASK, tokens, mask)
    logits = model(IDS, MASK, tokens, mask).logits.detach().numpy()
    mine = (base.last_hidden_state @ model.lm_head.weight.T).detach().numpy()
    np.testing.assert_allclose(mine, logits, atol=1e-12)


def test_smoothing_dropout_and_checkpoints():
    model = made(label_smoothing=0.2, dropout=0.3, attention_dropout=0.2, activation_dropout=0.1)
    smooth = model.train()(IDS, MASK, labels=LABELS).loss.item()
    model.eval()
    plain = model(IDS, MASK, labels=LABELS).loss.item()
    assert plain == model(IDS, MASK, labels=LABELS).loss.item() and plain != smooth
    model.train()
    bpnn.manual_seed(3)
    want = gradients(model, IDS, MASK, labels=LABELS)
    model.gradient_checkpointing_enable()
    bpnn.manual_seed(3)
    alike(gradients(model, IDS, MASK, labels=LABELS), want, 1e-12)


# --- generation ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [False, True])
def test_greedy_equals_reading_everything_again(before):
    model = made(normalize_before=before)
    found = model.generate(IDS, MASK, max_new_tokens=10).numpy()
    for b in range(3):
        tokens = [1]
        while len(tokens) < 11 and tokens[-1] != 2:
            logits = model(IDS[b : b + 1, : SOURCE[b]], decoder_input_ids=[tokens]).logits.detach().numpy()[0, -1]
            logits[0] = -np.inf
            tokens.append(int(logits.argmax()))
        assert found[b].tolist() == tokens + [0] * (found.shape[1] - len(tokens))


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
def test_wide_beams_find_the_best(penalty):
    """With as many beams as there are texts nothing is lost: the best of all texts of at most three tokens."""
    limit, end, vocabulary = 3, 2, (1, 2, 3, 4)
    model = made(vocab_size=5)
    source = np.minimum(IDS[:1], 4)
    texts = [
        text for length in range(1, limit + 1) for text in itertools.product(vocabulary, repeat=length)
        if end not in text[:-1] and (text[-1] == end or length == limit)
    ]
    scores = []
    for text in texts:
        logits = model(source, decoder_input_ids=[[1, *text[:-1]]]).logits.detach().numpy()[0]
        likely = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        scores.append(likely[np.arange(len(text)), text].sum() / len(text) ** penalty)
    found = model.generate(source, num_beams=len(texts), max_new_tokens=limit, length_penalty=penalty).numpy()[0]
    assert tuple(found) == (1, *texts[int(np.argmax(scores))])


def test_beams_of_a_batch_and_alone():
    model = made()
    together = model.generate(IDS, MASK, num_beams=4, max_new_tokens=9).numpy()
    for b in range(3):
        alone = model.generate(IDS[b : b + 1, : SOURCE[b]], num_beams=4, max_new_tokens=9).numpy()[0]
        assert together[b, : len(alone)].tolist() == alone.tolist()
    assert model.training  # as it was


@pytest.mark.parametrize("beams", [1, 3])
def test_padding_that_is_the_end(beams):
    """Of a model whose pad is its eos too, texts end as those of one that pads with another token."""
    model = made()
    end = int(model.generate(IDS, MASK, max_new_tokens=9).numpy()[1, -1])  # one that the model does write
    model.config.eos_token_id = end
    apart = model.generate(IDS, MASK, num_beams=beams, max_new_tokens=9).numpy()
    model.config.pad_token_id = end
    found = model.generate(IDS, MASK, num_beams=beams, max_new_tokens=9).numpy()
    assert (apart == end).any()
    np.testing.assert_array_equal(found, np.where(apart == 0, end, apart))


# --- files and errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [
    {}, {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 29, "tie_word_embeddings": False, "eos_token_id": [2, 3]},
    {"position_embedding_type": "learned", "normalize_before": True},
])
def test_files(tmp_path, changes):
    model = made("float32", **changes).eval()
    model.save_pretrained(tmp_path)
    again = TransformerForConditionalGeneration.from_pretrained(tmp_path)
    assert again.config.to_dict() == TransformerConfig.from_pretrained(tmp_path).to_dict()
    np.testing.assert_array_equal(again(IDS, MASK, labels=LABELS).logits.detach().numpy(),
                                  model(IDS, MASK, labels=LABELS).logits.detach().numpy())
    assert (again.lm_head.weight is again.model.decoder.embed_tokens.weight) == model.config.tie_word_embeddings
    np.testing.assert_array_equal(again.generate(IDS, MASK, num_beams=2).numpy(), model.generate(IDS, MASK, num_beams=2).numpy())


def test_bad_input():
    model = made()
    with pytest.raises(IndexError, match="input_ids.*31"):
        model(np.full((1, 3), 31), labels=[[3]])
    with pytest.raises(IndexError, match="labels"):
        model(IDS, MASK, labels=np.where(LABELS == LABELS[0, 0], 31, LABELS))
    with pytest.raises(ValueError, match="input_ids: expected at most 20 tokens \\(max_position_embeddings\\), got 21"):
        model(np.full((1, 21), 3), labels=[[3]])
    with pytest.raises(ValueError, match="decoder_input_ids: expected token numbers, got None"):
        model(IDS)
    with pytest.raises(ValueError, match="decoder_input_ids: expected 3 texts"):
        model(IDS, MASK, IDS[:2])
    for mask in (np.ones((3, 5), bool), np.ones((1, 9), bool), np.ones((3, 5), np.int64)):
        with pytest.raises(ValueError, match="^attention_mask: expected shape \\(3, 9\\)"):
            model(IDS, mask, labels=LABELS)
        with pytest.raises(ValueError, match="^decoder_attention_mask: expected shape \\(3, 8\\)"):
            model(IDS, MASK, np.maximum(LABELS, 3), mask)
    with pytest.raises(ValueError, match="num_beams: expected 1 or more, got 0"):
        model.generate(IDS, num_beams=0)
    with pytest.raises(ValueError, match="share_encoder_decoder_embeddings: expected False"):
        TransformerModel(TransformerConfig(**SIZES, decoder_vocab_size=7))
    with pytest.raises(ValueError, match="position_embedding_type: expected"):
        TransformerModel(TransformerConfig(**SIZES, position_embedding_type="rotary"))
    with pytest.raises(ValueError, match="encoder_attention_heads: expected a divisor of d_model, 24, got 5"):
        TransformerModel(TransformerConfig(**{**SIZES, "encoder_attention_heads": 5}))


def test_learns_to_reverse():
    """Nothing but the source says what comes out."""
    bpnn.manual_seed(0)
    model = TransformerForConditionalGeneration(TransformerConfig(**{
        **SIZES, "vocab_size": 9, "d_model": 32, "encoder_attention_heads": 4, "encoder_layers": 1, "decoder_layers": 1,
        "normalize_before": True,
    }))
    optimizer = bpnn.optim.Adam(model.parameters(), lr=3e-3)
    rng = np.random.default_rng(0)
    for _ in range(300):
        source = rng.integers(3, 9, (32, 4))
        labels = np.concatenate([source[:, ::-1], np.full((32, 1), 2)], 1)
        optimizer.zero_grad()
        model(source, labels=labels).loss.backward()
        optimizer.step()
    source = rng.integers(3, 9, (50, 4))
    right = (model.generate(source, num_beams=2).numpy()[:, 1:5] == source[:, ::-1]).all(1)
    assert right.mean() > 0.9


def test_positions():
    """The sines first, then the cosines, also of an odd size."""
    from bpnn.models._transformer_layers import sinusoids

    table = sinusoids(6, 7)
    assert table.shape == (6, 7)
    np.testing.assert_allclose(table[5, :4], np.sin(5 / 10000 ** (np.array([0, 2, 4, 6]) / 7)))
    np.testing.assert_allclose(table[5, 4:], np.cos(5 / 10000 ** (np.array([0, 2, 4]) / 7)))
