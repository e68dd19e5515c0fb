/* The passes of one time step: a list for each form of a layer, forward and backward. */
#ifndef FASTRNN_PASSES_H
#define FASTRNN_PASSES_H

#include "rows.h"

/* OPERANDS puts the rows that the next product multiplies into a form of their own (tile_amx.h). Rows are dealt out for it
 * even where units are for the product, and there a barrier is between the two. */
enum pass_kind { OPERANDS, PRODUCT, SOFTMAX };
typedef struct {
    enum pass_kind kind;
    int product;
} pass;

#if OPERANDS_APART
#define PRODUCT_PASSES(n) \
    {OPERANDS, n}, { PRODUCT, n }
enum { PASSES_OF_A_PRODUCT = 2 };
#else
#define PRODUCT_PASSES(n) {PRODUCT, n}
enum { PASSES_OF_A_PRODUCT = 1 };
#endif
enum { MOST_PRODUCTS = 2, MOST_PASSES = MOST_PRODUCTS * PASSES_OF_A_PRODUCT + 1 };

typedef struct {
    int products, count;
    pass forward[MOST_PASSES], backward[MOST_PASSES];
} pass_list;

/* Forward, a projection comes after the cell and a softmax after the projection. Backward, product 0 brings dh from the step
 * after; with a projection that is the gradient of its result, and product 1 takes it to the cell. */
enum layer_form { ONE_PRODUCT, TWO_PRODUCTS, PROJECTION, PROJECTION_SOFTMAX };
static const pass_list pass_lists[] = {
    [ONE_PRODUCT] = {.products = 1,
                     .count = PASSES_OF_A_PRODUCT,
                     .forward = {PRODUCT_PASSES(0)},
                     .backward = {PRODUCT_PASSES(0)}},
    [TWO_PRODUCTS] = {.products = 2,
                      .count = 2 * PASSES_OF_A_PRODUCT,
                      .forward = {PRODUCT_PASSES(0), PRODUCT_PASSES(1)},
                      .backward = {PRODUCT_PASSES(0), PRODUCT_PASSES(1)}},
    [PROJECTION] = {.products = 2,
                    .count = 2 * PASSES_OF_A_PRODUCT,
                    .forward = {PRODUCT_PASSES(0), PRODUCT_PASSES(1)},
                    .backward = {PRODUCT_PASSES(0), PRODUCT_PASSES(1)}},
    [PROJECTION_SOFTMAX] = {.products = 2,
                            .count = 2 * PASSES_OF_A_PRODUCT + 1,
                            .forward = {PRODUCT_PASSES(0), PRODUCT_PASSES(1), {SOFTMAX, 1}},
                            .backward = {PRODUCT_PASSES(0), {SOFTMAX, 0}, PRODUCT_PASSES(1)}},
};

INLINE const pass_list *passes_of(const fr_sequence *q) {
    if (q->args.weight_hr)
        return &pass_lists[q->options.output_activation == FR_SOFTMAX ? PROJECTION_SOFTMAX : PROJECTION];
    return &pass_lists[cell_of(q)->products == 1 ? ONE_PRODUCT : TWO_PRODUCTS];
}

/* With recurrent dropout a pass of its own comes before all others; in backward one with nothing to do comes after them. */
static int passes(const fr_sequence *q) { return passes_of(q)->count + !!q->args.recurrent_mask; }
static int has_inner(const fr_sequence *q) { return passes_of(q)->products > 1; }
static long gates_row(const fr_sequence *q) { return cell_of(q)->slots * padded(q->H); }

#endif
