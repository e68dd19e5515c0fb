/* The contract between the loops over time (fastrnn/_native/_sequence.pyx) and the kernels of recurrent layers (rnn.c).
 *
 * The loops know no cell, no dtype and no instruction set; the kernels know no time beyond "this step, the one before".
 * What they share is one fr_sequence: the sizes, the user's arrays, and the memory of one pass over one sequence.
 *
 * T time steps, N batch, D input_size, H hidden_size, P width of h (H, or less where a projection follows the cell),
 * G gates, S saved slots per unit.
 * VL lanes of a vector; HB = ceil(H / VL) unit blocks; Hp = HB * VL padded hidden size, Pp padded P.
 * `s` counts processing steps 0..T-1, `i` rows in processing order, the longest first. Rows that are still running are a
 * prefix of them at every step, and memory over time is packed: only rows that run take part and have a place.
 */
#ifndef FASTRNN_SEQUENCE_H
#define FASTRNN_SEQUENCE_H

#include "cell.h"
#include "partition.h"
#include "work.h"

#include <stdint.h>

/* A user's array over time: element (t, n, k) is at data + t * step + n * row + k. */
typedef struct {
    void *data;
    long step, row;
} fr_series;

/* A masked step: at that time the user's row has the output of the time `from`, and hands the gradient of it on to row `late`
 * of the late gradients, -1: to none. */
enum { FR_FROM_START = -1, FR_FROM_ZERO = -2 };
typedef struct {
    long time, row, from, late;
} fr_carried;

/* Which rows run at which step, at what time, and from which state. */
typedef struct {
    const long *order;   /* (N,) the user's n of each row i, longest first; NULL: i = n, and all rows are T long */
    const long *lengths; /* (N,) of row i; this and the next two go with order */
    const long *active;  /* (T+1,) rows that reach step s: active[T] = 0 */
    const long *packed;  /* (T+1,) rows of all steps before s */
    const unsigned char *reset_mask; /* (T, N) where not 0 the state is zeroed before that step; NULL: nowhere */
    long reset_step, reset_row;
    int reverse; /* time runs from each row's last step to 0 */

    /* Where steps are masked, a row is as long as it has real steps, and these lead to them; else NULL. A place is a packed
     * row, and after all of those one for each row's initial state. */
    const long *times; /* (rows) at what time each packed row runs */
    const long *late;  /* (rows + N) of each place the row of scratch.dlate that enters there, -1: none */
    const long *ends; /* (N,) the same of the last place of the user's row n; -1: its final state is zero, by a reset */
    const fr_carried *carried;      /* (carried_count,) the masked steps */
    long carried_count, late_count; /* how many there are of these, and of late gradients */
} fr_rows;

/* When x @ W_ih is worked out: in the same sums as h @ W_hh; in the same step, but first the one and then the other, so that
 * the sums are those of projecting ahead; or ahead of the recurrence, for a chunk of steps. */
enum fr_input_projection { FR_FUSED, FR_SEQUENTIAL, FR_AHEAD };

/* The user's arrays. Backward adds to where it says +=. */
typedef struct {
    fr_series x;           /* (T, N, D) in */
    const int64_t *tokens; /* (T, N): what stands in x then are rows of a table, already projected; NULL: x is x */
    const void *projected; /* (V, inputs_row) that table, as project_table leaves it; goes with FR_AHEAD */
    fr_series output;      /* (T, N, P) out; also where h of the step before is read */
    const void *h0;        /* (N, P) or NULL: zeros */
    const void *weight_ih, *weight_hh; /* (G*H, D), (G*H, P) */
    const void *bias_ih, *bias_hh;     /* (G*H,) or NULL */
    const void *weight_hr, *bias_hr;   /* (P, H), (P,): the projection; or NULL */
    const void *weight_peephole;       /* (3*H,) i, f, o, or NULL */
    const void *scale_ih, *scale_hh,
        *scale_hr;              /* of int8 weights: (G*H,), (G*H,), (P,) reals; all NULL: weights are reals */
    const void *recurrent_mask; /* (N, P) what h is multiplied with before it meets the recurrent weights; or NULL */
    fr_series zoneout_h,
        zoneout_c; /* (T, N, P), (T, N, H) the part of the state before that is kept; data NULL: none */

    fr_series doutput; /* (T, N, P) or data NULL */
    const void *dh_n;  /* (N, P) or NULL */
    fr_series dx;      /* (T, N, D) =; with dx_add +=; data NULL: not wanted */
    int dx_add;
    void *dh0;                                           /* (N, P) = */
    void *dweight_ih, *dweight_hh, *dbias_ih, *dbias_hh; /* += ; biases may be NULL */
    void *dweight_hr, *dbias_hr, *dweight_peephole;      /* += ; NULL where there are none */
} fr_sequence_arguments;

/* What forward leaves for backward. */
typedef struct {
    void *bias;    /* summed biases in panel order, then padded peepholes */
    void *zeros;   /* a row of zeros: the state of a row that starts anew */
    void *gates;   /* (rows, HB, S, VL) gates, in backward their gradients; NULL where no backward follows */
    void *c;       /* (N + rows, Hp), the first N the initial cell state (LSTM) */
    void *inner;   /* (rows, Hp) what a second product multiplies: r * h, or h before its projection */
    void *dropped; /* (rows, Pp) h of the step before times recurrent_mask */
    void *h_made,
        *c_made; /* (rows, Pp), (rows, Hp) what the cell makes of h and c, where zoneout keeps a part of them */
} fr_sequence_workspace;

/* What one call needs for itself. */
typedef struct {
    void *panels;              /* weights packed for forward, (D+P, columns) per panel */
    void *inputs;              /* (rows of a chunk, accumulators, VL) projected inputs, with FR_AHEAD */
    long inputs_start;         /* the packed row that they begin with */
    void *operands;            /* left operands of the next product, where tiles want them in a form of their own */
    void *dstate;              /* (N, Hp): dc of the LSTM, the direct part of dh of the GRUs */
    void *dprojected;          /* (rows, Pp) gradient of the projection before its activation */
    void *panels_h, *panels_x; /* weights packed for dh and for dx */
    void *gradients;           /* gate gradients packed for the products of grad_weights, for all threads */
    void *dkept;               /* (N, Pp) the part of dh that zoneout_h takes past the cell */
    void *dlate; /* (late_count, P) where steps are masked: dh_n and the doutput of masked steps, added up */
} fr_sequence_scratch;

typedef struct {
    long T, N, D, H, P;
    int cell;
    fr_cell_options options;
    int input_projection; /* an fr_input_projection */
    int as_one_row;       /* forward, without FR_AHEAD: each row has the bits that it has in a batch of its own */
    int training; /* a backward follows: every step has its own rows in gates, c and inner; else all share the first N */
    fr_rows rows;
    fr_sequence_arguments args;
    fr_sequence_workspace workspace;
    fr_sequence_scratch scratch;
    /* Of the thread that this copy belongs to: a task that takes long, and may be left half done, asks fr_stops now and then.
     * NULL: tasks are finished. */
    fr_watch *watch;
} fr_sequence;

/* What one build of rnn.c offers; of rnn_inference.c forward alone. Sizes are in elements. */
typedef struct {
    int lanes, itemsize;
    long projects_ahead;                   /* the largest D that FR_AHEAD is there for, 0: none */
    long (*row_blocks)(long n);            /* blocks that n rows are cut into */
    long (*padded)(long width);            /* to whole vectors */
    const char *(*cell_name)(int cell);    /* NULL: there are no more */
    int (*gates)(int cell);                /* G: rows of the weights / H */
    int (*passes)(const fr_sequence *);    /* parts of one time step, one after the other; as many in backward */
    int (*has_inner)(const fr_sequence *); /* whether one of them reads `inner` */

    long (*gates_row)(const fr_sequence *);
    long (*panels_size)(const fr_sequence *);
    long (*bias_size)(const fr_sequence *);
    long (*inputs_row)(const fr_sequence *);
    long (*operands_size)(const fr_sequence *, int backward);
    long (*panels_h_size)(const fr_sequence *);
    long (*panels_x_size)(const fr_sequence *);
    long (*gradients_size)(const fr_sequence *, int threads);

    /* The step at which a chunk of steps begins, where rows with lengths are shared out; chunk `chunks` is the end. */
    long (*chunk_start)(const fr_sequence *, fr_partition, long chunk, long chunks);

    void (*pack_forward)(const fr_sequence *, fr_partition);
    void (*project)(const fr_sequence *, long s_begin, long s_end, fr_partition);
    void (*project_table)(const fr_sequence *, void *projected, const void *table, long V); /* (V, D), once packed */
    void (*step_forward)(const fr_sequence *, int pass, long s, fr_partition);
    void (*steps_forward)(const fr_sequence *, long begin, long end, fr_partition); /* all passes of each */

    void (*pack_backward)(const fr_sequence *, fr_partition);
    void (*step_backward)(const fr_sequence *, int pass, long s, fr_partition);
    void (*steps_backward)(const fr_sequence *, long begin, long end, fr_partition); /* from end - 1 down to begin */
    void (*grad_state)(const fr_sequence *, fr_partition);
    void (*grad_input)(const fr_sequence *, fr_partition);
    void (*grad_weights)(const fr_sequence *, fr_partition);

    /* States in the user's order, (N, H) or NULL for zeros, into padded rows in processing order, and back. */
    void (*pack_state)(const fr_sequence *, void *padded, const void *plain);
    void (*unpack_state)(const fr_sequence *, void *plain, const void *padded);
    /* The last state of each row: h from output or h0, c from c. */
    void (*last_states)(const fr_sequence *, void *h_n, void *c_n);

    /* Of masked steps: writes their output, after all real ones; adds up what enters late, and drops dc_n of states that a
     * reset has zeroed. */
    void (*carry_outputs)(const fr_sequence *);
    void (*gather_late)(const fr_sequence *);
} fr_sequence_kernels;

static inline long fr_active(const fr_sequence *q, long s) {
    return q->rows.order ? q->rows.active[s] : s < q->T ? q->N : 0;
}
static inline long fr_packed(const fr_sequence *q, long s) { return q->rows.order ? q->rows.packed[s] : s * q->N; }

#endif
