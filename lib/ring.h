/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Reads and writes of several devices at the same time through io_uring:
 * one system call submits them all and waits, and the thread that made it
 * reaps what it has submitted.
 */

#ifndef DMIO_RING_H
#define DMIO_RING_H

#include "block-device.h"
#include "transfer.h"

/* One of them; io->op is read or write, without flags. */
#define RING_IOVECS 16
struct ring_transfer {
  struct bdev_io *io;
  int error;                    /* as bdev_run returns it */
  uint64_t nsec;                /* how long it took */

  /* The rest is the ring's. */
  struct ring_transfer *next;   /* in the batch */
  enum { RING_IDLE, RING_IN_FLIGHT, RING_ENDED } state;
  uint64_t begun;               /* when */
  unsigned int serial;          /* of its current call, in this ring */
  struct transfer transfer;
  struct iovec iov[RING_IOVECS];
};

struct ring_batch {
  struct ring_transfer *first;
};

/* Add IO to the batch, which initially is all zero. */
extern void ring_add (struct ring_batch *batch, struct ring_transfer *transfer,
                      struct bdev_io *io);

/* Begin the transfers of the batch, and submit them at once if the thread
 * has other work before it calls ring_end.  False if this thread can have
 * no ring: then nothing has been done, and each has to be bdev_run.
 */
extern bool ring_begin (struct ring_batch *batch, bool submit);

/* Wait until all have ended. */
extern void ring_end (struct ring_batch *batch);

/* Let the kernel forget what this thread's transfers, all ended, used: it
 * may have kept their files open.
 */
extern void ring_settle (void);

/* End this thread's ring, before a fork; it is made again when needed. */
extern void ring_rest (void);

/* 0 if io_uring can be used by this process, else a negative errno. */
extern int ring_probe (void);

#endif /* DMIO_RING_H */
