"""safetensors files and folders: what is read, and what is said of damaged ones."""
import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

import bpnn
from bpnn.pretrained import open_pretrained, open_weights, resolve


def write(path, header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def tensor(kind="F32", shape=(2,), place=(0, 8)):
    return {"dtype": kind, "shape": list(shape), "data_offsets": list(place)}


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "a": rng.normal(size=(3, 5)).astype("float32"), "half": rng.normal(size=(7,)).astype("float16"), "n": np.arange(4),
        "double": rng.normal(size=(2, 2)), "scalar": np.array(3, "float32"), "empty": np.zeros((0, 3), "float32"),
    }


def test_tensors_by_name(tmp_path, arrays):
    save_file(arrays, tmp_path / "model.safetensors", metadata={"format": "pt"})
    weights = open_weights(tmp_path)
    assert set(weights) == set(arrays) and weights.metadata == {"format": "pt"}
    for name, array in arrays.items():
        assert weights.shape(name) == array.shape
        expected = array.astype("float32") if array.dtype == np.float16 else array
        assert weights[name].dtype == expected.dtype
        np.testing.assert_array_equal(weights[name], expected)
    assert weights.kind("half") == "F16"
    with pytest.raises(KeyError):
        weights["b"]


def test_float32_is_the_file_itself(tmp_path):
    save_file({"a": np.ones((4, 4), "float32")}, tmp_path / "model.safetensors")
    weights = open_weights(tmp_path / "model.safetensors")
    assert not weights["a"].flags.owndata and not weights["a"].flags.writeable
    assert np.shares_memory(weights["a"], weights["a"])


def test_unaligned_tensors_are_copied_to_where_they_can_be_used(tmp_path):
    values = np.array([1.5, -2], "<f4")
    header = {"a": tensor("U8", (1,), (0, 1)), "b": tensor(place=(1, 9))}
    path = write(tmp_path / "x.safetensors", header, b"\x07" + values.tobytes())
    np.testing.assert_array_equal(open_weights(path)["b"], values)
    assert open_weights(path)["b"].flags.aligned


def test_bfloat16_without_a_package(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = np.random.default_rng(1).normal(size=(5, 33)).astype(ml_dtypes.bfloat16)
    values[0, :3] = [np.inf, np.nan, -0.0]
    save_file({"w": values}, tmp_path / "model.safetensors")
    code = (
        "import sys; sys.modules['ml_dtypes'] = None\nimport numpy as np\nfrom bpnn.pretrained import open_weights\n"
        "w = open_weights('model.safetensors')['w']; assert w.dtype == np.float32; np.save('w.npy', w)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "w.npy"), values.astype("float32"))
    out = np.empty((5, 33))
    open_weights(tmp_path).entries["w"].fill(out)  # float64
    np.testing.assert_array_equal(out, values.astype("float64"))


def test_importing_costs_nothing_until_it_is_used():
    code = "import bpnn, sys; assert not {'bpnn.pretrained', 'safetensors', 'tokenizers'} & set(sys.modules); bpnn.pretrained"
    subprocess.run([sys.executable, "-c", code], check=True)


EIGHT = b"\0" * 8
DAMAGED = {
    "empty": (b"", "is truncated: 0 bytes"),
    "short length": (b"\1\0\0", "is truncated: 3 bytes"),
    "header beyond the file": ((1000).to_bytes(8, "little") + b"{}", "the header has 1000 bytes, the file has 10"),
    "huge header": ((1 << 40).to_bytes(8, "little") + b"{}", "its header would have 1099511627776 bytes"),
    "no JSON": (b"{]", "its header is damaged"),
    "no UTF-8": (b'{"\xff": 1}', "its header is damaged"),
    "no object": (b"[]", "its header is no JSON object"),
    "twice": (b'{"a": 1, "b": 2, "a": 3}', "tensor 'a' is in the header twice"),
    "metadata": ({"__metadata__": {"a": 1}}, "__metadata__ is not text"),
    "no description": ({"w": 3}, "tensor 'w': expected dtype, shape and data_offsets, got 3"),
    "missing key": ({"w": {"dtype": "F32", "shape": [2]}}, "tensor 'w': expected dtype, shape and data_offsets"),
    "unknown dtype": ({"w": tensor("F8_E4M3", (8,))}, "tensor 'w' has type 'F8_E4M3', which bpnn does not read"),
    "dtype no text": ({"w": tensor(["F32"])}, r"tensor 'w' has type \['F32'\]"),
    "negative size": ({"w": tensor(shape=(-2,))}, "tensor 'w': expected a shape of sizes"),
    "shape of bools": ({"w": tensor(shape=(True, 2))}, "tensor 'w': expected a shape of sizes"),
    "reversed place": ({"w": tensor(place=(8, 0))}, "tensor 'w': expected data_offsets of begin and end"),
    "one offset": ({"w": tensor(place=(0,))}, "tensor 'w': expected data_offsets of begin and end"),
    "truncated": ({"w": tensor(shape=(4,), place=(0, 16))}, "tensor 'w' ends at byte 16, the file has 8 bytes of tensors"),
    "wrong size": ({"w": tensor(shape=(3,))}, r"tensor 'w': shape \(3,\) of F32 takes 12 bytes, data_offsets \[0, 8\] hold 8"),
    "enormous": ({"w": tensor(shape=(1 << 40, 1 << 40))}, "tensor 'w': shape .* takes 4835703278458516698824704 bytes"),
    "overlap": ({"v": tensor(), "w": tensor(shape=(1,), place=(4, 8))}, "tensor 'w' begins at byte 4, 'v' ends at 8: they overlap"),
    "gap": ({"w": tensor(shape=(1,), place=(4, 8))}, "tensor 'w' begins at byte 4, 'the header' ends at 0: a gap"),
    "too long": ({"w": tensor(shape=(1,), place=(0, 4))}, "the tensors end at byte 4, the file has 8 bytes of tensors: 4 too many"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_files(tmp_path, case):
    content, message = DAMAGED[case]
    path = tmp_path / "model.safetensors"
    if isinstance(content, bytes) and content[:1] not in (b"{", b"["):
        path.write_bytes(content)
    else:
        write(path, content, EIGHT)
    with pytest.raises(ValueError, match=message) as caught:
        open_weights(tmp_path)
    assert str(caught.value).startswith(str(path))


def test_every_truncation_is_noticed(tmp_path, arrays):
    save_file(arrays, tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "part.safetensors").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"part\.safetensors"):
            open_weights(tmp_path / "part.safetensors")


# --- folders --------------------------------------------------------------------------------------------------------------

@pytest.fixture
def sharded(tmp_path):
    save_file({"a": np.ones(2, "float32")}, tmp_path / "model-1.safetensors", metadata={"format": "pt"})
    save_file({"b": np.zeros((1, 3), "float32")}, tmp_path / "model-2.safetensors")
    return tmp_path


def index(folder, **places):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def test_a_sharded_folder(sharded):
    index(sharded, a="model-1.safetensors", b="model-2.safetensors")
    weights = open_weights(sharded)
    assert list(weights) == ["a", "b"] and weights.shape("b") == (1, 3) and weights.metadata == {"format": "pt"}
    assert list(open_weights(sharded / "model.safetensors.index.json")) == ["a", "b"]


def test_an_index_that_does_not_fit(sharded):
    index(sharded, a="model-2.safetensors", b="model-2.safetensors", c="model-1.safetensors")
    with pytest.raises(ValueError) as caught:
        open_weights(sharded)
    for part in (
        "index.json does not fit", "a: is not in model-2", "c: is not in model-1",
        "a: is in model-1.safetensors, the index says model-2",
    ):
        assert part in str(caught.value)
    index(sharded, a="model-1.safetensors", x="model-8.safetensors", y="model-9.safetensors")
    with pytest.raises(FileNotFoundError, match=r"missing: model-8\.safetensors, model-9\.safetensors"):
        open_weights(sharded)
    index(sharded, a="../secret.safetensors")
    with pytest.raises(ValueError, match=r"'\.\./secret\.safetensors' is not the name of a file beside it"):
        open_weights(sharded)
    index(sharded, a="pytorch_model.bin")
    with pytest.raises(ValueError, match="extension of pickled files"):
        open_weights(sharded)
    for text in ("{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'):
        (sharded / "model.safetensors.index.json").write_text(text)
        with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json"):
            open_weights(sharded)


def test_pickles_are_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK\3\4")
    for path in (tmp_path, tmp_path / "pytorch_model.bin"):
        with pytest.raises(ValueError, match=r"pytorch_model\.bin: .*pickled.*safetensors"):
            open_weights(path)
    (tmp_path / "model.safetensors").write_bytes(b"PK\3\4" + bytes(20))
    with pytest.raises(ValueError, match="is a zip archive"):
        open_weights(tmp_path)


def test_what_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="has neither"):
        open_weights(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        open_weights(tmp_path / "missing")
    (tmp_path / "other.safetensors").touch()
    with pytest.raises(FileNotFoundError, match=r"it has other\.safetensors"):
        open_weights(tmp_path)
    save_file({"a": np.ones(2, "float32")}, tmp_path / "model.safetensors")
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        open_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    source = open_pretrained(tmp_path)
    assert source.config == {"model_type": "bert"} and list(source.weights) == ["a"] and source.path == str(tmp_path)


# --- names of the hub -----------------------------------------------------------------------------------------------------

def test_a_folder_goes_first(tmp_path, monkeypatch):
    (tmp_path / "user" / "model").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve("user/model", revision="main") == "user/model"
    for name in ("./missing", "/missing", "a/b/c", "model.gguf", "~/x"):
        with pytest.raises(FileNotFoundError, match="no such folder or file"):
            resolve(name)


def test_hub_names_need_a_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"user/model: .*bpnn\[hf\]"):
        resolve("user/model")


def test_offline_is_honored(monkeypatch, tmp_path):
    hub = pytest.importorskip("huggingface_hub")
    with pytest.raises(FileNotFoundError, match="not fetched before .local_files_only"):
        resolve("user/model", local_files_only=True, cache_dir=tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match="HF_HUB_OFFLINE forbids"):
        resolve("user/model", revision="abc", cache_dir=tmp_path)
    commit = "0" * 40  # as the hub's own client leaves it
    copy = tmp_path / "models--user--model" / "snapshots" / commit
    copy.mkdir(parents=True)
    (copy / "config.json").write_text("{}")
    assert resolve("user/model", revision=commit, cache_dir=tmp_path) == str(copy)
    asked = {}
    monkeypatch.setattr(hub, "snapshot_download", lambda name, **keywords: asked.update(keywords, name=name) or "folder")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert resolve("user/model", revision="v1") == "folder"
    assert asked["revision"] == "v1" and asked["local_files_only"] is False and "*.safetensors" in asked["allow_patterns"]
    assert not any("bin" in pattern for pattern in asked["allow_patterns"])


@pytest.mark.parametrize(("error", "kind", "message"), [
    ("RepositoryNotFoundError", FileNotFoundError, "neither a folder here nor a model"),
    ("RevisionNotFoundError", FileNotFoundError, "has no revision 'v9'"),
    ("GatedRepoError", PermissionError, "log in"),
    ("LocalEntryNotFoundError", ConnectionError, "could not be asked"),
    ("OSError", ConnectionError, "could not be fetched"),
])
def test_what_the_hub_says(monkeypatch, error, kind, message):
    hub = pytest.importorskip("huggingface_hub")
    cls = getattr(hub.errors, error, OSError)

    def fail(*arguments, **keywords):
        problem = cls.__new__(cls)
        problem.args = ("first line\nsecond",)
        raise problem

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(hub, "snapshot_download", fail)
    with pytest.raises(kind, match=message):
        resolve("user/model", revision="v9")


def test_the_room_is_there():
    assert bpnn.pretrained.open_weights is open_weights
