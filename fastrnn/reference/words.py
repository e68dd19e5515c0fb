"""Word vectors learned from their neighbours: skip-gram and CBOW, in plain NumPy.

Letters: V words, D vector_size, M inputs of a step, K outputs of a step, L raw tokens of a task.

**What is learned.** e_w = E o_w, a row of E (V, D), is the vector of word w; o_w is its one-hot vector. A second
matrix U has a row u_w for each word as something that is told from its surroundings. Mikolov et al. (2013, Efficient
estimation of word representations in vector space) let a hidden vector h score a word by u_w.h. In skip-gram h is the
vector of one context word, in CBOW the mean of all context vectors; the word in the middle of the window is what is
scored.

**Negative sampling** (Mikolov et al. 2013, Distributed representations of words and phrases and their compositionality)
puts K-1 words drawn from P(w) ~ count(w)^ns_exponent beside the true one and asks which is true. With the labels
l_k = 1 for the true word, 0 for those drawn, and s the logistic sigmoid,

    loss = - sum_k c_k [ l_k log s(f_k) + (1 - l_k) log s(-f_k) ]

where f_k = u_k.h - margin. c_k is how often word k was drawn. With s' = s (1 - s), the derivative of the loss by f_k is

    dloss/df_k = c_k (s(f_k) - l_k)   =>   dh = sum_k dloss/df_k u_k,   du_k = dloss/df_k h

The margin is 0 in the paper. Noise-contrastive estimation (Gutmann and Hyvärinen 2010) has log((K-1) P(w)) in its
place. At the optimum a score is how much more often word and context meet than by chance, as a logarithm, less log(K-1)
(Levy and Goldberg 2014, Neural word embedding as implicit matrix factorization); a margin moves them up by itself.

**Hierarchical softmax** gives each word a leaf of a Huffman tree and each inner node a row of U. The way to the leaf
is a row of yes-or-no questions: P(w) = prod_k s(u_k.h) where code 0, s(-u_k.h) where code 1. So it is the same loss
with l_k = 1 - code_k over the inner nodes, and the same gradient.

**One step for one window.** In skip-gram the M context words of a window score the same middle word, so they can share
the words drawn (Ji et al. 2016, Parallelizing word2vec in shared and distributed memory): with X (M, D) the inputs, U
(K, D) the outputs and r_m how often input m stands in the window, G_mk = r_m c_k (l_k - s(x_m.u_k)) is one small
matrix, and

    X <- X + alpha G U        U <- U + alpha G^T X          both with the X and U from before the step.

With words drawn for each pair alone (`shared=False`), each step has M = 1.

**The mean in CBOW.** The gradient by each of M averaged vectors is dh / M. word2vec, fastText and gensim add all of dh
to each of them, which is a step M times as long; their default rates are made for it, so it is done here too. Where
vectors are summed rather than averaged (`mean=False`), it is the other way round there and here: dh / M.

**Sub-words** (Bojanowski et al. 2017, Enriching word vectors with subword information): the vector of a word is the
mean of its own row and of those of its character n-grams, which are hashed into `bucket` rows; steps as for the mean
above.

**Frequent words** are left out before windows are laid: a word that makes up the part p of the text is kept with
probability sqrt(sample / p) + sample / p. The window's reach is drawn anew for each word, 1..window, so near words
weigh more.

**Chance.** Every number drawn is a hash of what it is for, so a task's result depends on nothing but the task.
Whether a token is kept hangs on its place in the corpus; the rest on the number of the task.
"""

from __future__ import annotations

import heapq
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: the step of Steele et al.'s splitmix64 (2014)
BREAK = -1  # between sentences, in a row of tokens


def _softplus(x: Array) -> Array:
    """log(1 + e^x) = -log s(-x), without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def step_loss(x: Array, u: Array, labels: Array, repeats: Array, draws: Array, margin: float = 0.0) -> float:
    """The loss of inputs x (M, D) over outputs u (K, D). labels (K,): 1 or 0; repeats (M,) and draws (K,): how often
    each input and each output counts."""
    f = x @ u.T - margin
    return float(np.sum(repeats[:, None] * draws * _softplus(np.where(labels == 1, -f, f))))


def step_gradients(
    x: Array, u: Array, labels: Array, repeats: Array, draws: Array, margin: float = 0.0
) -> tuple[Array, Array]:
    """The gradients of `step_loss` by x and by u."""
    df = repeats[:, None] * draws * (1 / (1 + np.exp(margin - x @ u.T)) - labels)
    return df @ u, df.T @ x


# --- Chance -------------------------------------------------------------------------------------------------------


def mix(x: int) -> int:
    """The finalizer of splitmix64: 64 bits to 64 bits, each of which hangs on all."""
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return x ^ (x >> 31)


def keys(seed: int, epoch: int) -> tuple[int, int]:
    """The keys of an epoch: for which tokens are kept, and for all other draws."""
    return mix(seed + (2 * epoch + 1) * GOLDEN & MASK), mix(seed + (2 * epoch + 2) * GOLDEN & MASK)


class Draws:
    """splitmix64 from a task's own start."""

    def __init__(self, key: int, task: int) -> None:
        self.state = mix(key + task * GOLDEN & MASK)

    def next(self) -> int:
        self.state = self.state + GOLDEN & MASK
        return mix(self.state)

    def below(self, n: int) -> int:
        return (self.next() >> 32) * n >> 32

    def word(self, limits: Array, aliases: Array) -> int:
        """A word by Walker's alias table: a column, then one of the two words that share it."""
        r = self.next()
        column = (r >> 32) * len(limits) >> 32
        return column if r & 0xFFFFFFFF < int(limits[column]) else int(aliases[column])


def alias_table(weights: Array) -> tuple[Array, Array]:
    """Walker's alias table in Vose's way (1991): (V,) limits of 32 bits and (V,) aliases, for draws with probability
    proportional to weights (V,)."""
    V = len(weights)
    scaled = np.asarray(weights, float) * (V / np.sum(weights, dtype=float))
    limits, aliases = np.full(V, 0xFFFFFFFF, np.uint32), np.arange(V, dtype=np.int32)
    small = [i for i in range(V) if scaled[i] < 1]
    large = [i for i in range(V) if scaled[i] >= 1]
    while small and large:
        low, high = small.pop(), large[-1]
        limits[low], aliases[low] = min(int(scaled[low] * 2**32), 0xFFFFFFFF), high
        scaled[high] -= 1 - scaled[low]
        if scaled[high] < 1:
            small.append(large.pop())
    return limits, aliases


def keep_limits(counts: Array, sample: float) -> Array:
    """(V,) limits of 32 bits: a token is kept where its hash is at most its word's. sample: the part of the text above
    which words are thinned out; from 1 on a count; 0 keeps all."""
    counts = np.asarray(counts, float)
    threshold = counts.sum() if not sample else sample * counts.sum() if sample < 1 else sample * (3 + 5**0.5) / 2
    part = threshold / np.maximum(counts, 1)
    return np.minimum(np.floor(np.minimum(np.sqrt(part) + part, 1) * 2**32), 0xFFFFFFFF).astype(np.uint32)


def huffman(counts: Array) -> tuple[list[Array], list[Array]]:
    """For each word the inner nodes on the way to its leaf, from the root, and the code at each: frequent words have
    short ways. Nodes are numbered 0..V-2 as they are made, so the root is V - 2."""
    V = len(counts)
    heap = [(int(count), number) for number, count in enumerate(counts)]
    heapq.heapify(heap)
    parent, code = np.zeros(2 * V - 1, np.int64), np.zeros(2 * V - 1, np.uint8)
    for node in range(V, 2 * V - 1):
        (count0, child0), (count1, child1) = heapq.heappop(heap), heapq.heappop(heap)
        parent[child0] = parent[child1] = node
        code[child1] = 1
        heapq.heappush(heap, (count0 + count1, node))
    paths, codes = [], []
    for word in range(V):
        path, bits, at = [], [], word
        while at != 2 * V - 2:
            bits.append(code[at])
            at = parent[at]
            path.append(at - V)
        paths.append(np.array(path[::-1], np.int32))
        codes.append(np.array(bits[::-1], np.uint8))
    return paths, codes


def ngram_buckets(word: str, min_n: int, max_n: int, bucket: int) -> list[int]:
    """The buckets of a word's character n-grams, min_n to max_n characters of <word>, as fastText numbers them: FNV-1a
    of the UTF-8 bytes, each taken as a signed char, modulo bucket. A single < or > is no n-gram."""
    text = f"<{word}>"
    found = []
    for begin in range(len(text)):
        for n in range(min_n, min(max_n, len(text) - begin) + 1):
            if n == 1 and (begin == 0 or begin == len(text) - 1):
                continue
            h = 2166136261
            for byte in text[begin : begin + n].encode():
                h = ((h ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16777619) & 0xFFFFFFFF
            found.append(h % bucket)
    return found


# --- Training -----------------------------------------------------------------------------------------------------


class Model(NamedTuple):
    """What a task reads and writes, and the options: as `fastrnn.words.Word2Vec` names them."""

    inputs: Array  # (V + bucket, D): the vectors of words, then of n-grams
    outputs: Array | None  # (V, D) for negative sampling
    nodes: Array | None  # (V - 1, D) for the hierarchical softmax
    keep: Array  # (V,) of keep_limits
    limits: Array  # (V,) of alias_table
    aliases: Array  # (V,)
    paths: list[Array]
    codes: list[Array]
    grams: list[list[int]] | None  # for each word the rows of `inputs` that are its n-grams
    window: int
    negative: int
    margin: float = 0.0
    cbow: bool = False
    mean: bool = True
    shrink: bool = True
    shared: bool = True


def train_task(
    model: Model, tokens: Array, begin: int, end: int, task: int, alpha: float, seed: int, epoch: int
) -> float:
    """Train on the tokens begin..end of the whole row `tokens` (L,), whose sentences are parted by BREAK; windows reach
    beyond. Writes the matrices of the model; returns the loss before each step, summed up."""
    keep_key, key = keys(seed, epoch)
    hashes = [mix(keep_key + position * GOLDEN & MASK) >> 32 for position in range(len(tokens))]
    kept = [p for p, w in enumerate(tokens) if w == BREAK or hashes[p] <= model.keep[w]]
    draws, loss = Draws(key, task), 0.0
    for at, position in enumerate(kept):
        center = int(tokens[position])
        if center == BREAK or not begin <= position < end:
            continue
        reach = model.window - draws.below(model.window) if model.shrink else model.window
        context = _words_until_break(tokens, kept[max(at - reach, 0) : at][::-1])[::-1]
        context += _words_until_break(tokens, kept[at + 1 : at + 1 + reach])
        if not context:
            continue
        rows_of = [[word, *(model.grams[word] if model.grams else [])] for word in context]
        bags = [[row for rows in rows_of for row in rows]] if model.cbow else rows_of
        groups = [bags] if model.shared else [[bag] for bag in bags]
        for group in groups:
            loss += _window(model, group, center, alpha, draws)
    return loss


def _words_until_break(tokens: Array, positions: list[int]) -> list[int]:
    words: list[int] = []
    for position in positions:
        if tokens[position] == BREAK:
            break
        words.append(int(tokens[position]))
    return words


def _window(model: Model, bags: list[list[int]], center: int, alpha: float, draws: Draws) -> float:
    loss = 0.0
    if model.nodes is not None:
        path = model.paths[center]
        loss += _step(model, bags, model.nodes, path, 1.0 - model.codes[center], np.ones(len(path)), alpha)
    if model.outputs is not None:
        times = {center: 1}
        for _ in range(model.negative):
            word = draws.word(model.limits, model.aliases)
            if word != center:
                times[word] = times.get(word, 0) + 1
        labels = np.array([1.0] + [0.0] * (len(times) - 1))
        loss += _step(
            model, bags, model.outputs, np.array(list(times)), labels, np.array([*times.values()]), alpha, model.margin
        )
    return loss


def _step(
    model: Model,
    bags: list[list[int]],
    matrix: Array,
    rows: Array,
    labels: Array,
    times: Array,
    alpha: float,
    margin: float = 0.0,
) -> float:
    """One step of a window. bags: for each input the rows whose mean (or sum) it is."""
    unique: dict[tuple[int, ...], int] = {}
    for rows_of_one in map(tuple, bags):
        unique[rows_of_one] = unique.get(rows_of_one, 0) + 1
    repeats = np.array([*unique.values()], float)
    x = np.array([model.inputs[list(bag)].sum(0) / (len(bag) if model.mean else 1) for bag in unique])
    u = matrix[rows]
    loss = step_loss(x, u, labels, repeats, times, margin)
    dx, du = step_gradients(x, u, labels, repeats, times, margin)
    matrix[rows] -= alpha * du
    for bag, gradient in zip(unique, dx):
        np.subtract.at(model.inputs, list(bag), alpha * (gradient if model.mean else gradient / len(bag)))
    return loss
