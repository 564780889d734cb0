/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What is copied from leg to leg: to those that recover what they lack, to
 * those in sync what a crash may have left different, and to one that
 * could not be read what another has.
 *
 * A piece is copied with its range locked, so no write is in flight there
 * (S1).  A chunk may be of many pieces; writes to it between two of these
 * go to the target as well, since it is one of the legs that are
 * written, so what was copied stays right.  If the target fails meanwhile
 * the chunk is dirty or has not been recorded as copied; either way the leg
 * lacks it again.
 *
 * Nothing is copied that could not be read; all else is, block for block if need
 * be.  What is zero on the source is made zero on the target, if it is not so
 * already: holes stay holes.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <glib.h>

#include "mirror.h"

#define MAX_EXTENTS 16

/* What has become of copying, besides other errors: some of it could not be read from any
 * leg in sync; or, which counts for more, not all was copied that could be read.
 */
#define NOT_READ (-ENODATA)
#define NOT_COPIED (-EIO)

static int
worse (int a, int b)
{
  return a == 0 || b == NOT_COPIED ? b : a;
}

/* A part of the volume that is being copied, its range locked. */
struct piece {
  struct dm_mirror *mirror;
  unsigned long targets;        /* that the leg read is taken out of */
  unsigned long rewritten;      /* of these, that get also what they have */
  unsigned long shown;          /* the leg that was read, if they have it already */
  unsigned long *sources;       /* all legs that have been read are added to these */
  sector_t sector, count;
  unsigned char *buffer;
};

/* The one in sync that is best read, or another: any is as good. */
static unsigned long
sources (const struct dm_mirror *m)
{
  return mirror_in_sync (m);
}

static unsigned int
choose_source (const struct dm_mirror *m, unsigned long legs)
{
  legs = preferably_not (legs, mirror_offline (m));
  return FIRST (preferably_not (legs, mirror_unflushed (m)));
}

int
mirror_flush_legs (struct dm_mirror *m, unsigned long legs)
{
  const struct dm_io_request req = { .op = DM_IO_FLUSH };
  struct dm_io_result results[DM_IO_MAX_REGIONS];
  struct mirror_failure failure = { .op = DM_IO_FLUSH, .results = results };

  if (legs == 0)
    return 0;
  failure.legs = mirror_run (m, &req, legs, 0, 0, results);
  if (failure.legs == 0)
    return 0;
  mirror_failed (m, &failure);
  return -EIO;
}

/* What legs show is believed only if they have lost nothing of what was written: a flush says
 * so, or one that fails makes them leave.  Called with the range locked, before a leg in sync
 * gets what another shows.
 */
static void
flush_sources (struct dm_mirror *m, unsigned long legs)
{
  if (COUNT (mirror_used (m)) > 1)
    mirror_flush_legs (m, legs & mirror_used (m) & ~mirror_unflushed (m));
}

/* Write DATA, or zeroes if it is NULL, to the targets that are still used.  One
 * that fails is out of sync from then on, so its copy does not count; -EIO if one
 * stays in sync all the same.
 */
static int
write_targets (const struct piece *p, unsigned long targets, const void *data,
               sector_t sector, sector_t count)
{
  struct dm_mirror *m = p->mirror;
  const struct dm_io_request req = {
    .op = data != NULL ? DM_IO_WRITE : DM_IO_WRITE_ZEROES,
    .mem = {
      .type = DM_IO_VM,
      .length = data != NULL ? count * DM_IO_SECTOR_SIZE : 0,
      .ptr.vm = (void *) data,
    },
  };
  struct dm_io_result results[DM_IO_MAX_REGIONS];
  struct mirror_failure failure = {
    .op = req.op, .sector = sector, .count = count, .results = results,
    .shown = p->shown,
  };

  targets &= mirror_used (m);
  if (targets == 0)
    return 0;
  /* Reading may have taken long, and at the end of a server no thread renews it. */
  if (dm_log_keep_lease (m->log) < 0)
    return -EIO;
  failure.legs = mirror_run (m, &req, targets, sector, count, results);
  if (failure.legs != 0)
    mirror_failed (m, &failure);
  __atomic_add_fetch (&m->copied, count * DM_IO_SECTOR_SIZE,
                      __ATOMIC_RELAXED);
  return (failure.legs & mirror_in_sync (m)) == 0 ? 0 : -EIO;
}

/* For how many sectors from here on the leg says that they read as zero. */
static sector_t
zero_run (struct dm_mirror *m, unsigned int leg, sector_t sector,
          sector_t count)
{
  const struct io_region *r = &m->legs[leg].region;
  uint64_t offset = (r->sector + sector) * DM_IO_SECTOR_SIZE;
  uint64_t length = count * DM_IO_SECTOR_SIZE, done = 0;
  struct bdev_extent extents[MAX_EXTENTS];
  int n, i;

  while (done < length) {
    n = bdev_extents (r->bdev, offset + done, length - done, extents,
                      MAX_EXTENTS);
    for (i = 0; i < n && extents[i].zero; i++)
      done += extents[i].length;
    if (n <= 0 || i < n)
      break;
  }
  return MIN (done, length) / DM_IO_SECTOR_SIZE;
}

static int
zero_targets (const struct piece *p, sector_t sector, sector_t count)
{
  struct dm_mirror *m = p->mirror;
  unsigned long targets = p->targets & p->rewritten;

  FOR_EACH_LEG (i, p->targets & ~targets & mirror_used (m))
    if (zero_run (m, i, sector, count) < count)
      targets |= 1UL << i;
  return write_targets (p, targets, NULL, sector, count);
}

static bool
all_zero (const unsigned char *data, size_t length)
{
  return data[0] == 0 && memcmp (data, data + 1, length - 1) == 0;
}

static void
log_unread (struct dm_mirror *m, unsigned int leg, sector_t sector,
            sector_t count, int error)
{
  const struct failure failure = {
    .region = leg,
    .op = DM_IO_READ,
    .offset = sector * DM_IO_SECTOR_SIZE,
    .length = count * DM_IO_SECTOR_SIZE,
    .error = error,
    .consequence = "reading from the next region in sync, to copy it",
  };

  failure_log_add (m->failures, &failure);
}

/* Read from one of LEGS that is in sync, and if that fails from another.  One
 * that is no longer in sync when it has been read may have lost what it had.
 * IN_PART: also from one that is in sync only for these sectors.
 * Returns which it was, or a negative errno: -EIO if a part may be readable.  Sets *BAD
 * to those with a bad sector.
 */
static int
read_source (struct dm_mirror *m, unsigned long legs, bool in_part,
             void *buffer, sector_t sector, sector_t count,
             unsigned long *bad)
{
  sector_t part = in_part ? count : 0;
  int r = -ENOTCONN;
  unsigned long left = mirror_in_sync_for (m, sector, part) & legs;
  struct dm_io_result result;
  unsigned int leg;

  *bad = 0;
  while (left != 0) {
    leg = choose_source (m, left);
    if (mirror_read_leg (m, leg, buffer, sector, count, &result) != 0) {
      log_unread (m, leg, sector, count, result.error);
      if (result.error == EIO && !(mirror_offline (m) & 1UL << leg)) {
        *bad |= 1UL << leg;
        r = -EIO;
      }
    }
    else if (mirror_in_sync_for (m, sector, part) & 1UL << leg)
      return leg;
    left &= mirror_in_sync_for (m, sector, part) & ~(1UL << leg);
  }
  return r;
}

/* Is what this leg has shown there what it was written?  If not it has left. */
static bool
is_sound (struct dm_mirror *m, unsigned int leg, sector_t sector, sector_t count)
{
  flush_sources (m, 1UL << leg);
  return mirror_in_sync_for (m, sector, count) & 1UL << leg;
}

static void
say_rewritten (const struct dm_mirror *m, unsigned int leg, sector_t sector,
               sector_t count)
{
  g_warning ("region %u (%s): %" PRIu64 " bytes at offset %" PRIu64 " that could not "
             "be read have been written again", leg, m->legs[leg].name,
             count * DM_IO_SECTOR_SIZE, sector * DM_IO_SECTOR_SIZE);
}

/* Called with the range locked: the legs have been written what one SHOWS.  Can they be
 * read now?
 */
static void
check_rewritten (struct dm_mirror *m, unsigned long legs, unsigned long shown,
                 void *buffer, sector_t sector, sector_t count)
{
  struct dm_io_result results[DM_IO_MAX_REGIONS] = { 0 };
  struct mirror_failure failure = {
    .op = DM_IO_READ, .sector = sector, .count = count, .shown = shown,
    .results = results,
  };

  FOR_EACH_LEG (i, legs)
    if (mirror_read_leg (m, i, buffer, sector, count, &results[i]) != 0)
      failure.legs |= 1UL << i;
    else
      say_rewritten (m, i, sector, count);
  if (failure.legs != 0)
    mirror_failed (m, &failure);
}

/* Called with the range locked: write what SOURCE has to LEGS, which could not be read
 * (R1), but for those that have been WRITTEN.  One that cannot be written, or not be read
 * then, has failed.  The contents of BUFFER are lost.
 */
static void
rewrite (struct dm_mirror *m, unsigned int source, unsigned long legs,
         unsigned long written, void *buffer, sector_t sector, sector_t count)
{
  const struct piece piece = { .mirror = m, .shown = 1UL << source };
  unsigned long absent;

  legs &= mirror_used (m);
  if (legs == 0 || dm_log_begin (m->log, sector, count, &absent) < 0)
    return;
  write_targets (&piece, legs & ~written, buffer, sector, count);
  check_rewritten (m, legs & mirror_used (m), piece.shown, buffer, sector, count);
  dm_log_end (m->log, sector, count);
}

/* What cannot be read is halved, down to a block: each leg may have a bad sector,
 * and another what it lacks.
 */
static int
copy_data (const struct piece *p, sector_t sector, sector_t count)
{
  unsigned long bad;
  int source = read_source (p->mirror, -1UL, false, p->buffer, sector, count,
                            &bad), r;
  sector_t half = mirror_half (p->mirror, count);
  struct piece rest = *p;

  if (source == -EIO && half > 0 && !mirror_stopping (p->mirror)) {
    r = copy_data (p, sector, half);
    return worse (r, copy_data (p, sector + half, count - half));
  }
  if (source < 0)
    return source == -EIO && half == 0 ? NOT_READ : NOT_COPIED;
  *p->sources |= 1UL << source;
  if (bad != 0 && !is_sound (p->mirror, source, sector, count))
    return copy_data (p, sector, count);
  rest.targets &= ~(1UL << source) | p->rewritten;
  rest.shown = p->rewritten != 0 ? 1UL << source : 0;
  rest.rewritten |= bad;        /* also if they say that it is zero there */
  r = all_zero (p->buffer, count * DM_IO_SECTOR_SIZE) ?
    zero_targets (&rest, sector, count) :
    write_targets (&rest, rest.targets, p->buffer, sector, count);
  rewrite (p->mirror, source, bad, rest.targets, p->buffer, sector, count);
  return r;
}

/* What the source has from AT on; data, if that is not known. */
static int
find_extents (const struct piece *p, sector_t at, unsigned long *source,
              struct bdev_extent *extents)
{
  struct dm_mirror *m = p->mirror;
  unsigned int leg = choose_source (m, sources (m));
  const struct io_region *r = &m->legs[leg].region;
  uint64_t length = (p->sector + p->count - at) * DM_IO_SECTOR_SIZE;
  int n = bdev_extents (r->bdev, (r->sector + at) * DM_IO_SECTOR_SIZE, length,
                        extents, MAX_EXTENTS);

  *source = 1UL << leg;
  if (n <= 0 || !(sources (m) & *source)) {
    extents[0] = (struct bdev_extent) { .length = length };
    n = 1;
  }
  return bdev_round_extents (extents, n, m->block_size);
}

/* Called with the range of the piece locked. */
static int
copy_piece (const struct piece *p)
{
  sector_t at = p->sector, end = p->sector + p->count, length;
  struct bdev_extent extents[MAX_EXTENTS];
  struct piece zero = *p;
  unsigned long source;
  int n, i, r = 0;

  while (at < end) {
    n = find_extents (p, at, &source, extents);
    *p->sources |= source;
    zero.targets = p->targets & (~source | p->rewritten);
    zero.shown = p->rewritten != 0 ? source : 0;
    for (i = 0; i < n && at < end; i++) {
      length = MIN (extents[i].length / DM_IO_SECTOR_SIZE, end - at);
      r = worse (r, extents[i].zero ? zero_targets (&zero, at, length) :
                 copy_data (p, at, length));
      at += length;
    }
  }
  return r;
}

/* Which legs an item is to be written to.  What a leg shows that may not have kept it may be
 * less by now than when others were recovered from it.
 */
static unsigned long
targets_of (const struct dm_mirror *m, const struct mirror_item *item)
{
  return item->reconcile || item->rewrite ? mirror_used (m) :
    item->lacking & mirror_recovering (m);
}

/* Which of them are written also what they have, as they may not have kept what they show:
 * after the end of a server any, since a flush may have failed that nobody knows of.
 */
static unsigned long
rewritten_of (const struct dm_mirror *m, const struct mirror_item *item)
{
  return item->reconcile ? mirror_in_sync (m) :
    item->rewrite ? mirror_unflushed (m) : 0;
}

/* Somebody else may have done it meanwhile; then the chunk may be clean.  Of what only the
 * last server has written no leg has lost anything that was flushed.
 */
static int
reconcile_piece (const struct piece *p, const struct mirror_item *item)
{
  struct dm_mirror *m = p->mirror;
  unsigned long absent;
  bool written = dm_log_was_written (m->log, p->sector, p->count);
  int r;

  if (!item->rewrite &&
      dm_log_next_unreconciled (m->log, item->first, item->end) == item->end)
    return 0;
  r = dm_log_begin (m->log, p->sector, p->count, &absent);
  if (r < 0)
    return r;
  if (written)
    flush_sources (m, mirror_in_sync (m));
  r = copy_piece (p);
  dm_log_end (m->log, p->sector, p->count);
  return r;
}

static int
copy_locked (struct dm_mirror *m, struct mirror_item *item, sector_t sector,
             sector_t count, void *buffer)
{
  struct piece piece = {
    .mirror = m, .sector = sector, .count = count, .buffer = buffer,
    .sources = &item->sources,
  };
  struct range_lock range;
  int r = -EIO;

  range_lock (&m->ranges, &range, sector, count);
  piece.targets = targets_of (m, item);
  piece.rewritten = rewritten_of (m, item);
  if (item->reconcile || item->rewrite)
    r = reconcile_piece (&piece, item);
  else if (piece.targets != 0)
    r = copy_piece (&piece);
  range_unlock (&m->ranges, &range);
  return r;
}

uint64_t
mirror_zero_end (struct dm_mirror *m, struct mirror_item *item)
{
  sector_t chunk = dm_log_chunk (m->log), sector = item->first * chunk;
  sector_t all = MIN (item->end * chunk, m->sectors) - sector, zero = all;
  unsigned int source = choose_source (m, sources (m));
  unsigned long legs = targets_of (m, item) | 1UL << source;
  struct range_lock range;

  if (item->reconcile)
    return item->first;         /* one may show zeroes that it has not kept */
  /* So that nobody is kept out only to find that there is data. */
  if (zero_run (m, source, sector, MIN (chunk, all)) < MIN (chunk, all))
    return item->first;
  range_lock (&m->ranges, &range, sector, all);
  item->sources |= 1UL << source;
  FOR_EACH_LEG (i, legs)
    if (zero > 0)
      zero = zero_run (m, i, sector, zero);
  if (!(sources (m) & 1UL << source))
    zero = 0;                   /* it may have lost what it had */
  range_unlock (&m->ranges, &range);
  return zero == all ? item->end : item->first + zero / chunk;
}

/* The only leg that is left could not be written again: it can be read all the same, but
 * no flush succeeds before it has been.
 */
static int
do_without (struct dm_mirror *m)
{
  unsigned long in_sync = mirror_in_sync (m);

  if (COUNT (in_sync) != 1 || mirror_is_outage (m))
    return NOT_COPIED;
  mirror_distrust (m, in_sync);
  return 0;
}

int
mirror_copy_item (struct dm_mirror *m, struct mirror_item *item,
                  void *buffer, bool paced)
{
  sector_t chunk = dm_log_chunk (m->log), at = item->first * chunk, count;
  sector_t end = MIN (item->end * chunk, m->sectors);
  uint64_t begun;
  int r = 0;

  for (; at < end; at += count) {
    if (paced && mirror_stopping (m))
      return -ECANCELED;
    begun = clock_now ();
    count = MIN (MIRROR_PIECE, end - at);
    r = worse (r, copy_locked (m, item, at, count, buffer));
    if (paced)
      mirror_pace (m, begun, count * DM_IO_SECTOR_SIZE);
  }
  return r == NOT_COPIED && item->reconcile ? do_without (m) : r;
}

/*----------------------------------------------------------------------
 * Before something is read
 */

static int
flush_reconciled (struct dm_mirror *m, unsigned long legs)
{
  return mirror_flush_legs (m, legs) == 0 || mirror_cannot_flush (m) ? 0 : -EIO;
}

/* If a leg fails it is tried again with the others; so below. */
static int
reconcile_item (struct dm_mirror *m, struct mirror_item *item)
{
  unsigned int differs = dm_log_differs (m->log, item->first);
  g_autofree unsigned char *buffer =
    g_try_malloc (MIRROR_PIECE * DM_IO_SECTOR_SIZE);
  unsigned long legs;
  int r;

  if (buffer == NULL)
    return -ENOMEM;
  mirror_rewrite_several (m);
  do {
    legs = mirror_in_sync (m);
    r = dm_log_keep_lease (m->log);
    if (r == 0)
      r = mirror_copy_item (m, item, buffer, false);
    if (r == 0)
      r = flush_reconciled (m, legs);
  } while (r < 0 && mirror_in_sync (m) != legs);
  /* A leg that was dropped meanwhile must not be the source next time. */
  if (r == 0)
    r = mirror_settle (m);
  if (r == 0)
    dm_log_reconciled (m->log, item->first, differs);
  return r;
}

/* One reader does it for all. */
static int
reconcile_chunk (struct dm_mirror *m, uint64_t chunk)
{
  struct mirror_item item = {
    .first = chunk, .end = chunk + 1, .reconcile = true,
  };
  struct range_lock turn;
  int r = 0;

  range_lock (&m->reconciling, &turn, chunk, 1);
  if (dm_log_next_unreconciled (m->log, chunk, chunk + 1) == chunk)
    r = reconcile_item (m, &item);
  range_unlock (&m->reconciling, &turn);
  return r;
}

static int
reconcile_range (struct dm_mirror *m, sector_t sector, sector_t count, void *buffer)
{
  struct mirror_item item = { .reconcile = true };
  struct piece piece = {
    .mirror = m, .buffer = buffer, .sources = &item.sources,
  };
  sector_t end = sector + count;
  struct range_lock range;
  unsigned long absent;
  int r = 0;

  for (; r == 0 && sector < end; sector += piece.count) {
    piece.sector = sector;
    piece.count = MIN (MIRROR_PIECE, end - sector);
    range_lock (&m->ranges, &range, sector, piece.count);
    piece.targets = targets_of (m, &item);
    piece.rewritten = rewritten_of (m, &item);
    r = dm_log_begin (m->log, sector, piece.count, &absent);
    if (r == 0) {
      flush_sources (m, mirror_in_sync (m));
      r = copy_piece (&piece);
      dm_log_end (m->log, sector, piece.count);
    }
    range_unlock (&m->ranges, &range);
  }
  if (r == 0)
    return flush_reconciled (m, mirror_in_sync (m));
  return r == NOT_COPIED ? do_without (m) : r;
}

/* Nothing is recorded: the rest of the chunk has yet to be reconciled. */
int
mirror_reconcile_part (struct dm_mirror *m, sector_t sector, sector_t count)
{
  g_autofree unsigned char *buffer =
    g_try_malloc (MIN (count, MIRROR_PIECE) * DM_IO_SECTOR_SIZE);
  unsigned long legs;
  int r;

  if (buffer == NULL)
    return -ENOMEM;
  do {
    legs = mirror_in_sync (m);
    r = reconcile_range (m, sector, count, buffer);
  } while (r < 0 && mirror_in_sync (m) != legs);
  return r == 0 ? mirror_settle (m) : r;
}

static uint64_t
next_unreconciled (struct dm_mirror *m, sector_t sector, sector_t count)
{
  sector_t chunk = dm_log_chunk (m->log);

  return dm_log_next_unreconciled (m->log, sector / chunk,
                                   (sector + count + chunk - 1) / chunk);
}

static bool
may_differ (const struct dm_mirror *m)
{
  return __atomic_load_n (&m->unreconciled, __ATOMIC_ACQUIRE);
}

int
mirror_reconcile (struct dm_mirror *m, sector_t sector, sector_t count)
{
  sector_t chunk;
  uint64_t next, end;
  int r = 0;

  if (!may_differ (m))
    return 0;
  chunk = dm_log_chunk (m->log);
  end = (sector + count + chunk - 1) / chunk;
  while (r == 0 &&
         (next = next_unreconciled (m, sector, count)) < end)
    r = reconcile_chunk (m, next);
  return r;
}

sector_t
mirror_alike (struct dm_mirror *m, sector_t sector, sector_t count)
{
  sector_t chunk, after;

  if (!may_differ (m))
    return count;
  chunk = dm_log_chunk (m->log);
  after = chunk - sector % chunk;       /* where the next chunk begins */
  if (mirror_reconcile (m, sector, MIN (after, count)) < 0)
    return 0;
  return next_unreconciled (m, sector, count) * chunk - sector;
}

/*----------------------------------------------------------------------
 * After something could not be read
 */

void
mirror_repair (struct dm_mirror *m, unsigned long legs, sector_t sector,
               sector_t count)
{
  g_autofree unsigned char *buffer =
    g_try_malloc (MIN (count, MIRROR_PIECE) * DM_IO_SECTOR_SIZE);
  sector_t end = sector + count;
  struct range_lock range;
  unsigned long bad;
  int source;

  if (buffer == NULL) {
    g_warning ("no memory to rewrite what could not be read");
    return;
  }
  for (; sector < end; sector += count) {
    count = MIN (MIRROR_PIECE, end - sector);
    range_lock (&m->ranges, &range, sector, count);
    do
      source = read_source (m, ~legs, true, buffer, sector, count, &bad);
    while (source >= 0 && !is_sound (m, source, sector, count));
    if (source >= 0)
      rewrite (m, source, bad | legs, 0, buffer, sector, count);
    range_unlock (&m->ranges, &range);
  }
}
