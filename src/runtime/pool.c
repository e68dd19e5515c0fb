/* Threads of our own.
 *
 * # Design:
 * a) One job at a time, each worker with its own mailbox. A job is handed over by a store that a spinning worker sees in
 *    about 0.2 us; after YIELD_NS it lets others have the core between two looks, and after SPIN_NS without work it sleeps in
 *    the kernel, so an idle pool costs nothing (outside Linux it looks every 50 us). To wake it costs the caller 20 us and
 *    the job 60 us of its help, on a virtual machine; from one call of a training step to the next less than
 *    SPIN_NS goes by.
 * b) libgomp next to another runtime's spinning threads (OpenBLAS, torch) fights for milliseconds and hangs after fork;
 *    this pool spins briefly, and is started anew in a forked child. Where a job is done before a worker has
 *    begun it, the caller takes it back instead of waiting for that worker.
 * c) Workers keep off the CPU that the caller is on: the kernel's balancer needs milliseconds to find that out, a job
 *    takes microseconds.
 * d) In a process whose OpenMP threads spin beside ours (torch's), jobs run on those: fr_borrow_threads. Two pools on the
 *    same cores cost 10 to 30% of a training step. Not in a forked child, where a borrowed team would hang.
 * e) A second Python thread that calls while the pool is busy does its work alone at once; results are the same bits.
 */
#define _GNU_SOURCE
#include "pool.h"
#include "spin.h"

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

enum { YIELD_NS = 20000, SPIN_NS = 200000 };

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

/* A worker's mailbox: the caller offers, the worker takes, and makes it idle again when it is done. */
enum { IDLE, OFFERED, TAKEN };
typedef struct {
    int mail __attribute__((aligned(64)));
    int asleep;
    int id;
    pthread_t thread;
    int avoided_cpu;
} worker;

static int swap(int *word, int from, int to) {
    return __atomic_compare_exchange_n(word, &from, to, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static void offer(worker *w) {
    STORE(w->mail, OFFERED);
    if (LOAD(w->asleep)) wake(&w->mail);
}

static void wait_for_offer(worker *w) {
    int64_t begin = 0;
    int yields = 0;
    for (int spins = 0; LOAD(w->mail) != OFFERED; spins++) {
        relax();
        if (yields)
            sched_yield();
        else if (spins % 64)
            continue;
        const int64_t now = now_ns();
        if (!begin) begin = now;
        yields = now - begin > YIELD_NS;
        if (now - begin > SPIN_NS) {
            STORE(w->asleep, 1);
            if (LOAD(w->mail) != OFFERED) sleep_on(&w->mail, IDLE);
            STORE(w->asleep, 0);
            begin = yields = 0;
        }
    }
}

static struct {
    pthread_mutex_t busy;
    worker workers[FR_MAX_THREADS];
    int started;
    void (*body)(void *, int);
    void *arg;
} pool = {.busy = PTHREAD_MUTEX_INITIALIZER};

/* ---- Denormals ---- */

enum denormals { KEPT, FLUSHED }; /* to zero, as results and as operands */

static void run_with_denormals(enum denormals how, void (*body)(void *, int), void *arg, int id) {
#if defined(__SSE2__)
    const unsigned before = _mm_getcsr(), flush = 0x8040;
    _mm_setcsr(how == FLUSHED ? before | flush : before & ~flush);
    body(arg, id);
    _mm_setcsr(before);
#elif defined(__aarch64__)
    uint64_t before;
    const uint64_t flush = 1 << 24;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" ::"r"(how == FLUSHED ? before | flush : before & ~flush));
    body(arg, id);
    __asm__ volatile("msr fpcr, %0" ::"r"(before));
#else
    (void)how;
    body(arg, id);
#endif
}

/* ---- Signals ---- */

static struct {
    int (*look)(void);
    unsigned long thread;
} signals;

void fr_watch_signals(int (*look)(void), unsigned long thread) { signals.look = look, signals.thread = thread; }

static void look_for_signals(void *found, int id) {
    (void)id;
    *(int *)found = signals.look();
}

/* The handler is the user's code, and denormals are no zeros to it. */
int fr_signalled(void) {
    int found = 0;
    if (signals.look && (unsigned long)pthread_self() == signals.thread)
        run_with_denormals(KEPT, look_for_signals, &found, 0);
    return found;
}

/* ---- Borrowed threads ---- */

static fr_openmp openmp; /* nothing borrowed: zeros */

void fr_borrow_threads(fr_openmp theirs) {
    pthread_mutex_lock(&pool.busy);
    openmp = theirs;
    pthread_mutex_unlock(&pool.busy);
}

int fr_borrows(void) { return openmp.parallel != 0; }

typedef struct {
    int threads;
    void (*body)(void *, int);
    void *arg;
} job;

static void run_in_team(void *of) {
    const job *j = of;
    const int id = openmp.thread_num();
    if (id < j->threads) run_with_denormals(FLUSHED, j->body, j->arg, id);
}

/* OpenMP ends the threads that a smaller team leaves over, so the team is as large as its own regions have it. */
static void run_on_borrowed(int threads, void (*body)(void *, int), void *arg) {
    const int usual = openmp.max_threads();
    openmp.parallel(run_in_team, &(job){threads, body, arg}, usual > threads ? usual : threads, 0);
}

/* ---- Workers ---- */

static void *work(void *self) {
    worker *w = self;
    for (;;) {
        wait_for_offer(w);
        if (!swap(&w->mail, OFFERED, TAKEN)) continue;
        run_with_denormals(FLUSHED, pool.body, pool.arg, w->id);
        STORE(w->mail, IDLE);
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
    openmp = (fr_openmp){0};
    pthread_mutex_init(&pool.busy, 0);
    signals.thread = (unsigned long)pthread_self(); /* for Python, too, the thread that forked is the main one now */
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

void fr_parallel(int threads, void (*body)(void *, int), void *arg) {
    if (threads > FR_MAX_THREADS) threads = FR_MAX_THREADS;
    if (threads <= 1 || pthread_mutex_trylock(&pool.busy)) {
        run_with_denormals(FLUSHED, body, arg, 0);
        return;
    }
    if (fr_borrows()) {
        run_on_borrowed(threads, body, arg);
        pthread_mutex_unlock(&pool.busy);
        return;
    }
    const int helpers = start_workers(threads - 1);
    pool.body = body, pool.arg = arg;
    int cpu = -1;
#if defined(__linux__)
    cpu = sched_getcpu();
#endif
    for (int i = 0; i < helpers; i++) {
        keep_off_cpu(&pool.workers[i], cpu);
        offer(&pool.workers[i]);
    }
    run_with_denormals(FLUSHED, body, arg, 0);
    for (int i = 0; i < helpers; i++) {
        if (swap(&pool.workers[i].mail, OFFERED, IDLE)) continue;
        for (int spins = 0; LOAD(pool.workers[i].mail) != IDLE; spins++) spin(spins);
    }
    pthread_mutex_unlock(&pool.busy);
}

static int num_threads = 1;
void fr_set_num_threads(int n) {
    __atomic_store_n(&num_threads, n < 1 ? 1 : n > FR_MAX_THREADS ? FR_MAX_THREADS : n, __ATOMIC_RELAXED);
}
int fr_get_num_threads(void) { return __atomic_load_n(&num_threads, __ATOMIC_RELAXED); }

int fr_cpus(void) {
#if defined(__linux__)
    cpu_set_t allowed;
    if (!sched_getaffinity(0, sizeof allowed, &allowed) && CPU_COUNT(&allowed) > 0) return CPU_COUNT(&allowed);
#endif
    const long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}
