/* The cells: into which products each is cut, and which epilogue finishes them.
 *
 * A new cell is an epilogue forward and one backward in epilogues.h, a descriptor here, and its number in cell.h.
 */
#ifndef FASTRNN_CELLS_H
#define FASTRNN_CELLS_H

#include "epilogues.h"
#include "sequence.h"

/* One product of a forward step. */
typedef struct {
    int gate_blocks;            /* per panel; 1: a panel holds one gate of up to four unit blocks */
    int x_gates[4], h_gates[4]; /* row blocks of weight_ih and weight_hh, in panel order */
    int accumulators;           /* per unit block */
    int recurrent_offset;       /* accumulator at which the recurrent product starts (the input's starts at 0) */
    int reads_inner;            /* the recurrent operand is `inner`, made by the product before, instead of h_prev */
    epilogue *epilogue, *generic_epilogue;
} forward_descriptor;

/* One product of a backward step: gate gradients with the recurrent weights. */
typedef struct {
    int first_slot, slots; /* of the gate gradients that are multiplied */
    int gates[4];          /* their row blocks of the weights */
    int same_step;         /* gradients of this step (the forward's operand was `inner`), else of the step after */
    epilogue *epilogue, *generic_epilogue;
} backward_descriptor;

typedef struct {
    const char *name; /* CellSpec's; reset_after=False makes another cell of the GRU */
    int slots, products;
    forward_descriptor forward[2];
    int x_slots, x_gates[4]; /* gate gradients that reach the input, from slot 0, and their row blocks of weight_ih */
    backward_descriptor backward[2];
    int dstate_is_dh; /* `dstate` holds the direct part of dh_prev */
} cell_descriptor;

static const cell_descriptor cells[] = {
    [FR_LSTM] = {.name = "lstm",
                 .slots = 4,
                 .products = 1,
                 .forward = {{.gate_blocks = 4,
                              .x_gates = {0, 1, 2, 3},
                              .h_gates = {0, 1, 2, 3},
                              .accumulators = 4,
                              .epilogue = lstm_forward,
                              .generic_epilogue = lstm_forward_generic}},
                 .x_slots = 4,
                 .x_gates = {0, 1, 2, 3},
                 .backward = {{.slots = 4,
                               .gates = {0, 1, 2, 3},
                               .epilogue = lstm_backward,
                               .generic_epilogue = lstm_backward_generic}}},
    [FR_GRU] = {.name = "gru",
                .slots = 4,
                .products = 1,
                .forward = {{.gate_blocks = 3,
                             .x_gates = {2, 0, 1},
                             .h_gates = {0, 1, 2},
                             .accumulators = 4,
                             .recurrent_offset = 1,
                             .epilogue = gru_forward,
                             .generic_epilogue = gru_forward_generic}},
                .x_slots = 3,
                .x_gates = {2, 0, 1},
                .backward = {{.first_slot = 1,
                              .slots = 3,
                              .gates = {0, 1, 2},
                              .epilogue = gru_backward,
                              .generic_epilogue = gru_backward_generic}},
                .dstate_is_dh = 1},
    [FR_GRU_RESET_BEFORE] = {.name = "gru_reset_before",
                             .slots = 3,
                             .products = 2,
                             .forward = {{.gate_blocks = 2,
                                          .x_gates = {0, 1},
                                          .h_gates = {0, 1},
                                          .accumulators = 2,
                                          .epilogue = gru_reset_before_gates,
                                          .generic_epilogue = gru_reset_before_gates},
                                         {.gate_blocks = 1,
                                          .x_gates = {2},
                                          .h_gates = {2},
                                          .accumulators = 1,
                                          .reads_inner = 1,
                                          .epilogue = gru_reset_before_forward,
                                          .generic_epilogue = gru_reset_before_forward}},
                             .x_slots = 3,
                             .x_gates = {2, 0, 1},
                             .backward = {{.first_slot = 1,
                                           .slots = 2,
                                           .gates = {0, 1},
                                           .epilogue = gru_reset_before_backward,
                                           .generic_epilogue = gru_reset_before_backward},
                                          {.slots = 1,
                                           .gates = {2},
                                           .same_step = 1,
                                           .epilogue = gru_reset_before_gates_backward,
                                           .generic_epilogue = gru_reset_before_gates_backward}},
                             .dstate_is_dh = 1},
    [FR_RNN] = {.name = "rnn",
                .slots = 1,
                .products = 1,
                .forward = {{.gate_blocks = 1,
                             .accumulators = 1,
                             .epilogue = rnn_forward,
                             .generic_epilogue = rnn_forward_generic}},
                .x_slots = 1,
                .backward = {{.slots = 1, .epilogue = rnn_backward, .generic_epilogue = rnn_backward_generic}}},
};

INLINE const cell_descriptor *cell_of(const fr_sequence *q) { return &cells[q->cell]; }
INLINE int is_default_cell(const fr_sequence *q) { return !q->options.generic; }

/* A projection is one more product: h = g(W_hr inner + b_hr), inner being the cell's own h. Its gradient is one slot wide. */
static const forward_descriptor projection_forward = {.gate_blocks = 1,
                                                      .accumulators = 1,
                                                      .reads_inner = 1,
                                                      .epilogue = rnn_forward_generic,
                                                      .generic_epilogue = rnn_forward_generic};
static const int projection_gates[4] = {0};

#endif
