/* The builds of the kernels, one for each instruction set and dtype, and which of them this CPU runs (runtime/cpu.c). */
#ifndef FASTRNN_BUILD_H
#define FASTRNN_BUILD_H

#include "loss.h"
#include "sequence.h"
#include "tree.h"
#include "update.h"
#include "words.h"

/* One table for each family of kernels. */
typedef struct {
    const fr_sequence_kernels *sequence;
    const fr_tree_kernels *tree;
    const fr_update_kernels *update;
    const fr_loss_kernels *loss;
    const fr_words_kernels *words; /* of float32 alone */
} fr_build;

int fr_isa_count(void);
const char *fr_isa_name(int index);
int fr_isa_supported(int index);
const fr_build *fr_build_for(int index, int itemsize);

/* Inference with int8 weights, of the instruction set `index`; with AVX-512 there are two builds, of which the one with
 * VNNI is for CPUs that have it. */
const fr_sequence_kernels *fr_int8_kernels(int index, int without_vnni);

/* float32 products on AMX tiles: terms that a factor is split into, 2 ("high") or 1 ("medium"). `emulated` are the same
 * kernels on tiles in plain C, to be tested where there is no AMX. NULL where this process may not use AMX. */
const fr_sequence_kernels *fr_amx_kernels(int terms, int emulated);
const char *
fr_amx_missing(void); /* NULL where this process may use AMX (it asks the system for it), else why not, in words */

#endif
