/* What a thread that trains word vectors has to itself. */
#ifndef FASTRNN_WORDS_SCRATCH_H
#define FASTRNN_WORDS_SCRATCH_H

#include "words.h"

enum { FR_WORDS_SLOTS = 8 }; /* room for the scores of one input */

/* One step: M context words against K outputs, the true one first. */
typedef struct {
    int32_t center;
    int M, K;
    int repeated;     /* whether any of `repeats` is not 1 */
    int32_t *words;   /* (2 * window) */
    float *repeats;   /* (2 * window + 1, SLOTS) how often each word counts */
    int32_t *outputs; /* (1 + negative) */
    float *times;     /* (1 + negative) how often each output was drawn */
} fr_words_step;

struct fr_words_scratch {
    int32_t *kept;          /* (task_size + 2 * window) */
    int32_t *context;       /* (2 * window) */
    float **x, **dx;        /* (2 * window) rows of floats: inputs that are means, and updates */
    float **at;             /* (2 * window) */
    long *rows;             /* (2 * window) how many rows a mean is of */
    float *scores;          /* (2 * window + 1, SLOTS) */
    float *truth;           /* (1 + negative) labels: 1, 0, 0... */
    fr_words_step steps[2]; /* the one that runs, and the next */
    char *end;              /* of the memory that is given out already */
};

#endif
