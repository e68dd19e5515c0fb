"""The weights of a Stack, as the kernels read them."""

from fastrnn._native.kernels cimport fr_sequence

# For each layer and direction sizes and weights, from `arrays` by their `names`; False for what a layer would not have made.
cdef bint read_layers(fr_sequence *layers, list names, tuple arrays, int directions, int *typenum) except -1

# Where the gradients of q's weights are added up: arrays of `gradients`, which `added` gets; False as above.
cdef bint read_gradients(fr_sequence *q, dict names, dict gradients, int typenum, list added) except -1
