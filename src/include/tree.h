/* The contract between the loops over the levels of trees (fastrnn/_native/_tree.pyx) and their kernels (tree.c). */
#ifndef FASTRNN_TREE_H
#define FASTRNN_TREE_H

#include "cell.h"
#include "partition.h"
#include "work.h"

/* One pass over a batch of trees. V nodes in level order: leaves first, every node after its children. */
typedef struct {
    long nodes, leaves, inputs, D, H; /* inputs: V, or as many as leaves where only they have any */
    long children;                    /* N positions of the N-ary form; 0: children are summed */
    int lstm, activation;             /* activation: of the TreeRNN */

    const long *level;       /* (levels+1,) first node of each level */
    const long *order;       /* (V,) the user's row of each node */
    const long *parent;      /* (V,) or -1 - tree of a root */
    const long *position;    /* (V,) among the parent's children, below N */
    const long *first_child; /* (V+1,) into child */
    const long *child;       /* by parent, then by position */
    long projected;          /* nodes from here on have their inputs projected ahead of the levels */

    /* The user's arrays, C-contiguous. */
    const void *x;                              /* (inputs, D) */
    const void *weight_ih, *weight_hh, *bias;   /* (4H or H, D), ((3+N)H or H, max(N,1)*H), (4H or H,) or NULL */
    void *output, *c_root;                      /* (V, H), (trees, H) */
    const void *doutput, *dh_root, *dc_root;    /* each may be NULL */
    void *dx, *dweight_ih, *dweight_hh, *dbias; /* dx = ; the others +=, dbias may be NULL */

    /* What forward leaves for backward; S slots, W = max(N,1)*H. */
    void *slots;     /* (S, V, Hp) */
    void *h, *c;     /* (V, Hp) */
    void *x_ordered; /* (inputs, D), or x itself */
    void *operand;   /* (V - leaves, W) what the children give to the products */

    /* What one call needs for itself. */
    void *panels_x, *panels_h, *panels_f, *packed_bias;
    void *dh, *dc;   /* (V, Hp) */
    void *doperand;  /* (V - leaves, W) */
    void *gradients; /* gradients packed for the products of grad_weights, for all threads */
    /* Of the thread that this copy belongs to: a task that takes long, and may be left half done, asks fr_stops now and then.
     * NULL: tasks are finished. */
    fr_watch *watch;
} fr_trees;
#define FR_TREE_FEW 24 /* rows: of smaller levels inputs are projected together */

/* What one build of tree.c offers. */
typedef struct {
    int lanes, itemsize;
    long (*row_blocks)(long n);
    long (*padded)(long width);
    long (*gradients_size)(const fr_trees *, int threads); /* elements */
    void (*pack_forward)(const fr_trees *, fr_partition);
    void (*project)(const fr_trees *, long begin, long end, fr_partition);
    void (*forward)(const fr_trees *, long level, int phase, fr_partition);
    void (*pack_backward)(const fr_trees *, fr_partition);
    void (*backward)(const fr_trees *, long level, int phase, fr_partition);
    void (*grad_input)(const fr_trees *, fr_partition);
    void (*grad_weights)(const fr_trees *, fr_partition);
} fr_tree_kernels;

#endif
