"""What comes next in a series.

Letters: T time steps, M columns of the series, E exogenous columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_array, check_is_fitted

from .estimator import Array
from .sequences import RNNRegressor


class WindowRegressor(RNNRegressor):
    """Forecasts of a series: the next `horizon` values from the last `window` ones.

    strategy: "direct": one network puts out all of the horizon; "recursive": it puts out the next value, which it then
        reads as the newest one.
    fit(X, y=None): X (T,) or (T, M) is the series itself, rows in the order of time; or y (T,) or (T, M) is the series,
        and X (T, E) holds exogenous columns that are known up to the same time. DataFrames are taken.
    predict(X=None, y=None): the horizon after the end of what was fitted, or after the last rows of X (and y), of shape
        (horizon,) or (horizon, M). With "recursive" and exogenous columns, `future` (horizon, E) are those to come.
    score(X, y=None): R^2 of the forecasts from each place in a series, given as to fit.
    The other arguments as for `RNNRegressor`.
    """

    def __init__(
        self,
        window: int = 24,
        horizon: int = 1,
        *,
        strategy: str = "direct",
        cell: str = "lstm",
        hidden_size: int = 64,
        num_layers: int = 1,
        dropout: float = 0.0,
        epochs: int = 50,
        batch_size: int = 32,
        optimizer: str = "adam",
        learning_rate: float = 5e-3,
        weight_decay: float = 0.0,
        clip_norm: float | None = 1.0,
        standardize: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: int = 0,
        warm_start: bool = False,
    ) -> None:
        super().__init__(
            cell,
            hidden_size,
            num_layers=num_layers,
            dropout=dropout,
            epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            clip_norm=clip_norm,
            standardize=standardize,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            random_state=random_state,
            n_jobs=n_jobs,
            verbose=verbose,
            warm_start=warm_start,
        )
        self.window = window
        self.horizon = horizon
        self.strategy = strategy

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> WindowRegressor:
        """See the class. sample_weight: (T,), what each row counts as one that is to be foretold."""
        if self.strategy not in ("direct", "recursive"):
            raise ValueError(f"strategy: expected 'direct' or 'recursive', got {self.strategy!r}")
        series, exogenous = self._series(X, y)
        self._one_column = np.ndim(X if y is None else y) == 1
        ahead = self.horizon if self.strategy == "direct" else 1
        rows, windows, targets = self._windows(series, exogenous, ahead, "fit")
        self._last, self._columns, self._exogenous = rows[-self.window :], series.shape[1], exogenous.shape[1]
        weights = self._weights(sample_weight, len(series), ahead)
        super().fit(windows, targets.reshape(len(targets), -1), sample_weight=weights)
        return self

    def predict(self, X: Any = None, y: Any = None, *, future: Any = None) -> Array:
        """The next `horizon` values: see the class."""
        check_is_fitted(self, "model_")
        rows = self._last if X is None else self._known(X, y)[0][-self.window :]
        if X is None and y is not None:
            raise ValueError("X: expected exogenous columns beside y, got None; a series alone is X")
        if len(rows) < self.window:
            raise ValueError(f"X: expected at least window = {self.window} rows, got {len(rows)}")
        values = self._forecast(rows[None], self._future(future)[None])[0]
        return values[:, 0] if self._one_column else values

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """R^2 of the `horizon` values after each window of the series, against what came; exogenous columns to come are
        those of X. sample_weight: (T,), as for fit."""
        check_is_fitted(self, "model_")
        series, exogenous = self._known(X, y)[1:]
        _, windows, targets = self._windows(series, exogenous, self.horizon, "score")
        starts = np.arange(len(windows))[:, None] + self.window + np.arange(self.horizon)
        values = self._forecast(windows, exogenous[starts])
        count = len(windows)
        weights = self._weights(sample_weight, len(series), self.horizon)
        return float(r2_score(targets.reshape(count, -1), values.reshape(count, -1), sample_weight=weights))

    def _known(self, X: Any, y: Any) -> tuple[Array, Array, Array]:
        """All columns, the series and the exogenous columns, which have to be those of fit."""
        series, exogenous = self._series(X, y)
        if (series.shape[1], exogenous.shape[1]) != (self._columns, self._exogenous):
            what = f"a series of {self._columns} columns"
            if self._exogenous:
                what = f"{self._exogenous} exogenous columns as X and {what} as y"
            got = f"{series.shape[1]} columns" + (f" and {exogenous.shape[1]} exogenous ones" if y is not None else "")
            raise ValueError(f"X: expected {what}, as in fit, got {got}")
        return np.concatenate([series, exogenous], axis=1), series, exogenous

    def _windows(self, series: Array, exogenous: Array, ahead: int, what: str) -> tuple[Array, Array, Array]:
        """All columns; windows (K, window, M + E) of them; and the `ahead` values of the series after each."""
        count = len(series) - self.window - ahead + 1
        if count < 1:
            raise ValueError(
                f"X: expected at least window + horizon = {self.window + ahead} rows to {what}, got {len(series)}"
            )
        rows = np.concatenate([series, exogenous], axis=1)
        windows = np.stack([rows[i : i + self.window] for i in range(count)])
        targets = np.stack([series[i + self.window : i + self.window + ahead] for i in range(count)])
        return rows, windows, targets

    def _weights(self, sample_weight: Any, T: int, ahead: int) -> Array | None:
        """(K,), of each window the mean of those of the rows that it foretells."""
        if sample_weight is None:
            return None
        weights = check_array(sample_weight, dtype=np.float64, ensure_2d=False, input_name="sample_weight")
        if weights.shape != (T,):
            raise ValueError(f"sample_weight: expected a number for each row, shape ({T},), got {weights.shape}")
        means: Array = np.lib.stride_tricks.sliding_window_view(weights[self.window :], ahead).mean(axis=1)
        return means

    def _forecast(self, windows: Array, future: Array) -> Array:
        """(K, horizon, M) after each of the windows (K, window, M + E); future (K, horizon, E)."""
        if self.strategy == "direct":
            return np.asarray(super().predict(windows)).reshape(len(windows), self.horizon, self._columns)
        return self._recurse(windows, future)

    def _recurse(self, windows: Array, future: Array) -> Array:
        values = []
        for step in range(self.horizon):
            value = np.asarray(super().predict(windows)).reshape(len(windows), 1, self._columns)
            values.append(value)
            newest = np.concatenate([value, future[:, step : step + 1]], axis=2)
            windows = np.concatenate([windows[:, 1:], newest], axis=1)
        return np.concatenate(values, axis=1)

    def _future(self, future: Any) -> Array:
        if not self._exogenous or self.strategy == "direct":
            if future is not None:
                raise ValueError("future: expected None without exogenous columns and strategy='recursive', got values")
            return np.empty((self.horizon, self._exogenous))
        if future is None:
            raise ValueError(f"future: expected exogenous values ({self.horizon}, {self._exogenous}), got None")
        values = check_array(future, dtype=np.float64)
        if values.shape != (self.horizon, self._exogenous):
            raise ValueError(f"future: expected shape ({self.horizon}, {self._exogenous}), got {values.shape}")
        return values

    def _series(self, X: Any, y: Any) -> tuple[Array, Array]:
        """The series (T, M), and exogenous columns (T, E), none of them where y is None."""
        X = check_array(X, dtype=np.float64, ensure_2d=False)
        if y is None:
            return X.reshape(len(X), -1), np.empty((len(X), 0))
        y = check_array(y, dtype=np.float64, ensure_2d=False, input_name="y")
        if len(y) != len(X):
            raise ValueError(f"y: expected {len(X)} rows like X, got {len(y)}")
        return y.reshape(len(y), -1), X.reshape(len(X), -1)
