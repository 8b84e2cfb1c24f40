/* Portable spellings of what the kernels ask of the compiler. */
#ifndef BP_MACROS_H
#define BP_MACROS_H

#if defined(_MSC_VER) && !defined(__clang__)
#define BP_SIMD
#define BP_SIMD_SUM(...)
#define BP_SIMD_MAX(...)
#define BP_RESTRICT __restrict
#define BP_INLINE static __forceinline
#else
#define BP_PRAGMA(text) _Pragma(#text)
#define BP_SIMD BP_PRAGMA(omp simd)
#define BP_SIMD_SUM(...) BP_PRAGMA(omp simd reduction(+ : __VA_ARGS__))
#define BP_SIMD_MAX(...) BP_PRAGMA(omp simd reduction(max : __VA_ARGS__))
#define BP_RESTRICT __restrict__
#define BP_INLINE static inline __attribute__((always_inline))
#endif

/* A table of kernels. `KERNELS(X, T)` lists them as X(result, name, (arguments)) for the type T. */
#define BP_FIELD(result, name, arguments) result(*name) arguments;
#define BP_DECLARE_TABLE(family, KERNELS)                               \
    typedef struct { KERNELS(BP_FIELD, float) } family##_f32;           \
    typedef struct { KERNELS(BP_FIELD, double) } family##_f64;          \
    typedef struct {                                                    \
        const char *name; /* "baseline", "avx2", "avx512", "neon" */    \
        family##_f32 f32;                                               \
        family##_f64 f64;                                               \
    } family;

#define BP_CAT_(a, b) a##_##b
#define BP_CAT(a, b) BP_CAT_(a, b)
#define BP_STRING_(x) #x
#define BP_STRING(x) BP_STRING_(x)

#endif
