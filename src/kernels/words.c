/* Training of word vectors, in float32. setup.py compiles this file once for each instruction set; FR_TABLE names its table.
 *
 * # Design:
 * a) One step for one window: its M context words against the K words of one set of draws, so a row that is read serves
 *    a small matrix product and is written once. With draws for each pair, or in CBOW, M is 1.
 * b) Scores and updates run through tiles of up to GROUP outputs, which AVX2 holds in registers with their updates.
 * c) A step is drawn, and its rows are fetched, while the one before it is computed.
 * d) A step is exact: the gradient at the values from before it. So inputs and outputs that come twice are counted, not
 *    listed twice; where a step has several tiles, or inputs are means of rows, the inputs' update is gathered apart.
 */
#include "words.h"
#include "vecmath.h"
#include "words_scratch.h"

enum { GROUP = 6, SLOTS = FR_WORDS_SLOTS };

/* ---- Sums over the lanes of up to 8 vectors ---- */

typedef float octet __attribute__((vector_size(32), may_alias));

#if VECTOR_BYTES == 16
INLINE void sum_lanes(const vec sums[SLOTS], float *out) {
    UNROLL for (int half = 0; half < SLOTS; half += 4) {
        vec pair[2];
        UNROLL for (int i = 0; i < 2; i++) {
            const vec a = sums[half + 2 * i], b = sums[half + 2 * i + 1];
            pair[i] = SHUFFLE(a, b, 0, 4, 1, 5) + SHUFFLE(a, b, 2, 6, 3, 7);
        }
        store(out + half, SHUFFLE(pair[0], pair[1], 0, 1, 4, 5) + SHUFFLE(pair[0], pair[1], 2, 3, 6, 7));
    }
}
#else
#if VECTOR_BYTES == 64
INLINE octet fold(vec v) {
    return (octet)_mm512_castps512_ps256((__m512)v) + (octet)_mm512_extractf32x8_ps((__m512)v, 1);
}
#else
INLINE octet fold(vec v) { return (octet)v; }
#endif
typedef int32_t octet_index __attribute__((vector_size(32)));
#ifdef __clang__
#define SHUFFLE_8(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE_8(a, b, ...) __builtin_shuffle(a, b, (octet_index){__VA_ARGS__})
#endif
INLINE void sum_lanes(const vec sums[SLOTS], float *out) {
    octet pair[4], quad[2];
    UNROLL for (int i = 0; i < 4; i++) {
        const octet a = fold(sums[2 * i]), b = fold(sums[2 * i + 1]);
        pair[i] = SHUFFLE_8(a, b, 0, 8, 1, 9, 4, 12, 5, 13) + SHUFFLE_8(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
    }
    UNROLL for (int i = 0; i < 2; i++) {
        const octet a = pair[2 * i], b = pair[2 * i + 1];
        quad[i] = SHUFFLE_8(a, b, 0, 1, 8, 9, 4, 5, 12, 13) + SHUFFLE_8(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
    }
    *(octet *)out =
        SHUFFLE_8(quad[0], quad[1], 0, 1, 2, 3, 8, 9, 10, 11) + SHUFFLE_8(quad[0], quad[1], 4, 5, 6, 7, 12, 13, 14, 15);
}
#endif

/* ---- Tiles: M inputs by n <= GROUP outputs; n, R and in_place are constants where these are inlined ---- */

/* The scores x_m . u_k of R inputs. */
INLINE void score_rows(float *const *x, float *const *u, long stride, int n, int R, float *scores) {
    vec sums[2][SLOTS] = {{{0}}};
    for (long i = 0; i < stride; i += VL) {
        vec rows[2];
        UNROLL for (int r = 0; r < R; r++) rows[r] = load(x[r] + i);
        UNROLL for (int k = 0; k < n; k++) {
            const vec out = load(u[k] + i);
            UNROLL for (int r = 0; r < R; r++) sums[r][k] += rows[r] * out;
        }
    }
    UNROLL for (int r = 0; r < R; r++) sum_lanes(sums[r], scores + r * SLOTS);
}

/* u_k += sum over m of G_mk x_m; x_m += sum over k of G_mk u_k, or dx_m += the same; all x and u on the right are old. */
INLINE void update_rows(float *const *x, float *const *dx, float *const *u, long stride, int M, int n, int in_place,
                        const float *G) {
    for (long i = 0; i < stride; i += VL) {
        vec old[GROUP], new[GROUP];
        UNROLL for (int k = 0; k < n; k++) old[k] = new[k] = load(u[k] + i);
        for (int m = 0; m < M; m++) {
            const vec row = load(x[m] + i);
            vec sum = in_place ? row : load(dx[m] + i);
            UNROLL for (int k = 0; k < n; k++) {
                const vec g = splat(G[m * SLOTS + k]);
                sum += g * old[k];
                new[k] += g * row;
            }
            store(dx[m] + i, sum);
        }
        UNROLL for (int k = 0; k < n; k++) store(u[k] + i, new[k]);
    }
}

/* From scores to G = rate * times * (label - s(score)), times being how often an input and an output count. */
INLINE void errors_of(float *scores, int M, const float *labels, const float *times, const float *repeats, float rate) {
    for (int i = 0; i < M * SLOTS; i += VL) {
        const int at = i % SLOTS;
        const vec g = (load(labels + at) - vsigmoid(load(scores + i))) * (load(times + at) * rate);
        store(scores + i, repeats ? g * load(repeats + i) : g);
    }
}

static double loss_of(const float *scores, int M, int n, const float *labels, const float *times,
                      const float *repeats) {
    double loss = 0;
    for (int m = 0; m < M; m++)
        for (int k = 0; k < n; k++) {
            const double f = scores[m * SLOTS + k], against = labels[k] ? -f : f;
            const double one = (against > 0 ? against : 0) + __builtin_log1p(__builtin_exp(-__builtin_fabs(f)));
            loss += one * times[k] * (repeats ? repeats[m * SLOTS] : 1);
        }
    return loss;
}

typedef struct {
    float **x, **dx; /* (M) rows, and where their updates go: the same, in place */
    int M;
    long stride;
    const float *repeats; /* (M, SLOTS) or NULL where all are 1 */
    float *scores;        /* (M + 1, SLOTS) */
    float rate;
    int compute_loss;
} tile_inputs;

INLINE double tile(const tile_inputs *t, float *const *u, int n, const float *labels, const float *times,
                   int in_place) {
    int m = 0;
    for (; m + 2 <= t->M; m += 2) score_rows(t->x + m, u, t->stride, n, 2, t->scores + m * SLOTS);
    if (m < t->M) score_rows(t->x + m, u, t->stride, n, 1, t->scores + m * SLOTS);
    const double loss = t->compute_loss ? loss_of(t->scores, t->M, n, labels, times, t->repeats) : 0;
    errors_of(t->scores, t->M, labels, times, t->repeats, t->rate);
    update_rows(t->x, t->dx, u, t->stride, t->M, n, in_place, t->scores);
    return loss;
}

#define TILE_OF(n) \
    case n:        \
        return in_place ? tile(t, u, n, labels, times, 1) : tile(t, u, n, labels, times, 0);

NOINLINE double tile_of(const tile_inputs *t, float *const *u, int n, const float *labels, const float *times,
                        int in_place) {
    switch (n) {
        TILE_OF(1)
        TILE_OF(2)
        TILE_OF(3)
        TILE_OF(4)
        TILE_OF(5)
        TILE_OF(6)
    }
    return 0;
}

/* ---- A step ---- */

/* All outputs of a step, GROUP by GROUP. rows, labels, times: (K), of `matrix`. */
static double step_outputs(const tile_inputs *t, float *matrix, const int32_t *rows, const float *labels,
                           const float *times, int K, int in_place) {
    double loss = 0;
    for (int first = 0; first < K; first += GROUP) {
        const int n = K - first < GROUP ? K - first : GROUP;
        float *u[GROUP];
        /* Twice the slots, since a vector may hold two rows of them. */
        float tile_labels[2 * SLOTS] = {0}, tile_times[2 * SLOTS] = {0};
        for (int k = 0; k < n; k++) {
            u[k] = matrix + rows[first + k] * t->stride;
            tile_labels[k] = tile_labels[k + SLOTS] = labels[first + k];
            tile_times[k] = tile_times[k + SLOTS] = times ? times[first + k] : 1;
        }
        loss += tile_of(t, u, n, tile_labels, tile_times, in_place);
    }
    return loss;
}

INLINE void add_row(float *to, const float *from, long stride, float factor) {
    for (long i = 0; i < stride; i += VL) store(to + i, load(to + i) + load(from + i) * factor);
}

/* The rows that make up a context word: its own and those of its n-grams. Calls BODY with `row`. */
#define FOR_ROWS_OF(model, word, ...)                                             \
    do {                                                                          \
        float *row = (model)->inputs + (word) * (model)->stride;                  \
        __VA_ARGS__;                                                              \
        for (int64_t at = (model)->grams ? (model)->gram_begins[word] : 0,        \
                     end = (model)->grams ? (model)->gram_begins[(word) + 1] : 0; \
             at < end; at++) {                                                    \
            row = (model)->inputs + (model)->grams[at] * (model)->stride;         \
            __VA_ARGS__;                                                          \
        }                                                                         \
    } while (0)

static long rows_in(const fr_words *model, int32_t word) {
    return 1 + (model->grams ? model->gram_begins[word + 1] - model->gram_begins[word] : 0);
}

/* Inputs that are means (or sums) of rows: `bags` of them, of all words in CBOW, else of one word each. */
static void gather(const fr_words *model, const fr_words_step *step, fr_words_scratch *scratch) {
    const long stride = model->stride;
    const int bags = model->cbow ? 1 : step->M;
    memset(scratch->x[0], 0, bags * stride * sizeof(float));
    memset(scratch->dx[0], 0, bags * stride * sizeof(float));
    for (int bag = 0; bag < bags; bag++) {
        const int first = model->cbow ? 0 : bag, last = model->cbow ? step->M : bag + 1;
        long rows = 0;
        for (int m = first; m < last; m++) rows += rows_in(model, step->words[m]);
        scratch->rows[bag] = rows;
        for (int m = first; m < last; m++) FOR_ROWS_OF(model, step->words[m], add_row(scratch->x[bag], row, stride, 1));
        if (model->mean)
            for (long i = 0; i < stride; i += VL) store(scratch->x[bag] + i, load(scratch->x[bag] + i) * (1.0f / rows));
    }
}

static void scatter(const fr_words *model, const fr_words_step *step, fr_words_scratch *scratch) {
    for (int m = 0; m < step->M; m++) {
        const int bag = model->cbow ? 0 : m;
        const float factor = model->mean ? 1 : 1.0f / scratch->rows[bag];
        FOR_ROWS_OF(model, step->words[m], add_row(row, scratch->dx[bag], model->stride, factor));
    }
}

static double run_step(const fr_words *model, const fr_words_step *step, float rate, fr_words_scratch *scratch) {
    double loss = 0;
    for (int softmax = 1; softmax >= 0; softmax--) {
        float *matrix = softmax ? model->nodes : model->outputs;
        if (!matrix) continue;
        const int64_t path = softmax ? model->path_begins[step->center] : 0;
        const int K = softmax ? (int)(model->path_begins[step->center + 1] - path) : step->K;
        const int plain = !model->cbow && !model->grams, in_place = plain && K <= GROUP;
        tile_inputs t = {
            .x = scratch->x,
            .dx = scratch->dx,
            .M = model->cbow ? 1 : step->M,
            .stride = model->stride,
            .repeats = step->repeated && !model->cbow ? step->repeats : 0,
            .scores = scratch->scores,
            .rate = rate,
            .compute_loss = model->compute_loss,
        };
        if (in_place) {
            for (int m = 0; m < step->M; m++) scratch->at[m] = model->inputs + step->words[m] * model->stride;
            t.x = t.dx = scratch->at;
        } else {
            gather(model, step, scratch);
        }
        loss += softmax ? step_outputs(&t, matrix, model->paths + path, model->labels + path, 0, K, in_place)
                        : step_outputs(&t, matrix, step->outputs, scratch->truth, step->times, K, in_place);
        if (!in_place) scatter(model, step, scratch);
    }
    return loss;
}

/* ---- Drawing steps ---- */

typedef struct {
    const fr_words *model;
    const int32_t *kept; /* the task's tokens, with what windows reach to */
    long at, begin, end, count;
    uint64_t state;
    int left, total; /* context words of the current center that are left, where each has a step of its own */
    int32_t *context;
} drawing;

INLINE uint64_t draw(drawing *d) { return fr_mix(d->state += FR_GOLDEN); }
INLINE uint32_t draw_below(drawing *d, uint32_t n) { return (draw(d) >> 32) * n >> 32; }

/* The next center with words about it; its context words, in their order. 0 where there is none any more. */
static int next_center(drawing *d) {
    for (; d->at < d->end; d->at++) {
        if (d->kept[d->at] == FR_BREAK) continue;
        const int window = d->model->window, reach = d->model->shrink ? window - (int)draw_below(d, window) : window;
        long first = d->at, last = d->at + 1;
        while (first > 0 && d->at - first < reach && d->kept[first - 1] != FR_BREAK) first--;
        while (last < d->count && last - d->at <= reach && d->kept[last] != FR_BREAK) last++;
        if (last - first == 1) continue;
        int M = 0;
        for (long i = first; i < d->at; i++) d->context[M++] = d->kept[i];
        for (long i = d->at + 1; i < last; i++) d->context[M++] = d->kept[i];
        d->left = d->total = M;
        return 1;
    }
    return 0;
}

INLINE void fetch(const float *row, long stride) {
    for (long i = 0; i < stride; i += 16) __builtin_prefetch(row + i, 1);
}

static void draw_outputs(drawing *d, fr_words_step *step) {
    const fr_words *model = d->model;
    step->outputs[0] = step->center;
    step->times[0] = 1;
    step->K = 1;
    for (int i = 0; i < model->negative; i++) {
        const uint64_t r = draw(d);
        const uint32_t column = (r >> 32) * (uint64_t)model->V >> 32;
        const fr_alias alias = model->aliases[column];
        const int32_t word = (uint32_t)r < alias.limit ? (int32_t)column : alias.other;
        if (word == step->center) continue;
        int k = 1;
        while (k < step->K && step->outputs[k] != word) k++;
        if (k < step->K) {
            step->times[k] += 1;
        } else {
            step->outputs[step->K] = word;
            step->times[step->K++] = 1;
            fetch(model->outputs + word * model->stride, model->stride);
        }
    }
    fetch(model->outputs + step->center * model->stride, model->stride);
}

/* The words of a step; those that come twice are counted, but in CBOW, where they are only added up. */
static void set_inputs(const fr_words *model, fr_words_step *step, const int32_t *words, int count) {
    if (step->repeated)
        for (int i = 0; i < step->M * SLOTS; i++) step->repeats[i] = 1;
    step->M = step->repeated = 0;
    for (int i = 0; i < count; i++) {
        int m = 0;
        if (!model->cbow)
            while (m < step->M && step->words[m] != words[i]) m++;
        if (!model->cbow && m < step->M) {
            step->repeated = 1;
            for (int k = 0; k < SLOTS; k++) step->repeats[m * SLOTS + k] += 1;
        } else {
            step->words[step->M++] = words[i];
            fetch(model->inputs + words[i] * model->stride, model->stride);
        }
    }
}

static int next_step(drawing *d, fr_words_step *step) {
    const fr_words *model = d->model;
    if (!d->left && !next_center(d)) return 0;
    const int alone = !model->cbow && !model->shared;
    step->center = d->kept[d->at];
    set_inputs(model, step, alone ? d->context + d->total - d->left : d->context, alone ? 1 : d->total);
    d->left = alone ? d->left - 1 : 0;
    if (!d->left) d->at++;
    if (model->outputs) draw_outputs(d, step);
    return 1;
}

/* ---- A task ---- */

/* The tokens that are kept, from as far left as windows reach to as far right. */
static void keep_tokens(const fr_words *model, const fr_words_stretch *s, long begin, long end, drawing *d,
                        int32_t *kept) {
    const uint64_t key = fr_keep_key(model->seed, s->epoch);
    const int window = model->window;
    long first = begin, count = 0;
    for (int found = 0; first > 0 && found < window && s->tokens[first - 1] != FR_BREAK; first--)
        found += fr_kept(model, key, s->first + first - 1, s->tokens[first - 1]);
    for (long i = first; i < begin; i++)
        if (fr_kept(model, key, s->first + i, s->tokens[i])) kept[count++] = s->tokens[i];
    d->at = count;
    for (long i = begin; i < end; i++) {
        kept[count] = s->tokens[i];
        count += fr_kept(model, key, s->first + i, s->tokens[i]);
    }
    d->end = count;
    for (long i = end; i < s->L && count - d->end < window && s->tokens[i] != FR_BREAK; i++)
        if (fr_kept(model, key, s->first + i, s->tokens[i])) kept[count++] = s->tokens[i];
    d->count = count;
}

static double train(const fr_words *model, const fr_words_stretch *s, long begin, long end, fr_words_scratch *scratch) {
    const int64_t task = (s->first + begin) / s->task_size;
    const double rate = s->rate - s->slope * (double)(s->first + begin);
    drawing d = {
        .model = model,
        .kept = scratch->kept,
        .context = scratch->context,
        .state = fr_mix(fr_draw_key(model->seed, s->epoch) + (uint64_t)task * FR_GOLDEN),
    };
    keep_tokens(model, s, begin, end, &d, scratch->kept);
    fr_words_step *step = &scratch->steps[0], *ahead = &scratch->steps[1];
    double loss = 0;
    int more = next_step(&d, step);
    while (more) {
        more = next_step(&d, ahead);
        loss += run_step(model, step, (float)(rate > s->least_rate ? rate : s->least_rate), scratch);
        fr_words_step *swap = step;
        step = ahead, ahead = swap;
    }
    return loss;
}

const fr_words_kernels FR_TABLE = {.train = train};
