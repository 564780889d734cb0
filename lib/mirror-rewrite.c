/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Legs in sync that may show what they have not kept, since a flush of them has failed.  A
 * kernel that could not write a page forgets that it has to, and shows it as before; a
 * later flush does not tell.  So they are written again what they show, and flushed, before
 * anything becomes clean (F1).
 *
 * Locks: rewriting owns when it is tried next, and has one thread do it; it comes before
 * the ranges and state_lock.
 */

#include <config.h>

#include <errno.h>

#include <glib.h>

#include "clock.h"
#include "mirror.h"

bool
mirror_cannot_flush (const struct dm_mirror *m)
{
  unsigned long in_sync = mirror_in_sync (m);

  return COUNT (in_sync) == 1 && in_sync == mirror_unflushed (m);
}

void
mirror_set_unflushed (struct dm_mirror *m, unsigned int leg)
{
  mirror_set_member (&m->unflushed, leg, true);
  mirror_set_partial (m, 0);
}

void
mirror_distrust (struct dm_mirror *m, unsigned long legs)
{
  pthread_mutex_lock (&m->state_lock);
  legs &= m->in_sync & ~m->unflushed;
  if (legs != 0)
    mirror_note_loss (m);
  FOR_EACH_LEG (i, legs)
    mirror_set_unflushed (m, i);
  pthread_mutex_unlock (&m->state_lock);
}

/* It stays dirty until it can be read, and is written again then. */
static void
leave_unread (struct dm_mirror *m, uint64_t chunk)
{
  pthread_mutex_lock (&m->state_lock);
  dm_log_unreconcile (m->log, chunk * dm_log_chunk (m->log), 1);
  __atomic_store_n (&m->unreconciled, true, __ATOMIC_RELEASE);
  pthread_mutex_unlock (&m->state_lock);
}

/* These legs count again: all that they show is durable, but for chunks that could not be
 * read if not ALL; unless there are more LOSSES by now than then.
 */
static bool
trust (struct dm_mirror *m, unsigned long legs, unsigned int losses, bool all)
{
  bool same;

  pthread_mutex_lock (&m->state_lock);
  same = m->losses == losses;
  legs &= same ? m->unflushed : 0;
  FOR_EACH_LEG (i, legs)
    mirror_set_member (&m->unflushed, i, false);
  pthread_mutex_unlock (&m->state_lock);
  FOR_EACH_LEG (i, legs)
    mirror_report (m, i, "has been flushed, with all that it might have lost%s",
                   all ? "" : " and that could be read");
  return same;
}

/* 0, or 1 if all has been but what cannot be read now, or a negative errno. */
static int
rewrite_dirty (struct dm_mirror *m)
{
  g_autofree unsigned char *buffer =
    g_try_malloc (MIRROR_PIECE * DM_IO_SECTOR_SIZE);
  struct mirror_item item = { .rewrite = true };
  uint64_t end = mirror_chunks (m);
  bool unread = false;
  int r = buffer == NULL ? -ENOMEM : 0;

  for (item.first = dm_log_next_dirty (m->log, 0); r == 0 && item.first < end;
       item.first = dm_log_next_dirty (m->log, item.end)) {
    item.end = item.first + 1;
    r = dm_log_keep_lease (m->log);
    if (r == 0)
      r = mirror_copy_item (m, &item, buffer, false);
    if (r == -ENODATA) {
      leave_unread (m, item.first);
      unread = true;
      r = 0;
    }
  }
  if (r == 0)
    r = mirror_flush_legs (m, mirror_in_sync (m));
  return r == 0 ? unread : r;
}

void
mirror_copy_again (struct dm_mirror *m)
{
  FOR_EACH_LEG (i, mirror_recovering (m)) {
    dm_log_lack_dirty (m->log, i);
    m->legs[i].recoveries++;
  }
}

/* First they may be flushed again: if a flush fails from now on, whoever asks for it, the
 * last one here does, too.  What clients write to them meanwhile is covered by it.
 */
static void
try_to_rewrite (struct dm_mirror *m)
{
  unsigned long legs = mirror_unflushed (m);
  unsigned int losses = __atomic_load_n (&m->losses, __ATOMIC_ACQUIRE);
  uint64_t longest;
  int r;

  pthread_mutex_lock (&m->state_lock);
  m->rewrites++;                /* no other leg joins meanwhile */
  pthread_mutex_unlock (&m->state_lock);
  FOR_EACH_LEG (i, legs)
    bdev_flush_again (m->legs[i].region.bdev);
  r = rewrite_dirty (m);
  if (r >= 0 && trust (m, legs, losses, r == 0)) {
    m->rewrite_delay = MIRROR_FIRST_DELAY;
    return;
  }
  /* What they showed when others were recovered from them they may have lost. */
  pthread_mutex_lock (&m->state_lock);
  mirror_copy_again (m);
  pthread_mutex_unlock (&m->state_lock);
  m->rewrite_at = clock_now () + m->rewrite_delay;
  /* Who recovers needs time to get it all between two tries. */
  longest = mirror_recovering (m) == 0 ? MIRROR_LAST_DELAY : UINT64_MAX / 4;
  m->rewrite_delay = MIN (2 * m->rewrite_delay, longest);
  FOR_EACH_LEG (i, mirror_unflushed (m))
    mirror_report (m, i, "cannot be flushed, and what it may have lost cannot be "
                   "written again yet");
}

void
mirror_rewrite_several (struct dm_mirror *m)
{
  if (COUNT (mirror_in_sync (m)) > 1)
    mirror_rewrite (m);
}

int
mirror_rewrite (struct dm_mirror *m)
{
  if (mirror_unflushed (m) == 0)
    return 0;
  pthread_mutex_lock (&m->rewriting);
  if (mirror_unflushed (m) != 0 && clock_now () >= m->rewrite_at)
    try_to_rewrite (m);
  pthread_mutex_unlock (&m->rewriting);
  return mirror_unflushed (m) == 0 ? 0 : -EIO;
}
