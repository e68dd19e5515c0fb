"""The compiled door of `fastrnn.words`: training, and text into tokens.

V words, D vector_size, B buckets of n-grams, L tokens.

Checks nothing that Python has checked already; the GIL is released for each stretch of the corpus.
"""

import numpy as np

cimport numpy as cnp
from cpython.dict cimport PyDict_GetItem
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_CheckExact
from libc.stdint cimport int32_t, int64_t, uint32_t
from libc.string cimport memset
from words cimport *

cnp.import_array()
fr_init()

BREAK = FR_BREAK


cdef class Trainer:
    """A model ready to be trained on stretches of a corpus. Holds on to its arrays."""
    cdef fr_words model
    cdef tuple arrays
    cdef const fr_words_kernels *kernels

    def __init__(self, str isa, float[:, ::1] inputs, float[:, ::1] outputs, float[:, ::1] nodes, uint32_t[::1] keep,
                 uint32_t[:, ::1] aliases, tree, grams, *, unsigned long long seed, int window, int negative,
                 bint cbow, bint mean, bint shrink, bint shared, bint compute_loss):
        cdef int32_t[::1] paths, rows
        cdef float[::1] labels
        cdef int64_t[::1] begins
        self.kernels = fr_words_kernels_for(isa.encode())
        if self.kernels == NULL:
            raise ValueError(f"isa: expected one of this build, got {isa!r}")
        memset(&self.model, 0, sizeof(fr_words))
        self.arrays = (inputs, outputs, nodes, keep, aliases, tree, grams)
        self.model.inputs, self.model.V, self.model.stride = &inputs[0, 0], keep.shape[0], inputs.shape[1]
        self.model.keep = &keep[0]
        if outputs is not None:
            self.model.outputs, self.model.aliases = &outputs[0, 0], <const fr_alias *>&aliases[0, 0]
        if nodes is not None:
            paths, labels, begins = tree
            self.model.nodes, self.model.path_begins = &nodes[0, 0], &begins[0]
            self.model.paths, self.model.labels = &paths[0], &labels[0]
        if grams is not None:
            rows, begins = grams
            self.model.grams, self.model.gram_begins = &rows[0], &begins[0]
        self.model.seed, self.model.window, self.model.negative = seed, window, negative
        self.model.cbow, self.model.mean, self.model.shrink, self.model.shared = cbow, mean, shrink, shared
        self.model.compute_loss = compute_loss

    cdef fr_words_stretch _stretch(self, const int32_t[::1] tokens, int64_t first, long begin, long end, int epoch):
        cdef fr_words_stretch s
        memset(&s, 0, sizeof(s))
        s.tokens, s.first, s.L = &tokens[0], first, tokens.shape[0]
        s.begin, s.end, s.epoch = begin, end, epoch
        return s

    def train(self, const int32_t[::1] tokens, int64_t first, long begin, long end, *, int epoch, long task_size,
              double rate, double slope, double least_rate, int threads):
        """Train on tokens begin..end, of which tokens[0] stands at `first` in the corpus. Returns the loss, summed up."""
        if end <= begin:
            return 0.0
        cdef fr_words_stretch s = self._stretch(tokens, first, begin, end, epoch)
        cdef double loss = 0
        cdef int failed
        s.task_size, s.rate, s.slope, s.least_rate = task_size, rate, slope, least_rate
        with nogil:
            failed = fr_words_train(self.kernels, &self.model, &s, threads, &loss)
        if failed:
            raise MemoryError("no memory for the threads' part of training")
        return loss

    def left(self, const int32_t[::1] tokens, int64_t first, long begin, int epoch):
        """The first token that windows from `begin` on reach to."""
        cdef fr_words_stretch s = self._stretch(tokens, first, begin, begin, epoch)
        return fr_words_left(&self.model, &s)

    def right(self, const int32_t[::1] tokens, int64_t first, long end, int epoch):
        """Past the last token that windows up to `end` reach to; -1 where it is not at hand yet."""
        cdef fr_words_stretch s = self._stretch(tokens, first, end, end, epoch)
        return fr_words_right(&self.model, &s)


def encode(sentence, dict index, int32_t[::1] out, long at):
    """Write the numbers of a sentence's known words into out from `at` on, then a break. Returns where they end, or -1
    where `out` is too short (it has at least len(sentence) + 1 then to have)."""
    cdef PyObject *number
    cdef long room = out.shape[0]
    if not isinstance(sentence, (list, tuple)):
        sentence = list(sentence)
    if at + len(sentence) + 1 > room:
        return -1
    for word in sentence:
        number = PyDict_GetItem(index, word)
        if number != NULL:
            out[at] = <object>number
            at += 1
    out[at] = FR_BREAK
    return at + 1


cdef class Lexicon:
    """Words of a text with their counts, numbered in the order in which they came or were given."""
    cdef fr_lexicon *lexicon
    cdef readonly int64_t words, lines  # met by count()

    def __cinit__(self, words=()):
        self.lexicon = fr_lexicon_new()
        if self.lexicon == NULL:
            raise MemoryError("no memory for a table of words")
        cdef bytes text
        for word in words:
            text = word.encode("utf-8", "surrogatepass")
            if fr_lexicon_add(self.lexicon, text, len(text), 0) < 0:
                raise MemoryError("no memory for a table of words")

    def __dealloc__(self):
        fr_lexicon_free(self.lexicon)

    def __len__(self):
        return fr_lexicon_size(self.lexicon)

    def items(self):
        """Pairs of a word's bytes and its count."""
        cdef long number, size
        cdef int64_t count
        cdef const char *word
        for number in range(fr_lexicon_size(self.lexicon)):
            word = fr_lexicon_word(self.lexicon, number, &size, &count)
            yield word[:size], count

    def count(self, const unsigned char[::1] text, long begin, bint last, long most):
        """Count the words of text[begin:]; returns where it stopped: before a word that may go on, or once there are more
        than `most` words."""
        cdef long done = 0, size = text.shape[0] - begin
        if size > 0:
            with nogil:
                done = fr_lexicon_count(self.lexicon, <const char *>&text[begin], size, last, most, &self.words, &self.lines)
        if done < 0:
            raise MemoryError("no memory for a table of words")
        return begin + done

    def prune(self, int64_t least):
        """Forget words met less often."""
        if fr_lexicon_prune(self.lexicon, least):
            raise MemoryError("no memory for a table of words")

    def encode(self, const unsigned char[::1] text, long begin, bint last, int32_t[::1] out, long at):
        """Write the numbers of the known words of text[begin:] into out from `at` on, with a break after each line.
        Returns where it stopped in the text, and in out."""
        cdef long done = 0, size = text.shape[0] - begin, room = out.shape[0] - at, written = 0
        if size > 0 and room > 0:
            with nogil:
                done = fr_lexicon_encode(self.lexicon, <const char *>&text[begin], size, last, &out[at], room, &written)
        return begin + done, at + written
