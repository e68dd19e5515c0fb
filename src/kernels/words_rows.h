/* Inputs that are means (or sums) of rows of a matrix: in CBOW, and with n-grams. */
#ifndef FASTRNN_WORDS_ROWS_H
#define FASTRNN_WORDS_ROWS_H

#include "simd.h"
#include "words_scratch.h"

enum { COLUMNS = 8 }; /* vectors of a row that are summed in registers, all rows in turn */

INLINE void sum_columns(float *const *rows, long count, float factor, float *out, long at, int columns) {
    vec sums[COLUMNS] = {{0}};
    for (long r = 0; r < count; r++) UNROLL for (int i = 0; i < columns; i++) sums[i] += load(rows[r] + at + i * VL);
    UNROLL for (int i = 0; i < columns; i++) store(out + at + i * VL, sums[i] * factor);
}

INLINE void add_columns(float *const *rows, long count, float factor, const float *update, long at, int columns) {
    vec sums[COLUMNS];
    UNROLL for (int i = 0; i < columns; i++) sums[i] = load(update + at + i * VL) * factor;
    for (long r = 0; r < count; r++) UNROLL for (int i = 0; i < columns; i++) {
            float *const to = rows[r] + at + i * VL;
            store(to, load(to) + sums[i]);
        }
}

/* BODY(at, columns) over a row, as many columns at once as there are. */
#define FOR_COLUMNS(stride, BODY)                                                    \
    do {                                                                             \
        long at = 0;                                                                 \
        for (; at + COLUMNS * VL <= (stride); at += COLUMNS * VL) BODY(at, COLUMNS); \
        switch (((stride) - at) / VL) {                                              \
        case 7:                                                                      \
            BODY(at, 7);                                                             \
            break;                                                                   \
        case 6:                                                                      \
            BODY(at, 6);                                                             \
            break;                                                                   \
        case 5:                                                                      \
            BODY(at, 5);                                                             \
            break;                                                                   \
        case 4:                                                                      \
            BODY(at, 4);                                                             \
            break;                                                                   \
        case 3:                                                                      \
            BODY(at, 3);                                                             \
            break;                                                                   \
        case 2:                                                                      \
            BODY(at, 2);                                                             \
            break;                                                                   \
        case 1:                                                                      \
            BODY(at, 1);                                                             \
            break;                                                                   \
        }                                                                            \
    } while (0)

static void mean_of(float *const *rows, long count, float factor, float *out, long stride) {
#define SUM(at, columns) sum_columns(rows, count, factor, out, at, columns)
    FOR_COLUMNS(stride, SUM);
#undef SUM
}

/* Row after row, so rows that come twice get the update twice. */
static void add_to_all(float *const *rows, long count, float factor, const float *update, long stride) {
#define ADD_TO(at, columns) add_columns(rows, count, factor, update, at, columns)
    FOR_COLUMNS(stride, ADD_TO);
#undef ADD_TO
}

/* The rows that make up a word: its own and those of its n-grams. */
static float **rows_of_word(const fr_words *model, int32_t word, float **rows) {
    *rows++ = model->inputs + word * model->stride;
    for (int64_t i = model->gram_begins[word]; i < model->gram_begins[word + 1]; i++)
        *rows++ = model->inputs + model->grams[i] * model->stride;
    return rows;
}

/* One bag of all words in CBOW, else one of each word. Without n-grams its rows are the step's. */
static void gather(const fr_words *model, const fr_words_step *step, fr_words_scratch *scratch) {
    const int bags = model->cbow ? 1 : step->M, words = model->cbow ? step->M : 1;
    float **begin = model->grams ? scratch->rows : step->rows, **end = begin;
    for (int bag = 0, m = 0; bag < bags; bag++) {
        if (model->grams)
            for (int i = 0; i < words; i++) end = rows_of_word(model, step->words[m++], end);
        else
            end += words;
        const float factor = 1.0f / (end - begin);
        mean_of(begin, end - begin, model->mean ? factor : 1, scratch->x[bag], model->stride);
        scratch->factors[bag] = model->mean ? 1 : factor;
        scratch->ends[bag] = begin = end;
    }
}

static void scatter(const fr_words *model, const fr_words_step *step, fr_words_scratch *scratch) {
    const int bags = model->cbow ? 1 : step->M;
    float **begin = model->grams ? scratch->rows : step->rows;
    for (int bag = 0; bag < bags; begin = scratch->ends[bag++])
        add_to_all(begin, scratch->ends[bag] - begin, scratch->factors[bag], scratch->dx[bag], model->stride);
}

#endif
