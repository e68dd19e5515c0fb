/* How thick calls come.
 *
 * # Design: a worker sleeps after 200 us without work (pool.c), and to wake it takes longer than a short call gains by it. Where
 * calls come one upon the other it stays awake, and takes its half of a call of 10 us in time. Several calls must have come
 * so: the layers of one model are called close upon each other, too, however long the program then waits.
 */
#define _GNU_SOURCE
#include "pace.h"

#include <stdint.h>
#include <time.h>

enum { CLOSE_NS = 150000, MANY = 8 };

/* Threads of a program may ask at once. What they then see is a guess either way. */
static int64_t asked_last;
static int close_calls;

int fr_calls_are_dense(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    const int64_t now = t.tv_sec * 1000000000LL + t.tv_nsec;
    const int64_t gap = now - __atomic_exchange_n(&asked_last, now, __ATOMIC_RELAXED);
    const int before = __atomic_load_n(&close_calls, __ATOMIC_RELAXED);
    const int calls = gap > CLOSE_NS ? 0 : before < MANY ? before + 1 : MANY;
    if (calls != before) __atomic_store_n(&close_calls, calls, __ATOMIC_RELAXED);
    return calls == MANY;
}
