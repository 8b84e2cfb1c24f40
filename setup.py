"""Builds the native core: one extension for each `bpcore/*.pyx`."""
import os
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

CORE = Path("bpcore")
FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-fopenmp", "-Wno-unknown-pragmas"]
only = os.environ.get("BPNN_ONLY", "").split()
sources = [path for path in sorted(CORE.glob("*.pyx")) if not only or str(path) in only]
headers = [str(path) for path in sorted(CORE.glob("kernels/*.h"))]

setup(
    ext_modules=cythonize(
        [
            Extension(
                f"bpcore.{path.stem}",
                [str(path)],
                include_dirs=[numpy.get_include(), str(CORE)],
                define_macros=[("NPY_NO_DEPRECATED_API", "NPY_2_0_API_VERSION")],
                depends=headers if path.stem in ("simd", "gemm") else [],
                extra_compile_args=FLAGS,
                extra_link_args=["-fopenmp"],
            )
            for path in sources
        ],
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "embedsignature": True,
        },
    )
)
