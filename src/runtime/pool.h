/* The library's own threads, and its own memory for workspaces. See pool.c and workspace.c. */
#ifndef FASTRNN_POOL_H
#define FASTRNN_POOL_H

#include <stddef.h>

#define FR_MAX_THREADS 256

/* Run body(arg, 0) here, and body(arg, id) in up to threads - 1 helpers, ids from 1; returns when it has returned in all of
 * them. A helper may come late or not at all, and where the pool is busy with another caller's work none does: body takes
 * tasks with fr_next_task (work.h). Denormals are flushed to zero inside body and treated as before outside. */
void fr_parallel(int threads, void (*body)(void *arg, int id), void *arg);

/* Functions of another library's OpenMP: GOMP_parallel, omp_get_thread_num, omp_get_max_threads. */
typedef struct {
    void (*parallel)(void (*region)(void *), void *data, unsigned threads, unsigned flags);
    int (*thread_num)(void);
    int (*max_threads)(void);
} fr_openmp;

/* From now on run jobs on those threads; zeros: on our own. A forked child begins with its own. */
void fr_borrow_threads(fr_openmp);
int fr_borrows(void);

void fr_init(void);           /* once, at import: what a fork must not leave behind in the child */
void fr_init_workspace(void); /* fr_init's part in workspace.c */

/* `look` is called now and then by the thread whose pthread_self() is `thread`, from within a long call: it returns whether a
 * signal has come whose handler raises. fr_signalled does so, in that thread; in every other one it returns 0. */
void fr_watch_signals(int (*look)(void), unsigned long thread);
int fr_signalled(void);

int fr_cpus(void); /* that this process may run on */

/* The most threads that a call uses, 1..FR_MAX_THREADS; these two names are what threadpoolctl finds in the library. */
void fr_set_num_threads(int);
int fr_get_num_threads(void);

/* Aligned memory, kept for reuse after fr_release up to a bound; contents undefined. NULL when there is none. */
void *fr_acquire(size_t bytes);
void fr_release(void *);
size_t fr_kept_bytes(void);
size_t fr_free_kept(void); /* returns how many bytes these were */

#endif
