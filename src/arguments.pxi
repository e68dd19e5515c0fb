# Part of _native.pyx: what a forward pass is given, checked and read into a sequence.

cdef void *_weight(list held, object a, str name, int typenum, str letters, int ndim, long d0, long d1) except? NULL:
    """Where the elements of a weight are, NULL for None; `held` keeps them alive."""
    if a is None:
        return NULL
    cdef cnp.ndarray array = _dense(a, name, typenum, letters, ndim, d0, d1)
    held.append(array)
    return cnp.PyArray_DATA(array)


cdef int _read_arguments(fr_sequence *q, int G, int typenum, list held, x, h0, weight_ih, weight_hh, bias_ih, bias_hh,
                         weight_hr, bias_hr, weight_peephole, out, bint training) except -1:
    """Check a forward pass' arrays and point `q` at them; `held` keeps them alive: x, output, h0 first."""
    cdef cnp.ndarray x_, output, array, h0_ = None, w_ih = <cnp.ndarray>weight_ih
    if cnp.PyArray_NDIM(w_ih) != 2 or cnp.PyArray_DIM(w_ih, 0) == 0 or cnp.PyArray_DIM(w_ih, 0) % G or (
            cnp.PyArray_DIM(w_ih, 1) == 0 and (np.ndim(x) == 0 or np.shape(x)[np.ndim(x) - 1] != 0)):
        raise ValueError(f"weight_ih: expected shape ({'' if G == 1 else f'{G}*'}H, D), got {_shape_of(w_ih)}")
    q.H, q.D = cnp.PyArray_DIM(w_ih, 0) // G, cnp.PyArray_DIM(w_ih, 1)
    q.P = q.H
    q.args.weight_hr = _weight(held, weight_hr, "weight_hr", typenum, "RH", 2, -1, q.H)
    if weight_hr is not None:
        q.P = cnp.PyArray_DIM(<cnp.ndarray>weight_hr, 0)
    x_ = _read_series(x, "x", typenum, "TND", -1, -1, q.D)
    q.T, q.N = cnp.PyArray_DIM(x_, 0), cnp.PyArray_DIM(x_, 1)
    if q.N < 1:
        raise ValueError(f"x: expected shape (T, N, {q.D}) with N of at least 1, got {x.shape}")
    q.args.weight_ih = _weight(held, weight_ih, "weight_ih", typenum, "GD", 2, G * q.H, q.D)
    q.args.weight_hh = _weight(held, weight_hh, "weight_hh", typenum, "GH" if q.P == q.H else "GP", 2, G * q.H, q.P)
    q.args.bias_ih = _weight(held, bias_ih, "bias_ih", typenum, "G", 1, G * q.H, -1)
    q.args.bias_hh = _weight(held, bias_hh, "bias_hh", typenum, "G", 1, G * q.H, -1)
    q.args.bias_hr = _weight(held, bias_hr, "bias_hr", typenum, "R", 1, q.P, -1)
    q.args.weight_peephole = _weight(held, weight_peephole, "weight_peephole", typenum, "H", 1, 3 * q.H, -1)
    if h0 is not None:
        h0_ = _dense(h0, "h0", typenum, "NH" if q.P == q.H else "NP", 2, q.N, q.P)
        if h0_ is h0 and (training or out is not None):
            h0_ = h0_.copy()  # often a view of the output of the call before, which may be written again
    if out is None:
        output = _new(typenum, q.T, q.N, q.P, False)
    else:
        output = _written_series(out, "out", typenum, "TNH" if q.P == q.H else "TNP", q.T, q.N, q.P)
        for array in (x_, *held):
            if np.may_share_memory(output, array) and np.shares_memory(output, array):
                name = "x" if array is x_ else "the weights"
                raise ValueError(f"out: expected an array apart from {name}, got one that overlaps it")
    q.args.x, q.args.output, q.args.h0 = _series(x_), _series(output), _data(h0_)
    held[:0] = (x_, output, h0_)
    return 0


cdef int _read_rows(fr_sequence *q, list held, lengths, reset_mask, bint reverse) except -1:
    """Lengths and resets into `q.rows`; with lengths q.T becomes the longest, and steps past a length are zeros."""
    cdef cnp.ndarray values, mask
    cdef int itemsize = cnp.PyArray_ITEMSIZE(<cnp.ndarray>held[1])
    q.rows.reverse = reverse
    if reset_mask is not None:
        if not isinstance(reset_mask, np.ndarray) or reset_mask.dtype != np.bool_:
            got = reset_mask.dtype if isinstance(reset_mask, np.ndarray) else type(reset_mask).__name__
            raise TypeError(f"reset_mask: expected a NumPy array of bool, got {got}")
        if reset_mask.shape != (q.T, q.N):
            raise ValueError(f"reset_mask: expected shape ({q.T}, {q.N}) = (T, N), got {reset_mask.shape}")
        mask = reset_mask
        if q.T:
            q.rows.reset_mask = <const unsigned char *>cnp.PyArray_DATA(mask)
            q.rows.reset_step, q.rows.reset_row = cnp.PyArray_STRIDE(mask, 0), cnp.PyArray_STRIDE(mask, 1)
        held.append(mask)
    if lengths is None:
        return 0
    lengths = np.asarray(lengths)
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"lengths: expected integers, got {lengths.dtype}")
    if lengths.shape != (q.N,):
        raise ValueError(f"lengths: expected shape ({q.N},) = (N,), got {lengths.shape}")
    values = np.ascontiguousarray(lengths, np.int_)
    cdef const long *at = <const long *>cnp.PyArray_DATA(values)
    cdef long n, T = q.T, low = T, high = 0
    for n in range(q.N):
        low, high = min(low, at[n]), max(high, at[n])
    if low < 0 or high > T:
        raise ValueError(f"lengths: expected values from 0 to {T}, got {low if low < 0 else high}")
    if low == T:
        return 0
    cdef Block block = _block(2 * (q.N + high + 1) * sizeof(long))
    plan_rows(&q.rows, <long *>block.at, at, q.N, high)
    zeros_past_lengths(q.args.output, T, q.N, q.P * itemsize, itemsize, &q.rows)
    q.T = high
    held.append(block)
    return 0
