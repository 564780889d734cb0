/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* A read or write on its way, one call of the device after another:
 * which call comes next, and what follows from its result.  Who makes the
 * calls, and waits for them, is the caller's affair.
 */

#ifndef DMIO_TRANSFER_H
#define DMIO_TRANSFER_H

#include "block-device.h"

struct transfer {
  struct bdev_io *io;           /* what comes after the current part */
  int error;                    /* the first one, negative */

  /* What is left of the current part, from which the next call takes. */
  uint64_t offset;
  uint64_t length;
  struct memory_cursor data;
  int attempts;                 /* of that call */

  /* Bounces what the device cannot take as it is; or NULL. */
  void *bounce;
  size_t bounce_size;
  bool bounce_is_page;          /* of bdev_bounce_pages */
  bool bounced;                 /* the current call uses it */
};

/* Where a bounce buffer may come from when malloc fails.  A thread may
 * wait for the reserve only while no transfer of its own has a page
 * of it; with TRANSFER_NO_RESERVE it never has one.
 */
enum transfer_reserve {
  TRANSFER_NO_RESERVE,
  TRANSFER_TRY_RESERVE,
  TRANSFER_WAIT_FOR_RESERVE,
};

/* Begin a transfer; IO must live as long, and is used up. */
extern void transfer_begin (struct transfer *t, struct bdev_io *io);

/* The next call is for these iovecs, at most MAX, at t->offset.  Returns how
 * many they are; 0 when the transfer has ended, with t->error; or -EAGAIN
 * when there is no bounce buffer now.
 */
extern int transfer_next (struct transfer *t, struct iovec *iov, int max,
                          enum transfer_reserve reserve);

/* The call returned R, like bdev_ops readv.  Returns how many microseconds
 * should pass before the next call.
 */
extern unsigned int transfer_result (struct transfer *t, ssize_t r);

/* The call will not be made: give back what transfer_next took for it. */
extern void transfer_undo (struct transfer *t);

/* Make all the calls that are left, and return t->error. */
extern int transfer_run (struct transfer *t);

/* True if R says to try again; then *USEC is how long to wait before. */
extern bool transfer_retry (ssize_t r, int *attempts, unsigned int *usec);

#endif /* DMIO_TRANSFER_H */
