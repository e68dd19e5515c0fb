"""What int8 weights are worth: speed beside float32, torch's and ONNX Runtime's, and what they cost in accuracy.

    python benches/quantized.py [--threads N] [--accuracy]

Contenders in turns in one process: float32 and int8 are `layer(x)` and `fastrnn.quantize(layer)(x)`; stream32 and
stream8 their stream's `run(x)`; torch8 `torch.ao.quantization.quantize_dynamic`, under no_grad (there is none for the
RNN layer); onnx8 the same layer after `onnxruntime.quantization.quantize_dynamic`, a DynamicQuantizeLSTM (LSTM only).
--accuracy: the demo's digits, part of them named right; and a character model on Python's help texts, perplexity of
what it was not trained on; of float32, of int8, and of int8 with Linear layers too. Trained first, some minutes.

Letters: T time steps, N batch, H hidden_size = D input_size.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import tempfile
import warnings
from pydoc_data.topics import topics
from typing import Any

import numpy as np
from prepared import seconds

import fastrnn
from fastrnn.bench.peers.base import make_problem
from fastrnn.bench.peers.onnx_models import onnx_model
from fastrnn.bench.shapes import Shape

ROUNDS, BLOCK = 31, 1e-3  # seconds of a turn
NAMES = ("float32", "int8", "stream32", "stream8", "torch8", "onnx8")


def contenders(cell: str, T: int, N: int, H: int, threads: int) -> dict[str, Any]:
    problem = make_problem(cell.lower(), Shape(T, N, H, H))
    x = problem.x
    layer = getattr(fastrnn, cell)(H, H)
    layer.load_state_dict(problem.weights)
    quantized = fastrnn.quantize(layer)
    streams = layer.stream(N), quantized.stream(N)
    calls = {
        "float32": lambda: layer(x)[0],
        "int8": lambda: quantized(x)[0],
        "stream32": lambda: streams[0].run(x),
        "stream8": lambda: streams[1].run(x),
    }
    near = layer(x)[0]
    assert np.abs(calls["int8"]() - near).max() < 0.05
    if importlib.util.find_spec("torch") and cell != "RNN":
        calls["torch8"] = torch_call(cell, problem, threads)
        assert np.abs(calls["torch8"]() - near).max() < 0.1
    if importlib.util.find_spec("onnxruntime") and cell == "LSTM":
        calls["onnx8"] = onnx_call(problem, threads)
        assert np.abs(calls["onnx8"]().reshape(near.shape) - near).max() < 0.1
    return calls


def torch_call(cell: str, problem: Any, threads: int) -> Any:
    import torch

    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    module = getattr(torch.nn, cell)(problem.shape.D, problem.shape.H)
    module.load_state_dict({name: torch.from_numpy(a) for name, a in problem.weights.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its place to be
        module = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(module), dtype=torch.qint8)
    x = torch.from_numpy(problem.x)
    return lambda: module(x)[0].numpy()


def onnx_call(problem: Any, threads: int) -> Any:
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    with tempfile.TemporaryDirectory() as folder:
        plain, quantized = os.path.join(folder, "plain.onnx"), os.path.join(folder, "int8.onnx")
        with open(plain, "wb") as file:
            file.write(onnx_model(problem))
        quantize_dynamic(plain, quantized, weight_type=QuantType.QInt8, per_channel=True)
        session = onnxruntime.InferenceSession(quantized, options, providers=["CPUExecutionProvider"])
    feed = {"x": problem.x}
    return lambda: session.run(["output"], feed)[0]


def speed(threads: int) -> None:
    fastrnn.set_num_threads(threads)
    cpu = fastrnn.runtime.config()["cpu"]
    print(f"{cpu}, {threads} thread(s); medians of {ROUNDS} rounds, us a call; below, over int8's")
    print(f"{'cell':5} {'T':>3} {'N':>3} {'H':>4}  {'':3}" + "".join(f"{name:>10}" for name in NAMES))
    for cell in ("LSTM", "GRU", "RNN"):
        for H in (128, 256, 512):
            for T, N in ((1, 1), (16, 1), (64, 1), (1, 8), (16, 32)):
                calls = contenders(cell, T, N, H, threads)
                times: dict[str, list[float]] = {name: [] for name in calls}
                for round_ in range(ROUNDS):
                    for name in list(calls)[:: 1 if round_ % 2 else -1]:
                        times[name].append(seconds(calls[name], BLOCK))
                us = {name: 1e6 * statistics.median(times.get(name, [float("nan")])) for name in NAMES}
                line = f"{cell:5} {T:3} {N:3} {H:4}  "
                print(f"{line}{'us':3}" + "".join(f"{us[name]:10.1f}" for name in NAMES))
                rest = "".join(f"{us[name] / us['int8']:10.2f}" for name in NAMES)
                print(f"{'':{len(line)}}{'':3}{rest}", flush=True)


def accuracy() -> None:
    (x, labels), (xt, labels_t) = fastrnn.datasets.mnist()
    for cell in ("LSTM", "GRU", "RNN"):
        layer = getattr(fastrnn, cell)(x.shape[2], 128, batch_first=True)
        model = fastrnn.Sequential(layer, fastrnn.LastStep(batch_first=True), fastrnn.Linear(128, 10), rng=0)
        trainer = fastrnn.Trainer(model, "cross_entropy", fastrnn.Adam(2e-3), clip_norm=1.0, rng=0)
        trainer.fit(x, labels, epochs=20, batch_size=32, progress=False)
        right = [(m(xt).argmax(1) == labels_t).mean() for m in variants(model)]
        print(f"digits, {cell}: {', '.join(f'{100 * r:.2f}%' for r in right)} right of {len(labels_t)}", flush=True)
    text = "".join(topics[name] for name in sorted(topics))
    cut = int(0.9 * len(text))
    for cell in ("lstm", "gru"):
        model = fastrnn.LanguageModel.of(text, cell=cell, hidden_size=256, rng=0)
        x, y = model.samples(text[:cut], 32, 64)
        trainer = fastrnn.Trainer(
            model, model.loss, fastrnn.Adam(2e-3), clip_norm=1.0, stateful=True, metrics=(), rng=0
        )
        trainer.fit(x, y, epochs=3, batch_size=32, progress=False)
        held = model.vocabulary.encode(text[cut:])
        found = [perplexity(m, held) for m in variants(model)]
        print(f"characters, {cell}: perplexity {', '.join(f'{p:.4f}' for p in found)}", flush=True)


def variants(model: Any) -> tuple[Any, Any, Any]:
    return model, fastrnn.quantize(model), fastrnn.quantize(model, linear=True)


def perplexity(model: Any, tokens: np.ndarray) -> float:
    logits = model(tokens[None, :-1])[0].astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    picked = np.take_along_axis(logits, np.asarray(tokens[1:, None], np.int64), axis=1)[:, 0]
    return float(np.exp((np.log(np.exp(logits).sum(axis=1)) - picked).mean()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--accuracy", action="store_true")
    options = parser.parse_args()
    if options.accuracy:
        accuracy()
    else:
        speed(options.threads)


if __name__ == "__main__":
    main()
