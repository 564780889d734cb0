/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Legs that lack only chunks in doubt (S5).
 *
 * Such a leg is one of those that recover.  It is written like those in sync, so in all
 * other chunks it has what they have; there it is read, and counts for quorum=.  It is none
 * of those that decide: a write that it has and all in sync refuse has failed, and it leaves
 * then, with what that has left on it.  Who reads it meanwhile must not believe that, nor
 * that it is the same when it is back.
 *
 * There are none while a leg in sync cannot be flushed: they may have what that has lost.
 */

#include <config.h>

#include <glib.h>

#include "mirror.h"

/* So long after a doubt has ended is it waited for that the chunks are copied, and so often
 * looked.
 */
#define COPY_NSEC (60 * NSEC_PER_SEC)
#define LOOK_NSEC (NSEC_PER_SEC / 10)

static unsigned long
partial_legs (const struct dm_mirror *m)
{
  return __atomic_load_n (&m->partial, __ATOMIC_ACQUIRE);
}

unsigned long
mirror_in_sync_for (const struct dm_mirror *m, sector_t sector, sector_t count)
{
  /* First this: a leg that joins is in both for a moment, never in none. */
  unsigned long partial = partial_legs (m), in_sync = mirror_in_sync (m);

  if (partial == 0 || count == 0 || mirror_unflushed (m) != 0)
    return in_sync;
  return in_sync | dm_log_having (m->log, partial, sector, count);
}

void
mirror_begin_reading (const struct dm_mirror *m, struct mirror_reading *r)
{
  r->changes = __atomic_load_n (&m->partial_changes, __ATOMIC_ACQUIRE);
  r->legs = mirror_in_sync_for (m, r->sector, r->count);
  r->in_sync = mirror_in_sync (m);
}

bool
mirror_is_right (struct dm_mirror *m, const struct mirror_reading *r,
                 unsigned int leg)
{
  unsigned long bit = 1UL << leg;

  if (r->in_sync & bit)
    return mirror_in_sync (m) & bit;
  range_wait (&m->ranges, r->sector, r->count);
  return mirror_in_sync_for (m, r->sector, r->count) & bit &&
    !mirror_may_read_again (m, r);
}

bool
mirror_may_read_again (const struct dm_mirror *m,
                       const struct mirror_reading *r)
{
  return __atomic_load_n (&m->partial_changes, __ATOMIC_ACQUIRE) != r->changes;
}

void
mirror_use_in_part (struct dm_mirror *m, unsigned int leg)
{
  bool used;

  pthread_mutex_lock (&m->state_lock);
  used = (m->recovering & ~m->partial) & 1UL << leg && m->unflushed == 0 &&
    dm_log_lacks_only_doubtful (m->log, leg);
  if (used)
    mirror_set_partial (m, m->partial | 1UL << leg);
  pthread_mutex_unlock (&m->state_lock);
  if (used)
    mirror_report (m, leg, "is used again, but for chunks where older writes may still "
                   "land");
}

void
mirror_set_partial (struct dm_mirror *m, unsigned long legs)
{
  if (m->partial == legs)
    return;
  __atomic_store_n (&m->partial, legs, __ATOMIC_RELEASE);
  __atomic_add_fetch (&m->partial_changes, 1, __ATOMIC_ACQ_REL);
}

static bool
are_enough (const struct dm_mirror *m, sector_t sector, sector_t count)
{
  return COUNT (mirror_in_sync_for (m, sector, count)) >= m->quorum;
}

/* The legs of these that lack, and no longer in doubt, what could not be copied to them. */
static unsigned long
stuck_legs (struct dm_mirror *m, unsigned long legs)
{
  pthread_mutex_lock (&m->work.lock);
  legs &= m->work.unread;
  pthread_mutex_unlock (&m->work.lock);
  return legs;
}

/* Called with state_lock, when too few legs have something: is it only a matter of time until
 * enough do?
 */
static bool
will_be_enough (struct dm_mirror *m)
{
  unsigned long legs = m->partial, doubtful = legs & m->in_doubt;

  if (clock_now () >= m->doubt_ended + COPY_NSEC)
    legs = doubtful;
  legs &= ~stuck_legs (m, legs & ~doubtful);
  return COUNT (m->in_sync | legs) >= m->quorum;
}

void
mirror_await_part (struct dm_mirror *m, sector_t sector, sector_t count)
{
  if (partial_legs (m) == 0 || are_enough (m, sector, count))
    return;
  pthread_mutex_lock (&m->state_lock);
  while (!m->stop && !are_enough (m, sector, count) && will_be_enough (m))
    mirror_wait_until (&m->state_changed, &m->state_lock,
                       clock_now () + LOOK_NSEC);
  pthread_mutex_unlock (&m->state_lock);
}
