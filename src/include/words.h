/* Word vectors from neighbours: what the kernels (kernels/words.c) and their callers (words/train.c) agree on.
 *
 * V words, D vector_size, B buckets of n-grams, M inputs and K outputs of a step, L tokens.
 * The mathematics and every draw are written down in fastrnn/reference/words.py; results are the same but for rounding.
 */
#ifndef FASTRNN_WORDS_H
#define FASTRNN_WORDS_H

#include <stdint.h>

enum { FR_BREAK = -1 }; /* between sentences, in a row of tokens */

typedef struct {
    uint32_t limit; /* of 32 random bits: below it a draw is the column's own word, else the other */
    int32_t other;
} fr_alias;

/* A model. Rows of matrices are `stride` floats apart, a multiple of 16, aligned to 64 bytes and 0 beyond D. */
typedef struct {
    float *inputs;  /* (V + B, stride) vectors of words, then of n-grams */
    float *outputs; /* (V, stride) for negative sampling, or NULL */
    float *nodes;   /* (V - 1, stride) for the hierarchical softmax, or NULL */
    long V, stride;
    const uint32_t *keep;       /* (V) a token is kept where its hash is at most this */
    const fr_alias *aliases;    /* (V) what negative words are drawn from */
    const int32_t *paths;       /* inner nodes of all words, one word's after another's */
    const float *labels;        /* 1 - code at each of them */
    const int64_t *path_begins; /* (V + 1) */
    const int32_t *grams;       /* rows of `inputs` that are a word's n-grams, likewise; or NULL */
    const int64_t *gram_begins; /* (V + 1) */
    uint64_t seed;
    float margin; /* what negative sampling takes from a score before it is judged */
    int window, negative;
    int cbow, mean, shrink, shared; /* flags, as fastrnn.words.Word2Vec names them */
    int compute_loss;
} fr_words;

/* A stretch of the corpus that is trained on: tokens begin..end of those at hand; windows reach beyond. */
typedef struct {
    const int32_t *tokens; /* (L) */
    int64_t first;         /* place of tokens[0] in the whole corpus */
    long L, begin, end;
    long task_size; /* tokens of a task; place / task_size is its number */
    int epoch;
    double rate, slope; /* the learning rate at place p is rate - slope * p */
    double least_rate;
} fr_words_stretch;

/* What a thread needs to itself: words_scratch.h. */
typedef struct fr_words_scratch fr_words_scratch;

typedef struct {
    /* Trains on one task of a stretch, from token begin to end; returns the loss where it is asked for, else 0. */
    double (*train)(const fr_words *, const fr_words_stretch *, long begin, long end, fr_words_scratch *);
} fr_words_kernels;

/* ---- Chance, the same for every build: splitmix64 ---- */

#define FR_GOLDEN 0x9E3779B97F4A7C15u

static inline uint64_t fr_mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}
static inline uint64_t fr_keep_key(uint64_t seed, int epoch) {
    return fr_mix(seed + (2 * (uint64_t)epoch + 1) * FR_GOLDEN);
}
static inline uint64_t fr_draw_key(uint64_t seed, int epoch) {
    return fr_mix(seed + (2 * (uint64_t)epoch + 2) * FR_GOLDEN);
}

/* Whether the token at a place of the corpus is kept in this epoch; breaks always are. */
static inline int fr_kept(const fr_words *model, uint64_t key, int64_t place, int32_t word) {
    return word == FR_BREAK || fr_mix(key + (uint64_t)place * FR_GOLDEN) >> 32 <= model->keep[word];
}

#endif
