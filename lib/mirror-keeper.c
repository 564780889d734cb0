/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The keeper, a thread: it tries legs again that have failed or are missing, notices those
 * that have lost their connection, and lets the log know what legs are like that have
 * left.  Nobody else lets legs recover.  It holds no lock while it opens one or looks at
 * it, which may take long.
 */

#include <config.h>

#include <errno.h>

#include <glib.h>

#include "mirror.h"

#define KEEPER_NSEC NSEC_PER_SEC
#define OUTAGE_NSEC (5 * NSEC_PER_SEC)
/* So long is a copy of the log waited for that may tell of a leg. */
#define UNSEEN_NSEC (30 * NSEC_PER_SEC)

static bool
has_failed (const struct block_device *bdev)
{
  return __atomic_load_n (&bdev->failed, __ATOMIC_RELAXED);
}

static void
try_later (struct dm_mirror *m, unsigned int leg, uint64_t delay)
{
  pthread_mutex_lock (&m->state_lock);
  m->legs[leg].retry_at = clock_now () + delay;
  pthread_mutex_unlock (&m->state_lock);
}

/* No leg in sync can be reached.  One that has only lost its connection has all
 * that was acknowledged, so it is waited for, for a while.
 */
static bool
may_try_again (struct dm_mirror *m)
{
  unsigned long waiting = 0;

  FOR_EACH_LEG (i, mirror_in_sync (m))
    if (!has_failed (m->legs[i].region.bdev))
      waiting |= 1UL << i;
  return waiting == 0 || (m->outage_since != 0 &&
                          clock_now () - m->outage_since >= OUTAGE_NSEC);
}

/* All legs in sync have lost their connections, and this one perhaps writes.  There
 * is nothing better than to use it again, if it is the first to be back; but
 * flushes have to fail, and all others lack what was not flushed (W4, F1).
 * Nobody but this thread lets legs recover, or uses one again that has failed.
 */
static void
try_first_back (struct dm_mirror *m, unsigned int leg)
{
  if (mirror_go_on_with (m, leg))
    mirror_report (m, leg, "is used again, the first in sync that is back (a "
                   "flush of each client will fail, since writes may have "
                   "been lost)");
}

/* Called with state_lock, when a copy of the log cannot be reached: has it been waited for
 * long enough?
 */
static bool
has_waited (struct leg *l)
{
  if (l->unseen_since == 0)
    l->unseen_since = clock_now ();
  return clock_now () - l->unseen_since >= UNSEEN_NSEC;
}

/* Called with state_lock, when it has been found out if a leg may return. */
static void
note_verdict (struct dm_mirror *m, unsigned int leg,
              enum mirror_return verdict, const char *error)
{
  struct leg *l = &m->legs[leg];

  if (l->retry_at != UINT64_MAX)
    return;                     /* the user has added it meanwhile */
  if (verdict != MIRROR_RETURN_LATER)
    l->unseen_since = 0;
  if (verdict == MIRROR_RETURN)
    l->retry_at = 0;
  else if (error == NULL)
    l->retry_at = clock_now () + KEEPER_NSEC;
  else if (verdict == MIRROR_SPLIT_BRAIN)
    mirror_set_state (m, leg, DM_MIRROR_FAILED, "split brain");
  else {
    mirror_set_state (m, leg, DM_MIRROR_FAILED,
                      "its copy of the log cannot be looked at");
    l->retry_at = clock_now () + MIRROR_LAST_DELAY;
  }
}

/* It can be reached again: may it be used? */
static void
try_to_recover (struct dm_mirror *m, unsigned int leg)
{
  struct leg *l = &m->legs[leg];
  g_autofree char *error = NULL;
  enum mirror_return verdict;

  pthread_mutex_lock (&m->state_lock);
  l->retry_at = UINT64_MAX;     /* until somebody says otherwise */
  pthread_mutex_unlock (&m->state_lock);
  verdict = mirror_may_return (m, leg, l->region.bdev, &error);
  pthread_mutex_lock (&m->state_lock);
  if (verdict == MIRROR_RETURN_LATER && error == NULL && has_waited (l))
    verdict = MIRROR_RETURN;
  note_verdict (m, leg, verdict, error);
  pthread_mutex_unlock (&m->state_lock);
  if (error != NULL)
    g_warning ("%s", error);
  else if (verdict == MIRROR_RETURN && mirror_begin_recovery (m, leg))
    mirror_wake (m);
}

/* A leg that failed: can it be used again? */
static void
try_failed (struct dm_mirror *m, unsigned int leg)
{
  int r = bdev_revive (m->legs[leg].region.bdev);

  if (r == 0)
    try_to_recover (m, leg);
  else if (r == -EAGAIN)
    try_later (m, leg, KEEPER_NSEC);
  else {
    mirror_report (m, leg, "cannot be used before restart, or until that is "
                   "mended and it is added again (%s)", g_strerror (-r));
    pthread_mutex_lock (&m->state_lock);
    m->legs[leg].retry_at = UINT64_MAX;
    pthread_mutex_unlock (&m->state_lock);
  }
}

static void
try_missing (struct dm_mirror *m, unsigned int leg, uint64_t delay)
{
  struct leg *l = &m->legs[leg];
  g_autofree char *error = NULL;
  struct io_region region;

  if (m->options.reopen == NULL ||
      !m->options.reopen (m->options.context, l->name, &region))
    try_later (m, leg, delay);
  else if (!mirror_readmit (m, leg, &region, &error)) {
    g_warning ("%s", error);
    m->options.unopen (m->options.context, &region);
    try_later (m, leg, MIRROR_LAST_DELAY);
  }
}

static void
keep_leg (struct dm_mirror *m, unsigned int leg)
{
  struct leg *l = &m->legs[leg];
  enum dm_mirror_state state;
  uint64_t delay;
  bool due;

  pthread_mutex_lock (&m->state_lock);
  state = l->state;
  delay = l->delay;
  due = !l->by_user && clock_now () >= l->retry_at;
  pthread_mutex_unlock (&m->state_lock);

  if (state == DM_MIRROR_IN_SYNC || state == DM_MIRROR_RECOVERING) {
    if (!has_failed (l->region.bdev))
      return;
    if (state == DM_MIRROR_RECOVERING || !mirror_is_outage (m))
      mirror_failed_flush (m, leg, ENOTCONN);
    else if (may_try_again (m))
      try_first_back (m, leg);
  }
  else if (!due)
    return;
  else if (state != DM_MIRROR_MISSING)
    try_failed (m, leg);
  else if (l->given)
    try_missing (m, leg, delay);
}

void *
mirror_keeper (void *arg)
{
  struct dm_mirror *m = arg;
  unsigned int i;

  pthread_mutex_lock (&m->state_lock);
  while (!m->stop) {
    pthread_mutex_unlock (&m->state_lock);
    mirror_end_doubt (m);
    if (!mirror_is_outage (m))
      m->outage_since = 0;
    else if (m->outage_since == 0)
      m->outage_since = clock_now ();
    for (i = 0; i < dm_mirror_num_legs (m); i++) {
      mirror_stamp_left (m, i);
      keep_leg (m, i);
    }
    pthread_mutex_lock (&m->state_lock);
    if (!m->stop)
      mirror_wait_until (&m->state_changed, &m->state_lock,
                  clock_now () + KEEPER_NSEC);
  }
  pthread_mutex_unlock (&m->state_lock);
  return NULL;
}
