"""EncoderDecoder: from a sequence to another of its own length.

Letters: N batch, T source steps, T' target steps, V vocabulary of the targets, M features of the targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._validate import check_choice, check_number, check_size, check_token
from ..streaming.decode import beam_search
from ..streaming.generate import MODES, OneStep, generate
from .container import Container
from .module import Array, Module, build
from .protocol import NOTHING, Context
from .state_bridge import MERGES, StateBridge


class EncoderDecoder(Container):
    """The encoder reads the source; what state it ends with is the state in which the decoder starts to write (Cho et
    al. 2014; Sutskever, Vinyals and Le 2014).

        encoder = Sequential(Embedding(V_source, D), GRU(D, H, batch_first=True))
        decoder = Sequential(Embedding(V, D), GRU(D, H, batch_first=True), Linear(H, V))
        model = EncoderDecoder(encoder, decoder, start=1, end=2, padding=0)
        Trainer(model, loss="cross_entropy").fit(source, targets)         # tokens (N, T), (N, T') with `end`, then -100
        model.generate(source, steps=20, mode="beam")                      # tokens (N, 20)

    encoder, decoder: recurrent layers, or Sequential with any; the same layout, the decoder reading forward only. Level
        by level the decoder has the encoder's states, whatever the outputs of the encoder are.
    start: the token that the decoder reads first; None for a decoder of vectors, which reads zeros first.
    end: the token that ends a target. None: generated sequences have all the steps asked for.
    padding: the token that fills up the sources of a batch, from which their lengths are then counted; None: lengths
        come with each call, or all sources are of one length. The encoder has to take lengths for either.
    merge: "concat", "sum" or "mean", what becomes of the two directions of a bidirectional encoder: "concat" puts them
        side by side, so the decoder's hidden size is twice the encoder's; "sum" and "mean" keep the size.

    logits = model(source, targets=targets, lengths=None, training=False)
        source as the encoder reads it, lengths (N,) of the source. Teacher forcing: the decoder reads start and all
        targets but the last. targets (N, T') of integers, laid out as source, negative ones (such as the -100 that the
        loss ignores) past the ends; or vectors (N, T', M). Returns the decoder's outputs, (N, T', V).
    dx = model.backward(dlogits)
        The gradient of the source, None for tokens; parameter gradients are added to `grads`, under "encoder...." and
        "decoder....".

    A `Trainer` gives it the targets in training and in evaluation; `generate` runs it without any.
    """

    accepts = frozenset({"lengths", "targets"})
    needs_targets = True

    def __init__(
        self,
        encoder: Module,
        decoder: Module,
        *,
        start: int | None,
        end: int | None = None,
        padding: int | None = None,
        merge: str = "concat",
    ) -> None:
        super().__init__()
        for name, part in (("encoder", encoder), ("decoder", decoder)):
            if not isinstance(part, Module):
                raise TypeError(f"{name}: expected a layer, got {type(part).__name__}")
        if encoder is decoder:
            raise ValueError("decoder: expected other layers than the encoder's, got the same")
        if encoder.batch_first != decoder.batch_first:
            raise ValueError(
                f"decoder: expected batch_first={encoder.batch_first} like the encoder's, got {decoder.batch_first}"
            )
        if not (decoder.time.in_x and decoder.time.in_y):
            raise ValueError("decoder: expected an output at every step, got one that does away with time")
        self.encoder, self.decoder = encoder, decoder
        self.start, self.end, self.padding = (
            check_token(name, token) for name, token in (("start", start), ("end", end), ("padding", padding))
        )
        self.merge = check_choice("merge", merge, MERGES)
        self.batch_first = encoder.batch_first
        self._bridge = StateBridge(encoder, decoder, self.merge)
        self._begin(None)

    def arguments(self) -> dict[str, Any]:
        return {
            "encoder": self.encoder.config(),
            "decoder": self.decoder.config(),
            "start": self.start,
            "end": self.end,
            "padding": self.padding,
            "merge": self.merge,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> EncoderDecoder:
        options = {name: value for name, value in config.items() if name not in ("class", "encoder", "decoder")}
        return cls(build(config["encoder"]), build(config["decoder"]), **options)

    def parts(self) -> Mapping[str, Module]:
        return {"encoder": self.encoder, "decoder": self.decoder}

    # --- teacher forcing ----------------------------------------------------------------------------------------------

    def __call__(
        self, x: Array, *, targets: Array | None = None, lengths: Array | None = None, training: bool = False
    ) -> Array:
        """The decoder's outputs, fed with the targets: see the class."""
        return self._own_forward(x, context=Context(lengths, targets=targets), training=training)[0]

    def forward(
        self, x: Any, state: Any = None, *, context: Context = NOTHING, training: bool = False
    ) -> tuple[Array, Any]:
        targets = context.targets
        if targets is None:
            raise ValueError("targets: expected what the decoder is to write, got None; generate() runs without them")
        inputs = self._shifted(np.asarray(targets))
        code, state = self._encode(x, context.lengths, training)
        y, _ = self.decoder.run(inputs, self._bridge.forward(state), training=training)
        if training:
            self._cache = (code.shape, code.dtype)
        return y, None

    def backpropagate(self, dy: Any, dstate_n: Any = None, *, need_dx: bool = True) -> tuple[Any, Any]:
        shape, dtype = self._kept()
        _, dstate = self.decoder.backpropagate(dy)
        self._cache = None
        # The encoder's outputs are not used.
        dcode = None if "state" in self.encoder.flatten()[-1].accepts else np.zeros(shape, dtype)
        return self.encoder.backpropagate(dcode, self._bridge.backward(dstate), need_dx=need_dx)[0], None

    def _encode(self, x: Array, lengths: Array | None, training: bool = False) -> tuple[Array, Any]:
        if lengths is None and self.padding is not None:
            x = np.asarray(x)
            if x.dtype.kind not in "iu" or x.ndim != 2:
                raise ValueError(f"source: expected tokens, two axes of them, got shape {x.shape} of {x.dtype}")
            lengths = _counted(x if self.batch_first else x.T, self.padding)
        return self.encoder.run(x, lengths=lengths, training=training)

    def _shifted(self, targets: Array) -> Array:
        """What the decoder reads for these targets."""
        axis = 1 if self.batch_first else 0
        tokens = self.start is not None
        if targets.ndim != (2 if tokens else 3):
            layout = "N, T'" if self.batch_first else "T', N"
            raise ValueError(f"targets: expected shape ({layout}{'' if tokens else ', M'}), got {targets.shape}")
        if tokens and targets.dtype.kind not in "iu":
            raise TypeError(f"targets: expected integer tokens, got {targets.dtype}")
        if not targets.shape[axis]:
            return targets
        inputs = np.roll(targets, 1, axis)
        inputs[(slice(None),) * axis + (0,)] = self.start if tokens else 0
        if tokens:
            inputs[inputs < 0] = self.start  # past the end, where no target counts: any token does
        return inputs

    def check_streams(self) -> None:
        raise ValueError(
            "EncoderDecoder: expected one model for a stream, got two; either can stream, generate() writes"
        )

    # --- without targets ----------------------------------------------------------------------------------------------

    def generate(
        self,
        source: Array,
        steps: int,
        *,
        lengths: Array | None = None,
        mode: str = "greedy",
        temperature: float = 1.0,
        top_k: int | None = None,
        rng: int | np.random.Generator | None = None,
        beam_size: int = 4,
        length_penalty: float = 1.0,
        return_scores: bool = False,
    ) -> Any:
        """What the decoder writes for each source: tokens (N, steps), filled up with `end` where there is one.

        source: as in a call, in the layout of the layers; lengths (N,) as there. steps: the limit of the length.
        mode: "greedy", "sample" (with temperature, top_k and rng) and, for decoders of vectors, "feedback", as in
            `fastrnn.streaming.generate`; or "beam", the best of the sequences that beam_size beams find (see
            `fastrnn.streaming.beam_search`, also for length_penalty); with return_scores=True tokens and scores (N,).
        """
        steps, mode = check_size("steps", steps), check_choice("mode", mode, (*MODES, "beam"))
        if return_scores and mode != "beam":
            raise ValueError("return_scores: expected False unless mode is 'beam', got True")
        if (self.start is None) != (mode == "feedback"):
            kind = "vectors" if self.start is None else "tokens"
            raise ValueError(f"mode: expected another for a decoder of {kind}, got {mode!r}")
        _, state = self._encode(source, lengths)
        state = self._bridge.forward(state)
        N = np.shape(source)[0 if self.batch_first else 1]
        if not N:
            return self._nothing(steps, return_scores)
        if mode == "beam":
            start = np.full(N, self.start, np.intp)
            tokens, scores = beam_search(
                OneStep(self.decoder),
                start,
                state,
                steps,
                beam_size=beam_size,
                end=self.end,
                length_penalty=check_number("length_penalty", length_penalty),
            )
            return (tokens, scores) if return_scores else tokens
        if self.start is None:
            features = self.decoder.features
            if features is None:
                got = type(self.decoder.flatten()[0]).__name__
                raise ValueError(f"decoder: expected a first layer that says how many features it reads, got {got}")
            start = np.zeros((N, features), self._dtype())
        else:
            start = np.full(N, self.start)
        return generate(
            self.decoder, start, steps, state, mode=mode, temperature=temperature, top_k=top_k, rng=rng, end=self.end
        )

    def _nothing(self, steps: int, return_scores: bool) -> Any:
        """What `generate` gives for no sources."""
        tokens = np.zeros((0, steps, *(() if self.start is not None else (self.decoder.features,))), np.intp)
        if self.start is None:
            return tokens.astype(self._dtype())
        return (tokens, np.zeros(0)) if return_scores else tokens

    def _dtype(self) -> Any:
        return next(iter(self.decoder.params.values())).dtype


def _counted(tokens: Array, padding: int) -> Array:
    """The length of each row of (N, T) without the padding at its end."""
    last = tokens.shape[1] - np.argmax((tokens != padding)[:, ::-1], axis=1)
    return np.where((tokens != padding).any(axis=1), last, 0)
