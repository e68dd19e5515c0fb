/* A checksum at the speed of memory: weights are read once, where packing them anew would read, transpose and write them.
 *
 * # Design: 32 sums of 64 bits run side by side, four lines of eight. A step takes in a word and stirs the sum with shifts
 * and additions, as 64-bit products are slow in vectors; each of them can be undone, so two sums that once differ never
 * meet again while the words that follow are the same. This is no protection against somebody who looks for collisions.
 */
#include "checksum.h"

#include <string.h>

typedef uint64_t words __attribute__((vector_size(64)));
enum { LINES = 4, BLOCK = LINES * sizeof(words) };

/* The function for the widest vectors of this CPU is picked when the module is loaded. */
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__) && \
    !defined(__SANITIZE_ADDRESS__)
#define FOR_THIS_CPU __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_THIS_CPU
#endif

static uint64_t mixed(uint64_t x) { /* as in splitmix64 */
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

FOR_THIS_CPU uint64_t fr_checksum(const void *data, size_t bytes, uint64_t start) {
    words sums[LINES], line[LINES];
    for (int i = 0; i < LINES; i++)
        for (int j = 0; j < 8; j++) sums[i][j] = i * 8 + j;
    for (const char *at = data, *end = at + bytes; at < end; at += BLOCK) {
        const char *from = at;
        if (end - at < (long)BLOCK) {
            memset(line, 0, BLOCK);
            from = memcpy(line, at, end - at);
        }
#pragma GCC unroll 4
        for (int i = 0; i < LINES; i++) {
            words sum;
            memcpy(&sum, from + i * sizeof(words), sizeof(words));
            sum ^= sums[i];
            sum += sum << 7;
            sums[i] = sum ^ (sum >> 9);
        }
    }
    uint64_t sum = start + bytes;
    for (int i = 0; i < LINES; i++)
        for (int j = 0; j < 8; j++) sum = mixed(sum ^ sums[i][j]) + 1;
    return sum;
}
