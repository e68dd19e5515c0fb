/* Threads of our own.
 *
 * # Design:
 * a) One job at a time, each worker with its own mailbox. A job is handed over by a store that a spinning worker sees in
 *    about 0.2 us; after SPIN_NS without work it sleeps in the kernel, so an idle pool costs nothing (outside
 *    Linux it looks every 50 us).
 * b) libgomp next to another runtime's spinning threads (OpenBLAS, torch) fights for milliseconds and hangs after fork;
 *    this pool spins briefly, yields in its barriers, and is started anew in a forked child.
 * c) Workers keep off the CPU that the caller is on: the kernel's balancer needs milliseconds to find that out, a job
 *    takes microseconds.
 * d) A second Python thread that calls while the pool is busy does its work alone at once; results are the same bits.
 */
#define _GNU_SOURCE
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#endif
#if defined(__SSE2__)
#include <immintrin.h>
#endif

enum { SPIN_NS = 30000, SPINS_BEFORE_YIELD = 4000 };

static inline void relax(void) {
#if defined(__SSE2__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* Sleep while *word == value (may wake early), and wake such a sleeper. */
static void sleep_on(int *word, int value) {
#if defined(__linux__)
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, 0, 0, 0);
#else
    (void)word, (void)value;
    nanosleep(&(struct timespec){0, 50000}, 0);
#endif
}
static void wake(int *word) {
#if defined(__linux__)
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
#else
    (void)word;
#endif
}

#define LOAD(word) __atomic_load_n(&(word), __ATOMIC_SEQ_CST)
#define STORE(word, value) __atomic_store_n(&(word), value, __ATOMIC_SEQ_CST)

/* A word that one side changes and the other waits for: spin, then sleep. */
typedef struct {
    int value __attribute__((aligned(64)));
    int asleep;
} signal_word;

static void raise_to(signal_word *s, int value) {
    STORE(s->value, value);
    if (LOAD(s->asleep)) wake(&s->value);
}

static void wait_while(signal_word *s, int value) {
    int64_t until = 0;
    for (int spins = 0; LOAD(s->value) == value; spins++) {
        relax();
        if (spins % 64) continue;
        if (!until) until = now_ns() + SPIN_NS;
        else if (now_ns() > until) {
            STORE(s->asleep, 1);
            if (LOAD(s->value) == value) sleep_on(&s->value, value);
            STORE(s->asleep, 0);
        }
    }
}

typedef struct {
    signal_word job;  /* number of the newest job for this worker */
    signal_word done; /* number of the last one it finished */
    int id;
    pthread_t thread;
    int avoided_cpu;
} worker;

static struct {
    pthread_mutex_t busy;
    worker workers[FR_MAX_THREADS];
    int started;
    int job;
    void (*body)(void *, int, int);
    void *arg;
    int threads;
} pool = {.busy = PTHREAD_MUTEX_INITIALIZER};

/* ---- Denormals ---- */

static void run_flushing_denormals(void (*body)(void *, int, int), void *arg, int id, int threads) {
#if defined(__SSE2__)
    const unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040); /* flush to zero, denormals are zero */
    body(arg, id, threads);
    _mm_setcsr(before);
#elif defined(__aarch64__)
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" ::"r"(before | (1 << 24)));
    body(arg, id, threads);
    __asm__ volatile("msr fpcr, %0" ::"r"(before));
#else
    body(arg, id, threads);
#endif
}

/* ---- Workers ---- */

static void *work(void *self) {
    worker *w = self;
    for (int job = 0;;) {
        wait_while(&w->job, job);
        job = LOAD(w->job.value);
        run_flushing_denormals(pool.body, pool.arg, w->id, pool.threads);
        raise_to(&w->done, job);
    }
    return 0;
}

static void keep_off_cpu(worker *w, int cpu) {
#if defined(__linux__)
    if (cpu < 0 || w->avoided_cpu == cpu) return;
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed)) return;
    CPU_CLR(cpu, &allowed);
    if (CPU_COUNT(&allowed)) pthread_setaffinity_np(w->thread, sizeof allowed, &allowed);
    w->avoided_cpu = cpu;
#else
    (void)w, (void)cpu;
#endif
}

static void forget_workers_in_child(void) {
    memset(pool.workers, 0, sizeof pool.workers);
    pool.started = 0;
    pthread_mutex_init(&pool.busy, 0);
}

void fr_init(void) {
    pthread_atfork(0, 0, forget_workers_in_child);
    fr_init_workspace();
}

/* Workers take no signals: those are for the program's own threads. */
static int start_workers(int wanted) {
    if (pool.started >= wanted) return wanted;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (; pool.started < wanted; pool.started++) {
        worker *w = &pool.workers[pool.started];
        memset(w, 0, sizeof *w);
        w->id = pool.started + 1;
        w->avoided_cpu = -1;
        if (pthread_create(&w->thread, 0, work, w)) break;
        pthread_detach(w->thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, 0);
    return pool.started < wanted ? pool.started : wanted;
}

void fr_parallel(int threads, void (*body)(void *, int, int), void *arg) {
    if (threads > FR_MAX_THREADS) threads = FR_MAX_THREADS;
    if (threads <= 1 || pthread_mutex_trylock(&pool.busy)) {
        run_flushing_denormals(body, arg, 0, 1);
        return;
    }
    const int helpers = start_workers(threads - 1);
    pool.body = body, pool.arg = arg, pool.threads = helpers + 1;
    pool.job = pool.job == INT32_MAX ? 1 : pool.job + 1;
    int cpu = -1;
#if defined(__linux__)
    cpu = sched_getcpu();
#endif
    for (int i = 0; i < helpers; i++) {
        keep_off_cpu(&pool.workers[i], cpu);
        raise_to(&pool.workers[i].job, pool.job);
    }
    run_flushing_denormals(body, arg, 0, helpers + 1);
    for (int i = 0; i < helpers; i++)
        for (int last; (last = LOAD(pool.workers[i].done.value)) != pool.job;) wait_while(&pool.workers[i].done, last);
    pthread_mutex_unlock(&pool.busy);
}

void fr_barrier_wait(fr_barrier *b, int threads) {
    if (threads <= 1) return;
    const int round = __atomic_load_n(&b->round, __ATOMIC_RELAXED);
    if (__atomic_add_fetch(&b->arrived, 1, __ATOMIC_ACQ_REL) == threads) {
        __atomic_store_n(&b->arrived, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&b->round, round + 1, __ATOMIC_RELEASE);
        return;
    }
    for (int spins = 0; __atomic_load_n(&b->round, __ATOMIC_ACQUIRE) == round; spins++) {
        relax();
        if (spins > SPINS_BEFORE_YIELD) sched_yield();
    }
}

static int num_threads = 1;
void fr_set_num_threads(int n) { __atomic_store_n(&num_threads, n < 1 ? 1 : n > FR_MAX_THREADS ? FR_MAX_THREADS : n, __ATOMIC_RELAXED); }
int fr_get_num_threads(void) { return __atomic_load_n(&num_threads, __ATOMIC_RELAXED); }

int fr_cpus(void) {
#if defined(__linux__)
    cpu_set_t allowed;
    if (!sched_getaffinity(0, sizeof allowed, &allowed) && CPU_COUNT(&allowed) > 0) return CPU_COUNT(&allowed);
#endif
    const long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}
