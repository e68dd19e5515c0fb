"""Vectors that a layer looks up in a table: they are projected once each, and learn from sums. Letters as in _sequence.pyx.

V rows of the table, K of them looked up.

Design: x_t = table[token] reaches a cell in one product, x_t W_ih, alone. So forward needs that product of V rows instead of
T * N, and picks rows of the result; backward sums up the gradients of the cell's sums by token, and the two products that
follow, dW_ih and dx, are of K rows. Of the 12 products of two LSTM layers in training that saves three, where V is small.
"""

import numpy as np

cimport numpy as cnp
from fastrnn._native._arrays cimport data_of, new_array
from fastrnn._native._runtime cimport Rooms, Workspace, allot, reserve
from fastrnn._native._sequence cimport SequenceCall, partition_of
from fastrnn._native.kernels cimport *
from libc.string cimport memset

from fastrnn._native._token_rows import sum_rows

cnp.import_array()


cdef cnp.ndarray project_table(SequenceCall *call, int typenum, cnp.ndarray table):
    """Weights packed, and with them the table projected."""
    cdef fr_sequence *q = &call.sequence
    cdef long V = cnp.PyArray_DIM(table, 0)
    cdef cnp.ndarray projected = new_array(typenum, V, call.kernels.inputs_row(q), -1, False)
    cdef void *to = cnp.PyArray_DATA(projected)
    cdef const void *rows = cnp.PyArray_DATA(table)
    q.args.projected = to
    with nogil:
        call.kernels.pack_forward(q, partition_of(call, 0, 1, 0))
        call.kernels.project_table(q, to, rows, V)
    call.packed = True
    return projected


cdef object gradients_of_table(SequenceCall *call, tuple lookup, cnp.ndarray dweight_ih, bint wants_dx):
    """Adds to dweight_ih; returns (tokens, their vectors' gradients), or None. The gate gradients of all places of a token are
    summed up first, as the sum of products with one vector is the product with the sum: then one row a token is left."""
    cdef fr_sequence *q = &call.sequence
    cdef fr_sequence few = call.sequence
    cdef cnp.npy_intp shape[2]
    cdef cnp.ndarray places, gates, table, sums, vectors, dvectors
    places, table = _tokens_of_places(q, lookup[0]), lookup[1]
    if not len(places):
        return (places, np.empty((0, q.D), table.dtype)) if wants_dx else None
    order = places.argsort(kind="stable")
    tokens = places[order]
    starts = np.concatenate(([0], np.flatnonzero(np.diff(tokens)) + 1, [len(tokens)]))
    shape[0], shape[1] = fr_packed(q, q.T), call.kernels.gates_row(q)
    gates = cnp.PyArray_SimpleNewFromData(2, shape, cnp.PyArray_TYPE(table), q.workspace.gates)
    sums, tokens = sum_rows(gates, order, starts), tokens[starts[:len(starts) - 1]]
    vectors = table[tokens]
    dvectors = np.empty_like(vectors) if wants_dx else None

    few.T, few.N = 1, cnp.PyArray_DIM(sums, 0)
    memset(&few.rows, 0, sizeof(few.rows))
    memset(&few.args, 0, sizeof(few.args))
    few.args.weight_ih, few.args.dweight_ih = q.args.weight_ih, cnp.PyArray_DATA(dweight_ih)
    few.args.x.data, few.args.x.row = cnp.PyArray_DATA(vectors), q.D
    few.args.dx.data, few.args.dx.row = data_of(dvectors), q.D
    few.workspace.gates = cnp.PyArray_DATA(sums)
    few.watch = NULL
    cdef Rooms rooms
    memset(&rooms, 0, sizeof(rooms))
    reserve(&rooms, &few.scratch.panels_x, call.kernels.panels_x_size(&few) if wants_dx else 0, call.kernels.itemsize)
    reserve(&rooms, &few.scratch.gradients, call.kernels.gradients_size(&few, 1), call.kernels.itemsize)
    cdef Workspace scratch = allot(&rooms)  # no-cython-lint: lives to the end
    cdef fr_partition all = partition_of(call, 0, 1, 0)
    with nogil:
        call.kernels.grad_weights(&few, all)
        if wants_dx:
            call.kernels.pack_backward(&few, all)
            call.kernels.grad_input(&few, all)
    return (tokens, dvectors) if wants_dx else None


cdef cnp.ndarray _tokens_of_places(const fr_sequence *q, cnp.ndarray[cnp.int64_t, ndim=2] tokens):
    """Of each row of each step that ran, in the order in which their gradients lie."""
    cdef cnp.ndarray[cnp.int64_t, ndim=1] places = np.empty(fr_packed(q, q.T), np.int64)
    cdef long s, i, m = 0, time, n
    for s in range(q.T):
        for i in range(fr_active(q, s)):
            n = q.rows.order[i] if q.rows.order != NULL else i
            time = s
            if q.rows.times != NULL:
                time = q.rows.times[m]
            elif q.rows.reverse:
                time = (q.rows.lengths[i] if q.rows.order != NULL else q.T) - 1 - s
            places[m] = tokens[time, n]
            m += 1
    return places
