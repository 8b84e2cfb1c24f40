"""Every architecture against `transformers`, which builds the models: outputs, losses, all gradients, training."""
import numpy as np
import pytest
from architectures import ARCHITECTURES, LENGTHS, MODELS, VARIANTS, WITH_LOSS, inputs, named, padded
from comparing import TOLERANCE, gradient_differences, off, run_own
from drawing import integers

import bpnn

pytestmark = pytest.mark.rivals
DECODERS = [(name, head) for name, head in MODELS if "left" in ARCHITECTURES[name].padding]
LANGUAGE = [(name, head) for name, head in DECODERS if head in ("LMHeadModel", "ForCausalLM")]


def agree_with(reference, own, given, tolerance, **arguments):
    from against import agree

    agree(reference, own, given, tolerance, **arguments)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("size", ["small", "mid"])
@named(MODELS)
def test_agrees(references, name, head, size, dtype):
    reference = references(name, head, size)
    own = reference.own(dtype=dtype)
    for side in (None, *reference.about.padding):
        agree_with(reference, own, inputs(reference.about, head, size, reference.config, side), TOLERANCE[dtype])


@pytest.mark.parametrize(("name", "head", "changes"), VARIANTS, ids=[f"{n}-{h}-{'-'.join(c)}" for n, h, c in VARIANTS])
def test_variants(references, name, head, changes):
    reference = references(name, head, **changes)
    side = None if reference.about.images else "right"
    agree_with(reference, reference.own(dtype="float64"), inputs(reference.about, head, "small", reference.config, side), 1e-9)


def with_mask(given, mask):
    """A model's arguments with another mask; labels that it hides do not count."""
    given = {**given, "attention_mask": mask}
    if given.get("labels", np.empty(0)).shape == mask.shape:
        given["labels"] = np.where(mask == 1, given["labels"], -100)
    return given


@named([(name, head) for name, head in MODELS if not ARCHITECTURES[name].images])
def test_odd_masks(references, name, head):
    """Ones everywhere, holes, padding on the other side, texts without a token, texts of one."""
    reference = references(name, head)
    own = reference.own(dtype="float64")
    given = inputs(reference.about, head, "small", reference.config)
    shape = given["input_ids"].shape
    agree_with(reference, own, with_mask(given, np.ones(shape, int)), 1e-9)
    for row in (0, len(LENGTHS["small"]) - 1):
        mask = padded(reference.about, "small", "right")
        mask[row] = 0
        agree_with(reference, own, with_mask(given, mask), 1e-9)
    if reference.about.padding == ("right",):
        agree_with(reference, own, with_mask(given, padded(reference.about, "small", "left")), 1e-9)
    first = {key: value[:, :1] if value.shape == shape else value for key, value in given.items()}
    agree_with(reference, own, first, 1e-9)
    mask = np.ones(shape, int)
    mask[0, 4:6] = mask[1, 9] = mask[2, 11:] = 0
    agree_with(reference, own, with_mask(given, mask), 1e-9)
    whole, boolean, floating = (run_own(own, with_mask(given, mask.astype(kind))) for kind in (int, bool, np.float32))
    assert whole.loss == boolean.loss == floating.loss


@named(MODELS)
def test_starting_values(name, head):
    """A new model's parameters have the distribution that `transformers` gives them."""
    pytest.importorskip("transformers")
    from against import models, torch, transformers

    about = ARCHITECTURES[name]
    config = about.config("mid", initializer_range=0.05)
    torch.manual_seed(0)
    made = getattr(transformers, about.prefix + head)(getattr(transformers, about.prefix + "Config")(**config))
    bpnn.manual_seed(0)
    kind = getattr(models, about.prefix + head)
    own = kind(kind.config_class.from_dict(config))
    mine = {key: value.numpy() for key, value in own.state_dict().items()}
    if about.images:  # whose names in files are others
        theirs = sorted((p.detach().numpy() for p in made.parameters()), key=lambda x: (x.shape, x.std(), x.mean()))
        pairs = zip(theirs, sorted(mine.values(), key=lambda x: (x.shape, x.std(), x.mean())))
    else:
        pairs = ((value.detach().numpy(), mine[key]) for key, value in made.named_parameters())
    for want, got in pairs:
        assert got.shape == want.shape
        few = 5 / want.size ** 0.5  # of few numbers the deviation is not known well
        assert abs(got.mean() - want.mean()) <= few * want.std() * 1.5
        assert abs(got.std() - want.std()) <= min(few, 0.9) * want.std()


LONG = [
    ("bert", "ForTokenClassification", {"max_position_embeddings": 320}),
    ("roberta", "ForMaskedLM", {"max_position_embeddings": 322}),
    ("gpt2", "LMHeadModel", {"n_positions": 320}),
    ("llama", "ForCausalLM", {"max_position_embeddings": 320, "head_dim": 20}),
    ("llama3", "ForCausalLM", {"max_position_embeddings": 320}),
    ("mistral", "ForCausalLM", {"max_position_embeddings": 320, "sliding_window": 100}),
    ("vit", "ForImageClassification", {"image_size": 68}),
]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("name", "head", "changes"), LONG, ids=[name for name, _, _ in LONG])
def test_long_texts(references, name, head, changes, dtype):
    """Longer than the tiles of attention, and lengths at their edges."""
    reference = references(name, head, **changes)
    own = reference.own(dtype=dtype)
    for side in (None, *reference.about.padding):
        size = "small" if reference.about.images else "long"
        agree_with(reference, own, inputs(reference.about, head, size, reference.config, side), TOLERANCE[dtype])


@named([(name, head) for name, head in MODELS if name not in ("distilbert", "vit")])
def test_positions(references, name, head):
    """Positions that are given go first. In a decoder without mask and cache, a jump among them begins another text."""
    reference = references(name, head)
    plain = {"use_cache": False} if "left" in reference.about.padding else {}
    for side in (None, "right"):
        given = inputs(reference.about, head, "small", reference.config, side)
        given["position_ids"] = integers("positions", given["input_ids"].shape, 2, 40)
        agree_with(reference, reference.own(dtype="float64"), given, 1e-9, **plain)


def test_interpolated_positions(references):
    """Images of another size: ViT's positions are stretched."""
    reference = references("vit", "ForImageClassification")
    given = inputs(reference.about, "ForImageClassification", "small", {**reference.config, "image_size": 24})
    agree_with(reference, reference.own(dtype="float64"), given, 1e-9, interpolate_pos_encoding=True)


@named(MODELS)
def test_frozen_parameters(references, name, head):
    """What is frozen gets no gradient, the rest the same."""
    reference = references(name, head)
    own = reference.own(dtype="float64").train()
    given = inputs(reference.about, head, "small", reference.config, None if reference.about.images else "right")
    want = run_own(own, given).gradients
    for start in (0, 1):
        for index, parameter in enumerate(own.parameters()):
            parameter.requires_grad = index % 2 == start
        got = run_own(own, given).gradients
        assert got and not gradient_differences(got, {key: want[key] for key in got}, 1e-12)
        assert all(parameter.grad is None for parameter in own.parameters() if not parameter.requires_grad)


@named([(name, head) for name, head in MODELS if head in ("ForMaskedLM", "ForTokenClassification", "LMHeadModel", "ForCausalLM")])
def test_labels_at_padding(references, name, head):
    """Labels at padding that are not -100 count, as they do in `transformers`."""
    reference = references(name, head)
    given = inputs(reference.about, head, "small", reference.config, "right")
    given["labels"] = np.where(given["labels"] < 0, 1, given["labels"])
    got, want = run_own(reference.own(dtype="float64"), given), reference.run(given)
    assert got.loss == pytest.approx(want.loss, rel=1e-9)


@named(MODELS)
def test_hidden_states_and_attentions(references, name, head):
    from against import theirs, torch

    reference = references(name, head)
    given = inputs(reference.about, head, "small", reference.config, None if reference.about.images else "right")
    given = {key: value for key, value in given.items() if not key.endswith(("labels", "positions"))}
    wanted = {"output_hidden_states": True, "output_attentions": True}
    eager = theirs(reference.about.prefix, head, reference.folder, attn_implementation="eager").eval()
    with torch.no_grad():
        tensors = {key: torch.from_numpy(np.array(value)) for key, value in given.items()}
        want = eager(**{key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}, **wanted)
    with bpnn.no_grad():
        given = {key: value.astype("float32") if value.dtype.kind == "f" else value for key, value in given.items()}
        got = reference.own()(**given, **wanted)
    real = given.get("attention_mask")
    assert len(got.hidden_states) == len(want.hidden_states) and len(got.attentions) == len(want.attentions)
    for mine, value in zip(got.hidden_states, want.hidden_states):
        where = slice(None) if real is None else real == 1
        assert off(mine.numpy()[where], value.numpy()[where]) < 1e-5
    for mine, value in zip(got.attentions, want.attentions):
        for row in range(len(value)):  # rows of padding mean nothing
            count = value.shape[-2] if real is None else int(real[row].sum())
            assert off(mine.numpy()[row, :, :count], value.numpy()[row, :, :count]) < 1e-5


@named(WITH_LOSS)
def test_training_trace(references, name, head):
    """50 steps of AdamW on batches with padding."""
    import torch
    from against import theirs, trace

    reference = references(name, head)
    side = None if reference.about.images else "right"
    batches = [inputs(reference.about, head, "small", reference.config, side, seed=seed) for seed in range(4)]
    batches = [{key: v.astype("float32") if v.dtype.kind == "f" else v for key, v in batch.items()} for batch in batches]
    model = theirs(reference.about.prefix, head, reference.folder).train()
    want = trace(model, 50, torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1), batches, torch.from_numpy)
    own = reference.own().train()
    got = trace(own, 50, bpnn.optim.AdamW(own.parameters(), lr=1e-3, weight_decay=0.1), batches, lambda array: array)
    assert want[-4:].mean() < want[:4].mean()
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


@named([(name, head) for name, head in DECODERS if head != "ForSequenceClassification"])
def test_cache(references, name, head):
    """A text read in parts gives what it gives in one piece; with left padding and positions too."""
    reference = references(name, head)
    own = reference.own(dtype="float64")
    given = inputs(reference.about, head, "small", reference.config)
    field = "last_hidden_state" if head == "Model" else "logits"
    want = run_own(own, given).outputs[field]
    left = padded(reference.about, "small", "left")
    positions = np.maximum(left.cumsum(1) - 1, 0)
    ids = given["input_ids"]
    with bpnn.no_grad():
        whole = own(input_ids=ids, attention_mask=left, position_ids=positions)[field].numpy()
        cache, pieces, shifted, shifted_cache = None, [], [], None
        for begin, end in ((0, 5), (5, 6), (6, 7), (7, 11), (11, 13)):
            output = own(input_ids=ids[:, begin:end], past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            pieces.append(output[field].numpy())
            output = own(
                input_ids=ids[:, begin:end], attention_mask=left[:, :end], position_ids=positions[:, begin:end],
                past_key_values=shifted_cache, use_cache=True)
            shifted_cache = output.past_key_values
            shifted.append(output[field].numpy())
    assert off(np.concatenate(pieces, 1), want) < 1e-9
    assert off(np.concatenate(shifted, 1)[left == 1], whole[left == 1]) < 1e-9
    import torch
    from against import widened

    with widened(), torch.no_grad():
        theirs = reference.model.eval()(
            input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(left), position_ids=torch.from_numpy(positions))
    assert off(whole[left == 1], theirs[field].numpy()[left == 1]) < 1e-9


@named(MODELS)
def test_dropout_and_checkpointing(references, name, head):
    """Dropout only in training; recomputed layers give the same gradients."""
    reference = references(name, head)
    given = inputs(reference.about, head, "small", reference.config, None if reference.about.images else "right")
    own = reference.own()
    plain = run_own(own.train(), given)
    own.gradient_checkpointing_enable()
    again = run_own(own, given)
    assert again.loss == plain.loss
    assert not gradient_differences(again.gradients, plain.gradients, 1e-6)
    keys = [key for key in reference.about.extra if "drop" in key]
    rates = {key: 0.5 for key in keys if key not in ("qa_dropout", "seq_classif_dropout")}
    if not rates:
        rates = {"attention_dropout": 0.5}
    own = reference.own(**rates)
    assert run_own(own, given).loss == pytest.approx(plain.loss, rel=TOLERANCE["float32"])
    bpnn.manual_seed(0)
    one = run_own(own.train(), given).loss
    two = run_own(own, given).loss
    assert one != plain.loss and one != two
    bpnn.manual_seed(0)
    assert run_own(own, given).loss == one
