/* The kernels of the optimisers. */
#include "updates.h"

const fr_update_kernels FR_TABLE(optim) = {
    .itemsize = sizeof(real),
    .update = update,
    .sum_of_squares = sum_of_squares,
    .clip = clip,
};
