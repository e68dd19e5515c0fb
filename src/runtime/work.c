/* Which thread does which part of a call, decided while the call runs.
 *
 * # Design:
 * a) No thread waits for one that may not come: a helper that sleeps, or whose core another program has, is late by
 *    50 us to 4 ms, more than most calls take. So work is cut into tasks, and a thread that is free takes the next one.
 * b) The cut into partitions is planned ahead. Results do not depend on it, and never on which thread does a task.
 * c) Partitions of rows are independent: each goes on as soon as its own task before is done. A thread takes the partition
 *    that is furthest behind, so that all end together, however fast each thread is; but it stays at its own, whose states
 *    are in its cache, until that is ahead by half of what is left of it.
 * d) Partitions of hidden units have a barrier after each step. Each is pinned to a thread, since half of the weights fit
 *    into the L2 of a core where all of them do not. Another thread takes its task only after PATIENCE, or where the owner
 *    did not come the last time. A barrier is one atomic addition and one exchange on a line of its own, about 0.2 us.
 * e) Ctrl-C need not wait for the end of a long call. Only Python's main thread may see a signal, and only with the lock of
 *    the interpreter, so the thread that called looks, every LOOK_NS; where it finds one whose handler raises, all threads
 *    drop what they do. Work counts what it costs instead of reading the clock: short calls pay one addition for a step.
 */
#define _GNU_SOURCE
#include "work.h"

#include "pool.h"
#include "spin.h"

#include <time.h>

enum { PATIENCE = 64 }; /* pauses, about 3 us */
enum { LOOK_NS = 50000000, SPINS_PER_LOOK = 4096 };

void fr_plan_work(fr_work *w, long phases, int partitions, int pinned) {
    w->phases = phases, w->partitions = partitions, w->pinned = pinned;
    w->barrier_until = phases, w->barrier_at = 0;
    w->done = w->stopped = 0;
    for (int i = 0; i < partitions; i++) w->partition[i].ticket = w->partition[i].owner_present = 0;
}

static long ticket_of(const fr_work *w, int partition) {
    return __atomic_load_n(&w->partition[partition].ticket, __ATOMIC_ACQUIRE);
}
static int owner_present(const fr_work *w, int partition) {
    return __atomic_load_n(&w->partition[partition].owner_present, __ATOMIC_RELAXED);
}

static int is_free(const fr_work *w, long ticket, long done) {
    const long phase = ticket / 2;
    return ticket % 2 == 0 && phase < w->phases &&
           ((phase > w->barrier_until && phase != w->barrier_at) || done >= phase * w->partitions);
}

/* The partition whose next task this thread should take, -1: none now; and its ticket. */
static int choose_pinned(fr_work *w, int id, long done, int spins, long *ticket) {
    if (is_free(w, *ticket = ticket_of(w, id), done)) return id;
    for (int i = 0; i < w->partitions; i++) {
        if (i == id || !is_free(w, *ticket = ticket_of(w, i), done)) continue;
        if (owner_present(w, i) && spins < PATIENCE) continue;
        __atomic_store_n(&w->partition[i].owner_present, 0, __ATOMIC_RELAXED);
        return i;
    }
    return -1;
}

static int choose_behind(const fr_work *w, int last, long done, long *ticket) {
    int behind = -1;
    for (int i = 0; i < w->partitions; i++) {
        const int partition = (last + i) % w->partitions;
        const long t = ticket_of(w, partition);
        if (is_free(w, t, done) && (behind < 0 || t < *ticket)) behind = partition, *ticket = t;
    }
    const long own = ticket_of(w, last);
    if (behind >= 0 && is_free(w, own, done) && 2 * (own - *ticket) <= 2 * w->phases - own)
        behind = last, *ticket = own;
    return behind;
}

/* Whether every partition is at its last task, so that there will be none to take. */
static int all_taken(const fr_work *w) {
    for (int i = 0; i < w->partitions; i++)
        if (ticket_of(w, i) < 2 * w->phases - 1) return 0;
    return 1;
}

static int was_stopped(const int *stopped) { return __atomic_load_n(stopped, __ATOMIC_RELAXED); }

int fr_look(fr_watch *watch) {
    watch->spent = 0;
    if (was_stopped(watch->stopped)) return 1;
    if (!watch->caller) return 0;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    const int64_t now = t.tv_sec * 1000000000LL + t.tv_nsec;
    if (!watch->looked) watch->looked = now;
    if (now - watch->looked < LOOK_NS) return 0;
    watch->looked = now;
    if (!fr_signalled()) return 0;
    __atomic_store_n(watch->stopped, 1, __ATOMIC_RELAXED);
    return 1;
}

int fr_next_task(fr_work *w, int id, fr_task *task) {
    if (w->partitions == 1 && !w->pinned) { /* no other thread */
        task->phase += task->begun, task->begun = 1;
        return task->phase < w->phases && !w->stopped;
    }
    if (was_stopped(&w->stopped)) return 0;
    if (task->begun) {
        __atomic_store_n(&w->partition[task->partition].ticket, 2 * (task->phase + 1), __ATOMIC_RELEASE);
        __atomic_add_fetch(&w->done, 1, __ATOMIC_ACQ_REL);
    } else
        task->begun = 1, task->partition = id;
    if (w->pinned && !owner_present(w, id)) __atomic_store_n(&w->partition[id].owner_present, 1, __ATOMIC_RELAXED);
    for (int spins = 0;; spins++) {
        const long done = __atomic_load_n(&w->done, __ATOMIC_ACQUIRE);
        if (done == w->phases * w->partitions) return 0;
        long ticket = 0;
        const int partition =
            w->pinned ? choose_pinned(w, id, done, spins, &ticket) : choose_behind(w, task->partition, done, &ticket);
        if (partition >= 0) {
            if (!__atomic_compare_exchange_n(&w->partition[partition].ticket, &ticket, ticket + 1, 0, __ATOMIC_ACQ_REL,
                                             __ATOMIC_RELAXED))
                continue;
            task->phase = ticket / 2, task->partition = partition;
            return 1;
        }
        if (id && spins == PATIENCE && all_taken(w)) return 0;
        if (task->watch && spins % SPINS_PER_LOOK == SPINS_PER_LOOK - 1 && fr_look(task->watch)) return 0;
        if (was_stopped(&w->stopped)) return 0;
        spin(spins);
    }
}
