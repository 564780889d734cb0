/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What all block devices have in common.
 *
 * Threads: a device is used by many at once.  Its fields do not change
 * after it was opened, but for two hints that are accessed atomically
 * (nothing else depends on their values, so relaxed order will do) and
 * for the state of its flushes, which has a lock.
 *
 * Flushes: the kernel reports data that it could not write back once,
 * to the first that asks, and then forgets it.  So a device asks once at
 * a time, remembers a failure before anybody else can ask, and then
 * fails every flush until it is opened again: nobody is told that data
 * is durable which is not.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <glib.h>

#include "block-device.h"
#include "worker.h"

/* A transfer is made in parts of this size, each with at most so many
 * iovecs.  When one fails the rest of it is given up and the next is
 * tried.
 */
#define PART_SIZE (1024 * 1024)
#define MAX_IOVECS 256

/* A device that says EAGAIN is asked again every millisecond for as long
 * as a slow device needs to recover, but not for ever.
 */
#define EAGAIN_WAIT_US 1000
#define EAGAIN_RETRIES 30000

/* A write that takes longer than this is no mere copy in memory.  One
 * can be bad luck with the scheduler, so it takes SLOW_FROM of them.
 */
#define SLOW_NSEC(bytes) (8000000 + (bytes))
#define SLOW_FROM 2
#define SLOW_MOST 8

static unsigned char zeroes[65536]
  __attribute__ ((__aligned__ (DM_IO_PAGE_SIZE)));

struct mempool bdev_bounce_pages =
  MEMPOOL_INIT (sizeof (struct page), DM_IO_PAGE_SIZE);

int
bdev_init (struct block_device *bdev, const struct bdev_ops *ops,
           const char *name, uint64_t size)
{
  memset (bdev, 0, sizeof *bdev);
  if (!mempool_grow (&bdev_bounce_pages, 1))
    return -ENOMEM;
  bdev->ops = ops;
  bdev->name = g_strdup (name);
  bdev->size = size;
  bdev->mem_align = 1;
  pthread_mutex_init (&bdev->flush.lock, NULL);
  pthread_cond_init (&bdev->flush.ended_one, NULL);
  workers_get ();
  return 0;
}

void
bdev_fini (struct block_device *bdev)
{
  workers_put ();
  mempool_shrink (&bdev_bounce_pages, 1);
  pthread_cond_destroy (&bdev->flush.ended_one);
  pthread_mutex_destroy (&bdev->flush.lock);
  g_free (bdev->name);
}

void
dm_bdev_close (struct block_device *bdev)
{
  if (bdev != NULL)
    bdev->ops->close (bdev);
}

sector_t
dm_bdev_sectors (const struct block_device *bdev)
{
  return bdev->size / DM_IO_SECTOR_SIZE;
}

const char *
dm_bdev_name (const struct block_device *bdev)
{
  return bdev->name;
}

int
dm_bdev_read_only (const struct block_device *bdev)
{
  return bdev->read_only;
}

bool
bdev_can_punch (struct block_device *bdev)
{
  int can = __atomic_load_n (&bdev->can_punch, __ATOMIC_RELAXED);

  if (can == NOT_TRIED) {
    can = bdev->ops->try_punch (bdev) ? CAN_PUNCH : CANNOT_PUNCH;
    __atomic_store_n (&bdev->can_punch, can, __ATOMIC_RELAXED);
  }
  return can == CAN_PUNCH;
}

int
bdev_extent_at (struct block_device *bdev, uint64_t offset, uint64_t length,
                struct bdev_extent *extent)
{
  if (bdev->ops->extent != NULL)
    return bdev->ops->extent (bdev, offset, length, extent);
  extent->length = length;
  extent->hole = false;
  return 0;
}

int
bdev_prefetch (struct block_device *bdev, uint64_t offset, uint64_t length)
{
  if (bdev->ops->prefetch != NULL)
    return bdev->ops->prefetch (bdev, offset, length);
  return 0;
}

/* How many of the iovecs, from the first on, the device can take. */
static int
count_aligned (const struct iovec *iov, int n, size_t align)
{
  int i;

  for (i = 0; i < n; i++) {
    if ((uintptr_t) iov[i].iov_base % align != 0)
      break;
    /* The next one then starts on an odd offset of the device. */
    if (iov[i].iov_len % DM_IO_SECTOR_SIZE != 0)
      break;
  }
  return i;
}

static ssize_t
call_device (const struct bdev_io *io, const struct iovec *iov, int n)
{
  struct block_device *bdev = io->bdev;

  if (io->op == DM_IO_READ)
    return bdev->ops->readv (bdev, iov, n, io->offset);
  return bdev->ops->writev (bdev, iov, n, io->offset, io->flags & DM_IO_FUA);
}

static void
copy_iovecs (struct page *page, const struct iovec *iov, int n, size_t length,
             bool to_page)
{
  size_t len, done = 0;
  int i;

  for (i = 0; i < n && done < length; i++) {
    len = MIN (iov[i].iov_len, length - done);
    if (to_page)
      memcpy (page->data + done, iov[i].iov_base, len);
    else
      memcpy (iov[i].iov_base, page->data + done, len);
    done += len;
  }
}

/* Transfer up to a page by way of an aligned page. */
static ssize_t
bounce (const struct bdev_io *io, const struct iovec *iov, int n)
{
  struct page *page = mempool_alloc (&bdev_bounce_pages);
  struct iovec aligned = {
    .iov_base = page,
    .iov_len = MIN (io->length, DM_IO_PAGE_SIZE),
  };
  ssize_t r;

  if (io->op == DM_IO_WRITE)
    copy_iovecs (page, iov, n, aligned.iov_len, true);
  r = call_device (io, &aligned, 1);
  if (io->op == DM_IO_READ && r > 0)
    copy_iovecs (page, iov, n, r, false);
  mempool_free (&bdev_bounce_pages, page);
  return r;
}

/* Transfer as much as one call of the device takes. */
static ssize_t
transfer_some (const struct bdev_io *io)
{
  struct iovec iov[MAX_IOVECS];
  int n, aligned;

  n = memory_iovecs (&io->data, io->length, iov, MAX_IOVECS);
  if (io->bdev->mem_align == 1)
    return call_device (io, iov, n);

  aligned = count_aligned (iov, n, io->bdev->mem_align);
  if (aligned > 0)
    return call_device (io, iov, aligned);
  return bounce (io, iov, n);
}

/* True if the error R means to try again. */
static bool
retry (int r, int *attempts)
{
  if (r == -EINTR)
    return true;
  if (r == -EAGAIN && (*attempts)++ < EAGAIN_RETRIES) {
    g_usleep (EAGAIN_WAIT_US);
    return true;
  }
  return false;
}

static void
advance (struct bdev_io *io, uint64_t bytes)
{
  memory_advance (&io->data, bytes);
  io->offset += bytes;
  io->length -= bytes;
}

/* Read or write a part.  What could not be read of it is zero. */
static int
transfer_part (struct bdev_io *part)
{
  int attempts = 0;
  ssize_t r;

  while (part->length > 0) {
    r = transfer_some (part);
    if (retry (r, &attempts))
      continue;
    if (r <= 0) {
      if (part->op == DM_IO_READ)
        memory_clear (part->data, part->length);
      return r < 0 ? r : -EIO;
    }
    attempts = 0;
    advance (part, r);
  }
  return 0;
}

/* Read or write all of it, as far as it goes.  Returns the first error.
 * A device that is out of patience is not asked for the other parts.
 */
static int
transfer (struct bdev_io *io)
{
  struct bdev_io part;
  int r, error = 0;

  while (io->length > 0 && error != -EAGAIN) {
    part = *io;
    part.length = MIN (io->length, PART_SIZE);
    advance (io, part.length);
    r = transfer_part (&part);
    if (error == 0)
      error = r;
  }
  if (io->op == DM_IO_READ)
    memory_clear (io->data, io->length);
  return error;
}

/* Ask the device once. */
static int
flush_device (struct block_device *bdev)
{
  int r, attempts = 0;

  do
    r = bdev->ops->flush (bdev);
  while (retry (r, &attempts));
  return r;
}

/* Wait for a flush that begins from now on, which is the one after that
 * under way, or be the one to do it.
 */
static int
flush (struct block_device *bdev)
{
  struct bdev_flush *f = &bdev->flush;
  uint64_t mine;
  int r;

  pthread_mutex_lock (&f->lock);
  mine = f->begun + 1;
  while (f->ended < mine) {
    if (f->under_way) {
      pthread_cond_wait (&f->ended_one, &f->lock);
      continue;
    }
    f->under_way = true;
    f->begun++;
    pthread_mutex_unlock (&f->lock);
    r = flush_device (bdev);
    pthread_mutex_lock (&f->lock);
    f->under_way = false;
    f->ended++;
    if (f->error == 0)
      f->error = r;
    pthread_cond_broadcast (&f->ended_one);
  }
  r = f->error;
  pthread_mutex_unlock (&f->lock);
  return r;
}

/* With FUA if the device does that by itself. */
static int
write_data (struct bdev_io *io)
{
  bool then_flush = io->flags & DM_IO_FUA && io->bdev->fua_by_flush;
  int r;

  if (then_flush)
    io->flags &= ~DM_IO_FUA;
  r = transfer (io);
  return r == 0 && then_flush ? flush (io->bdev) : r;
}

static int
write_zeroes_by_hand (const struct bdev_io *io)
{
  struct bdev_io part = *io;
  uint64_t end = io->offset + io->length;
  int r, error = 0;

  part.op = DM_IO_WRITE;
  part.flags = 0;
  while (part.offset < end && error != -EAGAIN) {
    part.length = MIN (end - part.offset, sizeof zeroes);
    part.data = (struct memory_cursor) { .type = DM_IO_VM, .at.vm = zeroes };
    r = transfer (&part);
    if (error == 0)
      error = r;
  }
  return error;
}

/* Not at all, or not for this range. */
static bool
unsupported (int r)
{
  return r == -EOPNOTSUPP || r == -EINVAL;
}

static int
punch (const struct bdev_io *io)
{
  struct block_device *bdev = io->bdev;
  int r, attempts = 0;

  if (!bdev_can_punch (bdev))
    return -EOPNOTSUPP;
  do
    r = bdev->ops->punch (bdev, io->offset, io->length);
  while (retry (r, &attempts));
  if (r == -EOPNOTSUPP)
    __atomic_store_n (&bdev->can_punch, CANNOT_PUNCH, __ATOMIC_RELAXED);
  return r;
}

/* Discard is this too: dm-io asks for it only if every device can
 * punch, and one that then cannot still has to be alike.
 */
static int
zero (const struct bdev_io *io)
{
  struct block_device *bdev = io->bdev;
  int r = -EOPNOTSUPP, attempts = 0;

  if (!(io->flags & DM_IO_NO_UNMAP))
    r = punch (io);
  if (unsupported (r)) {
    do
      r = bdev->ops->zero (bdev, io->offset, io->length);
    while (retry (r, &attempts));
  }
  if (unsupported (r))
    r = write_zeroes_by_hand (io);
  if (r == 0 && io->flags & DM_IO_FUA)
    r = flush (bdev);
  return r;
}

static int
run (struct bdev_io *io)
{
  int r = 0;

  if (io->op == DM_IO_FLUSH)
    return flush (io->bdev);
  if (io->flags & DM_IO_PREFLUSH)
    r = flush (io->bdev);
  if (r < 0 || io->length == 0)
    return r;
  switch (io->op) {
  case DM_IO_READ: return transfer (io);
  case DM_IO_WRITE: return write_data (io);
  default: return zero (io);
  }
}

static uint64_t
now (void)
{
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  return (uint64_t) t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Learn from a write how the device takes them. */
static void
note_duration (struct block_device *bdev, uint64_t length, uint64_t nsec)
{
  int slow = __atomic_load_n (&bdev->slow_writes, __ATOMIC_RELAXED);

  if (nsec > SLOW_NSEC (length))
    slow = MIN (slow + 1, SLOW_MOST);
  else if (slow > 0)
    slow--;
  else
    return;
  __atomic_store_n (&bdev->slow_writes, slow, __ATOMIC_RELAXED);
}

int
bdev_run (struct bdev_io *io, uint64_t *nsec)
{
  bool plain_write = io->op == DM_IO_WRITE && io->flags == 0;
  uint64_t start = now (), length = io->length;
  int r;

  r = run (io);
  *nsec = now () - start;
  if (plain_write)
    note_duration (io->bdev, length, *nsec);
  return -r;
}

bool
bdev_may_wait (const struct bdev_io *io)
{
  if (io->op != DM_IO_READ && io->op != DM_IO_WRITE)
    return true;
  return io->bdev->always_waits ||
    io->flags & (DM_IO_FUA | DM_IO_PREFLUSH) ||
    __atomic_load_n (&io->bdev->slow_writes, __ATOMIC_RELAXED) >= SLOW_FROM;
}
