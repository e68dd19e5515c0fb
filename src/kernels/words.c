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

/* ---- Sums over the lanes of the 8 vectors that a row of scores is made of ---- */

enum { PARTS = VECTOR_BYTES == 16 ? 2 : 1 }; /* vectors of the scores of one input, or of two where they fit in one */

#if VECTOR_BYTES == 16
INLINE void sum_lanes(const vec sums[SLOTS], vec out[PARTS]) {
    UNROLL for (int half = 0; half < 2; half++) {
        vec pair[2];
        UNROLL for (int i = 0; i < 2; i++) {
            const vec a = sums[4 * half + 2 * i], b = sums[4 * half + 2 * i + 1];
            pair[i] = SHUFFLE(a, b, 0, 4, 1, 5) + SHUFFLE(a, b, 2, 6, 3, 7);
        }
        out[half] = SHUFFLE(pair[0], pair[1], 0, 1, 4, 5) + SHUFFLE(pair[0], pair[1], 2, 3, 6, 7);
    }
}
#else
typedef float octet __attribute__((vector_size(32), may_alias));
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
INLINE octet sum_octets(const vec sums[SLOTS]) {
    octet pair[4], quad[2];
    UNROLL for (int i = 0; i < 4; i++) {
        const octet a = fold(sums[2 * i]), b = fold(sums[2 * i + 1]);
        pair[i] = SHUFFLE_8(a, b, 0, 8, 1, 9, 4, 12, 5, 13) + SHUFFLE_8(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
    }
    UNROLL for (int i = 0; i < 2; i++) {
        const octet a = pair[2 * i], b = pair[2 * i + 1];
        quad[i] = SHUFFLE_8(a, b, 0, 1, 8, 9, 4, 5, 12, 13) + SHUFFLE_8(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
    }
    return SHUFFLE_8(quad[0], quad[1], 0, 1, 2, 3, 8, 9, 10, 11) +
           SHUFFLE_8(quad[0], quad[1], 4, 5, 6, 7, 12, 13, 14, 15);
}
#endif

/* The scores of R inputs, 1 or 2, side by side in `out`, which has 2 * PARTS vectors. Returns how many it fills. */
INLINE int sum_rows(vec sums[2][SLOTS], int R, vec *out) {
#if VECTOR_BYTES == 16
    UNROLL for (int r = 0; r < R; r++) sum_lanes(sums[r], out + r * PARTS);
    return R * PARTS;
#elif VECTOR_BYTES == 32
    UNROLL for (int r = 0; r < R; r++) out[r] = (vec)sum_octets(sums[r]);
    return R;
#else
    const __m512 first = _mm512_castps256_ps512((__m256)sum_octets(sums[0]));
    out[0] = R == 1 ? (vec)first : (vec)_mm512_insertf32x8(first, (__m256)sum_octets(sums[1]), 1);
    return 1;
#endif
}

/* ---- Tiles: M inputs by n <= GROUP outputs; n, R and `place` are constants where these are inlined ---- */

enum { IN_PLACE, SET, ADD }; /* where the inputs' updates go: into the inputs, to rows of their own, or onto these */

typedef struct {
    float **x, **dx; /* (M) rows, and where their updates go */
    int M;
    long stride;
    const float *repeats; /* (M, SLOTS) how often an input counts; NULL where once */
    float *scores;        /* (M + 1, SLOTS) */
    float rate;
    int compute_loss;
} tile_inputs;

static double loss_of(const float *scores, int R, int n, const float *labels, const float *times,
                      const float *repeats) {
    double loss = 0;
    for (int r = 0; r < R; r++)
        for (int k = 0; k < n; k++) {
            const double f = scores[r * SLOTS + k], against = labels[k] ? -f : f;
            const double one = (against > 0 ? against : 0) + __builtin_log1p(__builtin_exp(-__builtin_fabs(f)));
            loss += one * times[k] * (repeats ? repeats[r * SLOTS] : 1);
        }
    return loss;
}

/* The scores f = x_m . u_k of R inputs, and from them G = rate * times * (label - s(f)). They go from registers to registers:
 * to read back what narrower stores have just written would stall. */
INLINE double errors_of_rows(const tile_inputs *t, int m, int R, float *const *u, int n, const float *labels,
                             const float *times) {
    vec sums[2][SLOTS] = {{{0}}}, scores[2 * PARTS];
    for (long i = 0; i < t->stride; i += VL) {
        vec rows[2];
        UNROLL for (int r = 0; r < R; r++) rows[r] = load(t->x[m + r] + i);
        UNROLL for (int k = 0; k < n; k++) {
            const vec out = load(u[k] + i);
            UNROLL for (int r = 0; r < R; r++) sums[r][k] += rows[r] * out;
        }
    }
    const int parts = sum_rows(sums, R, scores);
    float *out = t->scores + m * SLOTS;
    double loss = 0;
    if (t->compute_loss) {
        UNROLL for (int i = 0; i < parts; i++) store(out + i * VL, scores[i]);
        loss = loss_of(out, R, n, labels, times, t->repeats ? t->repeats + m * SLOTS : 0);
    }
    UNROLL for (int i = 0; i < parts; i++) {
        const int at = i * VL % SLOTS;
        const vec g = (load(labels + at) - vsigmoid(scores[i])) * (load(times + at) * t->rate);
        store(out + i * VL, t->repeats ? g * load(t->repeats + m * SLOTS + i * VL) : g);
    }
    return loss;
}

/* u_k += sum over m of G_mk x_m, and for x_m the sum over k of G_mk u_k; all x and u on the right are old. */
INLINE void update_rows(const tile_inputs *t, float *const *u, int n, int place) {
    for (long i = 0; i < t->stride; i += VL) {
        vec old[GROUP], new[GROUP];
        UNROLL for (int k = 0; k < n; k++) old[k] = new[k] = load(u[k] + i);
        for (int m = 0; m < t->M; m++) {
            const vec row = load(t->x[m] + i);
            vec sum = place == IN_PLACE ? row : place == SET ? (vec){0} : load(t->dx[m] + i);
            UNROLL for (int k = 0; k < n; k++) {
                const vec g = splat(t->scores[m * SLOTS + k]);
                sum += g * old[k];
                new[k] += g * row;
            }
            store((place == IN_PLACE ? t->x[m] : t->dx[m]) + i, sum);
        }
        UNROLL for (int k = 0; k < n; k++) store(u[k] + i, new[k]);
    }
}

INLINE double run_tile(const tile_inputs *t, float *const *u, int n, const float *labels, const float *times,
                       int place) {
    double loss = 0;
    int m = 0;
    for (; m + 2 <= t->M; m += 2) loss += errors_of_rows(t, m, 2, u, n, labels, times);
    if (m < t->M) loss += errors_of_rows(t, m, 1, u, n, labels, times);
    if (place == IN_PLACE)
        update_rows(t, u, n, IN_PLACE);
    else if (place == SET)
        update_rows(t, u, n, SET);
    else
        update_rows(t, u, n, ADD);
    return loss;
}

/* labels, times: (2, SLOTS), the same twice, since a vector may hold the scores of two inputs; 0 past n. */
NOINLINE double tile_of(const tile_inputs *t, float *const *u, int n, const float *labels, const float *times,
                        int place) {
    switch (n) {
    case 1:
        return run_tile(t, u, 1, labels, times, place);
    case 2:
        return run_tile(t, u, 2, labels, times, place);
    case 3:
        return run_tile(t, u, 3, labels, times, place);
    case 4:
        return run_tile(t, u, 4, labels, times, place);
    case 5:
        return run_tile(t, u, 5, labels, times, place);
    default:
        return run_tile(t, u, GROUP, labels, times, place);
    }
}

/* ---- Inputs that are means (or sums) of rows: in CBOW, and with n-grams ---- */

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
    if (model->grams)
        for (int64_t i = model->gram_begins[word]; i < model->gram_begins[word + 1]; i++)
            *rows++ = model->inputs + model->grams[i] * model->stride;
    return rows;
}

/* One bag of all words in CBOW, else one of each word. */
static void gather(const fr_words *model, const fr_words_step *step, fr_words_scratch *scratch) {
    float **begin = scratch->rows, **end = begin;
    for (int m = 0, bag = 0; m < step->M; m++) {
        end = rows_of_word(model, step->words[m], end);
        if (model->cbow && m + 1 < step->M) continue;
        const float factor = 1.0f / (end - begin);
        mean_of(begin, end - begin, model->mean ? factor : 1, scratch->x[bag], model->stride);
        scratch->factors[bag] = model->mean ? 1 : factor;
        scratch->ends[bag++] = begin = end;
    }
}

static void scatter(const fr_words *model, const fr_words_step *step, fr_words_scratch *scratch) {
    const int bags = model->cbow ? 1 : step->M;
    float **begin = scratch->rows;
    for (int bag = 0; bag < bags; begin = scratch->ends[bag++])
        add_to_all(begin, scratch->ends[bag] - begin, scratch->factors[bag], scratch->dx[bag], model->stride);
}

/* ---- A step ---- */

/* Both kinds of outputs, as groups of rows of a matrix with their labels and times. */
static double run_negatives(const fr_words *model, const fr_words_step *step, const tile_inputs *t, int place) {
    double loss = 0;
    for (int first = 0, group = 0; first < step->K; first += GROUP, group++) {
        const int n = step->K - first < GROUP ? step->K - first : GROUP;
        float *u[GROUP];
        for (int k = 0; k < n; k++) u[k] = model->outputs + step->outputs[first + k] * model->stride;
        static const float truth[2 * SLOTS] = {1, [SLOTS] = 1}, none[2 * SLOTS];
        loss += tile_of(t, u, n, first ? none : truth, step->times + group * 2 * SLOTS,
                        place == SET && first ? ADD : place);
    }
    return loss;
}

static double run_path(const fr_words *model, int64_t begin, int K, const tile_inputs *t, int place) {
    double loss = 0;
    for (int first = 0; first < K; first += GROUP) {
        const int n = K - first < GROUP ? K - first : GROUP;
        float *u[GROUP], labels[2 * SLOTS] = {0}, once[2 * SLOTS] = {0};
        for (int k = 0; k < n; k++) {
            u[k] = model->nodes + model->paths[begin + first + k] * model->stride;
            labels[k] = labels[k + SLOTS] = model->labels[begin + first + k];
            once[k] = once[k + SLOTS] = 1;
        }
        loss += tile_of(t, u, n, labels, once, place == SET && first ? ADD : place);
    }
    return loss;
}

static double run_step(const fr_words *model, const fr_words_step *step, float rate, fr_words_scratch *scratch) {
    const int64_t path = model->nodes ? model->path_begins[step->center] : 0;
    const int depth = model->nodes ? (int)(model->path_begins[step->center + 1] - path) : 0;
    const int plain = !model->cbow && !model->grams;
    double loss = 0;
    for (int softmax = model->nodes != 0; softmax >= !model->outputs; softmax--) {
        const int place = plain && (softmax ? depth : step->K) <= GROUP ? IN_PLACE : SET;
        tile_inputs t = {
            .x = scratch->x,
            .dx = scratch->dx,
            .M = model->cbow ? 1 : step->M,
            .stride = model->stride,
            .repeats = step->repeated ? step->repeats : 0,
            .scores = scratch->scores,
            .rate = rate,
            .compute_loss = model->compute_loss,
        };
        if (place == IN_PLACE) {
            for (int m = 0; m < step->M; m++) scratch->rows[m] = model->inputs + step->words[m] * model->stride;
            t.x = scratch->rows;
        } else {
            gather(model, step, scratch);
        }
        loss += softmax ? run_path(model, path, depth, &t, place) : run_negatives(model, step, &t, place);
        if (place == SET) scatter(model, step, scratch);
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

INLINE void fetch(const float *row, long stride) {
    for (long i = 0; i < stride; i += 16) __builtin_prefetch(row + i, 1);
}

/* A word comes into the window from the right, and stays for a while. */
static void fetch_inputs(const fr_words *model, int32_t word) {
    if (word == FR_BREAK) return;
    fetch(model->inputs + word * model->stride, model->stride);
    if (model->grams)
        for (int64_t i = model->gram_begins[word]; i < model->gram_begins[word + 1]; i++)
            fetch(model->inputs + model->grams[i] * model->stride, model->stride);
}

/* The next center with words about it; its context words, in their order. 0 where there is none any more. */
static int next_center(drawing *d) {
    for (; d->at < d->end; d->at++) {
        if (d->kept[d->at] == FR_BREAK) continue;
        const int window = d->model->window, reach = d->model->shrink ? window - (int)draw_below(d, window) : window;
        long first = d->at, last = d->at + 1;
        while (first > 0 && d->at - first < reach && d->kept[first - 1] != FR_BREAK) first--;
        while (last < d->count && last - d->at <= reach && d->kept[last] != FR_BREAK) last++;
        fetch_inputs(d->model, d->at + 1 + window < d->count ? d->kept[d->at + 1 + window] : FR_BREAK);
        if (last - first == 1) continue;
        int M = 0;
        for (long i = first; i < d->at; i++) d->context[M++] = d->kept[i];
        for (long i = d->at + 1; i < last; i++) d->context[M++] = d->kept[i];
        d->left = d->total = M;
        return 1;
    }
    return 0;
}

/* Where the k-th output's times stand: (groups, 2, SLOTS). */
INLINE float *times_of(fr_words_step *step, int k) { return step->times + k / GROUP * 2 * SLOTS + k % GROUP; }

static void draw_outputs(drawing *d, fr_words_step *step) {
    const fr_words *model = d->model;
    memset(step->times, 0, (1 + model->negative + GROUP - 1) / GROUP * 2 * SLOTS * sizeof(float));
    step->outputs[0] = step->center;
    step->times[0] = step->times[SLOTS] = 1;
    step->K = 1;
    for (int i = 0; i < model->negative; i++) {
        const uint64_t r = draw(d);
        const uint32_t column = (r >> 32) * (uint64_t)model->V >> 32;
        const fr_alias alias = model->aliases[column];
        const int32_t word = (uint32_t)r < alias.limit ? (int32_t)column : alias.other;
        if (word == step->center) continue;
        int k = 1;
        while (k < step->K && step->outputs[k] != word) k++;
        if (k == step->K) {
            step->outputs[step->K++] = word;
            fetch(model->outputs + word * model->stride, model->stride);
        }
        float *times = times_of(step, k);
        times[0] = times[SLOTS] += 1;
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
