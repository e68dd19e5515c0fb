/* Work in pieces that any thread may take. See work.c. */
#ifndef FASTRNN_WORK_H
#define FASTRNN_WORK_H

#include <stdint.h>

enum { FR_MAX_SHARES = 64 };

/* Work of `phases` phases, each cut into `shares` pieces, one of each share. A share's pieces are done in turn. All shares
 * meet before each of the phases up to meet_until, and before meet_at: none begins it until all are through with those
 * before. owned: share i is thread i's, who has its data in its caches. */
typedef struct {
    long phases, meet_until, meet_at;
    int shares, owned;
    int stopped; /* by a signal: nobody takes another piece, and what was done is thrown away */
    long done __attribute__((aligned(64))); /* pieces */
    struct {
        long turn; /* 2 * phase, + 1 while somebody is at it */
        int here;  /* whether the owner comes for his pieces */
    } __attribute__((aligned(64))) share[FR_MAX_SHARES];
} fr_work;

/* A thread's look-out for signals in a long call; `stopped` and `caller` set, else zeros before its first piece. Work that a
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

/* A piece that a thread has; all zeros before its first one, but for the watch. */
typedef struct {
    long phase;
    int share, begun;
    fr_watch *watch; /* to look with while waiting for a piece, where a signal may stop any phase; else NULL */
} fr_piece;

/* Until said otherwise all shares meet before every phase. */
void fr_plan_work(fr_work *, long phases, int shares, int owned);

/* Hand in the piece that the thread `id` has, and take the next one, waiting where it depends on pieces that others have.
 * 0 when there is nothing left for it to take, or the work was stopped; for thread 0: when everything is done. */
int fr_next(fr_work *, int id, fr_piece *);

#endif
