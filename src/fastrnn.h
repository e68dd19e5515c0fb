/* The contract between the loops over time (_native.pyx) and the kernels (kernels.c).
 *
 * The loops know no cell, no dtype and no instruction set; the kernels know no time beyond "this step, the one before".
 * What they share is one fr_sequence: the user's arrays, the sizes, and the workspaces of one pass over one sequence.
 *
 * T time steps, N batch, D input_size, H hidden_size, R width of h (H, or less where a projection follows the cell),
 * G gates, S saved slots per unit.
 * VL lanes of a vector; HB = ceil(H / VL) unit blocks; Hp = HB * VL padded hidden size, Rp padded R.
 * `s` counts processing steps 0..T-1, `i` rows in processing order, the longest first. Rows that are still running are a
 * prefix of them at every step, and workspaces over time are packed: only rows that run take part and have a place.
 */
#ifndef FASTRNN_H
#define FASTRNN_H

#include <stddef.h>
#include <stdint.h>

enum fr_cell_kind { FR_LSTM, FR_GRU, FR_GRU_RESET_BEFORE, FR_RNN };
enum fr_activation { FR_TANH, FR_RELU, FR_SIGMOID, FR_IDENTITY, FR_HARD_SIGMOID, FR_HARD_SIGMOID_6, FR_SOFTMAX };

/* A user's array over time: element (t, n, k) is at data + t * step + n * row + k. */
typedef struct {
    void *data;
    long step, row;
} fr_series;

/* Which rows run at which step, at what time, and from which state. */
typedef struct {
    const long *order;   /* (N,) the user's n of each row i, longest first; NULL: i = n, and all rows are T long */
    const long *lengths; /* (N,) of row i; this and the next two go with order */
    const long *active;  /* (T+1,) rows that reach step s: active[T] = 0 */
    const long *packed;  /* (T+1,) rows of all steps before s */
    const unsigned char *reset_mask; /* (T, N) where not 0 the state is zeroed before that step; NULL: nowhere */
    long reset_step, reset_row;
    int reverse; /* time runs from each row's last step to 0 */
} fr_rows;

typedef struct {
    long T, N, D, H, R;
    int cell;
    int activation, gate_activation; /* of candidate and output; of the gates */
    int output_activation;           /* of the projection; FR_SOFTMAX over all its units */
    double clip;                     /* the LSTM's pre-activations are clipped to +-clip; 0: not */
    int fused;                       /* the input projection runs in the same K loop as the recurrent product */
    int in_turn; /* fused, but first the one and then the other: the sums of projecting ahead, for one step */
    fr_rows rows;

    /* Forward, the user's arrays. */
    fr_series x;                       /* (T, N, D) in */
    fr_series output;                  /* (T, N, R) out; also where h of the step before is read */
    const void *h0;                    /* (N, R) or NULL: zeros */
    const void *weight_ih, *weight_hh; /* (G*H, D), (G*H, R) */
    const void *bias_ih, *bias_hh;     /* (G*H,) or NULL */
    const void *weight_hr, *bias_hr;   /* (R, H), (R,): the projection; or NULL */
    const void *weight_peephole;       /* (3*H,) i, f, o, or NULL */

    /* Forward, workspaces. */
    void *panels; /* packed weights, (D+R, columns) per panel */
    void *bias;   /* summed biases in panel order, then padded peepholes */
    void *inputs; /* (rows of a chunk, accumulators, VL) projected inputs, where not fused */
    long inputs_start;
    void *zeros;   /* a row of zeros: the state of a row that starts anew */
    void *gates;   /* (rows, HB, S, VL) gates, in backward their gradients; NULL where nobody reads them */
    void *c;       /* (N + rows, Hp), the first N the initial cell state (LSTM) */
    void *inner;   /* (rows, Hp) what a second pass multiplies: r * h, or h before its projection */
    void *operand; /* what the next product multiplies with its panels, in bfloat16 (amx.h) */
    int keeps; /* a backward follows: every step has its own rows in gates, c and inner; else all share the first N */

    /* Backward. The user's arrays are added to where it says +=. */
    fr_series doutput; /* (T, N, R) or data NULL */
    const void *dh_n;  /* (N, R) or NULL */
    fr_series dx;      /* (T, N, D) =; with dx_add +=; data NULL: not wanted */
    int dx_add;
    void *dh0;                                           /* (N, R) = */
    void *dweight_ih, *dweight_hh, *dbias_ih, *dbias_hh; /* += ; biases may be NULL */
    void *dweight_hr, *dbias_hr, *dweight_peephole;      /* += ; NULL where there are none */
    void *carry;               /* (N, Hp): dc of the LSTM, the direct part of dh of the GRUs */
    void *dprojected;          /* (rows, Rp) gradient of the projection before its activation */
    void *panels_h, *panels_x; /* weights packed for dh and for dx */
    void *scratch;             /* of grad_weights, for all threads */
} fr_sequence;

/* Part `id` of `count` of the work: unit panels of all rows, or all panels of its blocks of rows. */
typedef struct {
    int id, count, by_units;
    int worker;      /* the thread that is at it */
    void **pointers; /* room for FR_POINTERS * N, the thread's own */
} fr_share;
enum { FR_POINTERS = 7 };

/* One optimiser's step (optimize.h): which formula, and its numbers at this step. */
enum fr_rule { FR_SGD, FR_RMSPROP, FR_ADAGRAD, FR_ADAM };
typedef struct {
    int rule, nesterov;
    double scale, limit; /* clipping: the gradient is multiplied by scale, then bounded by +-limit (infinity: not) */
    double couple;       /* weight decay that is added to the gradient */
    double shrink;       /* weight decay that the parameter is multiplied by; 1: none */
    double rate;         /* what the direction is multiplied by before it is subtracted */
    double momentum;     /* of SGD and RMSprop */
    double decay, decay_squares; /* Adam's beta1; beta2 of Adam, alpha of RMSprop */
    double eps;
} fr_update;

/* The targets of a softmax cross entropy (losses.h). */
typedef struct {
    const int64_t *classes;    /* (N,) */
    int64_t ignored;           /* rows of this class count nothing */
    double share;              /* what a row of weight 1 counts for in the gradient */
    const double *row_weights; /* (N,) or NULL: 1 each */
    const void *class_weights; /* (M,) reals or NULL: 1 each */
    double class_total;        /* the sum of the classes' weights */
    double smoothing; /* what each class has of each target, times its weight; the target's own keeps the rest */
    double kept;      /* 1 less all of that */
} fr_classes;

/* One sequence of a CTC loss (ctc.h). S = 2U+1 states. A row of the workspaces has FR_CTC_PAD elements before its first and
 * at least as many after its last vector. */
typedef struct {
    long T, M, U;
    const void *logits; /* row t at t * step */
    void *dlogits;      /* row t at t * dstep */
    long step, dstep;
    const int64_t *labels; /* (U,) */
    int64_t blank;
    double share; /* what the sequence counts for in the gradient */
    int zero_infinity;
    long stride;         /* elements of a workspace's row */
    double *scores;      /* (T, S) */
    double *alpha;       /* (T, S), then posteriors */
    double *beta;        /* (2, S) */
    const double *skips; /* (S,) 0 where a state may be reached from two before, CTC_NEVER elsewhere */
    double offset, loss;
} fr_ctc;
#define FR_CTC_PAD 2

/* One pass over a batch of trees (trees.h). V nodes in level order: leaves first, every node after its children. */
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

    /* Workspaces; S slots, W = max(N,1)*H. */
    void *slots;     /* (S, V, Hp) */
    void *h, *c;     /* (V, Hp) */
    void *x_ordered; /* (inputs, D), or x itself */
    void *operand;   /* (V - leaves, W) what the children give to the products */
    void *panels_x, *panels_h, *panels_f, *packed_bias;
    void *dh, *dc;  /* (V, Hp) */
    void *doperand; /* (V - leaves, W) */
    void *scratch;
} fr_trees;
#define FR_TREE_FEW 24 /* rows: of smaller levels inputs are projected together */

/* What one build (instruction set x dtype) of kernels.c offers. Those for AMX run sequences alone, and project no inputs
 * ahead: `project` and what follows last_states are NULL. */
typedef struct {
    int lanes, itemsize;
    long (*row_blocks)(long n);            /* fr_row_blocks of this build */
    int (*gates)(int cell);                /* G: rows of the weights / H */
    int (*passes)(const fr_sequence *);    /* products that one time step chains one after the other */
    int (*has_inner)(const fr_sequence *); /* whether one of them reads `inner` */

    /* Sizes in elements of the workspaces that depend on the packing; a row of `bias` is inputs_row plus the peepholes. */
    long (*padded)(long width);
    long (*gates_row)(const fr_sequence *);
    long (*panels_size)(const fr_sequence *);
    long (*bias_size)(const fr_sequence *);
    long (*inputs_row)(const fr_sequence *);
    long (*operand_size)(const fr_sequence *, int backward);
    long (*panels_h_size)(const fr_sequence *);
    long (*panels_x_size)(const fr_sequence *);
    long (*scratch_size)(const fr_sequence *, int threads);

    void (*pack_forward)(const fr_sequence *, fr_share);
    void (*project)(const fr_sequence *, long s_begin, long s_end, fr_share);
    void (*step_forward)(const fr_sequence *, int pass, long s, fr_share);

    void (*pack_backward)(const fr_sequence *, fr_share);
    void (*step_backward)(const fr_sequence *, int pass, long s, fr_share);
    void (*grad_state)(const fr_sequence *, fr_share);
    void (*grad_input)(const fr_sequence *, fr_share);
    void (*grad_weights)(const fr_sequence *, fr_share);

    /* States in the user's order, (N, H) or NULL for zeros, into padded rows in processing order, and back. */
    void (*enter_state)(const fr_sequence *, void *padded, const void *plain);
    void (*leave_state)(const fr_sequence *, void *plain, const void *padded);
    /* The last state of each row: h from output or h0, c from c. */
    void (*last_states)(const fr_sequence *, void *h_n, void *c_n);

    /* A range of one array of parameters, its gradient, and its state (slots that the rule does not have: NULL). */
    void (*update)(const fr_update *, void *param, const void *grad, void *slot0, void *slot1, long count);
    double (*sum_of_squares)(const void *grad, long count);
    void (*clip)(void *grad, long count, double scale, double limit); /* times scale, then bounded by +-limit */

    /* Losses (rows,) and their gradient (rows, M) of rows from `first` on; see losses.h. */
    void (*cross_entropy)(const void *logits, const fr_classes *, long first, long rows, long M, void *losses,
                          void *dlogits);

    void (*ctc_scores)(fr_ctc *);
    void (*ctc_paths)(fr_ctc *); /* of the build for double, NULL in the others */
    void (*ctc_gradient)(const fr_ctc *);

    /* Trees, see trees.h. */
    void (*tree_pack_forward)(const fr_trees *, fr_share);
    void (*tree_project)(const fr_trees *, long begin, long end, fr_share);
    void (*tree_forward)(const fr_trees *, long level, int phase, fr_share);
    void (*tree_pack_backward)(const fr_trees *, fr_share);
    void (*tree_backward)(const fr_trees *, long level, int phase, fr_share);
    void (*tree_grad_input)(const fr_trees *, fr_share);
    void (*tree_grad_weights)(const fr_trees *, fr_share);
} fr_kernels;

static inline long fr_active(const fr_sequence *q, long s) {
    return q->rows.order ? q->rows.active[s] : s < q->T ? q->N : 0;
}
static inline long fr_packed(const fr_sequence *q, long s) { return q->rows.order ? q->rows.packed[s] : s * q->N; }

/* A batch is dealt in blocks of at most FR_ROW_BLOCK rows, whatever the thread count. For AMX these are two tiles, which read
 * their panels once; of a batch of no more than that each tile is a block, for two threads. */
#ifdef FR_AMX_TERMS
enum { FR_ROW_BLOCK = 32, FR_ALONE = 16 };
#else
enum { FR_ROW_BLOCK = 6, FR_ALONE = FR_ROW_BLOCK };
#endif
static inline long fr_row_blocks(long n) {
    return n > FR_ALONE && n <= FR_ROW_BLOCK ? 2 : (n + FR_ROW_BLOCK - 1) / FR_ROW_BLOCK;
}

/* dispatch.c: the builds that this machine can run. */
int fr_isa_count(void);
const char *fr_isa_name(int index);
int fr_isa_supported(int index);
const fr_kernels *fr_kernels_for(int index, int itemsize);

/* float32 products on AMX tiles: terms that a factor is split into, 2 ("high") or 1 ("medium"). `emulated` are the same
 * kernels on tiles in plain C, to be tested where there is no AMX. */
const fr_kernels *fr_amx_kernels(int terms, int emulated);
const char *
fr_amx_missing(void); /* NULL where this process may use AMX (it asks the system for it), else why not, in words */

#endif
