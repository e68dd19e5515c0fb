/* One build of the kernels: setup.py compiles this file once per instruction set and dtype (FR_DOUBLE), and once per precision
 * for AMX tiles and for their emulation (FR_AMX_TERMS, FR_EMULATED), which are for recurrent layers alone; and once per
 * instruction set each for int8 and bfloat16 weights (FR_INT8, FR_BF16), which are for them and for inference alone. FR_BUILD names the
 * build, and each family of kernels exports one table, fr_<family>_<build>; runtime/cpu.c knows them all.
 *
 * Each file rests on those before it: simd.h, vecmath.h, activation.h, tile.h, epilogues.h, cells.h, rows.h, passes.h,
 * noise.h, inputs.h, forward.h, backward.h, gradients.h; for trees tree_products.h, tree_forward.h, tree_backward.h; and on simd.h and vecmath.h
 * alone cross_entropy.h, ctc.h, updates.h.
 */
#include "build.h"

#define TABLE_OF(family, build) fr_##family##_##build
#define TABLE_IN(family, build) TABLE_OF(family, build)
#define FR_TABLE(family) TABLE_IN(family, FR_BUILD)

#if defined(FR_INT8) || defined(FR_BF16)
#include "rnn_inference.c"
#else
#include "rnn.c"
#endif
#if !defined(FR_AMX_TERMS) && !defined(FR_INT8) && !defined(FR_BF16)
#include "tree.c"

#include "loss.c"
#include "optim.c"
#endif
