/* What kernels with registers of their own stand on: vectors of BP_WIDTH bytes, and how many rows a tile holds in them.
 * The names without BP_ are short for this type's; who includes this ends with vectors_end.h. */
#if (defined(__GNUC__) || defined(__clang__)) && !defined(BP_NO_VECTORS)
#define BP_VECTORS 1
#if defined(__clang__) || __GNUC__ >= 12
#define BP_SHUFFLE4(x, y, a, b, c, d) __builtin_shufflevector(x, y, a, b, c, d)
#define BP_SHUFFLE2(x, y, a, b) __builtin_shufflevector(x, y, a, b)
#else
#define BP_SHUFFLE4(x, y, a, b, c, d) __builtin_shuffle(x, y, (int __attribute__((vector_size(16)))){a, b, c, d})
#define BP_SHUFFLE2(x, y, a, b) __builtin_shuffle(x, y, (long long __attribute__((vector_size(16)))){a, b})
#endif
#endif

#define BP_VL ((bp_size)(BP_WIDTH / sizeof(BP_REAL)))
#define BP_NR (2 * BP_VL)
/* The width of the panel that holds the last n columns: one vector where that is enough. */
#define BP_PANEL(n) ((n) <= BP_VL ? BP_VL : BP_NR)
#if BP_WIDTH == 64 || defined(__aarch64__)
#define BP_MR 12 /* 32 vector registers */
#else
#define BP_MR 6 /* 16 vector registers */
#endif

#define BP_Q ((bp_size)(16 / sizeof(BP_REAL)))
#define vec BP_NAME(vec)
#define vecu BP_NAME(vecu)

#ifdef BP_VECTORS
typedef BP_REAL vec __attribute__((vector_size(BP_WIDTH)));
typedef BP_REAL vecu __attribute__((vector_size(BP_WIDTH), aligned(sizeof(BP_REAL)), may_alias));

#ifdef __clang__
#define BP_UNROLL BP_PRAGMA(unroll)
#else
#define BP_UNROLL BP_PRAGMA(GCC unroll 16)
#endif

/* Keep v where it is: GCC would otherwise read it from memory again at each use. */
#if defined(__x86_64__)
#define BP_IN_REGISTER(v) __asm__("" : "+v"(v))
#elif defined(__aarch64__)
#define BP_IN_REGISTER(v) __asm__("" : "+w"(v))
#else
#define BP_IN_REGISTER(v) (void)(v)
#endif

#define quad BP_NAME(quad)
#define quadu BP_NAME(quadu)
typedef BP_REAL quad __attribute__((vector_size(16)));
typedef BP_REAL quadu __attribute__((vector_size(16), aligned(sizeof(BP_REAL)), may_alias));

/* out[j][i] = in[i][j] for one square block of 16 bytes a side. */
BP_INLINE void BP_NAME(transpose_block)(BP_REAL *out, bp_size ldo, const BP_REAL *in, bp_size ldi) {
#if BP_F32
    const quad a = *(const quadu *)in, b = *(const quadu *)(in + ldi);
    const quad c = *(const quadu *)(in + 2 * ldi), d = *(const quadu *)(in + 3 * ldi);
    const quad ab0 = BP_SHUFFLE4(a, b, 0, 4, 1, 5), ab1 = BP_SHUFFLE4(a, b, 2, 6, 3, 7);
    const quad cd0 = BP_SHUFFLE4(c, d, 0, 4, 1, 5), cd1 = BP_SHUFFLE4(c, d, 2, 6, 3, 7);
    *(quadu *)out = BP_SHUFFLE4(ab0, cd0, 0, 1, 4, 5);
    *(quadu *)(out + ldo) = BP_SHUFFLE4(ab0, cd0, 2, 3, 6, 7);
    *(quadu *)(out + 2 * ldo) = BP_SHUFFLE4(ab1, cd1, 0, 1, 4, 5);
    *(quadu *)(out + 3 * ldo) = BP_SHUFFLE4(ab1, cd1, 2, 3, 6, 7);
#else
    const quad a = *(const quadu *)in, b = *(const quadu *)(in + ldi);
    *(quadu *)out = BP_SHUFFLE2(a, b, 0, 2);
    *(quadu *)(out + ldo) = BP_SHUFFLE2(a, b, 1, 3);
#endif
}
#endif
