/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* One list in order of arrival holds the ranges that are locked and
 * those that wait.  A range waits for every earlier one that overlaps
 * it, so nobody is overtaken and nobody starves; but for one that is
 * only waited for nobody waits.  There are as many
 * ranges as there are requests in flight, some tens; a list is all it
 * takes.
 */

#include <config.h>

#include <assert.h>
#include <stddef.h>

#include "range-lock.h"

void
range_locks_init (struct range_locks *locks)
{
  pthread_mutex_init (&locks->lock, NULL);
  locks->first = locks->last = NULL;
}

void
range_locks_fini (struct range_locks *locks)
{
  assert (locks->first == NULL);
  pthread_mutex_destroy (&locks->lock);
}

static bool
overlap (const struct range_lock *a, const struct range_lock *b)
{
  return a->start < b->end && b->start < a->end;
}

/* The next three are called with the lock held. */

static void
append (struct range_locks *locks, struct range_lock *range)
{
  range->prev = locks->last;
  range->next = NULL;
  if (locks->last != NULL)
    locks->last->next = range;
  else
    locks->first = range;
  locks->last = range;
}

static void
unlink_range (struct range_locks *locks, struct range_lock *range)
{
  if (range->prev != NULL)
    range->prev->next = range->next;
  else
    locks->first = range->next;
  if (range->next != NULL)
    range->next->prev = range->prev;
  else
    locks->last = range->prev;
}

static unsigned int
count_blockers (const struct range_locks *locks,
                const struct range_lock *range)
{
  const struct range_lock *other;
  unsigned int n = 0;

  for (other = locks->first; other != NULL; other = other->next)
    n += !other->passing && overlap (other, range);
  return n;
}

/* Called with the lock held, for a range in the list. */
static void
wait_for_blockers (struct range_locks *locks, struct range_lock *range)
{
  if (range->blockers == 0)
    return;
  pthread_cond_init (&range->granted, NULL);
  while (range->blockers > 0)
    pthread_cond_wait (&range->granted, &locks->lock);
  pthread_cond_destroy (&range->granted);
}

void
range_lock (struct range_locks *locks, struct range_lock *range,
            uint64_t start, uint64_t length)
{
  range->start = start;
  range->end = start + length;
  range->passing = false;

  pthread_mutex_lock (&locks->lock);
  range->blockers = count_blockers (locks, range);
  append (locks, range);
  wait_for_blockers (locks, range);
  pthread_mutex_unlock (&locks->lock);
}

void
range_wait (struct range_locks *locks, uint64_t start, uint64_t length)
{
  struct range_lock range = {
    .start = start, .end = start + length, .passing = true,
  };

  pthread_mutex_lock (&locks->lock);
  range.blockers = count_blockers (locks, &range);
  if (range.blockers > 0) {
    append (locks, &range);
    wait_for_blockers (locks, &range);
    unlink_range (locks, &range);
  }
  pthread_mutex_unlock (&locks->lock);
}

void
range_unlock (struct range_locks *locks, struct range_lock *range)
{
  struct range_lock *later;

  pthread_mutex_lock (&locks->lock);
  for (later = range->next; later != NULL; later = later->next)
    if (overlap (range, later) && --later->blockers == 0)
      pthread_cond_signal (&later->granted);
  unlink_range (locks, range);
  pthread_mutex_unlock (&locks->lock);
}
