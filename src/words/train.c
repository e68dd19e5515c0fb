/* Who trains what: threads take tasks as they come. Compiled once, for every instruction set.
 *
 * # Design:
 * a) Hogwild (Recht et al. 2011): threads write to one model without locks. Steps touch few rows of many, so they seldom
 *    meet, and an update that is lost now and then is noise beside the sampling's own.
 * b) But a row that another core has written comes from there, which takes longer than a step. So each thread keeps rows of
 *    frequent words to itself: it adds its changes to the model's after a number of uses, and takes over the others'. The
 *    number falls with the threads, so that a step's rows are not staler with many. One thread works on the model itself.
 */
#include "train.h"
#include "words_scratch.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

enum { OWN_ROWS = 4096, OWN_FLOATS = 2 << 20 }; /* most rows a matrix that a thread has to itself, twice; 8 MB in all */
enum { UNSEEN_USES = 64 }; /* of a row by all threads together, until each sees what the others have changed */

static size_t padded(size_t bytes) { return (bytes + 63) / 64 * 64; }

static long most_rows(const fr_words *model) {
    long most = 1;
    for (long word = 0; model->grams && word < model->V; word++) {
        const long rows = 1 + model->gram_begins[word + 1] - model->gram_begins[word];
        if (rows > most) most = rows;
    }
    return most;
}

/* Lays out the scratch from `at` on; with at == 0 only its size counts. */
static size_t lay_out(fr_words_scratch *s, const fr_words *model, long task_size, char *at) {
    char *const begin = at;
    const size_t M = 2 * (size_t)model->window, K = 1 + (size_t)model->negative;
#define TAKE(field, bytes) (s->field = (void *)at, at += padded(bytes))
    fr_own_rows *const both[2] = {&s->inputs, &s->outputs};
    for (int i = 0; i < 2; i++) {
        const size_t rows = both[i]->count * model->stride * sizeof(float);
        both[i]->left = (void *)at, at += padded(both[i]->count * sizeof(int32_t));
        both[i]->own = (void *)at, at += rows;
        both[i]->seen = (void *)at, at += rows;
    }
    TAKE(kept, (task_size + 2 * M + FR_WORDS_FETCHED_AHEAD) * sizeof(int32_t));
    TAKE(context, 2 * M * sizeof(int32_t));
    TAKE(drawn, K * sizeof(int32_t));
    TAKE(x, M * sizeof(float *));
    TAKE(dx, M * sizeof(float *));
    TAKE(rows, M * most_rows(model) * sizeof(float *));
    TAKE(ends, M * sizeof(float **));
    TAKE(factors, M * sizeof(float));
    TAKE(scores, (M + 2) * FR_WORDS_SLOTS * sizeof(float));
    for (int i = 0; i < 2; i++) {
        TAKE(steps[i].words, M * sizeof(int32_t));
        TAKE(steps[i].rows, M * sizeof(float *));
        TAKE(steps[i].repeats, (M + 2) * FR_WORDS_SLOTS * sizeof(float));
        TAKE(steps[i].outputs, K * sizeof(int32_t));
        TAKE(steps[i].times, K * 2 * FR_WORDS_SLOTS * sizeof(float));
    }
#undef TAKE
    s->end = at;
    return at - begin + padded(2 * M * model->stride * sizeof(float));
}

/* Rows of one's own begin as those of all.. */
static void take_rows(fr_own_rows *rows, float *matrix, long stride, int threads) {
    if (!rows->count) {
        rows->own = matrix;
        return;
    }
    memcpy(rows->own, matrix, rows->count * stride * sizeof(float));
    memcpy(rows->seen, rows->own, rows->count * stride * sizeof(float));
    rows->uses = UNSEEN_USES / threads;
    for (uint32_t i = 0; i < rows->count; i++) rows->left[i] = rows->uses;
}

/* ..and what was changed in them goes there in the end. */
static void give_rows(const fr_own_rows *rows, float *matrix, long stride) {
    for (long i = 0; i < (long)rows->count * stride; i++) matrix[i] += rows->own[i] - rows->seen[i];
}

static long own_rows(const fr_words *model) {
    const long room = OWN_FLOATS / (4 * model->stride), most = room < OWN_ROWS ? room : OWN_ROWS;
    return model->V < most ? model->V : most;
}

static fr_words_scratch *scratch_new(const fr_words *model, long task_size, int threads) {
    fr_words_scratch trial;
    const long own = threads == 1 || model->grams ? 0 : own_rows(model);
    trial.inputs.count = own, trial.outputs.count = model->outputs ? own : 0;
    const size_t head = padded(sizeof trial), bytes = head + lay_out(&trial, model, task_size, (char *)64);
    fr_words_scratch *s = aligned_alloc(64, bytes);
    if (!s) return 0;
    memset(s, 0, bytes);
    s->inputs.count = trial.inputs.count, s->outputs.count = trial.outputs.count;
    lay_out(s, model, task_size, (char *)s + head);
    take_rows(&s->inputs, model->inputs, model->stride, threads);
    take_rows(&s->outputs, model->outputs, model->stride, threads);
    for (int m = 0; m < 2 * model->window; m++) {
        s->x[m] = (float *)s->end + m * model->stride;
        s->dx[m] = s->x[m] + 2 * model->window * model->stride;
    }
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < (2 * model->window + 2) * FR_WORDS_SLOTS; k++) s->steps[i].repeats[k] = 1;
    return s;
}

typedef struct {
    const fr_words_kernels *kernels;
    const fr_words *model;
    const fr_words_stretch *stretch;
    long next; /* task, counted from the first of the stretch */
    long tasks;
    int threads;
    double *losses; /* (tasks), so that their sum has one order */
    int without_memory;
    fr_looks *look;
    int *stopped; /* by a signal */
    int busy;     /* threads that are at a task, or about to take one */
    pthread_mutex_t giving;
} training;

static void train_some(training *t, int id) {
    const fr_words_stretch *s = t->stretch;
    fr_words_scratch *scratch = scratch_new(t->model, s->task_size, t->threads);
    if (!scratch) {
        __atomic_store_n(&t->without_memory, 1, __ATOMIC_RELAXED);
        return;
    }
    fr_watch watch = {.stopped = t->stopped, .caller = id == 0};
    scratch->watch = &watch;
    const int64_t first_task = (s->first + s->begin) / s->task_size;
    while (!__atomic_load_n(t->stopped, __ATOMIC_RELAXED)) {
        const long i = __atomic_fetch_add(&t->next, 1, __ATOMIC_RELAXED);
        if (i >= t->tasks) break;
        const int64_t place = (first_task + i) * s->task_size - s->first;
        const long begin = place > s->begin ? place : s->begin;
        const long end = place + s->task_size < s->end ? place + s->task_size : s->end;
        t->losses[i] = t->kernels->train(t->model, s, begin, end, scratch);
    }
    /* One after the other: threads end together, and would walk through the same rows side by side. */
    pthread_mutex_lock(&t->giving);
    give_rows(&scratch->inputs, t->model->inputs, t->model->stride);
    give_rows(&scratch->outputs, t->model->outputs, t->model->stride);
    pthread_mutex_unlock(&t->giving);
    free(scratch);
}

static void train_tasks(void *arg, int id) {
    training *t = arg;
    __atomic_fetch_add(&t->busy, 1, __ATOMIC_RELAXED);
    train_some(t, id);
    __atomic_fetch_sub(&t->busy, 1, __ATOMIC_RELAXED);
    /* Who called goes on looking while others are at their last tasks, which may take seconds. */
    fr_watch watch = {.stopped = t->stopped, .caller = 1};
    while (id == 0 && __atomic_load_n(&t->busy, __ATOMIC_RELAXED) && !t->look(&watch)) sched_yield();
}

int fr_words_train(const fr_words_kernels *kernels, const fr_words *model, const fr_words_stretch *s, int threads,
                   fr_run *run, fr_looks *look, double *loss, int *stopped) {
    if (s->end <= s->begin) return 0;
    training t = {
        .kernels = kernels,
        .model = model,
        .stretch = s,
        .look = look,
        .stopped = stopped,
        .giving = PTHREAD_MUTEX_INITIALIZER,
        .tasks = (s->first + s->end - 1) / s->task_size - (s->first + s->begin) / s->task_size + 1,
    };
    t.losses = calloc(t.tasks, sizeof(double));
    if (!t.losses) return -1;
    t.threads = threads < t.tasks ? threads : (int)t.tasks;
    run(t.threads, train_tasks, &t);
    for (long i = 0; i < t.tasks; i++) *loss += t.losses[i];
    free(t.losses);
    return t.without_memory && t.next < t.tasks ? -1 : 0;
}

long fr_words_left(const fr_words *model, const fr_words_stretch *s) {
    const uint64_t key = fr_keep_key(model->seed, s->epoch);
    long i = s->begin;
    for (int found = 0; found < model->window; i--) {
        if (i == 0) return s->first ? -1 : 0;
        if (s->tokens[i - 1] == FR_BREAK) break;
        found += fr_kept(model, key, s->first + i - 1, s->tokens[i - 1]);
    }
    return i;
}

long fr_words_right(const fr_words *model, const fr_words_stretch *s) {
    const uint64_t key = fr_keep_key(model->seed, s->epoch);
    long i = s->end;
    for (int found = 0; found < model->window; i++) {
        if (i == s->L) return -1;
        if (s->tokens[i] == FR_BREAK) break;
        found += fr_kept(model, key, s->first + i, s->tokens[i]);
    }
    return i;
}
