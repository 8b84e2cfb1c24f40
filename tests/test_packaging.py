"""What an installation holds, how fast it imports, and that the ways of building it work."""
import importlib.metadata
import importlib.resources
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest

import bpcore
import bpnn
from bpnn import _versions

ROOT = Path(__file__).parents[1]


def python(code, env=None):
    """What `code` prints in a fresh interpreter."""
    run = fresh(code, env)
    assert run.returncode == 0, run.stderr
    return run.stdout


def fresh(code, env=None, interpreter=sys.executable):
    """The finished process of a fresh interpreter, run outside the checkout."""
    env = {**os.environ, **(env or {})}
    command = [interpreter, "-c", code]
    return subprocess.run(command, cwd=tempfile.gettempdir(), env=env, capture_output=True, text=True, timeout=120)


def test_the_version_is_written_once():
    assert importlib.metadata.version("bpnn") == bpnn.__version__ == _versions.versions()["bpnn"]


def test_requirements_are_small():
    required = [line for line in importlib.metadata.requires("bpnn") if "extra ==" not in line]
    assert sorted(re.match(r"\w+", line)[0] for line in required) == ["numpy", "safetensors", "scipy", "tqdm"]


def test_the_command_is_registered():
    scripts = importlib.metadata.entry_points(group="console_scripts", name="bpnn")
    assert [script.value for script in scripts] == ["bpnn.cli:main"]


def test_show_versions_prints_every_entry(capsys):
    assert bpnn.show_versions() is None
    printed = capsys.readouterr().out
    for name in _versions.versions():
        assert f"{name.replace('_', ' ')}: " in printed
    assert ": unknown" not in printed


def test_versions_say_what_was_built():
    known = _versions.versions()
    assert known["instruction_set"] in ("baseline", "avx2", "avx512", "neon")
    assert known["threads"] >= 1
    assert isinstance(known["openmp"], bool)
    assert isinstance(known["debug"], bool)
    assert "fast-math" not in known["flags"]
    assert "native" not in known["flags"]


def test_declarations_and_types_are_installed():
    core = importlib.resources.files(bpcore)
    for name in ("py.typed", "tensor.pxd", "threads.pxd", "kernels/table.h"):
        assert (core / name).is_file(), name
    assert (importlib.resources.files(bpnn) / "py.typed").is_file()


def test_headers_that_declarations_include_are_installed():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["bpcore"]
    core, found = ROOT / "bpcore", set()
    waiting = {name for path in core.glob("*.pxd") for name in re.findall(r'extern from "(kernels/.*?)"', path.read_text())}
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= {f"kernels/{other}" for other in re.findall(r'#include "(.*?)"', (core / name).read_text())} - found
    assert found and [name for name in found if not any(fnmatch(name, pattern) for pattern in patterns)] == []


def test_every_folder_of_the_api_is_a_package():
    folders = {path.parent for path in (ROOT / "python" / "bpnn").rglob("*.py")}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_no_source_overrides_the_checks_of_the_debug_build():
    checks = "boundscheck|wraparound|cdivision|initializedcheck"
    override = re.compile(rf"^\s*(#\s*cython:|@\s*(cython\.)?|with\s+(cython\.)?)\s*({checks})", re.M)
    assert [path.name for path in (ROOT / "bpcore").rglob("*.p[yx][xd]") if override.search(path.read_text())] == []


def test_import_is_light():
    """At most 0.15 s with NumPy (best of seven processes), and none of the heavy libraries."""
    code = "import sys, time; t = time.perf_counter(); import bpnn; print(time.perf_counter() - t, *sys.modules)"
    seconds, modules = [], set()
    for _ in range(7):
        first, *loaded = python(code).split()
        seconds.append(float(first))
        modules |= set(loaded)
    heavy = {"scipy.linalg", "safetensors", "tqdm", "matplotlib", "sklearn", "PIL", "multiprocessing.pool"}
    assert modules.isdisjoint(heavy)
    assert min(seconds) <= 0.15, seconds


def test_an_unknown_instruction_set_is_refused():
    run = fresh("import bpcore.simd", {"BPNN_CPU": "mmx"})
    assert run.returncode != 0
    assert "BPNN_CPU='mmx'" in run.stderr


def test_the_baseline_can_be_forced():
    assert python("import bpcore.simd; print(bpcore.simd.cpu())", {"BPNN_CPU": "baseline"}).strip() in ("baseline", "neon")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from a source archive of the checkout, as `python -m build` does it but with what is installed here."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "setup.py", "-q", "sdist", "-d", folder], cwd=ROOT, check=True, timeout=120)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder]
    subprocess.run([*command, *folder.glob("*.tar.gz")], check=True, timeout=900)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_a_wheel_from_the_source_archive_is_complete(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for source in (ROOT / "bpcore").glob("*.pyx"):
        assert any(name.startswith(f"bpcore/{source.stem}.") and name.endswith((".so", ".pyd")) for name in names), source
    for package, folder in (("bpcore", ROOT / "bpcore"), ("bpnn", ROOT / "python" / "bpnn")):
        for kind in ("*.py", "*.pyi", "*.pxd", "*.h", "py.typed"):
            for path in folder.rglob(kind):
                assert f"{package}/{path.relative_to(folder).as_posix()}" in names
    assert not [name for name in names if name.endswith((".pyx", ".c", ".pyc")) or name.startswith("tests")]
    assert wheel.stat().st_size <= 5_000_000


@pytest.mark.slow
@pytest.mark.parametrize("options", [["."], ["-e", ".", "-C", "editable_mode=strict"]], ids=["plain", "strict"])
def test_pip_installs_the_checkout(options, tmp_path):
    """Into an environment that borrows the build requirements of this one."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "clean"], check=True, timeout=120)
    clean = tmp_path / "clean" / ("Scripts" if os.name == "nt" else "bin") / "python"
    site = python("import numpy, pathlib; print(pathlib.Path(numpy.__file__).parents[1])").strip()
    env = {**os.environ, "PYTHONPATH": site}
    command = [clean, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--ignore-installed", *options]
    subprocess.run(command, cwd=ROOT, env=env, check=True, timeout=900)
    run = fresh("import bpnn; bpnn.show_versions()", env, clean)
    assert run.returncode == 0, run.stderr
    assert "instruction set: " in run.stdout
