"""SciPy's BLAS, for the products that it computes faster than the own kernels.

The pointers come from the extension module `scipy.linalg.cython_blas`, loaded by its file: `scipy.linalg` itself would cost
0.2 s. The library behind it usually has threads of its own, which fight with ours; so it computes on one thread while `gemm`
calls it, and its setting is put back afterwards. NumPy's BLAS is another library in the wheels, and is not touched.
"""
import ctypes
import glob
import importlib
import importlib.machinery
import importlib.util
import os
import sys

from cpython.pycapsule cimport PyCapsule_GetName, PyCapsule_GetPointer
from libc.limits cimport INT_MAX

ctypedef void (*sgemm_fn)(char *transa, char *transb, int *m, int *n, int *k, float *alpha, const float *a, int *lda,
                          const float *b, int *ldb, float *beta, float *c, int *ldc) noexcept nogil
ctypedef void (*dgemm_fn)(char *transa, char *transb, int *m, int *n, int *k, double *alpha, const double *a, int *lda,
                          const double *b, int *ldb, double *beta, double *c, int *ldc) noexcept nogil
ctypedef int (*get_fn)() noexcept nogil
ctypedef void (*set_fn)(int) noexcept nogil
ctypedef int (*exchange_fn)(int) noexcept nogil


cdef extern from *:
    """
    #ifdef _MSC_VER
    #include <intrin.h>
    static volatile long bp_blas_lock = 0;
    static void bp_lock(void) { while (_InterlockedExchange(&bp_blas_lock, 1)) ; }
    static void bp_unlock(void) { _InterlockedExchange(&bp_blas_lock, 0); }
    #else
    static volatile int bp_blas_lock = 0;
    static void bp_lock(void) { while (__atomic_exchange_n(&bp_blas_lock, 1, __ATOMIC_ACQUIRE)) ; }
    static void bp_unlock(void) { __atomic_store_n(&bp_blas_lock, 0, __ATOMIC_RELEASE); }
    #endif
    """
    void bp_lock() noexcept nogil          # held for the length of two calls that read and write one number
    void bp_unlock() noexcept nogil


cdef sgemm_fn sgemm = NULL                 # until load() has found them
cdef dgemm_fn dgemm = NULL
cdef get_fn get_threads = NULL             # a setting of the whole process
cdef set_fn set_threads = NULL
cdef exchange_fn exchange_threads = NULL   # a setting of the calling thread (MKL)
cdef int holders = 0, before_hold = 1
cdef object loaded = None                  # None: not tried; else what info() returns


cdef void hold() noexcept nogil:
    global holders, before_hold
    if set_threads is NULL:
        return
    bp_lock()
    if holders == 0:
        before_hold = get_threads()
        if before_hold != 1:
            set_threads(1)
    holders += 1
    bp_unlock()


cdef void release() noexcept nogil:
    global holders
    if set_threads is NULL:
        return
    bp_lock()
    holders -= 1
    if holders == 0 and before_hold != 1 and get_threads() == 1:   # else somebody has chosen another number meanwhile
        set_threads(before_hold)
    bp_unlock()


cdef int enter() noexcept nogil:
    """hold() for a BLAS whose setting belongs to the calling thread."""
    return exchange_threads(1) if exchange_threads is not NULL else 0


cdef void leave(int before) noexcept nogil:
    if exchange_threads is not NULL:
        exchange_threads(before)


def _after_fork():
    """In the child: other threads' holds are gone, and so is whoever held the lock."""
    global holders
    if holders:
        holders = 0
        set_threads(before_hold)
    bp_unlock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _module():
    """The extension module `scipy.linalg.cython_blas` and its path, without importing `scipy.linalg`."""
    name = "scipy.linalg.cython_blas"
    if name in sys.modules:
        return sys.modules[name], sys.modules[name].__file__
    if os.name == "nt":
        importlib.import_module("scipy")            # makes the folder of its DLLs known
    found = importlib.util.find_spec("scipy")
    if found is None or not found.submodule_search_locations:
        raise ImportError("scipy is not installed")
    folder = os.path.join(list(found.submodule_search_locations)[0], "linalg")
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = os.path.join(folder, "cython_blas" + suffix)
        if os.path.exists(path):
            spec = importlib.util.spec_from_file_location(name, path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module, path
    raise ImportError(f"no cython_blas in {folder}")


def _libraries(path):
    """The libraries to ask for the functions that set the number of threads; on ELF and Mach-O the first answers for all
    that it links to."""
    if os.name != "nt":
        return [ctypes.CDLL(path)]
    beside = os.path.join(os.path.dirname(path), "..", "..", "scipy.libs", "*openblas*.dll")
    return [ctypes.CDLL(dll) for dll in glob.glob(beside)]


def _address(libraries, name):
    for library in libraries:
        try:
            return ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        except AttributeError:
            pass
    return 0


cdef void *_pointer(object module, str name) except NULL:
    """A Fortran-style function with 32-bit integers out of the module's table."""
    capsule = module.__pyx_capi__[name]
    cdef const char *signature = PyCapsule_GetName(capsule)
    if signature.count(b"int *") != 6:
        raise ImportError(f"{name} of cython_blas has another signature: {signature.decode()}")
    return PyCapsule_GetPointer(capsule, signature)


def load():
    """Find the BLAS. True where it is there; the reason why not is in `info()`."""
    global sgemm, dgemm, get_threads, set_threads, exchange_threads, loaded
    cdef size_t getter, setter
    if loaded is not None:
        return sgemm is not NULL
    loaded = {"library": None, "threads": None, "error": None}
    try:
        module, path = _module()
        s, d = <size_t> _pointer(module, "sgemm"), <size_t> _pointer(module, "dgemm")
        libraries = _libraries(path)
    except (ImportError, OSError, KeyError, AttributeError) as error:
        loaded["error"] = str(error)
        return False
    for name in ("scipy_openblas_{}_num_threads", "scipy_openblas_{}_num_threads64_", "openblas_{}_num_threads",
                 "openblas_{}_num_threads64_", "bli_thread_{}_num_threads"):
        getter, setter = _address(libraries, name.format("get")), _address(libraries, name.format("set"))
        if getter and setter:
            get_threads, set_threads = <get_fn> getter, <set_fn> setter
            loaded["threads"] = name.format("set")
            break
    else:
        setter = _address(libraries, "MKL_Set_Num_Threads_Local")
        if setter:
            exchange_threads = <exchange_fn> setter
            loaded["threads"] = "MKL_Set_Num_Threads_Local"
    loaded["library"] = path
    dgemm = <dgemm_fn> <size_t> d
    sgemm = <sgemm_fn> <size_t> s
    return True


def info():
    """What is known of the BLAS: `library` (the module it is reached through), `threads` (the function that holds it at one
    thread), `config` (what it says of itself) and `error`."""
    load()
    answer = dict(loaded, config=None)
    if answer["library"]:
        for library in _libraries(answer["library"]):
            for name in ("scipy_openblas_get_config", "scipy_openblas_get_config64_", "openblas_get_config"):
                function = getattr(library, name, None)
                if function is not None:
                    function.restype = ctypes.c_char_p
                    answer["config"] = function().decode()
                    return answer
    return answer


def get_num_threads():
    """The BLAS's own setting, or None where it is not known."""
    return get_threads() if get_threads is not NULL else None


# --- a product ---------------------------------------------------------------------------------------------------------------

cdef inline Py_ssize_t leading(Py_ssize_t stride, Py_ssize_t count, Py_ssize_t width) noexcept nogil:
    """The BLAS's leading dimension; where there is but one row, its stride means nothing. 0 where the BLAS has none."""
    if count <= 1:
        stride = width
    return 0 if stride < width or stride > INT_MAX else max(<Py_ssize_t> 1, stride)


cdef inline Py_ssize_t operand(Py_ssize_t rs, Py_ssize_t cs, Py_ssize_t rows, Py_ssize_t cols, char *trans) noexcept nogil:
    """How the BLAS reads a row-major operand of these strides: its leading dimension, and whether to transpose it."""
    cdef Py_ssize_t ld = 0
    if cs == 1 or cols <= 1:
        trans[0] = c"N"
        ld = leading(rs, rows, cols)
    if ld == 0 and (rs == 1 or rows <= 1):
        trans[0] = c"T"
        ld = leading(cs, cols, rows)
    return ld


cdef bint fits(bp_gemm *g) noexcept nogil:
    """Whether the BLAS can take the product: its integers have 32 bits, and one stride of each matrix must be 1."""
    cdef char trans
    if g.packed is not NULL or max(g.m, g.n, g.k) > INT_MAX or g.k == 0:
        return False
    if operand(g.rsa, g.csa, g.m, g.k, &trans) == 0 or operand(g.rsb, g.csb, g.k, g.n, &trans) == 0:
        return False
    if operand(g.rsc, g.csc, g.m, g.n, &trans) == 0:
        return False
    if trans == c"T":
        turn(g)
    return True


cdef void panel(const bp_gemm *g, Py_ssize_t i0, Py_ssize_t i1, Py_ssize_t j0, Py_ssize_t j1,
                const floating *kind) noexcept nogil:
    """A panel of C by the BLAS. It thinks in columns: row-major C = A B is to it C' = B' A'."""
    if i0 >= i1 or j0 >= j1:
        return
    cdef char ta, tb
    cdef int lda = <int> operand(g.rsa, g.csa, g.m, g.k, &ta), ldb = <int> operand(g.rsb, g.csb, g.k, g.n, &tb)
    cdef int ldc = <int> leading(g.rsc, g.m, g.n), m = <int> (i1 - i0), n = <int> (j1 - j0), k = <int> g.k
    cdef floating alpha = <floating> g.alpha, beta = <floating> g.beta
    cdef floating *c = <floating *> g.c + i0 * g.rsc + j0 * g.csc
    cdef floating *row
    cdef const floating *a = <const floating *> g.a + i0 * g.rsa
    cdef const floating *b = <const floating *> g.b + j0 * g.csb
    cdef const floating *bias = <const floating *> g.bias
    cdef Py_ssize_t i, j
    cdef int before = enter()
    if floating is float:
        sgemm(&tb, &ta, &n, &m, &k, &alpha, b, &ldb, a, &lda, &beta, c, &ldc)
    else:
        dgemm(&tb, &ta, &n, &m, &k, &alpha, b, &ldb, a, &lda, &beta, c, &ldc)
    leave(before)
    if bias is not NULL:
        for i in range(i1 - i0):
            row = c + i * g.rsc
            for j in range(j1 - j0):
                row[j * g.csc] += bias[i0 + i] if g.transposed else bias[j0 + j]
    if g.epilogue is not NULL:
        if g.transposed:
            g.epilogue(g.ctx, j0, j1, i0, i1)
        else:
            g.epilogue(g.ctx, i0, i1, j0, j1)
