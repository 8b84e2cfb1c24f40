"""Builds the native core: one extension for each `bpcore/*.pyx`.

    BPNN_DEBUG=1    C assertions, checks of initialization, debug symbols, little optimization
    BPNN_JOBS=N     compile N files at once (otherwise as many as there are processors)
    BPNN_ONLY="…"   build only these .pyx files

Cython runs first, one file after the other (it is not safe in threads); then the C compiler runs in parallel.
`bpcore/_build.py` is written beside the extensions and says what they were built with.
"""
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import warnings
from pathlib import Path

import Cython
import numpy
from Cython.Build import cythonize
from Cython.Build.Dependencies import create_dependency_tree
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError
from setuptools.modified import newer_group

CORE = Path("bpcore")
DEBUG = os.environ.get("BPNN_DEBUG", "0") not in ("", "0")
JOBS = int(os.environ.get("BPNN_JOBS") or os.cpu_count() or 1)
ONLY = os.environ.get("BPNN_ONLY", "").split()

# Lists, tuples and arrays are indexed with all checks, always: hot loops run over pointers, which pay nothing for it.
# The checked build adds C asserts and checks of initialization. Division is always that of C: the mean of nothing is nan.
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": True,
    "wraparound": True,
    "cdivision": True,
    "initializedcheck": DEBUG,
    "embedsignature": True,
    "auto_pickle": False,  # nothing is pickled, and the methods that could would take a twentieth of the wheel
}

# Not -ffast-math: it breaks range reduction and, when linked, flushes denormals in the whole process.
# Not -march=native: the instruction set is chosen at import (see bpcore/simd.pyx).
UNIX_FLAGS = ["-fno-math-errno", "-fno-trapping-math", "-Wno-unknown-pragmas"]
UNIX_FLAGS += ["-O1", "-g", "-UNDEBUG"] if DEBUG else ["-O3", "-g0"]
# Modules without kernels of their own are mostly Cython's calls of Python: two fifths smaller so, which keeps the wheel below 5 MB;
# a step of a tiny network takes 14 µs instead of 12.
SMALL = [] if DEBUG else ["-Os", "-ftree-vectorize"]
UNIX_FLAGS += ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables"]  # nothing here throws through C
MSVC_FLAGS = ["/std:c11", "/fp:precise", *(["/Od", "/Z7", "/UNDEBUG"] if DEBUG else ["/O2"])]

THREADED = "bpcore.threads"  # the one door to OpenMP; the other modules only use `#pragma omp simd`

PROBE = """
#include <omp.h>
int main(void) {
    int sum = 0;
    #pragma omp parallel for num_threads(2) reduction(+ : sum)
    for (int i = 0; i < 100; i++) sum += i;
    return sum == 4950 && omp_get_max_threads() > 0 ? 0 : 1;
}
"""


def runs(compiler, source, compile_args=(), link_args=()):
    """Whether this C program compiles, links, and exits with 0."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "probe.c")
        path.write_text(source)
        try:
            objects = compiler.compile([str(path)], output_dir=folder, extra_postargs=list(compile_args))
            compiler.link_executable(objects, str(path.with_suffix("")), extra_postargs=list(link_args))
            program = path.with_suffix(".exe" if os.name == "nt" else "")
            return subprocess.run([program], timeout=60, capture_output=True).returncode == 0
        except (CompileError, LinkError, OSError, subprocess.SubprocessError):
            return False


def openmp_flags(compiler):
    """Compile and link arguments for OpenMP, or None where no way of asking for it gives a program that runs."""
    if compiler.compiler_type == "msvc":
        candidates = [(["/openmp"], [])]
    else:
        candidates = [(["-fopenmp"], ["-fopenmp"])]  # GCC, and Clang where its own libomp is installed
        # Apple's Clang: libomp from Homebrew (arm64, x86_64), conda, or a folder that the user names.
        for prefix in (os.environ.get("LIBOMP_PREFIX", ""), "/opt/homebrew/opt/libomp", "/usr/local/opt/libomp", sys.prefix):
            if prefix and Path(prefix, "include", "omp.h").exists():
                compile_args = ["-Xpreprocessor", "-fopenmp", f"-I{prefix}/include"]
                candidates.append((compile_args, [f"-L{prefix}/lib", f"-Wl,-rpath,{prefix}/lib", "-lomp"]))
    return next((flags for flags in candidates if runs(compiler, PROBE, *flags)), None)


def compiler_version(compiler):
    """First line of what the compiler says of itself."""
    command = getattr(compiler, "compiler_so", None)
    if not command:
        return platform.python_compiler()
    said = subprocess.run([command[0], "--version"], capture_output=True, text=True)
    return said.stdout.partition("\n")[0] or command[0]


def with_includes(files):
    """These files of the core and every header of ours they include, directly or not."""
    found, waiting = set(), [Path(file) for file in files]
    while waiting:
        file = waiting.pop()
        if file not in found and file.exists():
            found.add(file)
            for name in re.findall(r'(?:#\s*include|extern from|BP_BODIES)\s+"(.+?)"', file.read_text(encoding="utf-8")):
                waiting += [file.parent / name, CORE / name]
    return sorted(map(str, found))


class BuildCore(build_ext):
    """Finds OpenMP, runs Cython, compiles what changed, and records how."""

    def build_extensions(self):
        openmp = openmp_flags(self.compiler)
        if openmp is None:
            hint = "GCC brings it; Clang needs libomp (on macOS: brew install libomp)"
            warnings.warn(f"no working OpenMP found: bpnn is built for one thread. {hint}", stacklevel=1)
        flags = list(MSVC_FLAGS)
        if self.compiler.compiler_type != "msvc":
            flags = UNIX_FLAGS + [f for f in ["-fopenmp-simd"] if runs(self.compiler, "int main(void) { return 0; }", [f])]
        self.record = {
            "compiler": compiler_version(self.compiler),
            "flags": " ".join(flags),
            "openmp": openmp is not None,
            "openmp_flags": " ".join(openmp[0]) if openmp else "",
            "cython": Cython.__version__,
            "numpy": numpy.__version__,
            "debug": DEBUG,
        }
        self.run_cython(self.write_settings())
        for ext in self.extensions:
            ext.extra_compile_args = list(flags)
            if self.compiler.compiler_type != "msvc" and not any(file.endswith("dispatch.h") for file in ext.depends):
                ext.extra_compile_args += SMALL
            if ext.name == THREADED and openmp:
                ext.extra_compile_args += openmp[0]
                ext.extra_link_args = list(openmp[1])
        self.force = True  # what is up to date is decided in build_extension: a copied file is newer than it looks
        super().build_extensions()
        self.write_record()

    def write_settings(self):
        """A file that is newer than everything built with other settings than today's."""
        path = Path("build", "settings.txt")
        text = "\n".join(f"{key}: {value}" for key, value in {**self.record, **DIRECTIVES}.items() if key != "numpy")
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return path

    def run_cython(self, settings):
        """Replace each .pyx by its C file, made anew where the .pyx, a .pxd of ours or a setting is newer."""
        tree = create_dependency_tree()
        stale = []
        for ext in self.extensions:
            files = [Path(file) for file in tree.all_dependencies(ext.sources[0])]
            ours = with_includes(file for file in files if not file.is_absolute())  # the others are NumPy's and Cython's
            made = Path(ext.sources[0]).with_suffix(".c")
            if newer_group([str(settings), *(file for file in ours if not file.endswith(".h"))], str(made)):
                stale.append(ext)
            ext.depends = [str(settings), *ours]
        cythonize(stale, force=True, compiler_directives=DIRECTIVES)
        for ext in self.extensions:
            ext.sources = [str(Path(ext.sources[0]).with_suffix(".c"))]
        # The longest first, so that no core waits for the last one.
        self.extensions.sort(key=lambda ext: -sum(Path(file).stat().st_size for file in ext.sources + ext.depends))

    def build_extension(self, ext):
        """Compile, or take the last result: pip builds in a new folder each time and would compile everything again."""
        target = Path(self.get_ext_fullpath(ext.name))
        kept = Path("build", f"kept-{sysconfig.get_platform()}", target.name)
        if newer_group([*ext.sources, *ext.depends], str(kept)):
            super().build_extension(ext)
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(target, kept)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(kept, target)

    def record_path(self):
        return Path(self.build_lib, "bpcore", "_build.py")

    def write_record(self):
        lines = [f"    {key!r}: {value!r},\n" for key, value in self.record.items()]
        path = self.record_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('"""How the native core was built (written by setup.py)."""\nINFO = {\n' + "".join(lines) + "}\n")

    def copy_extensions_to_source(self):
        super().copy_extensions_to_source()
        shutil.copyfile(self.record_path(), CORE / "_build.py")

    def get_outputs(self):
        return [*super().get_outputs(), str(self.record_path())]


setup(
    cmdclass={"build_ext": BuildCore},
    options={"build_ext": {"parallel": JOBS}},
    ext_modules=[
        Extension(
            ".".join(path.with_suffix("").parts),
            [path.as_posix()],
            include_dirs=[numpy.get_include(), str(CORE)],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
        )
        for path in sorted(CORE.rglob("*.pyx"))
        if not ONLY or path.as_posix() in ONLY
    ],
)
