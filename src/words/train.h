/* Training on stretches of a corpus, by several threads. */
#ifndef FASTRNN_WORDS_TRAIN_H
#define FASTRNN_WORDS_TRAIN_H

#include "words.h"
#include "work.h"

/* Runs body(arg, id) with id 0..threads-1 on so many threads, or on fewer: fr_parallel of runtime/pool.h. */
typedef void fr_run(int threads, void (*body)(void *arg, int id), void *arg);

/* Whether a signal has come: fr_look of runtime/work.h. */
typedef int fr_looks(fr_watch *);

/* Trains on a stretch with so many threads, which take tasks as they come and write to one model without locks.
 * loss: added to. stopped: set once a signal has stopped it, between two steps. Returns 0, or -1 where there is no memory. */
int fr_words_train(const fr_words_kernels *, const fr_words *, const fr_words_stretch *, int threads, fr_run *run,
                   fr_looks *look, double *loss, int *stopped);

/* Where the windows of tokens begin.. and ..end reach to: left to the first token needed, right past the last. -1 where
 * more tokens than there are at hand are needed. */
long fr_words_left(const fr_words *, const fr_words_stretch *);
long fr_words_right(const fr_words *, const fr_words_stretch *);

#endif
