/* What a thread that trains word vectors has to itself. */
#ifndef FASTRNN_WORDS_SCRATCH_H
#define FASTRNN_WORDS_SCRATCH_H

#include "words.h"
#include "work.h"

enum { FR_WORDS_SLOTS = 8 };         /* room for the scores of one input */
enum { FR_WORDS_FETCHED_AHEAD = 4 }; /* how many tokens before it comes into a window a word's row is fetched */

/* One step: M context words against K outputs, the true one first. */
typedef struct {
    int32_t center;
    int M, K;
    int repeated;     /* whether any of `repeats` is not 1 */
    int32_t *words;   /* (2 * window) */
    float **rows;     /* (2 * window) their vectors */
    float *repeats;   /* (2 * window + 1, SLOTS) how often each word counts */
    int32_t *outputs; /* (1 + negative) */
    float *times;     /* (groups of outputs, 2, SLOTS) how often each output was drawn, twice; 0 past the last */
} fr_words_step;

/* Of a matrix, the rows of the most frequent words, which a thread keeps to itself: its own, and as it last saw them. */
typedef struct {
    float *own, *seen; /* (count, stride) */
    int32_t *left;     /* (count) uses until a row's changes are added to the matrix, and others' are seen */
    int32_t uses;      /* what `left` begins at */
    uint32_t count;    /* 0 where one thread trains: `own` is the matrix then */
} fr_own_rows;

struct fr_words_scratch {
    fr_own_rows inputs, outputs;
    fr_watch *watch;        /* asked after each step */
    int32_t *kept;          /* (task_size + 3 * window + FETCHED_AHEAD) */
    int32_t *context;       /* (3 * window) */
    int32_t *drawn;         /* (negative) */
    float **x, **dx;        /* (2 * window) rows of floats: inputs that are means, and updates */
    float **rows;           /* (2 * window * most rows of a word) the rows that inputs are made of, with n-grams */
    float ***ends;          /* (2 * window) past each input's last one */
    float *factors;         /* (2 * window) of the update of those rows */
    float *scores;          /* (2 * window + 2, SLOTS) */
    fr_words_step steps[2]; /* the one that runs, and the next */
    char *end;              /* of the memory that is given out already */
};

#endif
