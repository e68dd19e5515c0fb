/* Numbers that name cells and activations, and a cell's options, for Cython and C alike. */
#ifndef FASTRNN_CELL_H
#define FASTRNN_CELL_H

enum fr_cell_kind { FR_LSTM, FR_GRU, FR_GRU_RESET_BEFORE, FR_RNN };
enum fr_activation { FR_TANH, FR_RELU, FR_SIGMOID, FR_IDENTITY, FR_HARD_SIGMOID, FR_HARD_SIGMOID_6, FR_SOFTMAX };

/* The options of a cell that epilogues see: set by CompiledCell, read in epilogues.h, and by nothing between. */
typedef struct {
    int activation, gate_activation; /* of candidate and output; of the gates */
    int output_activation;           /* of the projection; FR_SOFTMAX over all its units */
    int generic;                     /* whether any is not the default, which epilogues are compiled for */
    double clip;                     /* the LSTM's pre-activations are clipped to +-clip; 0: not */
} fr_cell_options;

#endif
