"""The pronouncer g2p_en (NumPy, a GRU encoder-decoder) on fastrnn: python benches/g2p.py

Needs `pip install g2p_en --no-deps`.

Its class runs as it is, on the 1,000 most frequent words of Python's own documentation; then its two recurrent methods
are replaced, then its encoder and decoder. Prints how many pronunciations differ, and seconds in the recurrent part and
in all, interleaved. The recurrent part of the last includes what the decoder does between two steps: output layer,
choice of a phoneme and its vector. nltk and inflect, which other parts of it need, are stood in for: the weights are in
the package.
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


RECURRENT = ("gru", "grucell", "pronounce")


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

    def measured(name):
        return lambda self, *args, **options: self._measure(getattr(super(Timed, self), name), *args, **options)

    for name in RECURRENT:
        if hasattr(cls, name):
            setattr(Timed, name, measured(name))
    return Timed


def layer_of(speaker, part, weight_ih):
    """The GRU of the encoder ("enc") or decoder ("dec")."""
    layer = fastrnn.GRU(weight_ih.shape[1], len(getattr(speaker, f"{part}_w_hh")) // 3, batch_first=True)
    rest = {name: getattr(speaker, f"{part}_{own}") for name, own in REST.items()}
    layer.load_state_dict({f"{name}_l0": value for name, value in {"weight_ih": weight_ih, **rest}.items()})
    return layer


REST = {"weight_hh": "w_hh", "bias_ih": "b_ih", "bias_hh": "b_hh"}


def methods_replaced(cls):
    """The class with its two recurrent methods on fastrnn layers."""

    class Fast(cls):
        def load_variables(self):
            super().load_variables()
            self.layers = {part: layer_of(self, part, getattr(self, f"{part}_w_ih")) for part in ("enc", "dec")}

        def gru(self, x, steps, w_ih, w_hh, b_ih, b_hh, h0=None):
            return self.layers["enc"](x, None if h0 is None else h0[None])[0]

        def grucell(self, x, h, w_ih, w_hh, b_ih, b_hh):
            return self.layers["dec"](x[:, None], h[None])[1][0]

    return Fast


def decoder_replaced(cls):
    """The class with a word's encoder in one call, and its decoder as a stream.

    A step at N = 1 takes as long as its weights take to be read. So the vectors of the 29 letters and 74 phonemes are
    multiplied into the input weights: a letter is a row of the unit matrix, and a step reads 0.9 or 1.0 MB, not 1.6.
    """

    class Fast(cls):
        def load_variables(self):
            super().load_variables()
            self.encoder = self._folded("enc")
            output = fastrnn.Linear(*self.fc_w.shape[::-1])
            output.load_state_dict({"weight": self.fc_w, "bias": self.fc_b})
            unit = np.eye(len(self.dec_emb), dtype=np.float32)
            embedding = fastrnn.Embedding.from_pretrained(unit)
            self.decoder = fastrnn.Sequential(embedding, self._folded("dec"), output).stream(1)
            self.letters, self.token = np.eye(len(self.enc_emb), dtype=np.float32), np.array([2])
            self.logits = np.empty((1, len(self.fc_b)), np.float32)

        def _folded(self, part):
            weight, vectors = (getattr(self, f"{part}_{name}").astype(np.float64) for name in ("w_ih", "emb"))
            return layer_of(self, part, (weight @ vectors.T).astype(np.float32))

        def pronounce(self, letters):
            self.decoder.state = None, self.encoder(self.letters[letters][None])[1], None
            said, self.token[0] = [], 2
            for _ in range(20):
                best = int(self.decoder.step(self.token, self.logits).argmax())
                if best == 3:
                    break
                said.append(best)
                self.token[0] = best
            return said

        def predict(self, word):
            unknown = self.g2idx["<unk>"]
            said = self.pronounce([self.g2idx.get(letter, unknown) for letter in [*word, "</s>"]])
            return [self.idx2p.get(i, "<unk>") for i in said]

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
    plain = timed(G2p)()
    fast = {"two methods": timed(methods_replaced(G2p))(), "encoder and decoder": timed(decoder_replaced(G2p))()}
    assert np.float32 == plain.enc_w_ih.dtype
    speakers = [plain, *fast.values()]
    best = {speaker: [np.inf, np.inf] for speaker in speakers}
    said = {}
    for _ in range(7):
        for speaker in speakers:
            speaker.seconds, start = 0.0, time.perf_counter()
            said[speaker] = [speaker.predict(word) for word in spoken]
            took = speaker.seconds, time.perf_counter() - start
            best[speaker] = [min(a, b) for a, b in zip(best[speaker], took)]
    print("for example", spoken[200], " ".join(said[plain][200]))
    for replaced, speaker in fast.items():
        different = [word for word, a, b in zip(spoken, said[plain], said[speaker]) if a != b]
        print(f"{replaced} replaced: {len(different)} of {len(spoken)} words pronounced differently {different[:5]}")
        for name, a, b in zip(("recurrent part", "whole"), best[plain], best[speaker]):
            print(f"  {name}: NumPy {a:.3f} s, fastrnn {b:.3f} s, {a / b:.1f} times as fast")
    batch, seconds = min((together(fast["two methods"], spoken) for _ in range(5)), key=lambda pair: pair[1])
    same = "the same" if batch == said[plain] else "other"
    print(
        f"all words in one batch: {same} pronunciations, recurrent part {seconds:.3f} s, {best[plain][0] / seconds:.1f}"
    )


if __name__ == "__main__":
    main()
