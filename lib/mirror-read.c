/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Reading the volume: which leg is read, and what is done when that fails or when the leg is
 * found to have lost something.  Why what is read is never old is in dm-mirror.c.
 */

#include <config.h>

#include <errno.h>
#include <string.h>

#include <glib.h>

#include "mirror.h"

/* How often a read is tried again at most, if legs come and go that are used in part. */
#define READ_TRIES 10

unsigned int
mirror_given_first (const struct dm_mirror *m, unsigned long legs)
{
  unsigned int first = FIRST (legs);

  FOR_EACH_LEG (i, legs)
    if (m->legs[i].place < m->legs[first].place)
      first = i;
  return first;
}

/* The leg of the set that is best read. */
static unsigned int
choose_leg (struct dm_mirror *m, unsigned long legs, sector_t sector,
            sector_t count)
{
  legs = preferably_not (legs, mirror_offline (m));
  legs = preferably_not (legs, __atomic_load_n (&m->write_mostly,
                                                __ATOMIC_RELAXED));
  if (m->options.policy == DM_MIRROR_READ_FIRST || (legs & (legs - 1)) == 0)
    return mirror_given_first (m, legs);
  return read_balance_choose (&m->balance, legs, sector, count);
}

int
mirror_read_leg (struct dm_mirror *m, unsigned int leg, void *data,
                 sector_t sector, sector_t count, struct dm_io_result *result)
{
  struct io_region where = mirror_on_leg (m, leg, sector, count);
  struct dm_io_request req = {
    .op = DM_IO_READ,
    .mem = {
      .type = DM_IO_VM,
      .length = count * DM_IO_SECTOR_SIZE,
      .ptr.vm = data,
    },
    .results = result,
  };

  read_balance_begin (&m->balance, leg);
  dm_io (&req, 1, &where, NULL);
  read_balance_end (&m->balance, leg, result->error == 0, result->nsec);
  return result->error;
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

/* Read from one leg in sync after another until one can be read.  Adds those that could
 * not to *FAILED.
 */
static bool
read_once (struct dm_mirror *m, void *data, sector_t sector, sector_t count,
          struct dm_io_result *results, unsigned long *failed)
{
  struct mirror_reading r = { .sector = sector, .count = count };
  unsigned long tried = 0, left;
  unsigned int leg;

  mirror_begin_reading (m, &r);
  left = r.legs;
  while (left != 0) {
    leg = choose_leg (m, left, sector, count);
    if (mirror_read_leg (m, leg, data, sector, count, &results[leg]) == 0) {
      if (mirror_is_right (m, &r, leg))
        return true;
    }
    else
      *failed |= 1UL << leg;
    tried |= 1UL << leg;
    mirror_begin_reading (m, &r);
    left = r.legs & ~tried;
    if (results[leg].error == 0)
      continue;                 /* it may have lost something meanwhile */
    log_failed_read (m, leg, sector, count, results[leg].error, left == 0);
  }
  return false;
}

/* A leg may be used in part just when another could not be read; or not just when that is
 * revived, until it is known if it can be.
 */
static bool
read_any (struct dm_mirror *m, void *data, sector_t sector, sector_t count,
          struct dm_io_result *results, unsigned long *failed)
{
  struct mirror_reading r = { .sector = sector, .count = count };
  unsigned int i;

  *failed = 0;
  for (i = 0; i < READ_TRIES; i++) {
    mirror_begin_reading (m, &r);
    if (read_once (m, data, sector, count, results, failed))
      return true;
    pthread_mutex_lock (&m->state_lock);
    pthread_mutex_unlock (&m->state_lock);
    if (!mirror_may_read_again (m, &r))
      break;
  }
  return false;
}

sector_t
mirror_half (const struct dm_mirror *m, sector_t count)
{
  sector_t block = m->block_size / DM_IO_SECTOR_SIZE;

  return count <= block ? 0 : (count / block + 1) / 2 * block;
}

static bool
is_bad_sector (const struct dm_io_result *results, unsigned long legs)
{
  FOR_EACH_LEG (i, legs)
    if (results[i].error == EIO)
      return true;
  return false;
}

/* Which of those that could not be read are to be written again?  The last in sync not if it
 * has only lost its connection: it is waited for.
 */
static unsigned long
to_repair (struct dm_mirror *m, const struct dm_io_result *results,
           unsigned long failed)
{
  unsigned long legs = failed;

  if (m->log == NULL)
    return 0;
  if ((mirror_in_sync (m) & ~failed) != 0)
    return failed;
  FOR_EACH_LEG (i, failed)
    if (results[i].error == ENOTCONN || mirror_offline (m) & 1UL << i)
      legs &= ~(1UL << i);
  return legs;
}

static bool read_parts (struct dm_mirror *m, unsigned char *data,
                        sector_t sector, sector_t count,
                        struct dm_io_result *results);

/* Each leg may have a bad sector, and yet one of them what another lacks. */
static bool
read_halves (struct dm_mirror *m, unsigned char *data, sector_t sector,
             sector_t count, struct dm_io_result *results,
             unsigned long failed)
{
  sector_t half = mirror_half (m, count);

  return half > 0 && is_bad_sector (results, failed) &&
    read_parts (m, data, sector, half, results) &&
    read_parts (m, data + half * DM_IO_SECTOR_SIZE, sector + half,
                count - half, results);
}

/* What is answered was read after the last repair: the leg that was read before may have been
 * found then to have lost something, and the next one may have a bad sector, too.
 */
static bool
read_parts (struct dm_mirror *m, unsigned char *data, sector_t sector,
            sector_t count, struct dm_io_result *results)
{
  unsigned long failed, repaired = 0;

  for (;;) {
    if (!read_any (m, data, sector, count, results, &failed))
      return read_halves (m, data, sector, count, results, failed);
    failed = to_repair (m, results, failed) & ~repaired;
    if (failed == 0)
      return true;
    mirror_repair (m, failed, sector, count);
    range_wait (&m->ranges, sector, count);
    repaired |= failed;         /* or not: once is enough */
  }
}

static unsigned int
count_differences (const struct dm_mirror *m)
{
  return __atomic_load_n (&m->differences, __ATOMIC_ACQUIRE);
}

/* How often these sectors have become different, of all times. */
static unsigned int
sum_differences (struct dm_mirror *m, unsigned int all, sector_t sector,
                 sector_t count)
{
  unsigned int sum = 0;
  sector_t chunk;
  uint64_t i;

  if (all == 0)
    return 0;
  chunk = dm_log_chunk (m->log);
  for (i = sector / chunk; i <= (sector + count - 1) / chunk; i++)
    sum += dm_log_differs (m->log, i);
  return sum;
}

static bool
read_alike (struct dm_mirror *m, void *data, sector_t sector, sector_t count,
            struct dm_io_result *results)
{
  memset (results, 0, dm_mirror_num_legs (m) * sizeof results[0]);
  mirror_await_doubt (m, sector, count);
  if (mirror_reconcile (m, sector, count) < 0 &&
      mirror_reconcile_part (m, sector, count) < 0)
    return false;
  range_wait (&m->ranges, sector, count);
  return read_parts (m, data, sector, count, results);
}

/* What a write left on a leg that all have refused meanwhile may be gone when they
 * are made alike.
 */
bool
dm_mirror_read (struct dm_mirror *m, void *data, sector_t sector,
                sector_t count, struct dm_io_result *results)
{
  unsigned int all, before, now;
  bool ok;

  mirror_note_request (m);
  do {
    all = count_differences (m);
    before = sum_differences (m, all, sector, count);
    ok = read_alike (m, data, sector, count, results);
    now = count_differences (m);
  } while (now != all && before != sum_differences (m, now, sector, count));
  return ok;
}

static int
all_data (struct bdev_extent *extents, sector_t count)
{
  *extents = (struct bdev_extent) { .length = count * DM_IO_SECTOR_SIZE };
  return 1;
}

int
dm_mirror_extents (struct dm_mirror *m, sector_t sector, sector_t count,
                   struct bdev_extent *extents, int max)
{
  struct mirror_reading reading = { .sector = sector };
  unsigned long left, tried = 0;
  struct io_region where;
  unsigned int leg, differences = count_differences (m);
  sector_t alike;
  int r;

  mirror_await_doubt (m, sector, count);
  alike = mirror_alike (m, sector, count);
  if (alike == 0)               /* some of it may be readable all the same */
    return all_data (extents, count);
  count = MIN (count, alike);
  range_wait (&m->ranges, sector, count);
  reading.count = count;
  mirror_begin_reading (m, &reading);
  left = reading.legs;
  do {
    leg = choose_leg (m, left, sector, count);
    where = mirror_on_leg (m, leg, sector, count);
    r = bdev_extents (where.bdev, where.sector * DM_IO_SECTOR_SIZE,
                      where.count * DM_IO_SECTOR_SIZE, extents, max);
    if (!mirror_is_right (m, &reading, leg))
      r = -EIO;                 /* it may have lost something meanwhile */
    tried |= 1UL << leg;
    mirror_begin_reading (m, &reading);
    left = reading.legs & ~tried;
  } while (r < 0 && left != 0);
  if (differences != count_differences (m))
    return all_data (extents, count);
  return r < 0 ? r : bdev_round_extents (extents, r, m->block_size);
}

int
dm_mirror_prefetch (struct dm_mirror *m, sector_t sector, sector_t count)
{
  unsigned int leg = choose_leg (m, mirror_in_sync (m), sector, count);
  struct io_region where = mirror_on_leg (m, leg, sector, count);

  return bdev_prefetch (where.bdev, where.sector * DM_IO_SECTOR_SIZE,
                        where.count * DM_IO_SECTOR_SIZE);
}
