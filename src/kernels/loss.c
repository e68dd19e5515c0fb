/* The kernels of the losses. */
#include "ctc.h"

const fr_loss_kernels FR_TABLE(loss) = {
    .itemsize = sizeof(real),
    .cross_entropy = cross_entropy,
    .ctc_scores = ctc_scores,
#ifdef FR_DOUBLE
    .ctc_paths = ctc_paths,
#endif
    .ctc_gradient = ctc_gradient,
};
