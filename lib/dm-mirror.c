/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Requests: the write path, the choice of a leg to read.
 *
 * A leg is in sync until it misses a write or a flush.  The set of legs
 * in sync never becomes empty: with a log, a write that fails on all of them drops
 * none (W4); else one stays that can be reached.  Without a log the set only ever
 * shrinks, and a request that fails on any leg has failed.  With one, see also
 * mirror-state.c and mirror-copy.c:
 *
 * Why no acknowledged write is lost (W1, W3): dm_log_begin makes it durable
 * that the chunks of a write are dirty before any leg is written, and who
 * fails then is durably out of sync before the client hears of it.  So
 * after a crash each leg in sync has all that was acknowledged, but for what
 * no flush has covered, and what may differ is in dirty chunks.
 *
 * Why legs cannot end up different (W5): a write holds the lock on its
 * range until it has ended on all legs and those that missed it are no
 * longer in the set.  So for one sector the writes have one order, and
 * all legs in sync have the last of them.  Copies to a leg take the same
 * locks.
 *
 * Why a reader never sees an old value after a new one, although reads
 * come from any leg: a read begins after the writes to its sectors that it
 * found in flight have ended, so it has what they left, the same on every leg
 * in sync.  A later write has not ended before the read began, so for
 * this read old and new are both right; and whoever reads after it waits for
 * that write.  What a crash has left different, or a write that all have refused, is
 * made equal, and flushed, before it is read (R2): so a second crash does not
 * change it either.
 *
 * A leg that recovers and lacks only chunks in doubt (S5) is used like those in sync for
 * all others: see mirror-partial.c.
 *
 * Locks: reconciling first, then rewriting, ranges, state_lock, which owns changes of
 * states and of the sets in_sync and recovering; these are read without it.  It is held
 * while the log is written, so that changes of states have one order, also
 * on disk; but never while a leg is used: failing a leg does not wait for it.  The
 * locks of the log, the work of the copiers and the failure log are leaves.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include <glib.h>

#include "mirror.h"

static unsigned int
largest_block (unsigned int num_legs, const struct dm_mirror_leg *legs)
{
  unsigned int size = DM_IO_SECTOR_SIZE, i;

  for (i = 0; i < num_legs; i++)
    if (legs[i].region.bdev != NULL)
      size = MAX (size, dm_bdev_block_size (legs[i].region.bdev));
  return size;
}

void
mirror_give (struct dm_mirror *m, unsigned int leg)
{
  m->legs[leg].given = true;
  m->legs[leg].place = m->num_given++;
}

/* Without a log, all that are given are legs in sync. */
static void
take_legs (struct dm_mirror *m, unsigned int num_legs,
           const struct dm_mirror_leg *legs)
{
  unsigned int i;

  m->num_legs = num_legs;
  m->sectors = legs[0].region.count;
  for (i = 0; i < num_legs; i++) {
    m->legs[i].region = legs[i].region;
    m->legs[i].name = g_strdup (legs[i].name);
    m->sectors = MIN (m->sectors, legs[i].region.count);
    m->in_sync |= 1UL << i;
    if (legs[i].write_mostly)
      m->write_mostly |= 1UL << i;
    failure_log_set_name (m->failures, i, legs[i].name);
    mirror_give (m, i);
  }
  m->sectors -= m->sectors % (m->block_size / DM_IO_SECTOR_SIZE);
}

static void
free_mirror (struct dm_mirror *m)
{
  unsigned int i;

  failure_log_free (m->failures);
  pthread_cond_destroy (&m->work.changed);
  pthread_mutex_destroy (&m->work.lock);
  pthread_cond_destroy (&m->state_changed);
  pthread_mutex_destroy (&m->state_lock);
  pthread_mutex_destroy (&m->rewriting);
  range_locks_fini (&m->reconciling);
  range_locks_fini (&m->ranges);
  for (i = 0; i < m->num_legs; i++) {
    g_free (m->legs[i].name);
    g_free (m->legs[i].id);
    g_free (m->legs[i].reason);
  }
  g_free (m);
}

static void
init_condition (pthread_cond_t *cond)
{
  pthread_condattr_t attr;

  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (cond, &attr);
  pthread_condattr_destroy (&attr);
}

struct dm_mirror *
dm_mirror_new (unsigned int num_legs, const struct dm_mirror_leg *legs,
               const struct dm_mirror_options *options, char **error)
{
  struct dm_mirror *m = g_new0 (struct dm_mirror, 1);

  g_assert (num_legs >= 1 && num_legs <= DM_IO_MAX_REGIONS);
  m->options = *options;
  m->log = options->log;
  m->quorum = MAX (options->quorum, 1);
  m->block_size = largest_block (num_legs, legs);
  read_balance_init (&m->balance);
  range_locks_init (&m->ranges);
  range_locks_init (&m->reconciling);
  pthread_mutex_init (&m->state_lock, NULL);
  pthread_mutex_init (&m->rewriting, NULL);
  m->rewrite_delay = MIRROR_FIRST_DELAY;
  pthread_mutex_init (&m->work.lock, NULL);
  init_condition (&m->state_changed);
  init_condition (&m->work.changed);
  m->failures = failure_log_new (DM_IO_MAX_REGIONS);
  if (m->log == NULL)
    take_legs (m, num_legs, legs);
  else if (!mirror_assemble (m, num_legs, legs, error)) {
    free_mirror (m);
    return NULL;
  }
  return m;
}

void
dm_mirror_free (struct dm_mirror *m)
{
  unsigned int i;

  if (m == NULL)
    return;
  mirror_stop_threads (m);
  if (m->log != NULL) {
    mirror_flush_legs (m, mirror_used (m));
    mirror_clean (m);           /* what was written lately is left */
    mirror_clean (m);
    if (!dm_log_is_dirty (m->log))
      mirror_stamp (m);
    mirror_leave_recovering (m);
    for (i = 0; i < m->num_legs; i++)
      mirror_stamp_left (m, i);
    dm_log_sync (m->log);       /* so that nothing but the superblock is left */
    dm_log_rest (m->log);
    dm_log_sync (m->log);
    clock_await_tick ();        /* so that a change after the end shows */
  }
  free_mirror (m);
}

int
dm_mirror_start (struct dm_mirror *m)
{
  int r = 0;

  FOR_EACH_LEG (i, mirror_used (m)) {
    r = bdev_attend (m->legs[i].region.bdev);
    if (r < 0)
      return r;
  }
  return m->log != NULL ? mirror_start_threads (m) : 0;
}

sector_t
dm_mirror_sectors (const struct dm_mirror *m)
{
  return m->sectors;
}

static unsigned long
all_legs (struct dm_mirror *m)
{
  return (2UL << (dm_mirror_num_legs (m) - 1)) - 1;
}

struct io_region
mirror_on_leg (const struct dm_mirror *m, unsigned int i, sector_t sector,
               sector_t count)
{
  return (struct io_region) {
    .bdev = m->legs[i].region.bdev,
    .sector = m->legs[i].region.sector + sector,
    .count = count,
  };
}

unsigned long
mirror_offline (const struct dm_mirror *m)
{
  unsigned long offline = 0;
  const struct block_device *bdev;

  FOR_EACH_LEG (i, mirror_used (m)) {
    bdev = m->legs[i].region.bdev;
    if (__atomic_load_n (&bdev->offline, __ATOMIC_RELAXED) ||
        __atomic_load_n (&bdev->failed, __ATOMIC_RELAXED))
      offline |= 1UL << i;
  }
  return offline;
}

/* A change that was sent to legs that are not used any more has reached them by now. */
static void
note_late (struct dm_mirror *m, unsigned long legs)
{
  FOR_EACH_LEG (i, legs & ~mirror_used (m))
    mirror_note_left (&m->legs[i]);
}

unsigned long
mirror_run (struct dm_mirror *m, const struct dm_io_request *req,
            unsigned long legs, sector_t sector, sector_t count,
            struct dm_io_result *results)
{
  struct io_region where[DM_IO_MAX_REGIONS];
  struct dm_io_result some[DM_IO_MAX_REGIONS];
  struct dm_io_request request = *req;
  unsigned long failed = 0;
  unsigned int n = 0;
  int r;

  request.results = some;
  FOR_EACH_LEG (i, legs)
    where[n++] = mirror_on_leg (m, i, sector, count);
  g_assert (n > 0);
  r = dm_io (&request, n, where, NULL);
  g_assert (r == 0 || r == -EIO);
  if (req->op != DM_IO_READ && req->op != DM_IO_FLUSH)
    note_late (m, legs);

  memset (results, 0, dm_mirror_num_legs (m) * sizeof results[0]);
  n = 0;
  FOR_EACH_LEG (i, legs) {
    results[i] = some[n++];
    if (results[i].error != 0)
      failed |= 1UL << i;
  }
  return failed;
}

/*----------------------------------------------------------------------
 * Without a log
 */

/* Take the failed legs out of the set, but never the last.  Returns
 * those that were in it and no longer are.
 */
static unsigned long
drop (struct dm_mirror *m, unsigned long failed)
{
  unsigned long old, new;

  pthread_mutex_lock (&m->state_lock);
  old = m->in_sync;
  new = old & ~failed;
  if (new == 0)
    new = 1UL << FIRST (preferably_not (old, mirror_offline (m)));
  __atomic_store_n (&m->in_sync, new, __ATOMIC_RELEASE);
  pthread_mutex_unlock (&m->state_lock);
  return old & ~new;
}

static const char *
consequence (unsigned long bit, unsigned long dropped, unsigned long in_sync)
{
  if (dropped & bit)
    return "it is now out of sync";
  if (in_sync & bit)
    return "it is the last one in sync, and stays so";
  return "it is out of sync already";
}

/* Drop the legs that failed, and log that. */
static void
fail_unlogged (struct dm_mirror *m, const struct mirror_failure *f)
{
  unsigned long dropped = drop (m, f->legs), in_sync = mirror_in_sync (m);

  FOR_EACH_LEG (i, f->legs) {
    struct failure failure = {
      .region = i,
      .op = f->op,
      .offset = f->sector * DM_IO_SECTOR_SIZE,
      .length = f->count * DM_IO_SECTOR_SIZE,
      .error = f->results[i].error,
      .consequence = consequence (1UL << i, dropped, in_sync),
    };

    failure_log_add (m->failures, &failure);
  }
  FOR_EACH_LEG (i, dropped)
    g_warning ("region %lu (%s): is now out of sync, and stays so until "
               "restart: reads do not use it; %u of %u regions in sync",
               i, m->legs[i].name, COUNT (in_sync), m->num_legs);
}

/*----------------------------------------------------------------------
 * Writing
 */

void
mirror_note_request (struct dm_mirror *m)
{
  if (!__atomic_load_n (&m->active, __ATOMIC_RELAXED))
    __atomic_store_n (&m->active, true, __ATOMIC_RELAXED);
}

static unsigned int
count_losses (const struct dm_mirror *m)
{
  return __atomic_load_n (&m->losses, __ATOMIC_ACQUIRE);
}

/* Nobody knows what a leg has kept whose flush has failed. */
static bool
has_quorum (const struct dm_mirror *m, unsigned long legs, sector_t sector,
            sector_t count)
{
  return COUNT (mirror_in_sync_for (m, sector, count) & legs &
                ~mirror_unflushed (m)) >= m->quorum;
}

/* Called with no range locked: if only such legs are missing, mend them first, or wait for
 * those that will have what is in doubt.  So an error that passes costs a client no more
 * than time.
 */
static void
mend_quorum (struct dm_mirror *m, sector_t sector, sector_t count)
{
  if (!has_quorum (m, -1UL, sector, count) &&
      COUNT (mirror_in_sync (m)) >= m->quorum)
    mirror_rewrite (m);
  mirror_await_part (m, sector, count);
}

/* LEGS were asked to do what FAILURE says.  True if it has succeeded: enough
 * legs have it, and those that have not are recorded.
 */
static bool
conclude (struct dm_mirror *m, unsigned long legs,
          struct mirror_failure *failure)
{
  if (m->log == NULL) {
    if (failure->legs != 0)
      fail_unlogged (m, failure);
    return failure->legs == 0;
  }
  failure->others = legs & ~failure->legs;
  if (failure->legs != 0 && mirror_failed (m, failure) < 0)
    return false;
  /* What a leg has done whose device has failed since may be lost. */
  return has_quorum (m, failure->others & ~mirror_offline (m),
                     failure->sector, failure->count);
}

/* Called with the range locked. */
static bool
write_legs (struct dm_mirror *m, const struct dm_io_request *req,
            sector_t sector, sector_t count, struct dm_io_result *results)
{
  struct mirror_failure failure = {
    .op = req->op, .sector = sector, .count = count, .results = results,
    .fua = req->flags & DM_IO_FUA,
  };
  unsigned int losses = count_losses (m);
  unsigned long absent = 0, legs = all_legs (m); /* without one to come */
  bool ok;

  if (m->log != NULL) {
    memset (results, 0, dm_mirror_num_legs (m) * sizeof results[0]);
    mirror_await_doubt (m, sector, count);
    if (!has_quorum (m, -1UL, sector, count) ||
        dm_log_begin (m->log, sector, count, &absent) < 0)
      return false;
  }
  legs &= ~absent;
  failure.legs = mirror_run (m, req, legs, sector, count, results);
  ok = conclude (m, legs, &failure);
  if (m->log != NULL)
    dm_log_end (m->log, sector, count);
  return ok && losses == count_losses (m);
}

bool
dm_mirror_write (struct dm_mirror *m, enum dm_io_op op, unsigned int flags,
                 const void *data, sector_t sector, sector_t count,
                 struct dm_io_result *results)
{
  struct dm_io_request req = {
    .op = op,
    .flags = flags,
    .mem = {
      .type = DM_IO_VM,
      .length = count * DM_IO_SECTOR_SIZE,
      .ptr.vm = (void *) data,
    },
  };
  struct range_lock range;
  bool ok;

  mirror_note_request (m);
  mend_quorum (m, sector, count);
  range_lock (&m->ranges, &range, sector, count);
  ok = write_legs (m, &req, sector, count, results);
  range_unlock (&m->ranges, &range);
  return ok;
}

void
dm_mirror_client_init (struct dm_mirror *m, struct dm_mirror_client *client)
{
  client->told = __atomic_load_n (&m->losses_told, __ATOMIC_ACQUIRE);
}

/* True if there is a loss that the client has not been told of, which it is now. */
static bool
must_hear (struct dm_mirror *m, struct dm_mirror_client *client)
{
  unsigned int losses = count_losses (m);

  if (__atomic_exchange_n (&client->told, losses, __ATOMIC_ACQ_REL) == losses)
    return false;
  __atomic_store_n (&m->losses_told, losses, __ATOMIC_RELEASE);
  return true;
}

bool
dm_mirror_flush (struct dm_mirror *m, struct dm_mirror_client *client,
                 struct dm_io_result *results)
{
  struct dm_io_request req = { .op = DM_IO_FLUSH };
  struct mirror_failure failure = { .op = DM_IO_FLUSH, .results = results };
  unsigned int losses = count_losses (m);
  unsigned long legs;
  bool ok;

  mirror_note_request (m);
  mend_quorum (m, 0, 0);
  legs = m->log != NULL ? mirror_used (m) : all_legs (m);
  failure.legs = mirror_run (m, &req, legs, 0, 0, results);
  ok = conclude (m, legs, &failure);
  if (m->log == NULL)
    return ok;
  /* A leg that another thread is just dropping has not been flushed. */
  ok = ok && mirror_settle (m) == 0 && losses == count_losses (m);
  return !must_hear (m, client) && ok;
}

/*----------------------------------------------------------------------
 * What the legs are like
 */

unsigned int
dm_mirror_block_size (const struct dm_mirror *m)
{
  return m->block_size;
}

bool
dm_mirror_fast_zero (const struct dm_mirror *m)
{
  FOR_EACH_LEG (i, mirror_used (m))
    if (!bdev_can_punch (m->legs[i].region.bdev))
      return false;
  return true;
}

bool
dm_mirror_read_only (const struct dm_mirror *m)
{
  FOR_EACH_LEG (i, mirror_used (m))
    if (!m->legs[i].region.bdev->read_only)
      return false;
  return true;
}

bool
dm_mirror_rotational (const struct dm_mirror *m)
{
  FOR_EACH_LEG (i, mirror_used (m))
    if (m->legs[i].region.bdev->rotational)
      return true;
  return false;
}
