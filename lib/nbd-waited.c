/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Operations on an NBD device beside those of dm-io: each is an operation
 * of its own kind, see nbd-bdev.h, and its caller waits for it.
 *
 * Lock: that of struct nbd_waited is a leaf.
 */

#include <config.h>

#include <pthread.h>

#include <glib.h>

#include "nbd-bdev.h"

/* What the protocol allows a block status command to ask about. */
#define MAX_STATUS_SPAN (UINT64_C (4) * 1024 * 1024 * 1024 - DM_IO_PAGE_SIZE)

static void
waited_done (struct bdev_io *io, int error)
{
  struct nbd_waited *w = (struct nbd_waited *) io;

  pthread_mutex_lock (&w->lock);
  w->ended = true;
  w->error = error;
  pthread_cond_signal (&w->done);
  pthread_mutex_unlock (&w->lock);
}

/* Returns 0 or a negative errno. */
static int
run_waited (struct nbd_waited *w)
{
  w->io.done = waited_done;
  pthread_mutex_init (&w->lock, NULL);
  pthread_cond_init (&w->done, NULL);
  bdev_start (&w->io);
  pthread_mutex_lock (&w->lock);
  while (!w->ended)
    pthread_cond_wait (&w->done, &w->lock);
  pthread_mutex_unlock (&w->lock);
  pthread_cond_destroy (&w->done);
  pthread_mutex_destroy (&w->lock);
  return -w->error;
}

/* Cut what is beyond LENGTH.  Returns how many are left. */
static int
cut (struct bdev_extent *extents, int n, uint64_t length)
{
  int i;

  for (i = 0; i < n && length > 0; i++) {
    extents[i].length = MIN (extents[i].length, length);
    length -= extents[i].length;
  }
  return i;
}

int
nbd_extents (struct block_device *bdev, uint64_t offset, uint64_t length,
             struct bdev_extent *extents, int max)
{
  const struct nbd_bdev *nbd = (struct nbd_bdev *) bdev;
  struct nbd_waited w = {
    .io = {
      .bdev = bdev, .op = NBD_OP_EXTENTS,
      .offset = offset, .length = MIN (length, MAX_STATUS_SPAN),
    },
    .extents = extents, .max = max,
  };
  int r;

  if (!nbd->export.can_block_status) {
    *extents = (struct bdev_extent) { .length = length };
    return 1;
  }
  r = run_waited (&w);
  if (r < 0)
    return r;
  if (w.n == 0)
    return -EIO;
  return cut (extents, bdev_round_extents (extents, w.n, DM_IO_SECTOR_SIZE),
              length);
}

int
nbd_prefetch (struct block_device *bdev, uint64_t offset, uint64_t length)
{
  const struct nbd_bdev *nbd = (struct nbd_bdev *) bdev;
  struct nbd_waited w = {
    .io = {
      .bdev = bdev, .op = NBD_OP_PREFETCH, .offset = offset, .length = length,
    },
  };

  return nbd->export.can_cache ? run_waited (&w) : 0;
}
