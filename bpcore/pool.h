/* The thread team: a caller and sleeping workers that share the ranges of one job at a time.
 *
 * An OpenMP region ends when every thread of the team has come to its barrier. On a busy machine a worker may not be given a
 * processor for milliseconds, and the caller waits for it although there is nothing left to do. Here whoever is awake claims the
 * next range, and the caller waits only for ranges that a worker has begun. Which thread computes a range does not change its bits.
 *
 * `ticket` is the whole protocol: (team, parts, next part) of the present job in one word, so that a claim is one fetch_add and a
 * worker that comes late can never mistake one job for another. The job's fields are stable as long as a claimed part is not done.
 */
#ifndef BP_POOL_H
#define BP_POOL_H

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) || defined(__i386__)
#define BP_PAUSE() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define BP_PAUSE() __asm__ __volatile__("yield")
#else
#define BP_PAUSE() ((void)0)
#endif

enum {
    BP_MAX_TEAM = 1024,
    BP_SPINS_IDLE = 6000, /* about 0.1 ms: a worker waits this long for the next job before it sleeps */
    BP_SPINS_JOIN = 2000  /* the caller waits this long for the last part before it lets others run */
};

typedef void (*bp_range_fn)(void *ctx, ptrdiff_t begin, ptrdiff_t end);

static struct {
    _Alignas(64) atomic_uint_fast64_t ticket; /* team << 32 | parts << 16 | next part; 0: no job */
    _Alignas(64) atomic_uint done;            /* parts finished */
    _Alignas(64) atomic_flag busy;
    bp_range_fn fn;
    void *ctx;
    ptrdiff_t n;
    atomic_int sleepers;
    int workers; /* threads that exist; changed by the holder of `busy` */
    pthread_mutex_t mutex;
    pthread_cond_t wake;
} bp_pool = {.busy = ATOMIC_FLAG_INIT, .mutex = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static int bp_has_work(uint64_t t, int worker) {
    return (t & 0xffff) < (t >> 16 & 0xffff) && worker + 1 < (int)(t >> 32);
}

/* Claim and compute one part; 0 where none is left. */
static int bp_help(int worker) {
    uint64_t t = atomic_load_explicit(&bp_pool.ticket, memory_order_acquire);
    if (!bp_has_work(t, worker)) return 0;
    t = atomic_fetch_add_explicit(&bp_pool.ticket, 1, memory_order_acq_rel);
    if (!bp_has_work(t, worker)) return 0;
    const ptrdiff_t parts = t >> 16 & 0xffff, i = t & 0xffff, n = bp_pool.n;
    bp_pool.fn(bp_pool.ctx, n / parts * i + n % parts * i / parts, n / parts * (i + 1) + n % parts * (i + 1) / parts);
    atomic_fetch_add_explicit(&bp_pool.done, 1, memory_order_release);
    return 1;
}

static void *bp_worker(void *arg) {
    const int worker = (int)(intptr_t)arg;
    for (;;) {
        int spins = 0;
        while (spins < BP_SPINS_IDLE) {
            if (bp_help(worker))
                spins = 0;
            else
                spins++;
            BP_PAUSE();
        }
        pthread_mutex_lock(&bp_pool.mutex);
        atomic_fetch_add(&bp_pool.sleepers, 1);
        while (!bp_has_work(atomic_load(&bp_pool.ticket), worker)) pthread_cond_wait(&bp_pool.wake, &bp_pool.mutex);
        atomic_fetch_sub(&bp_pool.sleepers, 1);
        pthread_mutex_unlock(&bp_pool.mutex);
    }
    return NULL;
}

/* A forked child has no workers: it starts with an empty pool and makes its own. */
static void bp_after_fork(void) {
    atomic_store(&bp_pool.ticket, 0);
    atomic_store(&bp_pool.sleepers, 0);
    bp_pool.workers = 0;
    pthread_mutex_init(&bp_pool.mutex, NULL);
    pthread_cond_init(&bp_pool.wake, NULL);
    atomic_flag_clear(&bp_pool.busy);
}

static void bp_hire(int workers) {
    static int watching = 0;
    sigset_t all, before;
    if (!watching) watching = !pthread_atfork(NULL, NULL, bp_after_fork);
    sigfillset(&all); /* signals are for the interpreter's threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (bp_pool.workers < workers) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, bp_worker, (void *)(intptr_t)bp_pool.workers)) break; /* go on with fewer */
        pthread_detach(thread);
        bp_pool.workers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* fn over `parts` static ranges of 0..n by at most `team` threads. Returns 0, having done nothing, where the team is at work for
 * another thread or this call comes from inside a range. */
static int bp_share(bp_range_fn fn, void *ctx, ptrdiff_t n, int team, int parts) {
    if (atomic_flag_test_and_set_explicit(&bp_pool.busy, memory_order_acquire)) return 0;
    if (bp_pool.workers < team - 1) bp_hire(team - 1);
    bp_pool.fn = fn;
    bp_pool.ctx = ctx;
    bp_pool.n = n;
    atomic_store_explicit(&bp_pool.done, 0, memory_order_relaxed);
    atomic_store(&bp_pool.ticket, (uint64_t)team << 32 | (uint64_t)parts << 16);
    if (atomic_load(&bp_pool.sleepers)) {
        pthread_mutex_lock(&bp_pool.mutex);
        pthread_cond_broadcast(&bp_pool.wake);
        pthread_mutex_unlock(&bp_pool.mutex);
    }
    while (bp_help(-1)) {
    }
    for (int spins = 0; atomic_load_explicit(&bp_pool.done, memory_order_acquire) < (unsigned)parts; spins++) {
        if (spins < BP_SPINS_JOIN)
            BP_PAUSE();
        else
            sched_yield();
    }
    atomic_flag_clear_explicit(&bp_pool.busy, memory_order_release);
    return 1;
}

#endif
