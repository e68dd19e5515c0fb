/* The kernels of the losses. */
#include "cross_entropy.h"

const fr_loss_kernels FR_TABLE(loss) = {
    .itemsize = sizeof(real),
    .cross_entropy = cross_entropy,
};
