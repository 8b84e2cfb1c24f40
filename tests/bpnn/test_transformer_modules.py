"""MultiheadAttention and the Transformer modules: against a plain computation, and against PyTorch's."""
import math

import bpnn
import numpy as np
import pytest
from bpnn import nn
from bpnn.nn import functional as F

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape)


def double(module):
    """In float64, with biases and norms that are not 0 and 1."""
    module = module.double()
    for p in module.parameters():
        if p.ndim == 1:
            p._array[...] = 0.3 * normal(*p.shape) + (1 if p._array.mean() > 0.5 else 0)
    return module


def plain_attention(m, query, key, value, hidden=False, added=0.0):
    """(N, L, E) and the weights (N, H, L, S) by the formula, of a module's parameters."""
    p = {name: t.detach().numpy() for name, t in m.named_parameters()}
    E, H = m.embed_dim, m.num_heads
    weights = np.split(p["in_proj_weight"], 3) if "in_proj_weight" in p else [p[f"{c}_proj_weight"] for c in "qkv"]
    biases = np.split(p.get("in_proj_bias", np.zeros(3 * E)), 3)
    q, k, v = (x @ w.T + b for x, w, b in zip((query, key, value), weights, biases, strict=True))
    if "bias_k" in p:
        k, v = (np.concatenate([x, np.broadcast_to(p[name], (len(x), 1, E))], 1) for x, name in ((k, "bias_k"), (v, "bias_v")))
    if m.add_zero_attn:
        k, v = (np.concatenate([x, np.zeros((len(x), 1, E))], 1) for x in (k, v))
    q, k, v = (x.reshape(*x.shape[:2], H, E // H).swapaxes(1, 2) for x in (q, k, v))
    s = np.where(hidden, -np.inf, q @ k.swapaxes(-1, -2) / math.sqrt(E // H) + added)
    w = np.exp(s - s.max(-1, keepdims=True))
    w /= w.sum(-1, keepdims=True)
    o = (w @ v).swapaxes(1, 2).reshape(*query.shape)
    return o @ p["out_proj.weight"].T + p.get("out_proj.bias", 0), w


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("options", [
    {}, {"bias": False}, {"kdim": 5, "vdim": 3}, {"add_bias_kv": True}, {"add_zero_attn": True},
    {"add_bias_kv": True, "add_zero_attn": True},
])
def test_multihead_attention(options, need_weights, batch_first):
    m = double(nn.MultiheadAttention(8, 2, batch_first=batch_first, **options))
    query, key, value = normal(3, 4, 8), normal(3, 6, m.kdim), normal(3, 6, m.vdim)
    extra = bool(options.get("add_bias_kv")) + bool(options.get("add_zero_attn"))
    hidden, padding = np.zeros((4, 6), bool), np.zeros((3, 6), bool)
    hidden[:, 2], padding[0, 4:], padding[1, 0] = True, True, True
    all_hidden = np.pad(hidden | padding[:, None, None], ((0, 0), (0, 0), (0, 0), (0, extra)))
    for masks, truth in (({}, False), ({"attn_mask": hidden, "key_padding_mask": padding}, all_hidden)):
        arrays = [a if batch_first else a.swapaxes(0, 1) for a in (query, key, value)]
        masks = {name: bpnn.tensor(mask) for name, mask in masks.items()}
        o, w = m(*map(bpnn.tensor, arrays), need_weights=need_weights, **masks)
        expected, weights = plain_attention(m, query, key, value, truth)
        o = o.detach().numpy() if batch_first else o.detach().numpy().swapaxes(0, 1)
        np.testing.assert_allclose(o, expected, rtol=1e-10, atol=1e-11)
        if need_weights:
            np.testing.assert_allclose(w.detach().numpy(), weights.mean(1), rtol=1e-10, atol=1e-12)
            w = m(*map(bpnn.tensor, arrays), average_attn_weights=False, **masks)[1]
            np.testing.assert_allclose(w.detach().numpy(), weights, rtol=1e-10, atol=1e-12)
        else:
            assert w is None


@pytest.mark.parametrize("need_weights", [False, True])
def test_masks_of_numbers_heads_and_causal(need_weights):
    m = double(nn.MultiheadAttention(8, 2, batch_first=True))
    x, added, padding = normal(3, 5, 8), normal(6, 5, 5), normal(3, 5)
    t = bpnn.tensor(x)
    o = m(t, t, t, attn_mask=bpnn.tensor(added), key_padding_mask=bpnn.tensor(padding), need_weights=need_weights)[0]
    both = added.reshape(3, 2, 5, 5) + padding[:, None, None]
    np.testing.assert_allclose(o.detach().numpy(), plain_attention(m, x, x, x, added=both)[0], rtol=1e-10, atol=1e-11)
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    hidden = np.zeros((3, 5), bool)
    hidden[1, 3:] = True
    expected = plain_attention(m, x, x, x, ~np.tri(5, dtype=bool) | hidden[:, None, None])[0]
    for options in ({"is_causal": True}, {}):
        o = m(t, t, t, attn_mask=mask, key_padding_mask=bpnn.tensor(hidden), need_weights=need_weights, **options)[0]
        np.testing.assert_allclose(o.detach().numpy(), expected, rtol=1e-10, atol=1e-11)


def test_one_sequence_and_shared_keys():
    m = double(nn.MultiheadAttention(8, 2))
    x, y = normal(4, 8), normal(6, 8)
    t, u = bpnn.tensor(x), bpnn.tensor(y)
    for args, arrays in (((t, t, t), (x, x, x)), ((t, u, u), (x, y, y)), ((t, u, bpnn.tensor(y + 1)), (x, y, y + 1))):
        for need_weights in (False, True):
            o, w = m(*args, need_weights=need_weights)
            expected, weights = plain_attention(m, *(a[None] for a in arrays))
            np.testing.assert_allclose(o.detach().numpy(), expected[0], rtol=1e-10, atol=1e-11)
            assert w is None or np.allclose(w.detach().numpy(), weights[0].mean(0))
    o = m(t, u, u, key_padding_mask=bpnn.tensor(np.arange(6) >= 4), need_weights=False)[0]
    expected = plain_attention(m, x[None], y[None, :4], y[None, :4])[0][0]
    np.testing.assert_allclose(o.detach().numpy(), expected, rtol=1e-10, atol=1e-11)


def test_names_start_and_function():
    m = nn.MultiheadAttention(8, 2, kdim=3, add_bias_kv=True)
    assert {name: t.shape for name, t in m.state_dict().items()} == {
        "q_proj_weight": (8, 8), "k_proj_weight": (8, 3), "v_proj_weight": (8, 8), "in_proj_bias": (24,),
        "out_proj.weight": (8, 8), "out_proj.bias": (8,), "bias_k": (1, 1, 8), "bias_v": (1, 1, 8),
    }
    m = nn.MultiheadAttention(64, 2)
    assert m.state_dict()["in_proj_weight"].shape == (192, 64) and not m.in_proj_bias.detach().numpy().any()
    assert abs(m.in_proj_weight.detach().numpy()).max() <= math.sqrt(6 / 256) < 1.1 * abs(m.in_proj_weight.detach().numpy()).max()
    x = bpnn.tensor(normal(5, 2, 64).astype(np.float32))
    o, w = F.multi_head_attention_forward(
        x, x, x, 64, 2, m.in_proj_weight, m.in_proj_bias, None, None, False, 0.0, m.out_proj.weight, m.out_proj.bias
    )
    for one, two in zip(m(x, x, x), (o, w), strict=True):
        np.testing.assert_array_equal(one.detach().numpy(), two.detach().numpy())


def test_dropout_in_training_only():
    m = nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True)
    x = bpnn.tensor(normal(2, 9, 8).astype(np.float32))
    first, second = (m(x, x, x, need_weights=False)[0].detach().numpy() for _ in range(2))
    assert (first != second).any()
    m.eval()
    first, second = (m(x, x, x, need_weights=False)[0].detach().numpy() for _ in range(2))
    assert (first == second).all()


def test_errors():
    with pytest.raises(ValueError, match="embed_dim, num_heads"):
        nn.MultiheadAttention(8, 3)
    m, x = nn.MultiheadAttention(8, 2, batch_first=True), bpnn.zeros(2, 3, 8)
    for masks, message in [
        ({"attn_mask": bpnn.zeros(3, 4)}, r"attn_mask: expected shape \(3, 3\) or \(4, 3, 3\), got \(3, 4\)"),
        ({"key_padding_mask": bpnn.zeros(3, 3)}, r"key_padding_mask: expected shape \(2, 3\), got \(3, 3\)"),
        ({"attn_mask": bpnn.zeros(3, 3, dtype=bpnn.int64)}, "attn_mask: expected bool"),
        ({"is_causal": True}, "attn_mask: expected a mask with is_causal"),
    ]:
        with pytest.raises((RuntimeError, TypeError), match=message):
            m(x, x, x, **masks)
    with pytest.raises(RuntimeError, match="key, value: expected the same rows"):
        m(x, x, bpnn.zeros(2, 4, 8))
    with pytest.raises(RuntimeError, match="activation: expected 'relu', 'gelu' or a function, got 'tanh'"):
        nn.TransformerEncoderLayer(8, 2, activation="tanh")
    with pytest.raises(RuntimeError, match="src, tgt: expected 8 features"):
        nn.Transformer(8, 2, 1, 1, 8)(bpnn.zeros(3, 2, 4), bpnn.zeros(3, 2, 4))


# --- layers -----------------------------------------------------------------------------------------------------------------

def plain_norm(layer, x):
    h = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + layer.eps)
    return h * layer.weight.detach().numpy() + layer.bias.detach().numpy()


def plain_linear(layer, x):
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


@pytest.mark.parametrize("norm_first", [False, True])
def test_layers_by_their_formula(norm_first):
    encoder = double(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True, norm_first=norm_first))
    decoder = double(nn.TransformerDecoderLayer(8, 2, 16, 0.0, lambda x: x.tanh(), batch_first=True, norm_first=norm_first))
    x, memory = normal(2, 5, 8), normal(2, 7, 8)
    hidden = ~np.tri(5, dtype=bool)
    for layer, act in ((encoder, lambda x: np.maximum(x, 0)), (decoder, np.tanh)):
        parts = [(layer.norm1, lambda x, m=layer.self_attn: plain_attention(m, x, x, x, hidden)[0])]
        if layer is decoder:
            parts.append((layer.norm2, lambda x: plain_attention(decoder.multihead_attn, x, memory, memory)[0]))
        last = layer.norm3 if layer is decoder else layer.norm2
        parts.append((last, lambda x, m=layer, f=act: plain_linear(m.linear2, f(plain_linear(m.linear1, x)))))
        expected = x
        for norm, part in parts:
            expected = expected + part(plain_norm(norm, expected)) if norm_first else plain_norm(norm, expected + part(expected))
        args = (bpnn.tensor(x), bpnn.tensor(memory)) if layer is decoder else (bpnn.tensor(x),)
        names = ("tgt_mask", "tgt_is_causal") if layer is decoder else ("src_mask", "is_causal")
        for options in ({names[0]: bpnn.tensor(hidden)}, {names[0]: bpnn.tensor(hidden), names[1]: True}):
            np.testing.assert_allclose(layer(*args, **options).detach().numpy(), expected, rtol=1e-9, atol=1e-10)


def test_stacks_hold_copies():
    layer = nn.TransformerEncoderLayer(8, 2, 16)
    stack = nn.TransformerEncoder(layer, 3, nn.LayerNorm(8))
    assert len(list(stack.parameters())) == 3 * 12 + 2
    assert "layers.2.self_attn.in_proj_weight" in stack.state_dict() and "norm.weight" in stack.state_dict()
    stack.layers[0].linear1.weight.detach().fill_(0)
    assert stack.layers[1].linear1.weight.detach().numpy().any() and layer.linear1.weight.detach().numpy().any()


def test_training_lowers_a_loss():
    bpnn.manual_seed(0)
    model = nn.Transformer(16, 2, 1, 1, 32, dropout=0.1, batch_first=True)
    optimizer = bpnn.optim.Adam(model.parameters(), lr=1e-2)
    src, tgt, goal = (bpnn.tensor(normal(4, n, 16).astype(np.float32)) for n in (6, 5, 5))
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = F.mse_loss(model(src, tgt, tgt_mask=mask), goal)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


# --- PyTorch ----------------------------------------------------------------------------------------------------------------

def same_as_torch(ours, theirs, inputs, options, tolerance=1e-9, index=None):
    """Outputs and every gradient agree; parameters are copied from `theirs`."""
    torch = pytest.importorskip("torch")
    theirs = theirs.double()
    for p in theirs.parameters():
        torch.nn.init.normal_(p, 0.5 if p.ndim == 1 else 0, 0.4)
    ours = ours.double()
    ours.load_state_dict({name: bpnn.tensor(t.numpy()) for name, t in theirs.state_dict().items()})
    a, b = [bpnn.tensor(x, requires_grad=True) for x in inputs], [torch.tensor(x, requires_grad=True) for x in inputs]
    mine = ours(*a, **{k: bpnn.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()})
    yours = theirs(*b, **{k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in options.items()})
    if index is not None:
        mine, yours = mine[index], yours[index]
    dy = normal(*mine.shape)
    mine.backward(bpnn.tensor(dy))
    yours.backward(torch.tensor(dy))
    np.testing.assert_allclose(mine.detach().numpy(), yours.detach().numpy(), rtol=tolerance, atol=tolerance)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=tolerance, atol=tolerance)
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, p in ours.named_parameters():
        np.testing.assert_allclose(p.grad.numpy(), gradients[name].numpy(), rtol=tolerance, atol=tolerance, err_msg=name)


def padding_of(lengths, n):
    return np.arange(n) >= np.asarray(lengths)[:, None]


@pytest.mark.rivals
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"kdim": 5, "vdim": 3}, {"add_bias_kv": True, "add_zero_attn": True}])
def test_multihead_attention_is_pytorchs(options, need_weights, batch_first):
    torch = pytest.importorskip("torch")
    settings = {"embed_dim": 12, "num_heads": 3, "batch_first": batch_first, **options}
    ours, theirs = nn.MultiheadAttention(**settings), torch.nn.MultiheadAttention(**settings)
    inputs = [normal(4, 9, 12), normal(4, 7, ours.kdim), normal(4, 7, ours.vdim)]
    inputs = inputs if batch_first else [x.swapaxes(0, 1).copy() for x in inputs]
    for masks in ({}, {"key_padding_mask": padding_of([7, 3, 1, 5], 7)}, {"attn_mask": normal(12, 9, 7)},
                  {"attn_mask": np.triu(np.ones((9, 7), bool), 1), "key_padding_mask": padding_of([7, 3, 2, 5], 7)}):
        same_as_torch(ours, theirs, inputs, {"need_weights": need_weights, **masks}, index=0)


@pytest.mark.rivals
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_transformer_is_pytorchs(activation, norm_first, batch_first):
    torch = pytest.importorskip("torch")
    settings = {"d_model": 8, "nhead": 2, "num_encoder_layers": 2, "num_decoder_layers": 2, "dim_feedforward": 16, "dropout": 0.0,
                "activation": activation, "norm_first": norm_first, "batch_first": batch_first}
    ours, theirs = nn.Transformer(**settings), torch.nn.Transformer(**settings)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    inputs = [normal(3, 6, 8), normal(3, 5, 8)]
    inputs = inputs if batch_first else [x.swapaxes(0, 1).copy() for x in inputs]
    causal = np.where(np.tri(5, dtype=bool), 0, -np.inf)
    same_as_torch(ours, theirs, inputs, {}, 1e-8)
    padding = padding_of([6, 4, 2], 6)
    masks = {"tgt_mask": causal, "src_key_padding_mask": padding, "memory_key_padding_mask": padding}
    same_as_torch(ours, theirs, inputs, masks, 1e-8)
    masks = {"tgt_mask": causal, "tgt_is_causal": True, "src_mask": np.triu(np.ones((6, 6), bool), 1), "src_is_causal": True}
    same_as_torch(ours, theirs, inputs, masks, 1e-8)


@pytest.mark.rivals
@pytest.mark.parametrize("bias", [True, False])
def test_encoder_is_pytorchs(bias):
    torch = pytest.importorskip("torch")
    settings = {"d_model": 8, "nhead": 2, "dim_feedforward": 16, "dropout": 0.0, "bias": bias, "activation": "gelu",
                "batch_first": True}
    ours = nn.TransformerEncoder(nn.TransformerEncoderLayer(**settings), 2)
    theirs = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(**settings), 2)
    same_as_torch(ours, theirs, [normal(3, 6, 8)], {"mask": np.triu(np.full((6, 6), -np.inf), 1)}, 1e-8)
    same_as_torch(ours, theirs, [normal(6, 8)], {}, 1e-8)
