/* Work in tasks that any thread may take. See work.c. */
#ifndef FASTRNN_WORK_H
#define FASTRNN_WORK_H

#include <stdint.h>

enum { FR_MAX_PARTITIONS = 64 };

/* Work of `phases` phases, each cut into one task for each partition. The tasks of a partition are done in their order, and its
 * ticket says which comes next. There is a barrier before each of the phases up to barrier_until, and before barrier_at: no
 * thread begins that phase until all tasks before it are done. pinned: partition i belongs to thread i, which has its data
 * in its caches. */
typedef struct {
    long phases, barrier_until, barrier_at;
    int partitions, pinned;
    int stopped; /* by a signal: no thread takes another task, and what was done is thrown away */
    long done __attribute__((aligned(64))); /* tasks */
    struct {
        long ticket;       /* 2 * phase, + 1 while a thread is at it */
        int owner_present; /* whether the owner comes for its tasks */
    } __attribute__((aligned(64))) partition[FR_MAX_PARTITIONS];
} fr_work;

/* A thread's look-out for signals in a long call; `stopped` and `caller` set, else zeros before its first task. Work that a
 * signal may stop calls fr_stops after each part of it, with what that part cost; NULL: this work is to be finished. */
typedef struct {
    int *stopped;
    int caller;     /* whether this is the thread that called: it alone looks, the others see what it found */
    double spent;   /* since it looked last */
    int64_t looked; /* when, in ns; 0: not yet in this call */
} fr_watch;

/* Multiply-adds, 0.1 to 1 ms of them; what the shortest part of any work counts at the least. */
#define FR_LOOK_AFTER 4e6
#define FR_LEAST_COST 1e3

int fr_look(fr_watch *);

/* Whether the work stops here: then it returns at once. */
static inline int fr_stops(fr_watch *watch, double cost) {
    if (!watch) return 0;
    watch->spent += cost + FR_LEAST_COST;
    return watch->spent >= FR_LOOK_AFTER && fr_look(watch);
}

/* The task that a thread has; all zeros before its first one, but for the watch. */
typedef struct {
    long phase;
    int partition, begun;
    fr_watch *watch; /* to look with while waiting for a task, where a signal may stop any phase; else NULL */
} fr_task;

/* Until said otherwise there is a barrier before every phase. */
void fr_plan_work(fr_work *, long phases, int partitions, int pinned);

/* Hand in the task that the thread `id` has, and take the next one, waiting where it depends on tasks that others have.
 * 0 when there is nothing left for it to take, or the work was stopped; for thread 0: when everything is done. */
int fr_next_task(fr_work *, int id, fr_task *);

#endif
