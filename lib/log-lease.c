/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Until when legs may be written, and what they are like when they are not: so a change
 * by somebody else is known after a restart (S4).
 *
 * log->lock owns all of it.  A stamp is what a leg was like when it was quiet, or left; a
 * lease is the time until which a later change may be the mirror's own.
 */

#include <config.h>

#include <errno.h>

#include <glib.h>

#include "clock.h"
#include "log-private.h"

/* The lease is so long, and renewed so much before its end: by dm_log_keep_lease,
 * which is called every two seconds while something is dirty; or else by
 * dm_log_begin, as a write takes a while.
 */
#define LEASE (15 * NSEC_PER_SEC)
#define LEASE_LEFT (8 * NSEC_PER_SEC)
#define LEASE_MARGIN (4 * NSEC_PER_SEC)

void
log_recompute_lease (struct dm_log *log)
{
  unsigned long legs = log_all_legs (log) & ~log->absent;
  const struct log_leg *leg;

  log->lease = UINT64_MAX;
  log->latest_stamp = 0;
  for (; legs != 0; legs &= legs - 1) {
    leg = &log->legs[__builtin_ctzl (legs)];
    /* A lease that has ended must not be thought of as durable. */
    log->lease = MIN (log->lease, MIN (leg->until, leg->info.until));
    log->latest_stamp = MAX (log->latest_stamp, leg->stamp);
  }
}

/* The legs that are not absent may be written until then. */
static void
extend (struct dm_log *log, uint64_t until)
{
  unsigned long legs = log_all_legs (log) & ~log->absent;
  struct log_super_leg *info;

  for (; legs != 0; legs &= legs - 1) {
    info = &log->legs[__builtin_ctzl (legs)].info;
    if (info->until < until) {
      info->until = until;
      log->super_wanted++;
    }
  }
}

/* The clock was set back since legs were quiet: writes from now on seem to be
 * older than that, and must not seem to be somebody else's.  Nor must what a power cut
 * may leave of the times: that of before.  ALL: also those of legs in sync, which are
 * going to be written; else they have to be what the legs are like.  True if there are
 * any.
 */
static bool
set_stamps_back (struct dm_log *log, uint64_t now, bool all)
{
  unsigned long legs = log_all_legs (log) & ~log->absent;
  struct log_super_leg *info;
  bool any = false;

  for (; legs != 0; legs &= legs - 1) {
    info = &log->legs[__builtin_ctzl (legs)].info;
    if (log_stamp_time (info) <= now ||
        (!all && info->state == DM_LOG_IN_SYNC))
      continue;
    info->until = MAX (info->until, log_stamp_time (info));
    info->stamp.mtime = now - MIN (now, NSEC_PER_SEC);
    log->super_wanted++;
    any = true;
  }
  return any;
}

static bool
lease_has_run_out (const struct dm_log *log, uint64_t now)
{
  return log->lease < now + LEASE_MARGIN || log->latest_stamp > now;
}

static bool
lease_is_wanted (const struct dm_log *log, uint64_t now)
{
  unsigned long legs = log_all_legs (log) & ~log->absent;

  for (; legs != 0; legs &= legs - 1)
    if (log->legs[__builtin_ctzl (legs)].info.until < now + LEASE_MARGIN)
      return false;
  return true;
}

bool
log_want_lease (struct dm_log *log, uint64_t now)
{
  if (!lease_has_run_out (log, now))
    return true;
  set_stamps_back (log, now, true);
  if (!lease_is_wanted (log, now))
    extend (log, now + LEASE);
  return false;
}

int
dm_log_keep_lease (struct dm_log *log)
{
  uint64_t now = clock_date ();
  int r = 0;

  pthread_mutex_lock (&log->lock);
  if (log->dead)
    r = -EIO;
  else if (set_stamps_back (log, now, false) || log->lease < now + LEASE_LEFT)
    do {
      extend (log, now + LEASE);
      r = log_commit (log, false);
      now = clock_date ();      /* that may have taken as long as the lease */
    } while (r == 0 && log->lease < now + LEASE_MARGIN);
  pthread_mutex_unlock (&log->lock);
  return r;
}

/* Nothing is dirty, and the stamps of the legs in sync are what they are like: so
 * any change is somebody else's, until a lease is wanted again.
 */
void
log_end_lease (struct dm_log *log)
{
  unsigned long legs = log_all_legs (log) & ~log->absent;
  struct log_leg *leg;

  for (; legs != 0; legs &= legs - 1) {
    leg = &log->legs[__builtin_ctzl (legs)];
    if (leg->info.state != DM_LOG_IN_SYNC || !leg->info.stamp.valid ||
        leg->info.until == 0)
      continue;
    leg->info.until = leg->until = 0;
    log->super_wanted++;
  }
  log_recompute_lease (log);
}

/* Locked. */
void
log_set_stamp (struct dm_log *log, unsigned int leg,
               const struct bdev_stamp *stamp)
{
  struct bdev_stamp *old = &log->legs[leg].info.stamp;

  if (old->valid == stamp->valid && old->size == stamp->size &&
      old->mtime == stamp->mtime)
    return;
  *old = *stamp;
  log->super_wanted++;
}

int
dm_log_stamp (struct dm_log *log, const struct bdev_stamp *stamps)
{
  unsigned long legs;
  int r = 0;

  pthread_mutex_lock (&log->lock);
  for (legs = log_all_legs (log) & ~log->absent; legs != 0; legs &= legs - 1)
    log_set_stamp (log, __builtin_ctzl (legs), &stamps[__builtin_ctzl (legs)]);
  if (!log_has_dirty (log))
    log_end_lease (log);
  if (log->super_wanted != log->super_durable)
    r = log_commit (log, false);
  pthread_mutex_unlock (&log->lock);
  return r;
}

/* Locked. */
static int
stamp_left (struct dm_log *log, unsigned int leg, const struct bdev_stamp *stamp,
            uint64_t date)
{
  struct log_super_leg *info = &log->legs[leg].info;
  uint64_t until = stamp->valid ? 0 : MIN (info->until, date);

  if (!(log->absent & 1UL << leg))
    return -EAGAIN;
  if (stamp->valid)
    log_set_stamp (log, leg, stamp);
  log->super_wanted += info->until != until;
  info->until = until;
  return log->super_wanted != log->super_durable ? log_commit (log, false) : 0;
}

int
dm_log_left (struct dm_log *log, unsigned int leg, const struct bdev_stamp *stamp,
             uint64_t date)
{
  int r;

  pthread_mutex_lock (&log->lock);
  r = stamp_left (log, leg, stamp, date);
  pthread_mutex_unlock (&log->lock);
  return r;
}

void
dm_log_rest (struct dm_log *log)
{
  unsigned long legs;
  struct log_super_leg *info;
  unsigned int i;

  pthread_mutex_lock (&log->lock);
  log->ended = true;
  log->super_wanted++;
  legs = log_has_dirty (log) ? 0 : log_all_legs (log) & ~log->absent;
  for (; legs != 0; legs &= legs - 1) {
    i = __builtin_ctzl (legs);
    info = &log->legs[i].info;
    if (info->stamp.valid || info->until == 0 ||
        log_next_bit (log->lacking[i].doubtful, 0, log->g.chunks) <
        log->g.chunks)
      continue;
    info->until = 0;
    log->super_wanted++;
  }
  pthread_mutex_unlock (&log->lock);
}
