/* The part of the work that one task does. */
#ifndef FASTRNN_PARTITION_H
#define FASTRNN_PARTITION_H

#include "work.h"

/* Part `id` of `count`: unit panels of all rows, or all panels of its blocks of rows. */
typedef struct {
    int id, count, by_units;
    int worker;      /* the thread that works on it */
    void **pointers; /* room for FR_POINTERS * N, the thread's own */
    fr_watch
        *watch; /* of a task that takes long, and may be left half done: it asks fr_stops now and then; else NULL */
} fr_partition;
enum { FR_POINTERS = 7 };

#endif
