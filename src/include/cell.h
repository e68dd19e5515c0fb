/* Numbers that name cells and activations, for Python, Cython and C alike. */
#ifndef FASTRNN_CELL_H
#define FASTRNN_CELL_H

enum fr_cell_kind { FR_LSTM, FR_GRU, FR_GRU_RESET_BEFORE, FR_RNN };
enum fr_activation { FR_TANH, FR_RELU, FR_SIGMOID, FR_IDENTITY, FR_HARD_SIGMOID, FR_HARD_SIGMOID_6, FR_SOFTMAX };

#endif
