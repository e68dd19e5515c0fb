"""The pronouncer g2p_en (NumPy, a GRU encoder-decoder) on fastrnn: python benches/g2p.py

Needs `pip install g2p_en --no-deps`.

Its class runs as it is, on the 1,000 most frequent words of Python's own documentation; then its two recurrent methods
are replaced. Prints how many pronunciations differ, and seconds in the recurrent methods and in all, interleaved.
nltk and inflect, which other parts of it need, are stood in for: the weights are in the package.
"""

import re
import sys
import time
from collections import Counter
from pydoc_data.topics import topics
from unittest import mock

import numpy as np

import fastrnn


def load_class():
    for name in ("nltk", "nltk.corpus", "nltk.tokenize", "inflect"):
        if name not in sys.modules:
            sys.modules[name] = mock.MagicMock(__path__=[])
    from g2p_en.g2p import G2p

    return G2p


def timed(cls):
    """The class, adding up the seconds in its recurrent methods."""

    class Timed(cls):
        seconds, inside = 0.0, False

        def _measure(self, run, *args, **options):
            if self.inside:  # gru calls grucell
                return run(*args, **options)
            self.inside, start = True, time.perf_counter()
            try:
                return run(*args, **options)
            finally:
                self.seconds += time.perf_counter() - start
                self.inside = False

        def gru(self, *args, **options):
            return self._measure(super().gru, *args, **options)

        def grucell(self, *args, **options):
            return self._measure(super().grucell, *args, **options)

    return Timed


def on_fastrnn(cls):
    """The class with its recurrent methods on two fastrnn layers."""

    class Fast(cls):
        def load_variables(self):
            super().load_variables()
            self.layers = {}
            for part in ("enc", "dec"):
                names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
                values = [getattr(self, f"{part}_{name}") for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
                layer = fastrnn.GRU(values[0].shape[1], values[1].shape[1], batch_first=True)
                layer.load_state_dict({f"{name}_l0": value for name, value in zip(names, values)})
                self.layers[part] = layer

        def gru(self, x, steps, w_ih, w_hh, b_ih, b_hh, h0=None):
            return self.layers["enc"](x, None if h0 is None else h0[None])[0]

        def grucell(self, x, h, w_ih, w_hh, b_ih, b_hh):
            return self.layers["dec"](x[:, None], h[None])[1][0]

    return Fast


def together(speaker, spoken):
    """All words in one batch, on the layers of `speaker`: pronunciations, and seconds in the layers."""
    encoded = [speaker.encode(word)[0] for word in spoken]
    lengths = np.array([len(x) for x in encoded])
    x = np.zeros((len(encoded), lengths.max(), encoded[0].shape[1]), np.float32)
    for row, own in zip(x, encoded):
        row[: len(own)] = own
    start = time.perf_counter()
    h = speaker.layers["enc"](x, lengths=lengths)[1]
    seconds = time.perf_counter() - start
    found: list[list[int]] = [[] for _ in spoken]
    going, last = np.arange(len(spoken)), np.full(len(spoken), 2)
    for _ in range(20):
        tokens = speaker.dec_emb[last][:, None]
        start = time.perf_counter()
        h = speaker.layers["dec"](tokens, h)[1]
        seconds += time.perf_counter() - start
        last = (h[0] @ speaker.fc_w.T + speaker.fc_b).argmax(1)
        left = last != 3  # the words that have not ended
        going, last, h = going[left], last[left], np.ascontiguousarray(h[:, left])
        for row, token in zip(going, last):
            found[row].append(token)
        if not len(going):
            break
    return [[speaker.idx2p.get(i, "<unk>") for i in row] for row in found], seconds


def words(count=1000):
    found = Counter(re.findall(r"\b[a-z]{2,}\b", " ".join(topics.values()).lower()))
    return [word for word, _ in found.most_common(count)]


def main():
    fastrnn.set_num_threads(1)
    G2p = load_class()
    spoken = words()
    plain, fast = timed(G2p)(), timed(on_fastrnn(G2p))()
    assert np.float32 == plain.enc_w_ih.dtype
    best = {plain: [np.inf, np.inf], fast: [np.inf, np.inf]}
    said = {}
    for _ in range(5):
        for speaker in (plain, fast):
            speaker.seconds, start = 0.0, time.perf_counter()
            said[speaker] = [speaker.predict(word) for word in spoken]
            took = speaker.seconds, time.perf_counter() - start
            best[speaker] = [min(a, b) for a, b in zip(best[speaker], took)]
    different = [word for word, a, b in zip(spoken, said[plain], said[fast]) if a != b]
    print(f"{len(spoken)} words, {len(different)} pronounced differently {different[:5]}")
    print("for example", spoken[200], " ".join(said[fast][200]))
    batch, seconds = min((together(fast, spoken) for _ in range(5)), key=lambda pair: pair[1])
    same = batch == said[plain]
    print(f"all words in one batch: {'the same' if same else 'other'} pronunciations, recurrent part {seconds:.3f} s")
    for name, a, b in zip(("recurrent part", "whole"), best[plain], best[fast]):
        print(f"{name}: NumPy {a:.3f} s, fastrnn {b:.3f} s, {a / b:.1f} times as fast")


if __name__ == "__main__":
    main()
