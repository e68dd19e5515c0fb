"""Word vectors beside gensim: words per second in turns within one run, and quality on a corpus whose topics are known.

    python benches/words.py --speed                        # lee, head500 (gensim's test data) and the made corpus
    python benches/words.py --quality --seeds 5
    python benches/words.py --speed --corpora made --workers 1 --rounds 5 --clock cpu      # on a busy machine

The made corpus: 20 topics with 250 words each, Zipf's law within a topic; each sentence of 40 words has a topic, and a
word is of that topic with probability 0.35, else of any. Quality is the mean rank, among all words by cosine, of the
words of a word's own topic: 124 at best, 2,500 by chance. gensim is fed with lists, as its workers each decay the
learning rate as if they were alone where it reads files itself."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gensim
import numpy as np
from gensim.models import Word2Vec as Gensim

import fastrnn
from fastrnn.words import Word2Vec

TOPICS, WORDS = 20, 5000
SETTINGS = {"vector_size": 100, "window": 5, "negative": 5, "epochs": 5}
PEERS: dict[str, Callable[..., Any]] = {"gensim": Gensim, "fastrnn": Word2Vec}


def made_corpus(tokens: int, seed: int = 0, share: float = 0.35, length: int = 40) -> list[list[str]]:
    """Word k is of topic k % TOPICS."""
    rng = np.random.default_rng(seed)
    zipf = 1 / np.arange(1, WORDS // TOPICS + 1)
    sentences = tokens // length
    topic = rng.integers(0, TOPICS, (sentences, 1))
    word = rng.choice(WORDS // TOPICS, (sentences, length), p=zipf / zipf.sum())
    own = rng.random((sentences, length)) < share
    numbers = word * TOPICS + np.where(own, topic, rng.integers(0, TOPICS, (sentences, length)))
    return [[str(number) for number in sentence] for sentence in numbers]


def shipped_corpus(name: str) -> list[list[str]]:
    path = Path(gensim.__file__).parent / "test" / "test_data" / name
    return [line.split() for line in path.read_text(encoding="utf-8").splitlines()]


def topic_rank(wv: Any) -> float:
    units = wv.vectors / np.linalg.norm(wv.vectors, axis=1, keepdims=True)
    topic = np.array([int(word) % TOPICS for word in wv.index_to_key])
    ranks = []
    for i in range(len(units)):  # all: every fifth one, by frequency, is another choice where words come equally often
        scores = units @ units[i]
        scores[i] = -np.inf
        rank = np.empty(len(units))
        rank[np.argsort(-scores)] = np.arange(1, len(units) + 1)
        same = topic == topic[i]
        same[i] = False
        ranks.append(rank[same].mean())
    return float(np.mean(ranks))


def model_of(peer: str, sentences: list[list[str]], sg: int, workers: int, seed: int, **more: Any) -> Any:
    model = PEERS[peer](sg=sg, workers=workers, seed=seed, min_count=5, **SETTINGS, **more)
    model.build_vocab(sentences)
    return model


def speed(arguments: argparse.Namespace) -> None:
    """Training alone, without counting; rounds in turns. A ratio is the median over rounds."""
    clock = time.process_time if arguments.clock == "cpu" else time.perf_counter
    corpora = {
        "lee": lambda: shipped_corpus("lee_background.cor") * 10,
        "head500": lambda: shipped_corpus("head500.noblanks.cor"),
        "made": lambda: made_corpus(arguments.tokens),
    }
    print(f"{'corpus':8} {'model':10} workers  gensim kw/s  fastrnn kw/s  ratio (least, most)")
    for name in arguments.corpora:
        sentences = corpora[name]()
        words = sum(map(len, sentences)) * SETTINGS["epochs"]
        for sg in (1, 0):
            for workers in arguments.workers:
                fastrnn.set_num_threads(workers)
                rates: dict[str, list[float]] = {peer: [] for peer in PEERS}
                for turn in range(arguments.rounds):
                    for peer in sorted(PEERS, reverse=bool(turn % 2)):
                        model = model_of(peer, sentences, sg, workers, turn + 1)
                        begin = clock()
                        model.train(sentences, total_examples=model.corpus_count, epochs=model.epochs)
                        rates[peer].append(words / (clock() - begin) / 1e3)
                ratios = [ours / theirs for ours, theirs in zip(rates["fastrnn"], rates["gensim"])]
                middle = {peer: statistics.median(values) for peer, values in rates.items()}
                both = f"{middle['gensim']:11.0f}  {middle['fastrnn']:12.0f}"
                ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}, {max(ratios):.2f})"
                print(f"{name:8} {'skip-gram' if sg else 'CBOW':10} {workers:7}  {both}  {ratio}", flush=True)


def quality(arguments: argparse.Namespace) -> None:
    """Mean rank of same-topic words over seeds, with its standard error."""
    sentences = made_corpus(arguments.tokens)
    kinds = {"gensim": {}, "fastrnn": {}, "fastrnn, own negatives": {"shared_negatives": False}}
    for sg in (1, 0):
        for kind, more in kinds.items():
            if not sg and more:
                continue
            ranks = []
            for seed in range(1, arguments.seeds + 1):
                model = model_of(kind.split(",")[0], sentences, sg, arguments.workers[0], seed, **more)
                model.train(sentences, total_examples=model.corpus_count, epochs=model.epochs)
                ranks.append(topic_rank(model.wv))
            error = statistics.stdev(ranks) / len(ranks) ** 0.5 if len(ranks) > 1 else 0.0
            name = "skip-gram" if sg else "CBOW"
            print(f"{name:10} {kind:24} mean rank {statistics.mean(ranks):7.1f} +- {error:.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--corpora", nargs="+", default=["lee", "head500", "made"])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=2_000_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    arguments = parser.parse_args()
    SETTINGS["epochs"] = arguments.epochs
    if arguments.speed:
        speed(arguments)
    if arguments.quality:
        quality(arguments)


if __name__ == "__main__":
    main()
