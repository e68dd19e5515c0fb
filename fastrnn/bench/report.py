"""What a run of the bench found out, and its JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from fastrnn.bench.gemm import GEMM
from fastrnn.bench.measure import ratio
from fastrnn.bench.peers import FastRNN
from fastrnn.bench.shapes import FORWARD, STEP, Shape, flops


@dataclass(frozen=True)
class Result:
    """One cell, shape and mode. seconds: contender -> seconds per call in each round, the same-flops product among them
    as "gemm"; a call in mode "step" is all T steps. difference: peer -> from fastrnn. threads: peer -> at how many it
    was faster and so is counted, where it was measured at several."""

    cell: str
    shape: Shape
    mode: str
    seconds: dict[str, list[float]]
    difference: dict[str, float] = field(default_factory=dict)
    threads: dict[str, int] = field(default_factory=dict)

    def median_seconds(self, name: str = FastRNN.name) -> float:
        return median(self.seconds[name])

    def seconds_per_step(self, name: str = FastRNN.name) -> float:
        return self.median_seconds(name) / self.shape.T

    def gflops(self, name: str = FastRNN.name) -> float:
        """1e9 floating point operations per second, as `flops` counts them."""
        operations = flops(self.cell, self.shape, FORWARD if name == GEMM else self.mode)
        return operations / self.median_seconds(name) / 1e9

    def ratio(self, name: str) -> float:
        """How many times as long as fastrnn this peer takes; above 1 fastrnn is ahead."""
        return ratio(self.seconds[name], self.seconds[FastRNN.name])

    def share_of_same_flops(self) -> float | None:
        """fastrnn's GFLOP/s over those of the BLAS on products of the same sizes."""
        if GEMM not in self.seconds:
            return None
        per_call = flops(self.cell, self.shape, self.mode) / flops(self.cell, self.shape, FORWARD)
        return per_call * self.ratio(GEMM)


@dataclass(frozen=True)
class Memory:
    """Peak memory of one training step of one cell and shape: contender -> bytes above the state before it."""

    cell: str
    shape: Shape
    peak: dict[str, int]


@dataclass
class Report:
    """Everything that one run of the bench found out.

    peers: those that ran, fastrnn first. left_out: peer -> why it did not. notes: what else a reader must know.
    gemm: dtype -> library -> GFLOP/s of a large product. command: what was typed.
    """

    config: dict[str, Any]
    versions: dict[str, str]
    num_threads: int
    peers: list[str]
    left_out: dict[str, str]
    when: str
    command: str = ""
    notes: list[str] = field(default_factory=list)
    gemm: dict[str, dict[str, float]] = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)
    memory: list[Memory] = field(default_factory=list)
    total_seconds: float = 0.0

    def best_blas(self, dtype: str) -> str | None:
        """The library whose large product was the fastest."""
        measured = self.gemm.get(dtype)
        return max(measured, key=measured.__getitem__) if measured else None

    def share_of_large(self, result: Result) -> float | None:
        """fastrnn's GFLOP/s over those of the machine's best large product."""
        best = self.best_blas(result.shape.dtype)
        return result.gflops() / self.gemm[result.shape.dtype][best] if best else None

    def to_json(self) -> str:
        """The raw numbers of every round, with medians, GFLOP/s, ratios and shares beside them for other readers."""
        data = asdict(self)
        for entry, result in zip(data["results"], self.results):
            entry["shape"] = result.shape._asdict()
            entry["median_seconds"] = {name: result.median_seconds(name) for name in result.seconds}
            if result.mode == STEP:
                entry["seconds_per_step"] = {name: result.seconds_per_step(name) for name in result.seconds}
            entry["gflops"] = {name: result.gflops(name) for name in result.seconds}
            entry["ratio"] = {name: result.ratio(name) for name in result.seconds if name not in (FastRNN.name, GEMM)}
            entry["share_of_large_gemm"] = self.share_of_large(result)
            entry["share_of_same_flops_gemm"] = result.share_of_same_flops()
        for entry, memory in zip(data["memory"], self.memory):
            entry["shape"] = memory.shape._asdict()
        return json.dumps(data, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The report that `to_json` wrote; derived numbers are computed anew."""
        data = json.loads(text)
        data["results"] = [
            Result(
                cell=entry["cell"],
                shape=Shape(**entry["shape"]),
                mode=entry["mode"],
                seconds=entry["seconds"],
                difference=entry["difference"],
                threads=entry.get("threads", {}),
            )
            for entry in data["results"]
        ]
        data["memory"] = [
            Memory(cell=entry["cell"], shape=Shape(**entry["shape"]), peak=entry["peak"])
            for entry in data.get("memory", [])
        ]
        return cls(**data)
