"""What comes next in a series.

Letters: T time steps, M columns of the series, E exogenous columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
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

    def fit(self, X: Any, y: Any = None) -> WindowRegressor:  # type: ignore[override]
        if self.strategy not in ("direct", "recursive"):
            raise ValueError(f"strategy: expected 'direct' or 'recursive', got {self.strategy!r}")
        series, exogenous = self._series(X, y)
        ahead = self.horizon if self.strategy == "direct" else 1
        count = len(series) - self.window - ahead + 1
        if count < 1:
            raise ValueError(f"X: expected at least window + horizon = {self.window + ahead} rows, got {len(series)}")
        rows = np.concatenate([series, exogenous], axis=1)
        windows = np.stack([rows[i : i + self.window] for i in range(count)])
        targets = np.stack([series[i + self.window : i + self.window + ahead] for i in range(count)])
        self._last, self._columns, self._exogenous = rows[-self.window :], series.shape[1], exogenous.shape[1]
        super().fit(windows, targets.reshape(count, -1))
        return self

    def predict(self, X: Any = None, y: Any = None, *, future: Any = None) -> Array:
        """The next `horizon` values: see the class."""
        check_is_fitted(self, "model_")
        rows = self._last
        if X is not None:
            series, exogenous = self._series(X, y)
            rows = np.concatenate([series, exogenous], axis=1)[-self.window :]
            if rows.shape != self._last.shape:
                raise ValueError(
                    f"X: expected at least {self.window} rows of the columns of fit, got shape {rows.shape}"
                )
        if self.strategy == "direct":
            values = super().predict(rows[None]).reshape(self.horizon, self._columns)
        else:
            values = self._recurse(rows, self._future(future))
        return values[:, 0] if self._one_column else values

    def _recurse(self, rows: Array, future: Array) -> Array:
        values = []
        for step in range(self.horizon):
            value = super().predict(rows[None]).reshape(1, self._columns)
            values.append(value[0])
            rows = np.concatenate([rows[1:], np.concatenate([value, future[step : step + 1]], axis=1)])
        return np.stack(values)

    def _future(self, future: Any) -> Array:
        if not self._exogenous:
            return np.empty((self.horizon, 0))
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
            self._one_column = X.ndim == 1
            return X.reshape(len(X), -1), np.empty((len(X), 0))
        y = check_array(y, dtype=np.float64, ensure_2d=False, input_name="y")
        if len(y) != len(X):
            raise ValueError(f"y: expected {len(X)} rows like X, got {len(y)}")
        self._one_column = y.ndim == 1
        return y.reshape(len(y), -1), X.reshape(len(X), -1)
