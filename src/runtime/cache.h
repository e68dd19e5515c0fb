/* How large the caches are. */
#ifndef FASTRNN_CACHE_H
#define FASTRNN_CACHE_H

#include <unistd.h>

/* Bytes of a core's L2; 0 where the system does not say. */
static inline long fr_l2_bytes(void) {
#ifdef _SC_LEVEL2_CACHE_SIZE
    const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return bytes > 0 ? bytes : 0;
#else
    return 0;
#endif
}

#endif
