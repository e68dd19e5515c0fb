"""Word vectors: the contract of src/include/words.h, and what stands in src/words."""

from fastrnn._native.kernels cimport fr_watch, fr_words_kernels
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t


cdef extern from "words.h" nogil:
    const int FR_BREAK

    ctypedef struct fr_alias:
        uint32_t limit
        int32_t other

    ctypedef struct fr_words:
        float *inputs
        float *outputs
        float *nodes
        long V, stride
        const uint32_t *keep
        const fr_alias *aliases
        const int32_t *paths
        const float *labels
        const int64_t *path_begins
        const int32_t *grams
        const int64_t *gram_begins
        uint64_t seed
        float margin
        int window, negative
        int cbow, mean, shrink, shared
        int compute_loss

    ctypedef struct fr_words_stretch:
        const int32_t *tokens
        int64_t first
        long L, begin, end
        long task_size
        int epoch
        double rate, slope, least_rate


cdef extern from "train.h" nogil:
    ctypedef void fr_run(int threads, void (*body)(void *arg, int id) noexcept nogil, void *arg) noexcept nogil

    ctypedef int fr_looks(fr_watch *) noexcept nogil

    int fr_words_train(const fr_words_kernels *, const fr_words *, const fr_words_stretch *, int threads, fr_run *run,
                       fr_looks *look, double *loss, int *stopped)
    long fr_words_left(const fr_words *, const fr_words_stretch *)
    long fr_words_right(const fr_words *, const fr_words_stretch *)


cdef extern from "lexicon.h" nogil:
    ctypedef struct fr_lexicon:
        pass

    fr_lexicon *fr_lexicon_new()
    void fr_lexicon_free(fr_lexicon *)
    long fr_lexicon_size(const fr_lexicon *)
    const char *fr_lexicon_word(const fr_lexicon *, long number, long *bytes, int64_t *count)
    int32_t fr_lexicon_add(fr_lexicon *, const char *word, long bytes, int64_t count)
    int fr_lexicon_prune(fr_lexicon *, int64_t least)
    long fr_lexicon_count(fr_lexicon *, const char *text, long bytes, int last, long most, int64_t *words, int64_t *lines)
    long fr_lexicon_encode(const fr_lexicon *, const char *text, long bytes, int last, int32_t *out, long room,
                           long *written)
