"""Vectors that a layer looks up in a table: for `_rnn` alone."""
