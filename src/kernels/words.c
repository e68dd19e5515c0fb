/* Training of word vectors, in float32. setup.py compiles this file once for each instruction set; FR_TABLE names its table.
 *
 * # Design:
 * a) One step for one window: its M context words against the K words of one set of draws, so a row that is read serves
 *    a small matrix product and is written once. With draws for each pair, or in CBOW, M is 1.
 * b) Scores and updates run through tiles of up to GROUP outputs, which AVX2 holds in registers with their updates.
 * c) A step is drawn, and its rows are fetched, while the one before it is computed: between its errors and its updates,
 *    where there is little else to do.
 * d) A step is exact: the gradient at the values from before it. So inputs and outputs that come twice are counted, not
 *    listed twice; where a step has several tiles, or inputs are means of rows, the inputs' update is gathered apart.
 */
#include "words.h"
#include "words_rows.h"
#include "words_scratch.h"
#include "words_tile.h"

/* ---- Drawing steps ---- */

typedef struct {
    const fr_words *model;
    const int32_t *kept; /* the task's tokens, with what windows reach to */
    long at, end, count;
    long first, last; /* the sentence that `at` is in */
    uint64_t state;
    int left, total; /* context words of the current center that are left, where each has a step of its own */
    int32_t *context, *drawn;
    fr_own_rows *inputs, *outputs;
    fr_words_step *ahead; /* to be drawn while another step runs; NULL where it is */
    int more;             /* whether there was one left for it */
} drawing;

enum { FETCHED_AHEAD = FR_WORDS_FETCHED_AHEAD };

INLINE uint64_t draw(drawing *d) { return fr_mix(d->state += FR_GOLDEN); }
INLINE uint32_t draw_below(drawing *d, uint32_t n) { return (draw(d) >> 32) * n >> 32; }

INLINE void fetch(const float *row, long stride) {
    for (long i = 0; i < stride; i += 16) __builtin_prefetch(row + i, 1);
}

/* ---- Rows of one's own ---- */

INLINE float *row_of(const fr_own_rows *own, float *matrix, int32_t word, long stride) {
    return ((uint32_t)word < own->count ? own->own : matrix) + word * stride;
}

/* What this thread has changed goes to all, and what all have changed comes here. */
NOINLINE void share_row(const fr_own_rows *rows, float *matrix, int32_t word, long stride) {
    float *const shared = matrix + word * stride, *const own = rows->own + word * stride;
    float *const seen = rows->seen + word * stride;
    for (long i = 0; i < stride; i += VL) {
        const vec sum = load(shared + i) + (load(own + i) - load(seen + i));
        store(shared + i, sum);
        store(own + i, sum);
        store(seen + i, sum);
    }
    rows->left[word] = rows->uses;
}

INLINE void use_row(const fr_own_rows *rows, float *matrix, int32_t word, long stride) {
    if ((uint32_t)word < rows->count && !rows->left[word]--) share_row(rows, matrix, word, stride);
}

/* A word comes into the window from the right, and stays for a while. */
static void fetch_inputs(const drawing *d, int32_t word) {
    const fr_words *model = d->model;
    if (word == FR_BREAK) return;
    fetch(row_of(d->inputs, model->inputs, word, model->stride), model->stride);
    if (model->grams)
        for (int64_t i = model->gram_begins[word]; i < model->gram_begins[word + 1]; i++)
            fetch(model->inputs + model->grams[i] * model->stride, model->stride);
}

/* To the sentence behind the break at d->last. 0 where no center is left. */
static int next_sentence(drawing *d) {
    d->at = d->last;
    while (d->at < d->end && d->kept[d->at] == FR_BREAK) d->at++;
    if (d->at >= d->end) return 0;
    for (d->first = d->last = d->at; d->last < d->count && d->kept[d->last] != FR_BREAK; d->last++) {}
    return 1;
}

/* The next center with words about it; its context words, in their order. 0 where there is none any more. */
static int next_center(drawing *d) {
    const int window = d->model->window;
    for (;; d->at++) {
        if ((d->at >= d->last && !next_sentence(d)) || d->at >= d->end) return 0;
        const long reach = d->model->shrink ? window - (int)draw_below(d, window) : window;
        const long from = d->at - reach > d->first ? d->at - reach : d->first;
        const long to = d->at + 1 + reach < d->last ? d->at + 1 + reach : d->last;
        fetch_inputs(d, d->kept[d->at + window + FETCHED_AHEAD]);
        if (to - from == 1) continue;
        /* More than are needed, since a loop of known length is foreseen. */
        int32_t *context = d->context;
        for (int i = 0; i < window; i++) context[i] = d->kept[from + i];
        context += d->at - from;
        for (int i = 0; i < window; i++) context[i] = d->kept[d->at + 1 + i];
        d->left = d->total = (int)(to - from - 1);
        return 1;
    }
}

/* Where the k-th output's times stand: (groups, 2, SLOTS). */
INLINE float *times_of(fr_words_step *step, int k) { return step->times + k / GROUP * 2 * SLOTS + k % GROUP; }

static void draw_outputs(drawing *d, fr_words_step *step) {
    const fr_words *model = d->model;
    for (int i = 0; i < (1 + model->negative + GROUP - 1) / GROUP * 2 * SLOTS; i += VL)
        store(step->times + i, (vec){0});
    step->outputs[0] = step->center;
    step->times[0] = step->times[SLOTS] = 1;
    step->K = 1;
    int32_t *const drawn = d->drawn;
    for (int i = 0; i < model->negative; i++) {
        const uint64_t r = fr_mix(d->state + (i + 1) * FR_GOLDEN);
        const uint32_t column = (r >> 32) * (uint64_t)model->V >> 32;
        const fr_alias alias = model->aliases[column];
        /* Without a branch: nobody foresees it. */
        const int32_t own = -(int32_t)((uint32_t)r < alias.limit);
        drawn[i] = alias.other ^ ((alias.other ^ (int32_t)column) & own);
    }
    d->state += model->negative * FR_GOLDEN;
    for (int i = 0; i < model->negative; i++) {
        const int32_t word = drawn[i];
        if (word == step->center) continue;
        int k = 1;
        while (k < step->K && step->outputs[k] != word) k++;
        if (k == step->K) {
            step->outputs[step->K++] = word;
            use_row(d->outputs, model->outputs, word, model->stride);
            fetch(row_of(d->outputs, model->outputs, word, model->stride), model->stride);
        }
        float *times = times_of(step, k);
        times[0] = times[SLOTS] += 1;
    }
    use_row(d->outputs, model->outputs, step->center, model->stride);
    fetch(row_of(d->outputs, model->outputs, step->center, model->stride), model->stride);
}

INLINE void set_input(const drawing *d, fr_words_step *step, int m, int32_t word) {
    step->words[m] = word;
    step->rows[m] = row_of(d->inputs, d->model->inputs, word, d->model->stride);
}

/* The words of a step; those that come twice are counted, but in CBOW, where they are only added up. */
static void set_inputs(const drawing *d, fr_words_step *step, const int32_t *words, int count) {
    const fr_words *model = d->model;
    if (d->inputs->count)
        for (int i = 0; i < count; i++) use_row(d->inputs, model->inputs, words[i], model->stride);
    if (model->cbow) {
        for (int i = 0; i < 2 * model->window; i++) set_input(d, step, i, words[i]);
        step->M = count;
        return;
    }
    if (step->repeated)
        for (int i = 0; i < step->M * SLOTS; i++) step->repeats[i] = 1;
    step->M = step->repeated = 0;
    for (int i = 0; i < count; i++) {
        int m = 0;
        while (m < step->M && step->words[m] != words[i]) m++;
        if (m == step->M) {
            set_input(d, step, step->M++, words[i]);
        } else {
            step->repeated = 1;
            for (int k = 0; k < SLOTS; k++) step->repeats[m * SLOTS + k] += 1;
        }
    }
}

static int next_step(drawing *d, fr_words_step *step) {
    const fr_words *model = d->model;
    if (!d->left && !next_center(d)) return 0;
    const int alone = !model->cbow && !model->shared;
    step->center = d->kept[d->at];
    set_inputs(d, step, alone ? d->context + d->total - d->left : d->context, alone ? 1 : d->total);
    d->left = alone ? d->left - 1 : 0;
    if (!d->left) d->at++;
    if (model->outputs) draw_outputs(d, step);
    return 1;
}

static void draw_ahead(drawing *d) {
    if (!d->ahead) return;
    d->more = next_step(d, d->ahead);
    d->ahead = 0;
}

/* ---- A step ---- */

/* Sums over lanes and sigmoids are long chains that leave a core idle: that is when the next step is drawn. */
static double run_tile(drawing *d, const tile_inputs *t, float *const *u, int n, const float *labels,
                       const float *times, int place) {
    const double loss = tile_errors(t, u, n, labels, times);
    draw_ahead(d);
    tile_update(t, u, n, place);
    return loss;
}

/* Both kinds of outputs, as groups of rows of a matrix with their labels and times. */
static double run_negatives(drawing *d, const fr_words_step *step, const tile_inputs *t, int place) {
    const fr_words *model = d->model;
    double loss = 0;
    for (int first = 0, group = 0; first < step->K; first += GROUP, group++) {
        const int n = step->K - first < GROUP ? step->K - first : GROUP;
        float *u[GROUP];
        for (int k = 0; k < n; k++) u[k] = row_of(d->outputs, model->outputs, step->outputs[first + k], model->stride);
        static const float truth[2 * SLOTS] = {1, [SLOTS] = 1}, none[2 * SLOTS];
        loss += run_tile(d, t, u, n, first ? none : truth, step->times + group * 2 * SLOTS,
                         place == SET && first ? ADD : place);
    }
    return loss;
}

static double run_path(drawing *d, int64_t begin, int K, const tile_inputs *t, int place) {
    const fr_words *model = d->model;
    double loss = 0;
    for (int first = 0; first < K; first += GROUP) {
        const int n = K - first < GROUP ? K - first : GROUP;
        float *u[GROUP], labels[2 * SLOTS] = {0}, once[2 * SLOTS] = {0};
        for (int k = 0; k < n; k++) {
            u[k] = model->nodes + model->paths[begin + first + k] * model->stride;
            labels[k] = labels[k + SLOTS] = model->labels[begin + first + k];
            once[k] = once[k + SLOTS] = 1;
        }
        loss += run_tile(d, t, u, n, labels, once, place == SET && first ? ADD : place);
    }
    return loss;
}

static double run_step(drawing *d, const fr_words_step *step, float rate, fr_words_scratch *scratch) {
    const fr_words *model = d->model;
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
            .margin = softmax ? 0 : model->margin,
            .compute_loss = model->compute_loss,
        };
        if (place == IN_PLACE) {
            t.x = step->rows;
        } else {
            gather(model, step, scratch);
        }
        loss += softmax ? run_path(d, path, depth, &t, place) : run_negatives(d, step, &t, place);
        if (place == SET) scatter(model, step, scratch);
    }
    return loss;
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
    for (int i = 0; i < window + FETCHED_AHEAD; i++) kept[count + i] = FR_BREAK;
    for (d->last = d->at; d->last < count && kept[d->last] != FR_BREAK; d->last++) {}
}

static double train(const fr_words *model, const fr_words_stretch *s, long begin, long end, fr_words_scratch *scratch) {
    const int64_t task = (s->first + begin) / s->task_size;
    const double rate = s->rate - s->slope * (double)(s->first + begin);
    drawing d = {
        .model = model,
        .kept = scratch->kept,
        .context = scratch->context,
        .drawn = scratch->drawn,
        .inputs = &scratch->inputs,
        .outputs = &scratch->outputs,
        .state = fr_mix(fr_draw_key(model->seed, s->epoch) + (uint64_t)task * FR_GOLDEN),
    };
    keep_tokens(model, s, begin, end, &d, scratch->kept);
    fr_words_step *step = &scratch->steps[0], *ahead = &scratch->steps[1];
    /* Of a step, in multiply-adds, about: M inputs with K outputs each, three times. */
    const double M = model->cbow || !model->shared ? 1 : model->window,
                 K = 1 + model->negative + (model->nodes ? 16 : 0);
    const double cost = 3 * M * K * model->stride;
    double loss = 0;
    int more = next_step(&d, step);
    while (more && !fr_stops(scratch->watch, cost)) {
        d.ahead = ahead;
        loss += run_step(&d, step, (float)(rate > s->least_rate ? rate : s->least_rate), scratch);
        more = d.more;
        ahead = step, step = step == scratch->steps ? scratch->steps + 1 : scratch->steps;
    }
    return loss;
}

const fr_words_kernels FR_TABLE = {.train = train};
