/* The contract of the optimisers' kernels (optim.c): one step of one formula, and clipping. */
#ifndef FASTRNN_UPDATE_H
#define FASTRNN_UPDATE_H

enum fr_rule { FR_SGD, FR_RMSPROP, FR_ADAGRAD, FR_ADAM };

/* A formula and its numbers at one step. */
typedef struct {
    int rule, nesterov;
    double scale, limit;    /* clipping: the gradient is multiplied by scale, then bounded by +-limit (infinity: not) */
    double l2_weight_decay; /* is added to the gradient */
    double decoupled_weight_decay; /* this share of the parameter is taken from it */
    double rate;                   /* what the direction is multiplied by before it is subtracted */
    double momentum;               /* of SGD and RMSprop */
    double decay, decay_squares;   /* Adam's beta1; beta2 of Adam, alpha of RMSprop */
    double eps;
} fr_update;

/* What one build of optim.c offers. */
typedef struct {
    int itemsize;
    /* A range of one array of parameters, its gradient, and its state (slots that the rule does not have: NULL). */
    void (*update)(const fr_update *, void *param, const void *grad, void *slot0, void *slot1, long count);
    double (*sum_of_squares)(const void *grad, long count);
    void (*clip)(void *grad, long count, double scale, double limit); /* times scale, then bounded by +-limit */
} fr_update_kernels;

#endif
