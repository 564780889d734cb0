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
 * fails every flush until it is revived or opened again: nobody is told
 * that data is durable which is not.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <glib.h>

#include "block-device.h"
#include "clock.h"
#include "transfer.h"
#include "worker.h"

/* A write that takes longer than this is no mere copy in memory.  One
 * can be bad luck with the scheduler, so it takes SLOW_FROM of them.
 */
#define SLOW_NSEC(bytes) (8000000 + (bytes))
#define SLOW_FROM 2
#define SLOW_MOST 8

static unsigned char zeroes[65536]
  __attribute__ ((__aligned__ (DM_IO_PAGE_SIZE)));

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
  bdev->block_size = DM_IO_SECTOR_SIZE;
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
bdev_open_failed (int err, char **error, const char *fmt, ...)
{
  va_list args;

  if (error != NULL) {
    va_start (args, fmt);
    if (vasprintf (error, fmt, args) == -1)
      *error = NULL;
    va_end (args);
  }
  errno = err;
}

static bool
is_uri (const char *name)
{
  return g_regex_match_simple ("^nbds?(\\+[a-z]+)?:", name, 0, 0);
}

static bool
valid_flags (unsigned int flags)
{
  const unsigned int both = DM_BDEV_DIRECT | DM_BDEV_BUFFERED;

  return (flags & ~(DM_BDEV_READ_ONLY | BDEV_NO_LOCK | BDEV_IN_PARTS |
                    BDEV_REMAKE |
                    both)) == 0 && (flags & both) != both;
}

struct bdev_opening {
  char *name;
  struct dm_bdev_options options;
  bool is_nbd;
  struct block_device *bdev;    /* NULL: that failed, with */
  int err;                      /* errno */
  char *error;                  /* and a message, or NULL */
};

struct bdev_opening *
bdev_open_begin (const char *name, const struct dm_bdev_options *options)
{
  struct bdev_opening *o = g_new0 (struct bdev_opening, 1);

  o->name = g_strdup (name);
  if (options != NULL)
    o->options = *options;
  o->is_nbd = is_uri (name);
  if (!valid_flags (o->options.flags))
    bdev_open_failed (EINVAL, &o->error, "%s: flags that are unknown or "
                      "exclude each other: %#x", name, o->options.flags);
  else if (o->is_nbd)
    o->bdev = nbd_bdev_begin (name, &o->options, &o->error);
  else
    o->bdev = file_bdev_open (name, &o->options, &o->error);
  o->err = errno;
  return o;
}

static void
free_opening (struct bdev_opening *o)
{
  free (o->error);
  g_free (o->name);
  g_free (o);
}

struct block_device *
bdev_open_end (struct bdev_opening *o, char **error)
{
  struct block_device *bdev = o->bdev;
  int err = o->err;

  if (bdev != NULL && o->is_nbd) {
    bdev = nbd_bdev_end (bdev, o->name, &o->options, &o->error);
    err = errno;
  }
  if (error != NULL)
    *error = g_steal_pointer (&o->error);
  free_opening (o);
  errno = err;
  return bdev;
}

void
bdev_open_cancel (struct bdev_opening *o)
{
  if (o->bdev != NULL && o->is_nbd)
    nbd_bdev_cancel (o->bdev);
  else
    dm_bdev_close (o->bdev);
  free_opening (o);
}

struct block_device *
dm_bdev_open (const char *name, const struct dm_bdev_options *options,
              char **error)
{
  return bdev_open_end (bdev_open_begin (name, options), error);
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

unsigned int
dm_bdev_block_size (const struct block_device *bdev)
{
  return bdev->block_size;
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
bdev_extents (struct block_device *bdev, uint64_t offset, uint64_t length,
              struct bdev_extent *extents, int max)
{
  if (bdev->ops->extents != NULL)
    return bdev->ops->extents (bdev, offset, length, extents, max);
  *extents = (struct bdev_extent) { .length = length };
  return 1;
}

int
bdev_prefetch (struct block_device *bdev, uint64_t offset, uint64_t length)
{
  if (bdev->ops->prefetch != NULL)
    return bdev->ops->prefetch (bdev, offset, length);
  return 0;
}

/* True if R says to try again; then it has waited. */
static bool
retry (int r, int *attempts)
{
  unsigned int usec;

  if (!transfer_retry (r, attempts, &usec))
    return false;
  if (usec > 0)
    g_usleep (usec);
  return true;
}

/* Read or write all of it, as far as it goes.  Returns the first error. */
static int
transfer (struct bdev_io *io)
{
  struct transfer t;

  transfer_begin (&t, io);
  return transfer_run (&t);
}

/* Ask the device once.  A stamp, if that is wanted, is a flush too. */
static int
flush_device (struct block_device *bdev, struct bdev_stamp *stamp)
{
  int r, attempts = 0;

  do
    r = stamp != NULL ? bdev->ops->stamp (bdev, stamp) :
      bdev->ops->flush (bdev);
  while (retry (r, &attempts));
  return r;
}

/* Called with the lock held and no flush under way: be the one to do it. */
static void
lead_flush (struct block_device *bdev, struct bdev_stamp *stamp)
{
  struct bdev_flush *f = &bdev->flush;
  int r;

  f->under_way = true;
  f->begun++;
  pthread_mutex_unlock (&f->lock);
  r = flush_device (bdev, stamp);
  pthread_mutex_lock (&f->lock);
  f->under_way = false;
  f->ended++;
  if (f->error == 0)
    f->error = r;
  pthread_cond_broadcast (&f->ended_one);
}

/* Called with the lock held.  Who has waited for this flush may look at its
 * result only after the device was revived.
 */
static int
flush_result (const struct bdev_flush *f, uint64_t flush)
{
  return flush <= f->forgotten ? -EIO : f->error;
}

/* Wait for a flush that begins from now on, which is the one after that
 * under way, or lead it.
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
    if (f->under_way)
      pthread_cond_wait (&f->ended_one, &f->lock);
    else
      lead_flush (bdev, NULL);
  }
  r = flush_result (f, mine);
  pthread_mutex_unlock (&f->lock);
  return r;
}

int
bdev_stamp (struct block_device *bdev, struct bdev_stamp *stamp)
{
  struct bdev_flush *f = &bdev->flush;
  uint64_t mine;
  int r;

  *stamp = (struct bdev_stamp) { .valid = false };
  if (bdev->ops->stamp == NULL)
    return 0;
  pthread_mutex_lock (&f->lock);
  while (f->under_way)
    pthread_cond_wait (&f->ended_one, &f->lock);
  mine = f->begun + 1;
  lead_flush (bdev, stamp);
  r = flush_result (f, mine);
  pthread_mutex_unlock (&f->lock);
  if (r < 0)
    stamp->valid = false;
  return r;
}

void
bdev_glance (struct block_device *bdev, struct bdev_stamp *stamp)
{
  *stamp = (struct bdev_stamp) { .valid = false };
  if (bdev->ops->glance != NULL)
    bdev->ops->glance (bdev, stamp);
}

bool
bdev_touched (struct block_device *bdev, uint64_t date)
{
  return bdev->ops->touched != NULL && bdev->ops->touched (bdev, date);
}

bool
bdev_shows_changes (const struct block_device *bdev)
{
  return bdev->ops->touched != NULL;
}

enum bdev_place
bdev_place (struct block_device *bdev)
{
  return bdev->ops->place != NULL ? bdev->ops->place (bdev) : BDEV_IN_PLACE;
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
  uint64_t start = clock_now (), length = io->length;
  int r;

  r = run (io);
  *nsec = clock_now () - start;
  if (plain_write)
    note_duration (io->bdev, length, *nsec);
  return -r;
}

int
bdev_attend (struct block_device *bdev)
{
  return bdev->ops->attend != NULL ? bdev->ops->attend (bdev) : 0;
}

void
bdev_rest (struct block_device *bdev)
{
  if (bdev->ops->rest != NULL)
    bdev->ops->rest (bdev);
}

void
bdev_flush_again (struct block_device *bdev)
{
  struct bdev_flush *f = &bdev->flush;

  pthread_mutex_lock (&f->lock);
  if (f->error != 0)
    f->forgotten = f->begun;
  f->error = 0;
  pthread_mutex_unlock (&f->lock);
  if (bdev->ops->flush_again != NULL)
    bdev->ops->flush_again (bdev);
}

int
bdev_revive (struct block_device *bdev)
{
  int r = bdev->ops->revive != NULL ? bdev->ops->revive (bdev) : 0;

  if (r < 0)
    return r;
  bdev_flush_again (bdev);
  return 0;
}

void
bdev_start (struct bdev_io *io)
{
  io->next = NULL;
  io->waiting = false;
  io->stage = io->pending = 0;
  io->error = 0;
  io->bdev->ops->start (io);
}

enum bdev_way
bdev_way (const struct bdev_io *io)
{
  const struct block_device *bdev = io->bdev;

  if (bdev->ops->start != NULL)
    return BDEV_START;
  if ((io->op != DM_IO_READ && io->op != DM_IO_WRITE) || io->flags != 0)
    return BDEV_WAIT;
  if (bdev->ops->ring_prepare != NULL)
    return BDEV_RING;
  return bdev->always_waits ||
    __atomic_load_n (&bdev->slow_writes, __ATOMIC_RELAXED) >= SLOW_FROM ?
    BDEV_WAIT : BDEV_COPY;
}
