/* The part of the work that one task does. */
#ifndef FASTRNN_PARTITION_H
#define FASTRNN_PARTITION_H

/* Part `id` of `count`: unit panels of all rows, or all panels of its blocks of rows. */
typedef struct {
    int id, count, by_units;
    int worker;      /* the thread that works on it */
    void **pointers; /* room for FR_POINTERS * N, the thread's own */
} fr_partition;
enum { FR_POINTERS = 7 };

#endif
