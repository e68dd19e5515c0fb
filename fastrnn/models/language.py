"""LanguageModel: tells the next character or word of a text, and writes.

Letters: V vocabulary, N texts read side by side, T steps, L tokens of a text.

Design:
a) A `Sequential` that carries its vocabulary in its description, so that every file of `Trainer.save`, of a checkpoint
   callback or of `save_model` is complete, and a model can be asked for text right after it was loaded.
b) `samples` lays a text out for a stateful trainer: sample i of a batch goes on where sample i of the batch before has
   ended. That is truncated backpropagation through time, with an update, a line of progress and a place to stop and
   resume after each T steps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import losses
from .._validate import as_generator, check_boolean, check_choice, check_probability, check_size
from ..layers import GRU, LSTM, RNN, AdaptiveSoftmax, Dropout, Embedding, Linear, Sequential
from ..words import Tokenizer, Vocabulary, streams
from .sampling import Sampler

Array = NDArray[Any]
CELLS = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
LINES = r"\w+(?:['’]\w+)*|[^\w\s]|\n"
"""Words and punctuation, as `fastrnn.words.Tokenizer` cuts them, and the ends of lines."""


class LanguageModel(Sequential):
    """Embedding, stacked recurrent layers, Linear: logits (N, T, V) of the next token from tokens (N, T).

        model = fastrnn.LanguageModel.of(text)                       # its characters
        x, y = model.samples(text, batch_size=32, steps=128)
        trainer = fastrnn.Trainer(model, model.loss, fastrnn.Adam(2e-3), clip_norm=1.0, stateful=True)
        trainer.fit(x, y, epochs=5, batch_size=32)
        print("".join(model.write("The ", 300)))

    vocabulary: of `fastrnn.words`, of characters or words. embedding_size: None for hidden_size. dropout: between all
    layers. cutoffs: for many words, an `AdaptiveSoftmax` with these in place of the Linear; the loss is then "nll", as
    `model.loss` says. tie_weights: the output layer's weights are the embedding's vectors (Press and Wolf 2017), which
    then start as small as those of a Linear; embedding_size has to be hidden_size. sparse: the embedding's gradient is
    kept as rows, so that a step costs its tokens, not V: see `Embedding`. rng: seed or Generator of all weights.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        cell: Literal["lstm", "gru", "rnn"] = "lstm",
        hidden_size: int = 256,
        num_layers: int = 1,
        embedding_size: int | None = None,
        dropout: float = 0.0,
        cutoffs: Sequence[int] | None = None,
        tie_weights: bool = False,
        sparse: bool = False,
        dtype: Any = np.float32,
        rng: int | np.random.Generator | None = None,
    ) -> None:
        if not isinstance(vocabulary, Vocabulary) or len(vocabulary) == len(vocabulary.special):
            got = "one without" if isinstance(vocabulary, Vocabulary) else type(vocabulary).__name__
            raise TypeError(f"vocabulary: expected a fastrnn.words.Vocabulary that knows tokens, got {got}")
        rng, V, H = as_generator("rng", rng), len(vocabulary), check_size("hidden_size", hidden_size)
        D = H if embedding_size is None else check_size("embedding_size", embedding_size)
        kind = CELLS[check_choice("cell", cell, tuple(CELLS))]
        p, num_layers = check_probability("dropout", dropout), check_size("num_layers", num_layers)
        between: Any = {"dropout": p} if num_layers > 1 else {}
        dropouts = [Dropout(p, rng=rng) for _ in range(2)] if p else []
        super().__init__(
            Embedding(V, D, sparse=sparse, dtype=dtype, rng=rng),
            *dropouts[:1],
            kind(D, H, num_layers, batch_first=True, dtype=dtype, rng=rng, **between),
            *dropouts[1:],
            AdaptiveSoftmax(H, V, cutoffs, dtype=dtype, rng=rng) if cutoffs else Linear(H, V, dtype=dtype, rng=rng),
        )
        if check_boolean("tie_weights", tie_weights):
            if H != D or cutoffs:
                got = f"embedding_size={D} and hidden_size={H}" if H != D else f"cutoffs={cutoffs}"
                raise ValueError(
                    f"tie_weights: expected False with {got}: the output layer has other weights, got True"
                )
            self.layers[0].params["weight"][...] *= H**-0.5
            self.tie(f"{len(self.layers) - 1}.weight", to="0.weight")
        self.vocabulary = vocabulary
        self._options = {
            "cell": cell,
            "hidden_size": H,
            "num_layers": num_layers,
            "embedding_size": D,
            "dropout": p,
            "cutoffs": None if not cutoffs else list(cutoffs),
            "sparse": bool(sparse),
            "dtype": np.dtype(dtype).name,
        }

    @classmethod
    def of(
        cls,
        text: str,
        level: Literal["characters", "words"] = "characters",
        *,
        max_size: int | None = None,
        **options: Any,
    ) -> LanguageModel:
        """A model of a text's characters, or of its words, marks and ends of lines. max_size: the most frequent ones
        only. options: those of the class."""
        check_choice("level", level, ("characters", "words"))
        tokenizer = Tokenizer(LINES) if level == "words" else None
        vocabulary = Vocabulary(level=level, max_size=max_size, padding=None, tokenizer=tokenizer)
        return cls(vocabulary.fit(text), **options)

    @property
    def loss(self) -> Literal["cross_entropy", "nll"]:
        """What a `Trainer` of it is to minimise."""
        return "nll" if self.needs_targets else "cross_entropy"

    # --- texts to samples, and scores ---------------------------------------------------------------------------------

    def samples(self, text: str | Array, batch_size: int = 32, steps: int = 128) -> tuple[Array, Array]:
        """x and y (K * batch_size, steps) for a stateful trainer with this batch_size: y is one token ahead of x, and
        sample i of a batch goes on where sample i of the batch before has ended. Tokens at the end that fill no batch
        are left out. text: a string, or its tokens (L,). Raises ValueError for a text that fills none."""
        tokens, N, T = self._tokens(text), check_size("batch_size", batch_size), check_size("steps", steps)
        K = (len(tokens) - 1) // (N * T)
        if K < 1:
            raise ValueError(f"text: expected at least batch_size * steps + 1 = {N * T + 1} tokens, got {len(tokens)}")
        x, y = (a[:, : K * T].reshape(N, K, T).swapaxes(0, 1).reshape(K * N, T) for a in streams(tokens, N))
        return x, y

    def score(self, text: str | Array, batch_size: int = 1, steps: int = 256) -> dict[str, float]:
        """How well the model tells a text that it reads from zeros on: "loss", the mean of -log p of its tokens in
        nats; "perplexity", exp(loss); "bits_per_character", by the characters of those tokens; and "tokens".

        batch_size: so many pieces of the text are read side by side, which is quicker; up to batch_size - 1 tokens at
        the end are then left out. steps: how many steps are run in one call."""
        tokens, steps = self._tokens(text), check_size("steps", steps)
        x, y = streams(tokens, batch_size)
        total, state = 0.0, None
        for start in range(0, x.shape[1], steps):
            piece, following = x[:, start : start + steps], y[:, start : start + steps]
            if self.needs_targets:  # and puts out the losses themselves
                outputs, state = self.run(piece, state, targets=following)
                total += float(outputs.sum(dtype=np.float64))
            else:
                outputs, state = self.run(piece, state)
                total += losses.cross_entropy(outputs, following, reduction="sum")[0]
        characters = len(text) / len(tokens) if isinstance(text, str) else 1.0  # of a token
        return measures(total / y.size, characters) | {"tokens": float(y.size)}

    def _tokens(self, text: str | Array) -> Array:
        if isinstance(text, str):
            return self.vocabulary.encode(text, start=False, end=False)
        return np.asarray(text)

    # --- writing ------------------------------------------------------------------------------------------------------

    def write(
        self,
        prompt: str = "",
        length: int | None = None,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        rng: int | np.random.Generator | None = None,
    ) -> Iterator[str]:
        """The text that goes on from `prompt`, piece by piece as it is made: characters, or words with the spaces
        between them. length: so many tokens; None for no end.

        temperature, top_k, top_p: see `fastrnn.models.sampling.Sampler`; rng: seed or Generator. Raises TypeError and
        ValueError that name the argument, at once; a prompt with unknown tokens is refused."""
        sampler = Sampler(temperature, top_k, top_p, as_generator("rng", rng), self._unprinted())
        length = None if length is None else check_size("length", length, least=0)
        tokens = self._prompt(prompt)
        return self._written(tokens, length, sampler, prompt)

    def _written(self, tokens: Array, length: int | None, sampler: Sampler, prompt: str) -> Iterator[str]:
        stream = self.stream()
        y = stream.run(tokens[None])[0, -1]
        before, made = prompt, 0
        while length is None or made < length:
            token = sampler(y)
            piece = self.vocabulary.tokens[token]
            if token == self.vocabulary.index.get(self.vocabulary.end or ""):
                return
            yield piece if self.vocabulary.level == "characters" else _space(before, piece) + piece
            before, made = piece, made + 1
            y = stream.step(np.array([token]))[0]

    def _prompt(self, prompt: str) -> Array:
        """Its tokens; for an empty one that of a new line, or the most frequent token."""
        if not isinstance(prompt, str):
            raise TypeError(f"prompt: expected a string, got {type(prompt).__name__}")
        pieces = self.vocabulary.split(prompt)
        for piece in pieces:
            if piece not in self.vocabulary.index:
                raise ValueError(f"prompt: expected tokens that the model knows, got {piece!r}")
        if not pieces:
            pieces = ["\n" if "\n" in self.vocabulary else self.vocabulary.tokens[len(self.vocabulary.special)]]
        return self.vocabulary.encode(pieces, start=False, end=False)

    def _unprinted(self) -> tuple[int, ...]:
        """Special tokens, but not the one that ends a text."""
        vocabulary = self.vocabulary
        return tuple(vocabulary.index[token] for token in vocabulary.special if token != vocabulary.end)

    # --- description --------------------------------------------------------------------------------------------------

    def arguments(self) -> dict[str, Any]:
        return {"vocabulary": _describe(self.vocabulary)} | self._options

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> LanguageModel:
        options = {name: value for name, value in config.items() if name not in ("class", "vocabulary")}
        return cls(_rebuild(config["vocabulary"]), **options)

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self._options.items())
        return f"LanguageModel({self.vocabulary!r}, {options})"


def measures(loss: float, characters: float = 1.0) -> dict[str, float]:
    """loss in nats a token, perplexity, bits per character; characters: how many a token has on average."""
    perplexity = math.exp(loss) if loss < 700 else math.inf
    return {"loss": loss, "perplexity": perplexity, "bits_per_character": loss / math.log(2) / characters}


def _space(before: str, piece: str) -> str:
    """What stands between two words: nothing at the ends of lines and before marks that close."""
    return "" if not before or before[-1].isspace() or piece == "\n" or piece in ".,;:!?)]}" or before in "([{" else " "


def _describe(vocabulary: Vocabulary) -> str:
    """As text: numbers in it are not sizes of layers, which a reader of the file checks."""
    tokenizer = vocabulary.tokenizer
    if tokenizer is not None and not isinstance(tokenizer, Tokenizer):
        raise TypeError(f"tokenizer: expected a Tokenizer to be saved, got {tokenizer!r}")
    content = {name: getattr(vocabulary, name) for name in ("level", "padding", "unknown", "start", "end")}
    content["tokens"] = vocabulary.tokens[len(vocabulary.special) :]
    if tokenizer is not None:
        content["tokenizer"] = {"pattern": tokenizer.pattern, "lowercase": tokenizer.lowercase}
    return json.dumps(content, ensure_ascii=False)


def _rebuild(text: str) -> Vocabulary:
    content = json.loads(text)
    tokenizer = content.pop("tokenizer", None)
    return Vocabulary.from_tokens(content.pop("tokens"), tokenizer=tokenizer and Tokenizer(**tokenizer), **content)
