/* The kernels of recurrent layers: what follows the product of one time step, forward and backward. */
#ifndef BP_RECURRENT_TABLE_H
#define BP_RECURRENT_TABLE_H
#include <stddef.h>
#include <stdint.h>

#include "macros.h"

typedef ptrdiff_t bp_size;

/* Some rows of one time step; all pointers are to float or double, at the first of these rows.
 *
 * gates: W x + U h when it comes in, the activated gates when it goes out; H columns a gate, side by side:
 *     RNN   h
 *     LSTM  i f g o
 *     GRU   r z n m, where m = U_n h + b_hn is what r multiplies
 * Backward: dz is the gradient before the activations, in the same columns. */
typedef struct {
    void *gates;
    bp_size ld_gates;
    const void *bias; /* as many as gates has columns */
    void *h;          /* rows by H: the state, replaced (RNN, GRU); what the cell gives out (LSTM) */
    void *c;          /* rows by H: the cell's state, replaced (LSTM) */
    void *before;     /* rows by ld_before: the state before the step: c (LSTM, written forward), h (GRU, read backward) */
    bp_size ld_before;
    void *out;        /* h once more, for the caller */
    bp_size ld_out;
    bp_size rows, units;
    void *dz;         /* backward: rows by ld_dz */
    bp_size ld_dz;
    void *dh, *dc;    /* backward: rows by H, in: the gradient of this step's state; out: of the one before, but for the part
                       * that goes through U */
    const void *dout; /* backward: the gradient of out */
    bp_size ld_dout;
} bp_cell;

#define BP_RECURRENT_KERNELS(X, T)              \
    X(void, rnn_tanh, (const bp_cell *s))       \
    X(void, rnn_relu, (const bp_cell *s))       \
    X(void, lstm, (const bp_cell *s))           \
    X(void, gru, (const bp_cell *s))            \
    X(void, rnn_tanh_backward, (const bp_cell *s)) \
    X(void, rnn_relu_backward, (const bp_cell *s)) \
    X(void, lstm_backward, (const bp_cell *s))  \
    X(void, gru_backward, (const bp_cell *s))
typedef void (*bp_cell_fn)(const bp_cell *s);
BP_DECLARE_TABLE(bp_recurrent, BP_RECURRENT_KERNELS)
#define BP_FAMILY bp_recurrent
#define BP_KERNELS BP_RECURRENT_KERNELS
#define BP_BODIES "recurrent.h"
#include "dispatch.h"

/* Numbers below the smallest normal one as zeros, on this thread, until the old mode is put back: states that decay would
 * otherwise cost some hundred cycles an operation. Where neither register exists nothing changes. */
#if defined(__SSE2__) || defined(_M_X64)
#include <xmmintrin.h>
typedef unsigned bp_float_mode;
static bp_float_mode bp_get_float_mode(void) { return _mm_getcsr(); }
static void bp_set_float_mode(bp_float_mode mode) { _mm_setcsr(mode); }
#define BP_FLUSH 0x8040u /* FTZ for results, DAZ for operands */
#elif defined(__aarch64__)
typedef uint64_t bp_float_mode;
static bp_float_mode bp_get_float_mode(void) {
    uint64_t mode;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(mode));
    return mode;
}
static void bp_set_float_mode(bp_float_mode mode) { __asm__ __volatile__("msr fpcr, %0" : : "r"(mode)); }
#define BP_FLUSH ((uint64_t)1 << 24) /* FZ */
#elif defined(_M_ARM64)
#include <intrin.h>
typedef uint64_t bp_float_mode;
static bp_float_mode bp_get_float_mode(void) { return (uint64_t)_ReadStatusReg(0x5A20); } /* FPCR */
static void bp_set_float_mode(bp_float_mode mode) { _WriteStatusReg(0x5A20, (__int64)mode); }
#define BP_FLUSH ((uint64_t)1 << 24)
#else
typedef unsigned bp_float_mode;
static bp_float_mode bp_get_float_mode(void) { return 0; }
static void bp_set_float_mode(bp_float_mode mode) { (void)mode; }
#define BP_FLUSH 0u
#endif

static bp_float_mode bp_flush_begin(void) {
    const bp_float_mode mode = bp_get_float_mode();
    bp_set_float_mode(mode | BP_FLUSH);
    return mode;
}
static void bp_flush_end(bp_float_mode mode) { bp_set_float_mode(mode); }
#endif
