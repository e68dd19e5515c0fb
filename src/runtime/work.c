/* Who does what, as it comes.
 *
 * # Design:
 * a) Nobody waits for a thread that may not come: a helper that sleeps, or whose core another program has, is late by
 *    50 us to 4 ms, more than most calls take. Work lies in pieces, and whoever is there takes the next one.
 * b) The cut into shares is planned ahead, results do not depend on it, and never on who does a share.
 * c) Shares of rows know nothing of each other: each goes on as soon as it is done with its own piece before. The one
 *    that is furthest behind comes next, so that all end together, however fast each thread is.
 * d) Shares of hidden units meet after each step. Such a share is its owner's, since half of the weights fit into the L2 of
 *    a core where all of them do not; another one takes a piece only after PATIENCE, or where the owner has not come
 *    the last time. A meeting is one atomic addition and one exchange on a line of one's own, about 0.2 us.
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

void fr_plan_work(fr_work *w, long phases, int shares, int owned) {
    w->phases = phases, w->shares = shares, w->owned = owned;
    w->meet_until = phases, w->meet_at = 0;
    w->done = w->stopped = 0;
    for (int i = 0; i < shares; i++) w->share[i].turn = w->share[i].here = 0;
}

static long turn_of(const fr_work *w, int share) { return __atomic_load_n(&w->share[share].turn, __ATOMIC_ACQUIRE); }
static int is_here(const fr_work *w, int share) { return __atomic_load_n(&w->share[share].here, __ATOMIC_RELAXED); }

static int is_free(const fr_work *w, long turn, long done) {
    const long phase = turn / 2;
    return turn % 2 == 0 && phase < w->phases &&
           ((phase > w->meet_until && phase != w->meet_at) || done >= phase * w->shares);
}

/* The share whose next piece this thread should take, -1: none now; its turn. */
static int choose_owned(fr_work *w, int id, long done, int spins, long *turn) {
    if (is_free(w, *turn = turn_of(w, id), done)) return id;
    for (int i = 0; i < w->shares; i++) {
        if (i == id || !is_free(w, *turn = turn_of(w, i), done)) continue;
        if (is_here(w, i) && spins < PATIENCE) continue;
        __atomic_store_n(&w->share[i].here, 0, __ATOMIC_RELAXED);
        return i;
    }
    return -1;
}

static int choose_behind(const fr_work *w, int last, long done, long *turn) {
    int best = -1;
    for (int i = 0; i < w->shares; i++) {
        const int share = (last + i) % w->shares;
        const long t = turn_of(w, share);
        if (is_free(w, t, done) && (best < 0 || t < *turn)) best = share, *turn = t;
    }
    return best;
}

/* Whether every share is at its last piece, so that there will be none to take. */
static int nothing_comes(const fr_work *w) {
    for (int i = 0; i < w->shares; i++)
        if (turn_of(w, i) < 2 * w->phases - 1) return 0;
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

int fr_next(fr_work *w, int id, fr_piece *piece) {
    if (w->shares == 1 && !w->owned) { /* nobody else */
        piece->phase += piece->begun, piece->begun = 1;
        return piece->phase < w->phases && !w->stopped;
    }
    if (was_stopped(&w->stopped)) return 0;
    if (piece->begun) {
        __atomic_store_n(&w->share[piece->share].turn, 2 * (piece->phase + 1), __ATOMIC_RELEASE);
        __atomic_add_fetch(&w->done, 1, __ATOMIC_ACQ_REL);
    } else
        piece->begun = 1, piece->share = id;
    if (w->owned && !is_here(w, id)) __atomic_store_n(&w->share[id].here, 1, __ATOMIC_RELAXED);
    for (int spins = 0;; spins++) {
        const long done = __atomic_load_n(&w->done, __ATOMIC_ACQUIRE);
        if (done == w->phases * w->shares) return 0;
        long turn = 0;
        const int share =
            w->owned ? choose_owned(w, id, done, spins, &turn) : choose_behind(w, piece->share, done, &turn);
        if (share >= 0) {
            if (!__atomic_compare_exchange_n(&w->share[share].turn, &turn, turn + 1, 0, __ATOMIC_ACQ_REL,
                                             __ATOMIC_RELAXED))
                continue;
            piece->phase = turn / 2, piece->share = share;
            return 1;
        }
        if (id && spins == PATIENCE && nothing_comes(w)) return 0;
        if (piece->watch && spins % SPINS_PER_LOOK == SPINS_PER_LOOK - 1 && fr_look(piece->watch)) return 0;
        if (was_stopped(&w->stopped)) return 0;
        spin(spins);
    }
}
