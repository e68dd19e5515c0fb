"""The compiled door of `fastrnn.words`."""

from collections.abc import Iterable, Iterator
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

BREAK: int

class Trainer:
    def __init__(
        self,
        inputs: Array,
        outputs: Array | None,
        nodes: Array | None,
        keep: Array,
        aliases: Array,
        tree: tuple[Array, Array, Array] | None,
        grams: tuple[Array, Array] | None,
        *,
        seed: int,
        margin: float,
        window: int,
        negative: int,
        cbow: bool,
        mean: bool,
        shrink: bool,
        shared: bool,
        compute_loss: bool,
    ) -> None: ...
    def train(
        self,
        tokens: Array,
        first: int,
        begin: int,
        end: int,
        *,
        epoch: int,
        task_size: int,
        rate: float,
        slope: float,
        least_rate: float,
        threads: int,
    ) -> float: ...
    def left(self, tokens: Array, first: int, begin: int, epoch: int) -> int: ...
    def right(self, tokens: Array, first: int, end: int, epoch: int) -> int: ...

class Lexicon:
    words: int
    lines: int
    def __init__(self, words: Iterable[str] = ()) -> None: ...
    def __len__(self) -> int: ...
    def items(self) -> Iterator[tuple[bytes, int]]: ...
    def count(self, text: Any, begin: int, last: bool, most: int) -> int: ...
    def prune(self, least: int) -> None: ...
    def encode(self, text: Any, begin: int, last: bool, out: Array, at: int) -> tuple[int, int]: ...

def encode(sentence: Iterable[str], index: dict[str, int], out: Array, at: int) -> int: ...
def alias_table(weights: Array) -> Array: ...
def huffman(counts: Array) -> tuple[Array, Array, Array]: ...
def ngram_rows(words: Iterable[str], min_n: int, max_n: int, bucket: int, first: int) -> tuple[Array, Array]: ...
