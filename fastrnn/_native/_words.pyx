"""The compiled door of `fastrnn.words`: training, and text into tokens.

V words, D vector_size, B buckets of n-grams, L tokens.

Checks nothing that Python has checked already; the GIL is released for each stretch of the corpus.
"""

import numpy as np

cimport numpy as cnp
from cpython.dict cimport PyDict_GetItem
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint32_t
from libc.string cimport memset
from fastrnn._native._runtime cimport build_for, look, raise_signal, run_parallel
from fastrnn._native.words cimport *

cnp.import_array()

BREAK = FR_BREAK


cdef class Trainer:
    """A model ready to be trained on stretches of a corpus. Holds on to its arrays."""
    cdef fr_words model
    cdef tuple arrays
    cdef const fr_words_kernels *kernels

    def __init__(self, float[:, ::1] inputs, float[:, ::1] outputs, float[:, ::1] nodes, uint32_t[::1] keep,
                 uint32_t[:, ::1] aliases, tree, grams, *, unsigned long long seed, double margin, int window,
                 int negative, bint cbow, bint mean, bint shrink, bint shared, bint compute_loss):
        cdef int32_t[::1] paths, rows
        cdef float[::1] labels
        cdef int64_t[::1] begins
        self.kernels = build_for(4).words
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
        self.model.margin, self.model.compute_loss = margin, compute_loss

    cdef fr_words_stretch _stretch(self, const int32_t[::1] tokens, int64_t first, long begin, long end, int epoch):
        cdef fr_words_stretch s
        memset(&s, 0, sizeof(s))
        s.tokens, s.first, s.L = &tokens[0], first, tokens.shape[0]
        s.begin, s.end, s.epoch = begin, end, epoch
        return s

    def train(self, const int32_t[::1] tokens, int64_t first, long begin, long end, *, int epoch, long task_size,
              double rate, double slope, double least_rate, int threads):
        """Train on tokens begin..end, of which tokens[0] stands at `first` in the corpus. Returns the loss, summed up.
        A signal stops it within 0.1 s; what its handler raises is raised then, and the steps until then have been taken."""
        if end <= begin:
            return 0.0
        cdef fr_words_stretch s = self._stretch(tokens, first, begin, end, epoch)
        cdef double loss = 0
        cdef int failed, stopped = False
        s.task_size, s.rate, s.slope, s.least_rate = task_size, rate, slope, least_rate
        with nogil:
            failed = fr_words_train(self.kernels, &self.model, &s, threads, run_parallel, <fr_looks *>look, &loss, &stopped)
        if failed:
            raise MemoryError("no memory for the threads' part of training")
        if stopped:
            raise_signal()
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
    cdef long room = out.shape[0], i = 0
    if not isinstance(sentence, (list, tuple)):
        sentence = list(sentence)
    if at + len(sentence) + 1 > room:
        return -1
    for word in sentence:
        i += 1
        if i & 0xFFFFF == 0:  # a sentence of any length
            PyErr_CheckSignals()
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
        """Count the words of text[begin:]; returns where it stopped: before a word that may go on, or once there are
        more than `most` words."""
        cdef long done = 0, size = text.shape[0] - begin
        if size > 0:
            with nogil:
                done = fr_lexicon_count(self.lexicon, <const char *>&text[begin], size, last, most,
                                        &self.words, &self.lines)
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


def alias_table(double[::1] weights):
    """Walker's table for draws in proportion to weights (V,): (V, 2) of limits and of others."""
    cdef long V = weights.shape[0], i, low, high, smalls = 0, larges = 0
    cdef double total = 0
    cdef uint32_t[:, ::1] out = np.empty((V, 2), np.uint32)
    cdef double[::1] scaled = np.empty(V)
    cdef int64_t[::1] small = np.empty(V, np.int64), large = np.empty(V, np.int64)
    for i in range(V):
        total += weights[i]
    for i in range(V):
        scaled[i] = weights[i] * (V / total)
        out[i, 0], out[i, 1] = 0xFFFFFFFF, i
        if scaled[i] < 1:
            small[smalls] = i
            smalls += 1
        else:
            large[larges] = i
            larges += 1
    while smalls and larges:
        smalls -= 1
        low, high = small[smalls], large[larges - 1]
        out[low, 0], out[low, 1] = <uint32_t>min(scaled[low] * 4294967296.0, 4294967295.0), high
        scaled[high] -= 1 - scaled[low]
        if scaled[high] < 1:
            larges -= 1
            small[smalls] = high
            smalls += 1
    return np.asarray(out)


def huffman(const int64_t[::1] counts):
    """The ways from the root of a Huffman tree to its leaves; counts (V,) never rise. Returns inner nodes, one word's
    after another's, 1 - code at each, and where each word's begin, (V + 1,)."""
    # The two least of all: either ends of two queues, the leaves from the last one on and the nodes as they were made.
    cdef long V = counts.shape[0], leaf = V - 1, node = 0, made, least, side, at, total = 0, word
    cdef int64_t[::1] sums = np.zeros(V, np.int64), parent = np.zeros(2 * V, np.int64)
    cdef unsigned char[::1] code = np.zeros(2 * V, np.uint8)
    for made in range(V - 1):
        for side in range(2):
            if leaf >= 0 and (node >= made or counts[leaf] <= sums[node]):
                least = leaf
                sums[made] += counts[leaf]
                leaf -= 1
            else:
                least = V + node
                sums[made] += sums[node]
                node += 1
            parent[least], code[least] = V + made, side
    cdef int64_t[::1] begins = np.zeros(V + 1, np.int64)
    for word in range(V):
        at = word
        while at != 2 * V - 2:
            at = parent[at]
            total += 1
        begins[word + 1] = total
    cdef int32_t[::1] paths = np.empty(total, np.int32)
    cdef float[::1] labels = np.empty(total, np.float32)
    for word in range(V):
        at, total = word, begins[word + 1]
        while at != 2 * V - 2:
            total -= 1
            labels[total] = 1 - code[at]
            at = parent[at]
            paths[total] = at - V
    return np.asarray(paths), np.asarray(labels), np.asarray(begins)


def ngram_rows(words, int min_n, int max_n, uint32_t bucket, long first):
    """Rows of the character n-grams of each of `words`, as fastText hashes them into buckets: `first` + bucket, one
    word's after another's; and where each word's begin, (V + 1,)."""
    cdef list rows = []
    cdef long begin, end, size, n, number = 0
    cdef uint32_t h
    cdef const unsigned char *p
    cdef bytes text
    cdef int64_t[::1] begins = np.zeros(len(words) + 1, np.int64)
    for word in words:
        text = f"<{word}>".encode("utf-8", "surrogatepass")
        p, size = text, len(text)
        for begin in range(size):
            if p[begin] & 0xC0 == 0x80:  # inside a character
                continue
            h, end, n = 2166136261u, begin, 0
            while end < size and n < max_n:
                h = (h ^ <uint32_t><signed char>p[end]) * 16777619u
                end += 1
                while end < size and p[end] & 0xC0 == 0x80:
                    h = (h ^ <uint32_t><signed char>p[end]) * 16777619u
                    end += 1
                n += 1
                if n >= min_n and not (n == 1 and (begin == 0 or end == size)):
                    rows.append(first + h % bucket)
        number += 1
        if number & 0xFFF == 0:
            PyErr_CheckSignals()
        begins[number] = len(rows)
    return np.array(rows, np.int32), np.asarray(begins)
