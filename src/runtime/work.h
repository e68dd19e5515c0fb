/* Work in pieces that any thread may take. See work.c. */
#ifndef FASTRNN_WORK_H
#define FASTRNN_WORK_H

enum { FR_MAX_SHARES = 64 };

/* Work of `phases` phases, each cut into `shares` pieces, one of each share. A share's pieces are done in turn. All shares
 * meet before each of the phases up to meet_until, and before meet_at: none begins it until all are through with those
 * before. owned: share i is thread i's, who has its data in its caches. */
typedef struct {
    long phases, meet_until, meet_at;
    int shares, owned;
    long done __attribute__((aligned(64))); /* pieces */
    struct {
        long turn; /* 2 * phase, + 1 while somebody is at it */
        int here;  /* whether the owner comes for his pieces */
    } __attribute__((aligned(64))) share[FR_MAX_SHARES];
} fr_work;

/* A piece that a thread has; all zeros before its first one. */
typedef struct {
    long phase;
    int share, begun;
} fr_piece;

/* Until said otherwise all shares meet before every phase. */
void fr_plan_work(fr_work *, long phases, int shares, int owned);

/* Hand in the piece that the thread `id` has, and take the next one, waiting where it depends on pieces that others have.
 * 0 when there is nothing left for it to take; for thread 0: when everything is done. */
int fr_next(fr_work *, int id, fr_piece *);

#endif
