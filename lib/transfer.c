/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The rules of reading and writing, which are the same for a device that
 * is called and for one that is reached through a ring.
 *
 * A transfer is made in parts.  When one fails, the rest of it is given
 * up, and the next is tried.
 *
 * Bouncing: memory that the device cannot take goes by way of an aligned
 * buffer, as large as is useful while there is memory, else one page of the
 * reserve.  Whoever has such a page needs no other to give it back: it
 * is held for one call only.
 *
 * A transfer belongs to one thread.
 */

#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <glib.h>

#include "transfer.h"

#define PART_SIZE (1024 * 1024)
#define MAX_IOVECS 256
#define BOUNCE_SIZE (256 * 1024)

/* A device that says EAGAIN is asked again every millisecond for as long
 * as a slow device needs to recover, but not for ever.
 */
#define EAGAIN_WAIT_US 1000
#define EAGAIN_RETRIES 30000

struct mempool bdev_bounce_pages =
  MEMPOOL_INIT (sizeof (struct page), DM_IO_PAGE_SIZE);

bool
transfer_retry (ssize_t r, int *attempts, unsigned int *usec)
{
  *usec = r == -EAGAIN ? EAGAIN_WAIT_US : 0;
  return r == -EINTR || (r == -EAGAIN && (*attempts)++ < EAGAIN_RETRIES);
}

/*----------------------------------------------------------------------
 * Bouncing
 */

/* True if the device takes memory at any address and any number of bytes. */
static bool
takes_any (const struct block_device *bdev)
{
  return bdev->mem_align == 1;
}

/* How many of the iovecs, from the first on, the device can take. */
static int
count_aligned (const struct block_device *bdev, const struct iovec *iov,
               int n)
{
  int i;

  if (takes_any (bdev))
    return n;
  for (i = 0; i < n; i++) {
    if ((uintptr_t) iov[i].iov_base % bdev->mem_align != 0)
      break;
    /* The next one would start inside a block of the device. */
    if (iov[i].iov_len % bdev->block_size != 0)
      break;
  }
  return i;
}

static bool
get_bounce (struct transfer *t, enum transfer_reserve reserve)
{
  /* Enough for this call and for all that may follow. */
  size_t size = MIN (t->length + t->io->length, BOUNCE_SIZE);

  if (t->bounce != NULL)
    return true;
  t->bounce_is_page =
    posix_memalign (&t->bounce, DM_IO_PAGE_SIZE, size) != 0;
  if (!t->bounce_is_page) {
    t->bounce_size = size;
    return true;
  }
  t->bounce_size = DM_IO_PAGE_SIZE;
  switch (reserve) {
  case TRANSFER_NO_RESERVE:
    t->bounce = NULL;
    break;
  case TRANSFER_TRY_RESERVE:
    t->bounce = mempool_try_alloc (&bdev_bounce_pages);
    break;
  case TRANSFER_WAIT_FOR_RESERVE:
    t->bounce = mempool_alloc (&bdev_bounce_pages);
    break;
  }
  return t->bounce != NULL;
}

static void
put_bounce (struct transfer *t)
{
  if (t->bounce_is_page)
    mempool_free (&bdev_bounce_pages, t->bounce);
  else
    free (t->bounce);
  t->bounce = NULL;
}

void
transfer_undo (struct transfer *t)
{
  t->bounced = false;
  if (t->bounce_is_page)
    put_bounce (t);
}

/* The next call by way of the bounce buffer. */
static int
bounce (struct transfer *t, struct iovec *iov, enum transfer_reserve reserve)
{
  if (!get_bounce (t, reserve))
    return -EAGAIN;
  t->bounced = true;
  iov->iov_base = t->bounce;
  iov->iov_len = MIN (t->length, t->bounce_size);
  if (t->io->op == DM_IO_WRITE)
    memory_copy_out (t->data, t->bounce, iov->iov_len);
  return 1;
}

/*----------------------------------------------------------------------
 * Parts and calls
 */

void
transfer_begin (struct transfer *t, struct bdev_io *io)
{
  *t = (struct transfer) { .io = io };
}

/* Make the next part the current one. */
static void
begin_part (struct transfer *t)
{
  struct bdev_io *io = t->io;

  t->offset = io->offset;
  t->length = MIN (io->length, PART_SIZE);
  t->data = io->data;
  t->attempts = 0;
  memory_advance (&io->data, t->length);
  io->offset += t->length;
  io->length -= t->length;
}

/* What could not be read is zero.  A device that is out of patience is
 * not asked for the other parts.
 */
static void
fail_part (struct transfer *t, int error)
{
  struct bdev_io *io = t->io;

  if (t->error == 0)
    t->error = error;
  if (io->op == DM_IO_READ)
    memory_clear (t->data, t->length);
  t->length = 0;
  if (error != -EAGAIN)
    return;
  if (io->op == DM_IO_READ)
    memory_clear (io->data, io->length);
  io->length = 0;
}

int
transfer_next (struct transfer *t, struct iovec *iov, int max,
               enum transfer_reserve reserve)
{
  int n, aligned;

  if (t->length == 0 && t->io->length == 0) {
    put_bounce (t);
    return 0;
  }
  if (t->length == 0)
    begin_part (t);
  n = memory_iovecs (&t->data, t->length, iov, max);
  aligned = count_aligned (t->io->bdev, iov, n);
  return aligned > 0 ? aligned : bounce (t, iov, reserve);
}

unsigned int
transfer_result (struct transfer *t, ssize_t r)
{
  const struct block_device *bdev = t->io->bdev;
  unsigned int usec;

  if (transfer_retry (r, &t->attempts, &usec)) {
    transfer_undo (t);
    return usec;
  }
  /* It cannot be resumed inside a block. */
  if (r > 0 && !takes_any (bdev))
    r -= r % bdev->block_size;
  if (r > 0) {
    if (t->bounced && t->io->op == DM_IO_READ)
      memory_copy_in (t->data, t->bounce, r);
    memory_advance (&t->data, r);
    t->offset += r;
    t->length -= r;
    t->attempts = 0;
  }
  else
    fail_part (t, r < 0 ? r : -EIO);
  transfer_undo (t);
  return 0;
}

static ssize_t
call_device (const struct transfer *t, const struct iovec *iov, int n)
{
  struct block_device *bdev = t->io->bdev;

  if (t->io->op == DM_IO_READ)
    return bdev->ops->readv (bdev, iov, n, t->offset);
  return bdev->ops->writev (bdev, iov, n, t->offset,
                            t->io->flags & DM_IO_FUA);
}

int
transfer_run (struct transfer *t)
{
  struct iovec iov[MAX_IOVECS];
  unsigned int usec;
  int n;

  while ((n = transfer_next (t, iov, MAX_IOVECS,
                             TRANSFER_WAIT_FOR_RESERVE)) > 0) {
    usec = transfer_result (t, call_device (t, iov, n));
    if (usec > 0)
      g_usleep (usec);
  }
  return t->error;
}
