/* The library's own threads, and its own memory for workspaces. See pool.c and workspace.c. */
#ifndef FASTRNN_POOL_H
#define FASTRNN_POOL_H

#include <stddef.h>

#define FR_MAX_THREADS 256

/* Run body(arg, id, threads) on up to `threads` threads, the caller being id 0, and wait for all. Where the pool is busy
 * with another caller's work, or threads cannot be started, the caller runs it alone: body(arg, 0, 1). Denormals are
 * flushed to zero inside body and treated as before outside. */
void fr_parallel(int threads, void (*body)(void *arg, int id, int threads), void *arg);

/* Meet the other threads of this fr_parallel. Zero-initialise one per call. */
typedef struct {
    int arrived __attribute__((aligned(64)));
    int round __attribute__((aligned(64)));
} fr_barrier;
void fr_barrier_wait(fr_barrier *, int threads);

void fr_init(void);           /* once, at import: what a fork must not leave behind in the child */
void fr_init_workspace(void); /* fr_init's part in workspace.c */

int fr_cpus(void); /* that this process may run on */

/* The most threads that a call uses, 1..FR_MAX_THREADS; these two names are what threadpoolctl finds in the library. */
void fr_set_num_threads(int);
int fr_get_num_threads(void);

/* Aligned memory, kept for reuse after fr_release up to a bound; contents undefined. NULL when there is none. */
void *fr_acquire(size_t bytes);
void fr_release(void *);
size_t fr_kept_bytes(void);

#endif
