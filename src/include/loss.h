/* The contract of the losses' kernels (loss.c). */
#ifndef FASTRNN_LOSS_H
#define FASTRNN_LOSS_H

#include <stdint.h>

/* What one build of loss.c offers. */
typedef struct {
    int itemsize;
    /* Losses (rows,) and their gradient (rows, M), of which every row counts `weight`. */
    void (*cross_entropy)(const void *logits, const int64_t *classes, long rows, long M, int64_t ignored, double weight,
                          void *losses, void *dlogits);
} fr_loss_kernels;

#endif
