"""What is installed and how it was built: `bpnn.show_versions()` prints it for a bug report."""


def versions():
    """A dict of everything that `show_versions` prints, in its order.

    The keys of the native core (`blas`, `instruction_set`, `threads`, `openmp`, `compiler`, `flags` …) say how this
    build computes: BLAS is the library found at run time, `openmp` is False in a serial build.
    """
    import platform
    import sys
    from importlib import metadata

    import numpy

    from bpcore import blas, simd, threads
    from bpnn import __version__

    try:
        from bpcore._build import INFO as build
    except ImportError:  # the extensions were copied here without the record that setup.py writes
        build = {}
    return {
        "bpnn": __version__,
        "python": sys.version.replace("\n", " "),
        "platform": platform.platform(),
        "numpy": numpy.__version__,
        "scipy": metadata.version("scipy"),
        "blas": blas.info(),
        "instruction_set": simd.cpu(),
        "threads": threads.get_num_threads(),
        "openmp": build.get("openmp"),
        "compiler": build.get("compiler"),
        "flags": " ".join(filter(None, (build.get("flags"), build.get("openmp_flags")))),
        "cython": build.get("cython"),
        "numpy_at_build": build.get("numpy"),
        "debug": build.get("debug"),
    }


def show_versions():
    """Print the versions of bpnn and what it stands on, the processor's instruction set, threads and build flags."""
    for name, value in versions().items():
        if isinstance(value, dict):
            value = "; ".join(f"{key} {entry}" for key, entry in value.items() if entry is not None)
        elif isinstance(value, bool):
            value = "yes" if value else "no"
        elif value is None:
            value = "unknown"
        print(f"{name.replace('_', ' '):>15}: {value}")
    if versions()["openmp"] is False:
        print("This build has no OpenMP: everything runs on one thread.")
