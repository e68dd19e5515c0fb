/* The contract of the losses' kernels (loss.c). */
#ifndef FASTRNN_LOSS_H
#define FASTRNN_LOSS_H

#include <stdint.h>

/* The targets of a softmax cross entropy (cross_entropy.h). */
typedef struct {
    const int64_t *classes;    /* (N,) */
    int64_t ignored;           /* rows of this class count nothing */
    double share;              /* what a row of weight 1 counts for in the gradient */
    const double *row_weights; /* (N,) or NULL: 1 each */
    const void *class_weights; /* (M,) reals or NULL: 1 each */
    double class_total;        /* the sum of the classes' weights */
    double smoothing; /* what each class has of each target, times its weight; the target's own keeps the rest */
    double kept;      /* 1 less all of that */
} fr_classes;

/* One sequence of a CTC loss (ctc.h). S = 2U+1 states. A row of the workspaces has FR_CTC_PAD elements before its first and
 * at least as many after its last vector. */
typedef struct {
    long T, M, U;
    const void *logits; /* row t at t * step */
    void *dlogits;      /* row t at t * dstep */
    long step, dstep;
    const int64_t *labels; /* (U,) */
    int64_t blank;
    double share; /* what the sequence counts for in the gradient */
    int zero_infinity;
    long stride;         /* elements of a workspace's row */
    double *scores;      /* (T, S) */
    double *alpha;       /* (T, S), then posteriors */
    double *beta;        /* (2, S) */
    const double *skips; /* (S,) 0 where a state may be reached from two before, CTC_NEVER elsewhere */
    double offset, loss;
} fr_ctc;
enum { FR_CTC_PAD = 2, FR_CTC_LANES = 8 }; /* LANES: doubles of the widest vector, to whose multiple a row is padded */

/* What one build of loss.c offers. */
typedef struct {
    int itemsize;
    /* Losses (rows,) and their gradient (rows, M) of rows from `first` on, where logits, losses and dlogits begin. */
    void (*cross_entropy)(const void *logits, const fr_classes *, long first, long rows, long M, void *losses,
                          void *dlogits);
    void (*ctc_scores)(fr_ctc *);
    void (*ctc_paths)(fr_ctc *); /* of the build for double, NULL in the others */
    void (*ctc_gradient)(const fr_ctc *);
} fr_loss_kernels;

#endif
