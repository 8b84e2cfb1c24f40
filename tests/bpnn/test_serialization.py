"""Saving and loading safetensors files."""
import json
import math
import os
import pickle
import random
import stat
import struct
import subprocess
import sys
import textwrap
import time
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

import bpnn


def parse(path):
    """A safetensors file by the format's description: 8 bytes of length, a JSON header, the data."""
    raw = path.read_bytes()
    length, = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + length])
    metadata = header.pop("__metadata__", {})
    tensors = {name: (entry["dtype"], entry["shape"], raw[8 + length:][slice(*entry["data_offsets"])])
               for name, entry in header.items()}
    return tensors, metadata


def build(path, tensors, metadata=None):
    """Write a safetensors file by hand: name -> (dtype, shape, bytes)."""
    header, data = {}, b""
    for name, (dtype, shape, content) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    if metadata is not None:
        header["__metadata__"] = metadata
    head = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + data)


DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL", "complex64": "C64",
}


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_flat_dictionary_is_a_plain_file(tmp_path, dtype):
    a = (np.arange(6) - 2).astype(dtype).reshape(2, 3)
    bpnn.save({"z.weight": bpnn.from_numpy(a), "a": bpnn.from_numpy(a[0, :1].copy())}, tmp_path / "x.safetensors")
    tensors, _ = parse(tmp_path / "x.safetensors")
    assert tensors == {"z.weight": (DTYPES[dtype], [2, 3], a.tobytes()), "a": (DTYPES[dtype], [1], a[0, :1].tobytes())}
    back = bpnn.load(tmp_path / "x.safetensors")
    assert isinstance(back, OrderedDict) and list(back) == ["z.weight", "a"]
    assert isinstance(back["a"], bpnn.Tensor) and back["z.weight"].dtype == np.dtype(dtype)
    assert (back["z.weight"].numpy() == a).all()
    back["z.weight"].numpy()[:] = 0  # memory of its own


def test_memory_order_does_not_matter(tmp_path):
    a = np.arange(24.0).reshape(2, 3, 4)
    views = {
        "transposed": a.transpose(2, 0, 1), "strided": a[:, ::2, 1:], "reversed": a[::-1], "column": a[..., 0],
        "scalar": np.array(3.5), "view": a[1, 2, 3:].reshape(()), "empty": np.zeros((0, 3)), "fortran": np.asfortranarray(a[0]),
        "broadcast": np.broadcast_to(np.float64(2), (2, 2)),
    }
    bpnn.save({name: bpnn.from_numpy(view) for name, view in views.items()}, tmp_path / "x")
    tensors, _ = parse(tmp_path / "x")
    back = bpnn.load(tmp_path / "x")
    for name, view in views.items():
        assert tensors[name][1:] == (list(view.shape), b"".join(struct.pack("<d", v) for v in view.flat)), name
        assert back[name].shape == view.shape and back[name].tolist() == view.tolist()
    bpnn.save({"big": [np.arange(3, dtype=">i4")]}, tmp_path / "endian")
    assert parse(tmp_path / "endian")[0]["big.0"] == ("I32", [3], struct.pack("<3i", 0, 1, 2))


def test_shared_memory_is_copied(tmp_path):
    a = np.arange(4.0)
    bpnn.save({"a": bpnn.from_numpy(a), "same": bpnn.from_numpy(a), "part": bpnn.from_numpy(a[1:])}, tmp_path / "x")
    back = bpnn.load(tmp_path / "x")
    back["a"].numpy()[:] = 9
    assert back["same"].tolist() == [0, 1, 2, 3] and back["part"].tolist() == [1, 2, 3]


def test_history_is_left_behind(tmp_path):
    w = bpnn.from_numpy(np.ones(2))
    w.requires_grad = True
    bpnn.save({"w": w}, tmp_path / "x")
    assert not bpnn.load(tmp_path / "x")["w"].requires_grad and w.requires_grad


def same(a, b):
    """Equality that tells types, signs of zero and arrays apart."""
    if isinstance(a, (bpnn.Tensor, np.ndarray)):
        x, y = np.asarray(a), np.asarray(b)
        return type(a) is type(b) and x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(
            type(j) is type(k) and same(a[j], b[k]) for j, k in zip(a, b))
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return type(b) is float and struct.pack("d", a) == struct.pack("d", b)
    return type(a) is type(b) and a == b


OPTIMIZER = {
    "state": {0: {"step": 7, "exp_avg": bpnn.from_numpy(np.ones((2, 2), np.float32))}, 1: {"step": 7, "max": None}},
    "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "amsgrad": False, "params": [0, 1], "name": "Größe \n \"x\""}],
}


@pytest.mark.parametrize("obj", [
    OPTIMIZER,
    {},
    {"a": {}},
    {"floats": [0.1, 1e-320, 1.7976931348623157e308, -0.0, math.inf, -math.inf, 2 / 3], "ints": [0, -1, 2**70]},
    {"rng": {"state": np.arange(624, dtype=np.uint32), "t": bpnn.from_numpy(np.arange(3))}, "python": (3, (1, 2), None)},
    {1: "a", "1": "b", False: "c", 2.5: "d", None: "e", (1, "x"): "f"},
    {"$tensor": "not one", "$dict": 1, "": 2, "a.b": bpnn.from_numpy(np.ones(1)), "a": {"b": bpnn.from_numpy(np.zeros(1))}},
    {"deep": [[({"x": (bpnn.from_numpy(np.arange(2)),)},)]]},
    [1, 2, bpnn.from_numpy(np.arange(2.0))],
    (),
    "text",
    None,
    3.25,
    bpnn.from_numpy(np.arange(6).reshape(2, 3)),
    np.arange(3),
], ids=lambda value: type(value).__name__)
def test_anything_else_comes_back_as_it_was(tmp_path, obj):
    bpnn.save(obj, tmp_path / "x.safetensors")
    back = bpnn.load(tmp_path / "x.safetensors")
    assert same(obj, back), back


def test_names_of_nested_tensors_are_their_paths(tmp_path):
    bpnn.save(OPTIMIZER, tmp_path / "x")
    assert set(parse(tmp_path / "x")[0]) == {"state.0.exp_avg"}
    t = bpnn.from_numpy(np.zeros(1))
    bpnn.save({"a": {"b": t}, "a.b": t, "c": [t, (t,)]}, tmp_path / "y")
    assert set(parse(tmp_path / "y")[0]) == {"a.b", "a.b_", "c.0", "c.1.0"}


def test_nan_and_numpy_numbers(tmp_path):
    bpnn.save({"nan": math.nan, "f": np.float32(0.1), "d": np.float64(0.1), "i": np.int16(3), "b": np.bool_(True)}, tmp_path / "x")
    back = bpnn.load(tmp_path / "x")
    assert math.isnan(back.pop("nan"))
    assert same(dict(back), {"f": 0.10000000149011612, "d": 0.1, "i": 3, "b": True})


@pytest.mark.parametrize(("obj", "words"), [
    ({"a": {"b": object()}}, "key 'a.b': .* got object"),
    ({"a": [1, {2}]}, r"key 'a\.1': .* got set"),
    ({"a": b"bytes"}, "key 'a': .* got bytes"),
    ({"a": 1j}, "key 'a': .* got complex"),
    ({"a": np.array(["x"])}, "key 'a': tensors of type <U1"),
    ({"a": np.zeros(1, np.longdouble)}, "key 'a': tensors of type"),
    ({"a": np.array([None])}, "key 'a': tensors of type object"),
    ({frozenset(): 1}, "frozenset"),
    (object(), "obj: .* got object"),
])
def test_what_cannot_be_saved_is_named(tmp_path, obj, words):
    with pytest.raises(TypeError, match=words):
        bpnn.save(obj, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_a_model_is_told_to_give_its_state(tmp_path):
    class Model:
        def state_dict(self):
            return {}

    with pytest.raises(TypeError, match=r"got Model; save its state_dict\(\)"):
        bpnn.save(Model(), tmp_path / "x")


# --- metadata -------------------------------------------------------------------------------------------------------------

def test_metadata(tmp_path):
    t = bpnn.from_numpy(np.ones(1))
    bpnn.save({"t": t}, tmp_path / "x", metadata={"format": "pt", "note": "ü"})
    back = bpnn.load(tmp_path / "x")
    assert back.metadata == {"format": "pt", "note": "ü"}
    bpnn.save(back, tmp_path / "y")
    assert bpnn.load(tmp_path / "y").metadata == {"format": "pt", "note": "ü"}
    bpnn.save(back, tmp_path / "z", metadata={})
    assert bpnn.load(tmp_path / "z").metadata == {}
    bpnn.save({"t": t, "n": 1}, tmp_path / "w", metadata={"k": "v"})
    assert bpnn.load(tmp_path / "w").metadata == {"k": "v"}
    with pytest.raises(TypeError, match=r"metadata: .*'n': 1"):
        bpnn.save({}, tmp_path / "x", metadata={"n": 1})
    with pytest.raises(ValueError, match="metadata"):
        bpnn.save({}, tmp_path / "x", metadata={"bpnn": "1"})


def test_files_from_elsewhere(tmp_path):
    build(tmp_path / "x.safetensors", {"b": ("F32", [2], struct.pack("<2f", 1, 2)), "a": ("I64", [], struct.pack("<q", -3))},
          {"format": "pt"})
    back = bpnn.load(tmp_path / "x.safetensors")
    assert list(back) == ["b", "a"] and back["b"].tolist() == [1, 2] and back["a"].item() == -3 and back["a"].shape == ()
    assert back.metadata == {"format": "pt"}
    build(tmp_path / "y.safetensors", {})
    assert bpnn.load(tmp_path / "y.safetensors") == {}


def test_a_file_whose_tensors_were_renamed_elsewhere(tmp_path):
    bpnn.save({"a": bpnn.from_numpy(np.ones(1)), "b": bpnn.from_numpy(np.zeros(1))}, tmp_path / "x")
    tensors, metadata = parse(tmp_path / "x")
    build(tmp_path / "y", {"c": tensors["a"], "b": tensors["b"]}, metadata)
    assert list(bpnn.load(tmp_path / "y")) == ["b", "c"]


@pytest.mark.rivals
def test_pytorch_reads_what_is_written(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    a = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    bpnn.save({"a": bpnn.from_numpy(a.T)}, tmp_path / "x.safetensors")
    assert torch.equal(load_file(tmp_path / "x.safetensors")["a"], torch.from_numpy(a.T))
    save_file({"h": torch.tensor([1.0, -2.5, 3e38], dtype=torch.bfloat16)}, tmp_path / "h.safetensors")
    pytest.importorskip("ml_dtypes")
    back = bpnn.load(tmp_path / "h.safetensors")["h"]
    assert back.dtype.name == "bfloat16"
    assert back.numpy().astype(np.float32).tolist() == torch.tensor([1.0, -2.5, 3e38]).bfloat16().float().tolist()


# --- bfloat16 -------------------------------------------------------------------------------------------------------------

def test_bfloat16(tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    # bfloat16 is the upper half of float32
    values = np.array([1.0, -2.5, 0.0078125], np.float32)
    upper = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    bpnn.save({"h": bpnn.from_numpy(values.astype(ml_dtypes.bfloat16))}, tmp_path / "x")
    assert parse(tmp_path / "x")[0] == {"h": ("BF16", [3], upper)}
    assert bpnn.load(tmp_path / "x")["h"].numpy().astype(np.float32).tolist() == values.tolist()


def test_bfloat16_without_its_package(tmp_path):
    build(tmp_path / "x.safetensors", {"h": ("BF16", [1], b"\x80\x3f")})
    code = "import sys; sys.modules['ml_dtypes'] = None; import bpnn; bpnn.load(sys.argv[1])"
    result = subprocess.run([sys.executable, "-c", code, tmp_path / "x.safetensors"], capture_output=True, text=True,
                            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    last = result.stderr.rstrip().splitlines()[-1]
    assert last.startswith("ImportError") and "'h' is bfloat16" in last and "pip install ml_dtypes" in last


def test_types_that_numpy_lacks(tmp_path):
    build(tmp_path / "x.safetensors", {"q": ("F8_E4M3", [2], b"\0\0")})
    with pytest.raises(ValueError, match=r"x\.safetensors: tensor 'q' has type F8_E4M3"):
        bpnn.load(tmp_path / "x.safetensors")


# --- what is refused ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.bin", "m.pkl", "m.PT"])
def test_extensions_of_pickles_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"anything")
    for call in (lambda: bpnn.load(tmp_path / name), lambda: bpnn.save({}, tmp_path / name)):
        with pytest.raises(ValueError, match=r"pickled files.*safetensors\.torch\.save_file"):
            call()
    assert (tmp_path / name).read_bytes() == b"anything"


def test_pickles_under_another_name_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    with pytest.raises(ValueError, match=r"model\.safetensors: is a zip archive.*save_file"):
        bpnn.load(path)
    for protocol in (2, 3, 4, 5):
        path.write_bytes(pickle.dumps({"a": [1.0] * 9}, protocol))
        with pytest.raises(ValueError, match=r"model\.safetensors: is a pickled file.*save_file"):
            bpnn.load(path)


def test_a_header_that_starts_like_a_pickle(tmp_path):
    # 640 = 0x280 bytes of header begin with 80 02, as a pickle does
    header = json.dumps({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).ljust(640).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", 640) + header + b"\x07")
    assert bpnn.load(tmp_path / "x")["a"].tolist() == [7]


def damaged():
    head = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
    whole = struct.pack("<Q", len(head)) + head + bytes(8)

    def with_header(text):
        return struct.pack("<Q", len(text)) + text + bytes(8)

    return {
        "empty": b"",
        "short": whole[:5],
        "header cut": whole[:30],
        "data cut": whole[:-1],
        "data left over": whole + b"\0",
        "huge header": struct.pack("<Q", 2**60) + whole[8:],
        "no JSON": with_header(b"{" + b"x" * 40),
        "wrong size": with_header(head.replace(b"[2]", b"[3]")),
        "overflow": with_header(head.replace(b"[2]", b"[18446744073709551615,2]")),
        "outside": with_header(head.replace(b"[0,8]", b"[8,16]")),
        "backwards": with_header(head.replace(b"[0,8]", b"[8,0]")),
        "other type": with_header(head.replace(b"F32", b"Q99")),
        "text": b"this is no tensor file at all",
        "note": with_header(head[:-1] + b',"__metadata__":{"bpnn":"{"}}'),
        "note list": with_header(head[:-1] + b',"__metadata__":{"bpnn":"[]"}}'),
        "lost tensor": with_header(head[:-1] + rb',"__metadata__":{"bpnn":"{\"version\":1,\"tree\":{\"$tensor\":\"b\"}}"}}'),
        "no tree": with_header(head[:-1] + rb',"__metadata__":{"bpnn":"{\"version\":1}"}}'),
        "bad dict": with_header(head[:-1] + rb',"__metadata__":{"bpnn":"{\"version\":1,\"tree\":{\"$dict\":[1]}}"}}'),
        "unhashable": with_header(head[:-1] + rb',"__metadata__":{"bpnn":"{\"version\":1,\"tree\":{\"$dict\":[[[1],2]]}}"}}'),
        "deep": with_header(head[:-1] + b',"__metadata__":{"bpnn":"' + b"[" * 100_000 + b'"}}'),
    }


@pytest.mark.parametrize("case", damaged())
def test_damaged_files_are_named_in_one_line(tmp_path, case):
    path = tmp_path / "model.safetensors"
    path.write_bytes(damaged()[case])
    with pytest.raises(ValueError) as caught:
        bpnn.load(path)
    text = str(caught.value)
    assert text.startswith(str(path)) and "\n" not in text and len(text) < len(str(path)) + 400


def test_another_version_is_refused(tmp_path):
    build(tmp_path / "x", {}, {"bpnn": '{"version": 2, "tree": 1}'})
    with pytest.raises(ValueError, match=r"version 2 of bpnn's layout, this bpnn reads version 1"):
        bpnn.load(tmp_path / "x")


def test_missing_files_and_wrong_paths(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        bpnn.load(tmp_path / "none")
    with pytest.raises(OSError):
        bpnn.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"folder .*none does not exist"):
        bpnn.save({}, tmp_path / "none" / "x")
    with pytest.raises(IsADirectoryError):
        bpnn.save({}, tmp_path)
    with pytest.raises(TypeError, match=r"path: .* got int"):
        bpnn.load(3)


# --- one step -------------------------------------------------------------------------------------------------------------

@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.safetensors"
    bpnn.save({"a": bpnn.from_numpy(np.arange(3))}, path)
    before = path.read_bytes()
    code = textwrap.dedent("""
        import resource, signal, sys
        import numpy as np, bpnn
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # as if the disk were full after that
        try:
            bpnn.save({"a": bpnn.from_numpy(np.zeros(1_000_000))}, sys.argv[1])
        except OSError as error:
            print(error)
    """)
    result = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True,
                            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    assert "x.safetensors" in result.stdout and "File too large" in result.stdout, result
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other rights")
def test_rights_of_files(tmp_path):
    path = tmp_path / "x"
    mask = os.umask(0o027)
    try:
        bpnn.save({}, path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o600)
        bpnn.save({}, path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(mask)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_at_every_step_of_a_write(tmp_path):
    path = tmp_path / "x.safetensors"
    code = textwrap.dedent("""
        import os, signal, sys
        import numpy as np, bpnn
        path, when, calls = sys.argv[1], int(sys.argv[2]), 0
        def deadly(name):
            real = getattr(os, name)
            def call(*args, **keywords):
                global calls
                for after in (False, True):
                    if after:
                        result = real(*args, **keywords)
                    calls += 1
                    if calls == when:
                        os.kill(os.getpid(), signal.SIGKILL)
                return result
            setattr(os, name, call)
        for name in ("open", "fsync", "replace", "close"):
            deadly(name)
        bpnn.save({"a": bpnn.from_numpy(np.full(50_000, when))}, path)
    """)
    bpnn.save({"a": bpnn.from_numpy(np.full(50_000, -1))}, path)
    seen, when = [], 0
    while True:
        when += 1
        result = subprocess.run([sys.executable, "-c", code, path, str(when)], capture_output=True,
                                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
        values = set(bpnn.load(path)["a"].numpy().tolist())
        assert len(values) == 1  # one write's file, whole
        seen += values
        if result.returncode == 0:
            break
        assert result.returncode == -9, result.stderr.decode()
    assert when > 8 and seen[0] == -1 and seen[-1] == when


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_at_any_time(tmp_path):
    path = tmp_path / "x.safetensors"
    code = textwrap.dedent("""
        import sys, numpy as np, bpnn
        for value in range(10**9):
            bpnn.save({"a": bpnn.from_numpy(np.full(2_000_000, value))}, sys.argv[1])
            print(value, flush=True)
    """)
    chance = random.Random(0)
    for _ in range(6):
        with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True,
                              env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}) as process:
            told = int(process.stdout.readline())
            time.sleep(chance.random() * 0.1)
            process.kill()
            told = max([told, *map(int, process.stdout.read().split())])
        values = bpnn.load(path)["a"].numpy()
        assert values.shape == (2_000_000,) and values.min() == values.max() and values[0] in (told, told + 1)
