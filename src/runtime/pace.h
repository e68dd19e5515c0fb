/* How thick calls come: whether a short one is worth a second thread. */
#ifndef FASTRNN_PACE_H
#define FASTRNN_PACE_H

/* Asked once by each call that is long enough for two threads where they are awake, and too short to wake them for itself.
 * Whether many such calls came one upon the other: then the workers are awake, or worth waking. */
int fr_calls_are_dense(void);

#endif
