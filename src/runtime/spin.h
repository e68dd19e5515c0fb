/* Waiting for another thread: how often, `spins`, says how patient one has been already. */
#ifndef FASTRNN_SPIN_H
#define FASTRNN_SPIN_H

#include <sched.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

enum { SPINS_BEFORE_YIELD = 2000 }; /* pauses, about 80 us: then whoever else wants the core may have it */

static inline void relax(void) {
#if defined(__SSE2__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static inline void spin(int spins) {
    relax();
    if (spins > SPINS_BEFORE_YIELD) sched_yield();
}

#endif
