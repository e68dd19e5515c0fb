/* Workspaces: memory that one call leaves and the next one of similar size takes over.
 *
 * Fresh pages are zeroed by the system when they are first touched, tens of megabytes in a large training call; so released
 * blocks are kept, up to KEPT_BLOCKS of them and KEPT_BYTES in all, the oldest going first. A block serves requests down
 * to half its size.
 */
#define _GNU_SOURCE
#include "pool.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

enum { KEPT_BLOCKS = 16, HEADER = 64, HUGE_PAGE = 2 << 20 };
static const size_t KEPT_BYTES = (size_t)512 << 20;

typedef struct {
    size_t bytes; /* of the whole block */
} header;

static struct {
    pthread_mutex_t lock;
    header *blocks[KEPT_BLOCKS]; /* oldest first */
    int count;
    size_t bytes;
} kept = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void lock_before_fork(void) { pthread_mutex_lock(&kept.lock); }
static void unlock_after_fork(void) { pthread_mutex_unlock(&kept.lock); }
void fr_init_workspace(void) { pthread_atfork(lock_before_fork, unlock_after_fork, unlock_after_fork); }

static header *take(int index) {
    header *block = kept.blocks[index];
    for (int i = index + 1; i < kept.count; i++) kept.blocks[i - 1] = kept.blocks[i];
    kept.count--;
    kept.bytes -= block->bytes;
    return block;
}

void *fr_acquire(size_t bytes) {
    if (bytes > SIZE_MAX / 2) return 0;
    bytes = (bytes + HEADER + 4095) & ~(size_t)4095;
    pthread_mutex_lock(&kept.lock);
    int best = -1;
    for (int i = 0; i < kept.count; i++) {
        const size_t have = kept.blocks[i]->bytes;
        if (have >= bytes && have / 2 <= bytes && (best < 0 || have <= kept.blocks[best]->bytes)) best = i;
    }
    header *block = best >= 0 ? take(best) : 0;
    pthread_mutex_unlock(&kept.lock);
    if (!block) {
        const int huge = bytes >= HUGE_PAGE;
        void *memory;
        if (posix_memalign(&memory, huge ? HUGE_PAGE : 4096, bytes)) return 0;
#if defined(__linux__)
        if (huge) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
        block = memory;
        block->bytes = bytes;
    }
    return (char *)block + HEADER;
}

void fr_release(void *memory) {
    if (!memory) return;
    header *block = (header *)((char *)memory - HEADER), *surplus[KEPT_BLOCKS + 1];
    int n = 0;
    pthread_mutex_lock(&kept.lock);
    if (block->bytes > KEPT_BYTES)
        surplus[n++] = block;
    else {
        while (kept.count == KEPT_BLOCKS || (kept.count && kept.bytes + block->bytes > KEPT_BYTES))
            surplus[n++] = take(0);
        kept.blocks[kept.count++] = block;
        kept.bytes += block->bytes;
    }
    pthread_mutex_unlock(&kept.lock);
    while (n) free(surplus[--n]);
}

size_t fr_free_kept(void) {
    header *blocks[KEPT_BLOCKS];
    pthread_mutex_lock(&kept.lock);
    const size_t bytes = kept.bytes;
    int n = 0;
    while (kept.count) blocks[n++] = take(0);
    pthread_mutex_unlock(&kept.lock);
    while (n) free(blocks[--n]);
    return bytes;
}

size_t fr_kept_bytes(void) {
    pthread_mutex_lock(&kept.lock);
    const size_t bytes = kept.bytes;
    pthread_mutex_unlock(&kept.lock);
    return bytes;
}
