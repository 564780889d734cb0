/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Chunks in doubt (S5).
 *
 * A change that failed since its connection ended may be done by the server later.
 * Each that fails so puts its chunks in doubt on that leg, with its range locked;
 * they are lacking there, and are copied when that time is over.  Who copies to them
 * needs their range, so nobody does before that is known.
 */

#include <config.h>

#include <glib.h>

#include "mirror.h"

static uint64_t
late_until (const struct dm_mirror *m, unsigned int leg)
{
  const struct leg *l = &m->legs[leg];

  return MAX (l->doubt_until,
              __atomic_load_n (&l->region.bdev->late_until,
                               __ATOMIC_ACQUIRE));
}

void
mirror_doubt (struct dm_mirror *m, const struct mirror_failure *f)
{
  FOR_EACH_LEG (i, f->legs)
    if (clock_now () < late_until (m, i)) {
      dm_log_doubt (m->log, i, f->sector, f->count);
      __atomic_or_fetch (&m->in_doubt, 1UL << i, __ATOMIC_RELEASE);
    }
}

void
mirror_begin_doubt (struct dm_mirror *m, unsigned long legs, uint64_t until)
{
  FOR_EACH_LEG (i, legs) {
    dm_log_doubt_all (m->log, i);
    m->legs[i].doubt_until = until;
  }
  __atomic_or_fetch (&m->in_doubt, legs, __ATOMIC_RELEASE);
}

/* What was copied while they were in doubt does not count. */
void
mirror_end_doubt (struct dm_mirror *m)
{
  bool any = false;

  if (__atomic_load_n (&m->in_doubt, __ATOMIC_ACQUIRE) == 0)
    return;
  pthread_mutex_lock (&m->state_lock);
  FOR_EACH_LEG (i, m->in_doubt)
    if (clock_now () >= late_until (m, i)) {
      if (mirror_in_sync (m) & 1UL << i)
        __atomic_store_n (&m->unreconciled, true, __ATOMIC_RELEASE);
      dm_log_end_doubt (m->log, i);
      m->doubt_ended = clock_now ();
      m->legs[i].recoveries++;
      __atomic_and_fetch (&m->in_doubt, ~(1UL << i), __ATOMIC_RELEASE);
      any = true;
    }
  if (any)
    pthread_cond_broadcast (&m->state_changed);
  pthread_mutex_unlock (&m->state_lock);
  if (any)
    mirror_wake (m);
}

/* A new leg gets into the sets at any time, and then it may be less. */
static bool
is_in_doubt (struct dm_mirror *m, sector_t sector, sector_t count)
{
  unsigned long in_sync = mirror_in_sync (m);

  return (__atomic_load_n (&m->in_doubt, __ATOMIC_ACQUIRE) & in_sync) ==
    in_sync && dm_log_in_doubt (m->log, in_sync, sector, count);
}

void
mirror_await_doubt (struct dm_mirror *m, sector_t sector, sector_t count)
{
  if (__atomic_load_n (&m->in_doubt, __ATOMIC_ACQUIRE) == 0 ||
      !is_in_doubt (m, sector, count))
    return;
  pthread_mutex_lock (&m->state_lock);
  while (!m->stop && is_in_doubt (m, sector, count))
    pthread_cond_wait (&m->state_changed, &m->state_lock);
  pthread_mutex_unlock (&m->state_lock);
}
