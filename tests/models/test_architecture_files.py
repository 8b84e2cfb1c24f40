"""Files of every architecture: what `transformers` writes we read, what we write it reads, to the byte."""
import json
import warnings

import numpy as np
import pytest
from architectures import ARCHITECTURES, MODELS, inputs, named
from comparing import arrays, off

import bpnn

pytestmark = pytest.mark.rivals


def stored(folder):
    """The tensors of a folder as bytes with type and shape, by name; and those that `transformers` saw under two names once."""
    import torch
    from safetensors.torch import load_file

    result = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, tensor in load_file(path).items():
            result[name] = str(tensor.dtype), tuple(tensor.shape), tensor.contiguous().view(torch.uint8).numpy().tobytes()
    return result


def outputs_of(model, given, torch_side=False):
    from against import torch

    given = {key: value for key, value in given.items() if not key.endswith(("labels", "positions"))}
    given = {key: value.astype("float32") if value.dtype.kind == "f" else value for key, value in given.items()}
    if not torch_side:
        with bpnn.no_grad():
            return arrays(model.eval()(**given))
    with torch.no_grad():
        return arrays(model.eval()(**{key: torch.from_numpy(np.array(value)) for key, value in given.items()}))


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
@named(MODELS)
def test_files_both_ways(references, tmp_path, name, head, kind):
    """What `transformers` writes we read and write again, to the byte; it reads ours and computes what it computed before."""
    from against import theirs, torch, transformers

    reference = references(name, head)
    prefix = reference.about.prefix
    first, second, third = tmp_path / "first", tmp_path / "second", tmp_path / "third"
    theirs(prefix, head, reference.folder, dtype=getattr(torch, kind)).save_pretrained(first)
    own = reference.own() if kind == "float32" else type(reference.own()).from_pretrained(first)
    own.save_pretrained(second)
    assert stored(second) == stored(first)
    config, written = (json.loads((folder / "config.json").read_text()) for folder in (first, second))
    assert config["dtype"] == written["dtype"] == kind and config["architectures"] == written["architectures"]
    config, written = (transformers.AutoConfig.from_pretrained(folder).to_dict() for folder in (first, second))
    assert {key: written.get(key) for key, value in config.items() if written.get(key) != value}.keys() <= {"_name_or_path"}
    given = inputs(reference.about, head, "small", reference.config)
    back = theirs(prefix, head, second, dtype=torch.float32)
    want = outputs_of(theirs(prefix, head, first, dtype=torch.float32), given, True)
    got = outputs_of(back, given, True)
    assert got.keys() == want.keys() and all(np.array_equal(got[key], want[key]) for key in want)
    mine = outputs_of(own, given)
    assert all(off(mine[key], want[key]) < 1e-4 for key in want)
    own.save_pretrained(third, dtype="float32")  # widened: what transformers reads from it is the same
    wide = outputs_of(theirs(prefix, head, third), given, True)
    assert all(np.array_equal(wide[key], want[key]) for key in want)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_shards(references, tmp_path, name):
    from against import theirs

    head = ARCHITECTURES[name].heads[-1]
    reference = references(name, head)
    prefix = reference.about.prefix
    theirs(prefix, head, reference.folder).save_pretrained(tmp_path / "first", max_shard_size="20KB")
    assert (tmp_path / "first" / "model.safetensors.index.json").is_file()
    own = type(reference.own()).from_pretrained(tmp_path / "first")
    given = inputs(reference.about, head, "small", reference.config)
    want, got = outputs_of(reference.own(), given), outputs_of(own, given)
    assert all(np.array_equal(got[key], want[key]) for key in want)
    files = own.save_pretrained(tmp_path / "second", max_shard_size=20_000)
    assert len(files) > 2 and stored(tmp_path / "second") == stored(tmp_path / "first")
    back = outputs_of(theirs(prefix, head, tmp_path / "second"), given, True)
    before = outputs_of(theirs(prefix, head, reference.folder), given, True)
    assert all(np.array_equal(back[key], before[key]) for key in before)


def rewritten(reference, folder, change):
    """A copy of a reference's folder with other tensors."""
    from safetensors.numpy import load_file, save_file

    folder.mkdir()
    (folder / "config.json").write_text((reference.folder / "config.json").read_text())
    tensors = change(load_file(reference.folder / "model.safetensors"))
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.mark.parametrize("head", ["Model", "ForMaskedLM"])
def test_old_names(references, tmp_path, head):
    reference = references("bert", head)
    own = reference.own()
    old = rewritten(reference, tmp_path / "old", lambda tensors: {
        key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for key, value in tensors.items()})
    again = type(own).from_pretrained(old)
    given = inputs(reference.about, head, "small", reference.config)
    want, got = outputs_of(own, given), outputs_of(again, given)
    assert all(np.array_equal(got[key], want[key]) for key in want)
    again.save_pretrained(tmp_path / "new")
    assert stored(tmp_path / "new") == stored(reference.folder)


@pytest.mark.parametrize("name", [name for name, about in ARCHITECTURES.items() if "Model" in about.heads])
def test_prefixes(references, tmp_path, name):
    """The bare model reads the file of one with a head and the other way around; both know names with the prefix and without."""
    about = ARCHITECTURES[name]
    head = about.heads[1]
    bare, full = references(name, "Model"), references(name, head)
    part = full.model.base_model_prefix
    given = inputs(about, "Model", "small", bare.config)

    with warnings.catch_warnings():  # a pooler that the file lacks is told
        warnings.simplefilter("ignore")
        model = type(bare.own()).from_pretrained(full.folder)
    want = outputs_of(getattr(full.own(), part), given)["last_hidden_state"]
    assert np.array_equal(outputs_of(model, given)["last_hidden_state"], want)

    new = [stored for stored in full.names.values() if not stored.startswith(part + ".")]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = type(full.own()).from_pretrained(bare.folder)
    assert bool(told) == bool(new) and all(name in str(told[0].message) for name in new)
    want = outputs_of(bare.own(), given)["last_hidden_state"]
    assert np.array_equal(outputs_of(getattr(model, part), given)["last_hidden_state"], want)

    longer = rewritten(bare, tmp_path / "longer", lambda tensors: {f"{part}.{key}": value for key, value in tensors.items()})
    got = outputs_of(type(bare.own()).from_pretrained(longer), given)["last_hidden_state"]
    assert np.array_equal(got, want)
    shorter = rewritten(full, tmp_path / "shorter", lambda tensors: {key.removeprefix(part + "."): v for key, v in tensors.items()})
    again = type(full.own()).from_pretrained(shorter).state_dict()
    assert all(np.array_equal(tensor.numpy(), again[key].numpy()) for key, tensor in full.own().state_dict().items())


@named([(name, head) for name, head in MODELS if head in ("ForMaskedLM", "LMHeadModel") or (name, head) in (
    ("qwen2", "ForCausalLM"), ("llama3", "ForCausalLM"))])
def test_tied_heads(references, tmp_path, name, head):
    """The matrix of the head is that of the embedding: one parameter, whether the file has it once, twice or as the head's."""
    reference = references(name, head)
    own = reference.own()
    assert own.num_parameters() == reference.model.num_parameters()
    given = inputs(reference.about, head, "small", reference.config)
    want = outputs_of(own, given)["logits"]
    known = set(reference.names.values())
    tied = {key: value for key, value in reference.model.state_dict().items() if key not in known}
    same = {key: other for key, value in tied.items() for other, v in reference.model.state_dict().items()
            if other in known and v.data_ptr() == value.data_ptr()}
    assert same
    twice = rewritten(reference, tmp_path / "twice", lambda t: {**t, **{key: t[other] for key, other in same.items()}})
    alone = rewritten(reference, tmp_path / "alone", lambda t: {
        **{key: value for key, value in t.items() if key not in same.values()}, **{key: t[other] for key, other in same.items()}})
    for folder in (twice, alone):
        assert np.array_equal(outputs_of(type(own).from_pretrained(folder), given)["logits"], want)
    own.save_pretrained(tmp_path / "again")
    assert stored(tmp_path / "again") == stored(reference.folder)
