/* A checksum that tells whether an array has changed. */
#ifndef FASTRNN_CHECKSUM_H
#define FASTRNN_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* Of `bytes` bytes, going on from `start`. A change within any 8 aligned bytes changes it for certain, several changes at
 * once go unseen by an accident of about 1 in 2^64. */
uint64_t fr_checksum(const void *data, size_t bytes, uint64_t start);

#endif
