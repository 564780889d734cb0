/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Copies of the log that are not in use: which may be, which must not be overwritten,
 * and those whose files are no longer where they were.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include <glib.h>

#include "clock.h"
#include "log-private.h"
#include "log-read.h"

/* Locked.  The copies beside legs that are away. */
static unsigned long
copies_away (const struct dm_log *log)
{
  unsigned long copies = 0, legs = log->away;
  const char *id;
  unsigned int i;

  for (; legs != 0; legs &= legs - 1) {
    id = log->legs[__builtin_ctzl (legs)].id;
    for (i = 0; i < log->num_copies; i++)
      if (g_strcmp0 (log->copies[i].leg, id) == 0)
        copies |= 1UL << i;
  }
  return copies;
}

void
dm_log_set_away (struct dm_log *log, unsigned int leg, bool away)
{
  unsigned long copies;

  pthread_mutex_lock (&log->lock);
  if (away)
    log->away |= 1UL << leg;
  else
    log->away &= ~(1UL << leg);
  copies = copies_away (log) & log->current;
  if (copies != 0 && copies != log->current)
    log_expel (log, copies);
  pthread_mutex_unlock (&log->lock);
}

/* May what was sent to a copy still be written there?  Then it would be over what is
 * newer (S5).
 */
static bool
is_in_doubt (const struct log_copy *copy)
{
  uint64_t now = clock_now ();

  return now < copy->doubt_until ||
    now < __atomic_load_n (&copy->region.bdev->late_until, __ATOMIC_ACQUIRE);
}

bool
log_is_doubtful (const struct dm_log *log)
{
  unsigned int i;

  for (i = 0; i < log->num_copies; i++)
    if (is_in_doubt (&log->copies[i]))
      return true;
  return false;
}

unsigned long
log_unused_copies (const struct dm_log *log)
{
  unsigned long copies = 0;
  unsigned int i;

  for (i = 0; i < log->num_copies; i++)
    if (!(log->current & 1UL << i) && !log->copies[i].too_small &&
        !log->copies[i].region.bdev->read_only &&
        !is_in_doubt (&log->copies[i]))
      copies |= 1UL << i;
  return log->dead ? copies & log->last : copies & ~copies_away (log);
}

/* Is this copy beside the leg, or on the same device? */
static bool
is_of_leg (const struct dm_log *log, const struct log_copy *copy,
           unsigned int leg, const struct block_device *bdev)
{
  return g_strcmp0 (copy->leg, log->legs[leg].id) == 0 ||
    (bdev->file != NULL && copy->region.bdev->file == bdev->file);
}

bool
dm_log_is_set_back (struct dm_log *log, unsigned int leg,
                    const struct block_device *bdev)
{
  unsigned int i;

  for (i = 0; i < log->num_copies; i++)
    if (log->copies[i].set_back && is_of_leg (log, &log->copies[i], leg, bdev))
      return true;
  return false;
}

/* Is what is there surely what the last server sent?  Soon after such writes can be done
 * nobody else has used it.
 */
#define SOON (30 * NSEC_PER_SEC)
static bool
came_late (const struct log_copy *copy)
{
  return copy->late && clock_now () < copy->doubt_until + SOON;
}

/* May this copy be overwritten?  Not if it knows what we do not (unless that is what the
 * last server sent there, and nobody was told that it was done), or is of another
 * mirror, as what an NBD server has now may be; nor, if another file is in its place,
 * if that is not blank.
 */
static bool
may_overwrite (struct dm_log *log, struct log_copy *copy)
{
  struct log_writer writer = { 0 };
  struct log_find find = { .what = LOG_FIND_UNREADABLE };
  bool may;

  if (log_writer_init (&writer))
    log_find_copy (&copy->region, writer.buffer, writer.checksum, &find);
  log_writer_fini (&writer);
  pthread_mutex_lock (&log->lock);
  log_wait_to_lead (log);       /* it owns the superblock */
  may = find.what == LOG_FIND_BLANK ||
    (find.what == LOG_FIND_CORRUPT && !copy->displaced) ||
    (find.what == LOG_FIND_VALID &&
     (log_knows_no_more (&find.super, &log->super) ||
      (came_late (copy) &&
       memcmp (find.super.uuid, log->uuid, LOG_UUID) == 0)));
  log_end_to_lead (log);
  pthread_mutex_unlock (&log->lock);
  if (!may && !copy->foreign && find.what != LOG_FIND_UNREADABLE)
    g_warning ("log copy %s: something else is there now that is no older state "
               "of this log; it is not overwritten, so this copy is not used; "
               "move that away", copy->name);
  copy->foreign = !may;
  if (may)
    copy->displaced = false;    /* what is there from now on is ours */
  return may;
}

/* The copies in use whose files are not where they were; *REPLACED: others are. */
static unsigned long
find_displaced (struct dm_log *log, unsigned long *replaced)
{
  unsigned long displaced = 0, copies;
  enum bdev_place place;
  unsigned int i;

  *replaced = 0;
  pthread_mutex_lock (&log->lock);
  copies = log->current;
  pthread_mutex_unlock (&log->lock);
  for (; copies != 0; copies &= copies - 1) {
    i = __builtin_ctzl (copies);
    place = bdev_place (log->copies[i].region.bdev);
    if (place != BDEV_IN_PLACE)
      displaced |= 1UL << i;
    if (place == BDEV_REPLACED)
      *replaced |= 1UL << i;
  }
  return displaced;
}

/* Locked, but for the I/O.  There is no other that could be told first. */
static void
remake_last (struct dm_log *log, unsigned int i, bool replaced)
{
  struct log_copy *copy = &log->copies[i];

  if (!replaced && log_remake (log, i)) {
    g_warning ("log copy %s: its file was deleted while it was in use, and has "
               "been made anew", copy->name);
    copy->displaced = false;
  }
  else if (!copy->displaced && !log->dead) {
    g_warning ("log copy %s: its file was %s while it was in use, and there is "
               "no other copy: without it the mirror cannot be started again; "
               "%s", copy->name, replaced ? "replaced" : "deleted", replaced ?
               "move away what is there now" :
               "make it possible to create it there");
    copy->displaced = true;
  }
}

void
dm_log_look_after (struct dm_log *log)
{
  unsigned long replaced, displaced = find_displaced (log, &replaced);
  unsigned long others, left;
  struct log_copy *copy;

  if (displaced == 0)
    return;
  pthread_mutex_lock (&log->lock);
  displaced &= log->current;
  others = displaced;
  if (displaced == log->current)        /* one stays until another is back */
    others &= others - 1;
  for (left = others; left != 0; left &= left - 1) {
    copy = &log->copies[__builtin_ctzl (left)];
    copy->displaced = true;
    g_warning ("log copy %s: its file was deleted or replaced while it was in "
               "use: it is made anew", copy->name);
  }
  if (others != 0)
    log_expel (log, others);
  else if (displaced != 0)
    remake_last (log, __builtin_ctzl (displaced), replaced & displaced);
  pthread_mutex_unlock (&log->lock);
  if (others != 0)
    dm_log_restore (log);
}

/* Locked.  Wait until nobody else looks at copies that are not in use. */
static void
begin_to_look (struct dm_log *log)
{
  while (log->restoring)
    pthread_cond_wait (&log->progress, &log->lock);
  log->restoring = true;
}

/* Locked. */
static void
end_to_look (struct dm_log *log)
{
  log->restoring = false;
  pthread_cond_broadcast (&log->progress);
}

/* Its fields belong to whoever leads a commit, or looks at copies that are not in use. */
void
dm_log_add_copy (struct dm_log *log, const struct dm_log_copy *copy)
{
  struct log_copy *c = NULL;

  pthread_mutex_lock (&log->lock);
  begin_to_look (log);
  log_wait_to_lead (log);
  if (log->num_copies < LOG_MAX_COPIES)
    c = log_new_copy (log, copy);
  if (c != NULL && log->loaded != 0 && copy->region.bdev->late > 0)
    c->doubt_until = log->loaded + copy->region.bdev->late;
  log_end_to_lead (log);
  end_to_look (log);
  pthread_mutex_unlock (&log->lock);
  if (c == NULL)
    g_warning ("log copy %s: it is not used: there are %d already",
               copy->name, LOG_MAX_COPIES);
  else if (c->too_small)
    g_warning ("log copy %s: it is not used: it has %" PRIu64 " sectors, but "
               "%u are needed", copy->name, copy->region.count,
               log->g.blocks * LOG_BLOCK_SECTORS);
}

bool
dm_log_restore (struct dm_log *log)
{
  unsigned long copies, left, used = 0;
  struct log_copy *copy;
  unsigned int i;

  pthread_mutex_lock (&log->lock);
  copies = log->restoring ? 0 : log_unused_copies (log);
  if (copies != 0)
    begin_to_look (log);
  pthread_mutex_unlock (&log->lock);
  if (copies == 0)
    return false;

  for (left = copies; left != 0; left &= left - 1) {
    i = __builtin_ctzl (left);
    copy = &log->copies[i];
    if (bdev_place (copy->region.bdev) != BDEV_IN_PLACE)
      copy->displaced = true;
    if (bdev_revive (copy->region.bdev) < 0 || !may_overwrite (log, copy))
      copies &= ~(1UL << i);
  }
  pthread_mutex_lock (&log->lock);
  if (copies != 0)
    used = log_bring_in (log, copies, LOG_LABEL_USED);
  for (left = used; left != 0; left &= left - 1)
    log->copies[__builtin_ctzl (left)].late = false;
  end_to_look (log);
  pthread_mutex_unlock (&log->lock);
  return used != 0;
}

/*----------------------------------------------------------------------
 * Split brain
 */

/* Locked.  Copies that are not in use and say what became of a leg: those beside it or
 * on its device, and those that are beside no leg.
 */
static unsigned long
copies_of (const struct dm_log *log, unsigned int leg,
           const struct block_device *bdev)
{
  const struct log_copy *copy;
  unsigned long copies = 0;
  unsigned int i;

  for (i = 0; i < log->num_copies; i++) {
    copy = &log->copies[i];
    if (!(log->current & 1UL << i) &&
        (copy->leg == NULL || is_of_leg (log, copy, leg, bdev)))
      copies |= 1UL << i;
  }
  return copies;
}

/* Has this copy seen changes of the leg that we have not?  1, 0, or -EAGAIN if that cannot
 * be found out now.  SUPER is ours.  What is no server is locked, so nobody else has used
 * it.
 */
static int
has_seen_more (struct dm_log *log, struct log_copy *copy, unsigned int leg,
               const struct log_super *super, const struct log_writer *writer)
{
  struct log_find find;

  int unseen = copy->region.bdev->late > 0 ? -EAGAIN : 0;

  if (bdev_revive (copy->region.bdev) < 0)
    return unseen;
  log_find_copy (&copy->region, writer->buffer, writer->checksum, &find);
  if (find.what == LOG_FIND_UNREADABLE || find.what == LOG_FIND_UNKNOWN)
    return unseen;
  if (find.what != LOG_FIND_VALID || came_late (copy) ||
      memcmp (find.super.uuid, super->uuid, LOG_UUID) != 0 ||
      log_knows_no_more (&find.super, super))
    return 0;
  pthread_mutex_lock (&log->lock);
  if (copy->other_epoch != find.super.epoch)
    copy->innocent = ~log->absent;
  copy->other_epoch = find.super.epoch;
  pthread_mutex_unlock (&log->lock);
  return !(copy->innocent & 1UL << leg);
}

/* Those of the copies of a leg that have seen more.  Called by whoever looks.  -EAGAIN if
 * any cannot be looked at now, or 0.
 */
static int
seen_more (struct dm_log *log, unsigned int leg,
           const struct block_device *bdev, const struct log_writer *writer,
           unsigned long *copies)
{
  struct log_super super;
  unsigned long left;
  int r = 0, seen;

  *copies = 0;
  pthread_mutex_lock (&log->lock);
  left = copies_of (log, leg, bdev);
  log_wait_to_lead (log);       /* it owns the superblock */
  super = log->super;
  log_end_to_lead (log);
  pthread_mutex_unlock (&log->lock);
  for (; left != 0; left &= left - 1) {
    seen = has_seen_more (log, &log->copies[__builtin_ctzl (left)], leg, &super,
                          writer);
    if (seen < 0)
      r = seen;
    else if (seen > 0)
      *copies |= left & -left;
  }
  return r;
}

int
dm_log_split_brain (struct dm_log *log, unsigned int leg,
                    const struct block_device *bdev, bool overwrite,
                    char **copy)
{
  struct log_writer writer = { 0 };
  unsigned long copies = 0;
  int r = -ENOMEM;

  *copy = NULL;
  pthread_mutex_lock (&log->lock);
  begin_to_look (log);
  pthread_mutex_unlock (&log->lock);
  if (log_writer_init (&writer)) {
    r = seen_more (log, leg, bdev, &writer, &copies);
    if (r == 0 && overwrite && !log_erase (log, &writer, copies))
      r = -EIO;
  }
  log_writer_fini (&writer);
  pthread_mutex_lock (&log->lock);
  end_to_look (log);
  pthread_mutex_unlock (&log->lock);
  if (copies != 0)
    *copy = g_strdup (log->copies[__builtin_ctzl (copies)].name);
  return r;
}
