/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Legs and their states, the choice of a leg to read, the write path.
 *
 * A leg is in sync until it misses a write or a flush.  The set of legs
 * in sync only ever shrinks, and never becomes empty: if a write fails
 * on all of them the first that can be reached stays (W4).
 *
 * Why legs cannot end up different (W5): a write holds the lock on its
 * range until it has ended on all legs and those that missed it are no
 * longer in the set.  So for one sector the writes have one order, and
 * all legs in sync have the last of them.
 *
 * Why a reader never sees an old value after a new one, although reads
 * come from any leg: a read begins after the writes to its sectors that it
 * found in flight have ended, so it has what they left, the same on every leg
 * in sync.  A later write has not ended before the read began, so for
 * this read old and new are both right; and whoever reads after it waits for
 * that write.  (A write that failed on all legs may have changed any of them,
 * and its sectors then hold what the leg that stays in sync has.)
 *
 * Locks: ranges first, then state_lock, which owns changes of in_sync;
 * in_sync is read without it.  The failure log has a lock of its own;
 * it is used under none of these.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include <glib.h>

#include "dm-mirror.h"
#include "failure-log.h"
#include "range-lock.h"
#include "read-balance.h"

struct leg {
  struct io_region region;
  char *name;
};

struct dm_mirror {
  unsigned int num_legs;
  sector_t sectors;
  struct range_locks ranges;
  pthread_mutex_t state_lock;
  unsigned long in_sync;        /* atomic: bit i is leg i */
  struct failure_log *failures;
  enum dm_mirror_read policy;
  unsigned long write_mostly;   /* a set like in_sync; does not change */
  struct read_balance balance;
  struct leg legs[];
};

#define FIRST(set) ((unsigned int) __builtin_ctzl (set))

struct dm_mirror *
dm_mirror_new (unsigned int num_legs, const struct dm_mirror_leg *legs,
               enum dm_mirror_read policy)
{
  const char *names[DM_IO_MAX_REGIONS];
  struct dm_mirror *m;
  unsigned int i;

  g_assert (num_legs >= 1 && num_legs <= DM_IO_MAX_REGIONS);
  m = g_malloc0 (sizeof *m + num_legs * sizeof m->legs[0]);
  m->num_legs = num_legs;
  m->sectors = legs[0].region.count;
  for (i = 0; i < num_legs; i++) {
    m->legs[i].region = legs[i].region;
    m->legs[i].name = g_strdup (legs[i].name);
    m->sectors = MIN (m->sectors, legs[i].region.count);
    m->in_sync |= 1UL << i;
    if (legs[i].write_mostly)
      m->write_mostly |= 1UL << i;
    names[i] = legs[i].name;
  }
  m->sectors -= m->sectors % (dm_mirror_block_size (m) / DM_IO_SECTOR_SIZE);
  m->policy = policy;
  read_balance_init (&m->balance);
  range_locks_init (&m->ranges);
  pthread_mutex_init (&m->state_lock, NULL);
  m->failures = failure_log_new (num_legs, names);
  return m;
}

void
dm_mirror_free (struct dm_mirror *m)
{
  unsigned int i;

  if (m == NULL)
    return;
  failure_log_free (m->failures);
  pthread_mutex_destroy (&m->state_lock);
  range_locks_fini (&m->ranges);
  for (i = 0; i < m->num_legs; i++)
    g_free (m->legs[i].name);
  g_free (m);
}

int
dm_mirror_attend (struct dm_mirror *m)
{
  unsigned int i;
  int r;

  for (i = 0; i < m->num_legs; i++) {
    r = bdev_attend (m->legs[i].region.bdev);
    if (r < 0)
      return r;
  }
  return 0;
}

sector_t
dm_mirror_sectors (const struct dm_mirror *m)
{
  return m->sectors;
}

static unsigned long
legs_in_sync (const struct dm_mirror *m)
{
  return __atomic_load_n (&m->in_sync, __ATOMIC_ACQUIRE);
}

/* The sectors of the volume on leg i. */
static struct io_region
on_leg (const struct dm_mirror *m, unsigned int i, sector_t sector,
        sector_t count)
{
  return (struct io_region) {
    .bdev = m->legs[i].region.bdev,
    .sector = m->legs[i].region.sector + sector,
    .count = count,
  };
}

static unsigned long
failed_legs (const struct dm_mirror *m, const struct dm_io_result *results)
{
  unsigned long failed = 0;
  unsigned int i;

  for (i = 0; i < m->num_legs; i++)
    if (results[i].error != 0)
      failed |= 1UL << i;
  return failed;
}

/*----------------------------------------------------------------------
 * States
 */

static unsigned long
offline_legs (const struct dm_mirror *m)
{
  unsigned long offline = 0;
  unsigned int i;

  for (i = 0; i < m->num_legs; i++)
    if (__atomic_load_n (&m->legs[i].region.bdev->offline, __ATOMIC_RELAXED))
      offline |= 1UL << i;
  return offline;
}

/* A AND NOT B, unless that is nothing. */
static unsigned long
preferably_not (unsigned long a, unsigned long b)
{
  return (a & ~b) != 0 ? a & ~b : a;
}

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
    new = 1UL << FIRST (preferably_not (old, offline_legs (m)));
  __atomic_store_n (&m->in_sync, new, __ATOMIC_RELEASE);
  pthread_mutex_unlock (&m->state_lock);
  return old & ~new;
}

static void
log_dropped (struct dm_mirror *m, unsigned long dropped)
{
  unsigned int i;

  for (i = 0; i < m->num_legs; i++)
    if (dropped & 1UL << i)
      g_warning ("region %u (%s): is now out of sync, and stays so until "
                 "restart: reads do not use it; %d of %u regions in sync",
                 i, m->legs[i].name,
                 __builtin_popcountl (legs_in_sync (m)), m->num_legs);
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

/* Log the failures of a request that changes legs, and which it has
 * dropped.
 */
static void
log_failed (struct dm_mirror *m, struct failure *failure,
            const struct dm_io_result *results, unsigned long dropped)
{
  unsigned long failed = failed_legs (m, results);
  unsigned long in_sync = legs_in_sync (m);
  unsigned int i;

  for (i = 0; i < m->num_legs; i++) {
    if (!(failed & 1UL << i))
      continue;
    failure->region = i;
    failure->error = results[i].error;
    failure->consequence = consequence (1UL << i, dropped, in_sync);
    failure_log_add (m->failures, failure);
  }
  log_dropped (m, dropped);
}

/*----------------------------------------------------------------------
 * Writing
 */

/* One dm-io request for all legs. */
static bool
write_all (struct dm_mirror *m, const struct dm_io_request *req,
           sector_t sector, sector_t count)
{
  struct io_region where[DM_IO_MAX_REGIONS];
  unsigned int i;
  int r;

  for (i = 0; i < m->num_legs; i++)
    where[i] = on_leg (m, i, sector, count);
  r = dm_io (req, m->num_legs, where, NULL);
  g_assert (r == 0 || r == -EIO);
  return r == 0;
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
    .results = results,
  };
  struct failure failure = {
    .op = op,
    .offset = sector * DM_IO_SECTOR_SIZE,
    .length = count * DM_IO_SECTOR_SIZE,
  };
  unsigned long dropped = 0;
  struct range_lock range;
  bool ok;

  range_lock (&m->ranges, &range, sector, count);
  ok = write_all (m, &req, sector, count);
  if (!ok)
    dropped = drop (m, failed_legs (m, results));
  range_unlock (&m->ranges, &range);
  if (!ok)
    log_failed (m, &failure, results, dropped);
  return ok;
}

bool
dm_mirror_flush (struct dm_mirror *m, struct dm_io_result *results)
{
  struct dm_io_request req = { .op = DM_IO_FLUSH, .results = results };
  struct failure failure = { .op = DM_IO_FLUSH };

  if (write_all (m, &req, 0, 0))
    return true;
  log_failed (m, &failure, results, drop (m, failed_legs (m, results)));
  return false;
}

/*----------------------------------------------------------------------
 * Reading
 */

/* The leg of the set that is best read. */
static unsigned int
choose_leg (struct dm_mirror *m, unsigned long legs, sector_t sector,
            sector_t count)
{
  legs = preferably_not (legs, offline_legs (m));
  legs = preferably_not (legs, m->write_mostly);
  if (m->policy == DM_MIRROR_READ_FIRST || (legs & (legs - 1)) == 0)
    return FIRST (legs);
  return read_balance_choose (&m->balance, legs, sector, count);
}

static bool
read_leg (struct dm_mirror *m, unsigned int leg, void *data,
          sector_t sector, sector_t count, struct dm_io_result *results)
{
  struct io_region where = on_leg (m, leg, sector, count);
  struct dm_io_request req = {
    .op = DM_IO_READ,
    .mem = {
      .type = DM_IO_VM,
      .length = count * DM_IO_SECTOR_SIZE,
      .ptr.vm = data,
    },
    .results = &results[leg],
  };
  bool ok;

  read_balance_begin (&m->balance, leg);
  ok = dm_io (&req, 1, &where, NULL) == 0;
  read_balance_end (&m->balance, leg, ok, results[leg].nsec);
  return ok;
}

static void
log_failed_read (struct dm_mirror *m, unsigned int leg, sector_t sector,
                 sector_t count, int error, bool last)
{
  struct failure failure = {
    .region = leg,
    .op = DM_IO_READ,
    .offset = sector * DM_IO_SECTOR_SIZE,
    .length = count * DM_IO_SECTOR_SIZE,
    .error = error,
    .consequence = last ? "no other region in sync is left to read" :
      "reading from the next region in sync",
  };

  failure_log_add (m->failures, &failure);
}

/* Read from one leg in sync after another until one can be read. */
static bool
read_any (struct dm_mirror *m, void *data, sector_t sector, sector_t count,
          struct dm_io_result *results)
{
  unsigned long failed = 0, left = legs_in_sync (m);
  unsigned int leg;

  while (left != 0) {
    leg = choose_leg (m, left, sector, count);
    if (read_leg (m, leg, data, sector, count, results))
      return true;
    failed |= 1UL << leg;
    left = legs_in_sync (m) & ~failed;
    log_failed_read (m, leg, sector, count, results[leg].error, left == 0);
  }
  return false;
}

bool
dm_mirror_read (struct dm_mirror *m, void *data, sector_t sector,
                sector_t count, struct dm_io_result *results)
{
  memset (results, 0, m->num_legs * sizeof results[0]);
  range_wait (&m->ranges, sector, count);
  return read_any (m, data, sector, count, results);
}

int
dm_mirror_extents (struct dm_mirror *m, sector_t sector, sector_t count,
                   struct bdev_extent *extents, int max)
{
  struct io_region where;
  unsigned long left;
  unsigned int leg;
  int r;

  range_wait (&m->ranges, sector, count);
  left = legs_in_sync (m);
  do {
    leg = choose_leg (m, left, sector, count);
    where = on_leg (m, leg, sector, count);
    r = bdev_extents (where.bdev, where.sector * DM_IO_SECTOR_SIZE,
                      where.count * DM_IO_SECTOR_SIZE, extents, max);
    left &= ~(1UL << leg);
  } while (r < 0 && left != 0);
  return r < 0 ? r : bdev_round_extents (extents, r,
                                         dm_mirror_block_size (m));
}

int
dm_mirror_prefetch (struct dm_mirror *m, sector_t sector, sector_t count)
{
  unsigned int leg = choose_leg (m, legs_in_sync (m), sector, count);
  struct io_region where = on_leg (m, leg, sector, count);

  return bdev_prefetch (where.bdev, where.sector * DM_IO_SECTOR_SIZE,
                        where.count * DM_IO_SECTOR_SIZE);
}

/*----------------------------------------------------------------------
 * What the legs are like
 */

unsigned int
dm_mirror_block_size (const struct dm_mirror *m)
{
  unsigned int size = DM_IO_SECTOR_SIZE, i;

  for (i = 0; i < m->num_legs; i++)
    size = MAX (size, dm_bdev_block_size (m->legs[i].region.bdev));
  return size;
}

bool
dm_mirror_fast_zero (const struct dm_mirror *m)
{
  unsigned int i;

  for (i = 0; i < m->num_legs; i++)
    if (!bdev_can_punch (m->legs[i].region.bdev))
      return false;
  return true;
}

bool
dm_mirror_read_only (const struct dm_mirror *m)
{
  unsigned int i;

  for (i = 0; i < m->num_legs; i++)
    if (!m->legs[i].region.bdev->read_only)
      return false;
  return true;
}

bool
dm_mirror_rotational (const struct dm_mirror *m)
{
  unsigned int i;

  for (i = 0; i < m->num_legs; i++)
    if (m->legs[i].region.bdev->rotational)
      return true;
  return false;
}
