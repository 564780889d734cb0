/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What becomes of the legs of a mirror with a log.
 *
 *               drop                    bdev_revive
 *   IN SYNC ------------> FAILED ------------------------> RECOVERING
 *      ^                    ^  ^          reopened             |  |
 *      |                    |  |   MISSING ----------------->  |  |
 *      |                    |  +-------------------------------+  |
 *      +----------------------------------------------------------+
 *                        it lacks nothing any more
 *
 * A leg that is FAILED or MISSING is tried again after a time that grows. One
 * that the user has failed is not, until he adds it.  If no leg in sync can be
 * reached none of them is dropped: the one that is back first goes on.
 *
 * Every change is made under state_lock and is durable in the log before it
 * lets anybody hear of success.  A leg leaves the sets at once, so that
 * nobody reads it, and then the log learns of it; it enters in_sync only
 * after the log knows (S1).  Why W6 holds: what a leg took since its last
 * good flush is in chunks that are dirty, since these are cleared only after
 * a flush of all legs; and all dirty chunks are among what a leg lacks that is
 * dropped.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>

#include <glib.h>

#include "mirror.h"

static const char *const state_names[DM_MIRROR_STATES] = {
  [DM_MIRROR_IN_SYNC] = "in sync",
  [DM_MIRROR_RECOVERING] = "recovering",
  [DM_MIRROR_OUT_OF_SYNC] = "out of sync",
  [DM_MIRROR_FAILED] = "failed",
  [DM_MIRROR_MISSING] = "missing",
};

const char *
dm_mirror_state_name (enum dm_mirror_state state)
{
  return state_names[state];
}

void
mirror_report (struct dm_mirror *m, unsigned int leg, const char *fmt, ...)
{
  unsigned int in_sync = COUNT (mirror_in_sync (m));
  unsigned int unflushed = COUNT (mirror_in_sync (m) & mirror_unflushed (m));
  unsigned int partial =
    COUNT (__atomic_load_n (&m->partial, __ATOMIC_RELAXED));
  unsigned int num_legs = dm_mirror_num_legs (m);
  g_autofree char *what = NULL;
  const char *meaning = "volume is degraded; writes since now are recorded";
  va_list args;

  va_start (args, fmt);
  what = g_strdup_vprintf (fmt, args);
  va_end (args);
  if (in_sync + partial < m->quorum)
    meaning = "these are fewer than quorum=, so writes are refused";
  else if (in_sync + partial - unflushed < m->quorum)
    meaning = "what cannot be flushed does not count for quorum=, so writes are "
      "refused";
  else if (in_sync == num_legs)
    meaning = "volume is fully mirrored";
  g_warning ("region %u (%s) %s: %u of %u legs in sync; %s", leg,
             m->legs[leg].name, what, in_sync, num_legs, meaning);
}

void
mirror_note_loss (struct dm_mirror *m)
{
  __atomic_add_fetch (&m->losses, 1, __ATOMIC_ACQ_REL);
}

/* A leg leaves in_sync.  If those that stay cannot be flushed it was the only one that had all
 * for sure: they may have lost what nobody has heard of yet.
 */
static void
note_departure (struct dm_mirror *m, unsigned int leg)
{
  unsigned long bit = 1UL << leg, others = m->in_sync & ~bit;

  if (others != 0 && !(m->unflushed & bit) && (others & ~m->unflushed) == 0)
    mirror_note_loss (m);
}

void
mirror_set_state (struct dm_mirror *m, unsigned int leg,
                  enum dm_mirror_state state, const char *reason)
{
  struct leg *l = &m->legs[leg];

  if (l->state == DM_MIRROR_IN_SYNC && state != l->state)
    note_departure (m, leg);
  mirror_set_member (&m->in_sync, leg, state == DM_MIRROR_IN_SYNC);
  mirror_set_partial (m, m->partial & ~(1UL << leg));
  mirror_set_member (&m->recovering, leg, state == DM_MIRROR_RECOVERING);
  mirror_set_member (&m->unflushed, leg, false);
  if (l->state == DM_MIRROR_IN_SYNC || l->state == DM_MIRROR_RECOVERING)
    mirror_note_left (l);
  if (state != l->state)
    l->recoveries++;
  l->state = state;
  g_free (l->reason);
  l->reason = g_strdup (reason);
}

/*----------------------------------------------------------------------
 * Failing
 */

static void
fail_leg (struct dm_mirror *m, unsigned int leg, const char *reason)
{
  struct leg *l = &m->legs[leg];

  mirror_set_state (m, leg, DM_MIRROR_FAILED, reason);
  l->retry_at = clock_now () + l->delay;
  l->delay = MIN (2 * l->delay, MIRROR_LAST_DELAY);
}

static const char *
consequence (struct dm_mirror *m, unsigned int leg, unsigned long dropped)
{
  if (dropped & 1UL << leg)
    return "it is out of sync from now on";
  if (mirror_in_sync (m) & 1UL << leg)
    return COUNT (mirror_in_sync (m)) > 1 ?
      "it stays in sync, as no other has done it either" :
      "it is the last one in sync, and stays so";
  return "it is out of sync already";
}

static void
log_failures (struct dm_mirror *m, const struct mirror_failure *f,
              unsigned long dropped)
{
  FOR_EACH_LEG (i, f->legs) {
    struct failure failure = {
      .region = i,
      .op = f->op,
      .offset = f->sector * DM_IO_SECTOR_SIZE,
      .length = f->count * DM_IO_SECTOR_SIZE,
      .error = f->results[i].error,
      .consequence = consequence (m, i, dropped),
    };

    failure_log_add (m->failures, &failure);
  }
}

/* Called with state_lock, after legs have left the sets. */
static void
set_failed (struct dm_mirror *m, const struct mirror_failure *f,
            unsigned long dropped)
{
  FOR_EACH_LEG (i, dropped) {
    g_autofree char *reason = f->results[i].error == 0 ?
      g_strdup ("it may have what the leg in sync has not") :
      g_strdup_printf ("%s failed: %s", failure_log_op_name (f->op),
                       g_strerror (f->results[i].error));

    fail_leg (m, i, reason);
  }
}

static bool
device_has_failed (const struct dm_mirror *m, unsigned int leg)
{
  return __atomic_load_n (&m->legs[leg].region.bdev->failed,
                          __ATOMIC_RELAXED);
}

/* True if what a leg took need not be durable, and no flush proves that it is: a kernel
 * that could not write a page forgets that it has to, and shows it as before.
 */
static bool
has_not_flushed (unsigned int leg, const struct mirror_failure *f)
{
  return f->legs & 1UL << leg &&
    (f->op == DM_IO_FLUSH || (f->fua && f->results[leg].error == EIO));
}

/* True if what a leg took may be gone, although it stays in sync. */
static bool
has_lost_writes (struct dm_mirror *m, unsigned int leg,
                 const struct mirror_failure *f)
{
  return has_not_flushed (leg, f) ||
    (f->legs & 1UL << leg && device_has_failed (m, leg));
}

bool
mirror_is_outage (const struct dm_mirror *m)
{
  return (mirror_in_sync (m) & ~mirror_offline (m)) == 0;
}

/* No leg in sync can be reached, and those that come back by themselves, since
 * nothing was in flight to them, have all the same: none was sent this.
 */
static bool
all_are_lost (const struct dm_mirror *m, const struct mirror_failure *f)
{
  if (!mirror_is_outage (m))
    return false;
  FOR_EACH_LEG (i, mirror_in_sync (m))
    if (!device_has_failed (m, i) &&
        (!(f->legs & 1UL << i) || f->results[i].error != ENOTCONN))
      return false;
  return true;
}

static bool
is_change (enum dm_io_op op)
{
  return op != DM_IO_READ && op != DM_IO_FLUSH;
}

/* Called with state_lock. */
static void
distrust (struct dm_mirror *m, unsigned long legs, const struct mirror_failure *f)
{
  FOR_EACH_LEG (i, legs)
    if (has_not_flushed (i, f))
      mirror_set_unflushed (m, i);
}

/* Each leg may have lost something else of what was not flushed. */
static void
unreconcile_dirty (struct dm_mirror *m)
{
  sector_t chunk = dm_log_chunk (m->log);
  uint64_t end = mirror_chunks (m), i;

  for (i = dm_log_next_dirty (m->log, 0); i < end;
       i = dm_log_next_dirty (m->log, i + 1))
    dm_log_unreconcile (m->log, i * chunk, 1);
}

/* Called with state_lock: no leg in sync has done it.  Each may have done a part, so
 * the chunks are made equal before they are read.
 */
static void
note_difference (struct dm_mirror *m, const struct mirror_failure *f)
{
  bool lost = false;

  FOR_EACH_LEG (i, mirror_in_sync (m))
    lost = lost || has_lost_writes (m, i, f);
  if (lost) {
    mirror_note_loss (m);
    distrust (m, mirror_in_sync (m), f);
    unreconcile_dirty (m);
  }
  dm_log_unreconcile (m->log, f->sector, f->count);
  __atomic_store_n (&m->unreconciled, true, __ATOMIC_RELEASE);
  __atomic_add_fetch (&m->differences, 1, __ATOMIC_RELEASE);
}

/* Called with state_lock: which of the legs that have failed leave the sets?  None of
 * those in sync if all are lost: which one goes on depends on which is back first; nor
 * if all have refused a change: none is better than another (W4).  If all have failed
 * a flush one stays; or if all have refused what one of them shows, that one.  Those that
 * recover go then, as they may have what these have not, or have lost.
 */
static unsigned long
choose_dropped (struct dm_mirror *m, const struct mirror_failure *f)
{
  unsigned long in_sync = mirror_in_sync (m), last;

  if (all_are_lost (m, f))
    return mirror_recovering (m);
  if ((in_sync & ~f->legs) != 0)
    return f->legs & mirror_used (m);
  if (is_change (f->op) && COUNT (in_sync) > 1 &&
      (f->shown == 0 || mirror_is_outage (m))) {
    note_difference (m, f);
    return mirror_recovering (m);
  }
  /* What one that is in sync in part shows they have all. */
  if (f->shown & ~in_sync)
    return f->legs & mirror_used (m) & ~in_sync;
  last = preferably_not (in_sync, mirror_offline (m));
  if (last & f->shown)
    last = f->shown;
  last = 1UL << FIRST (preferably_not (last, mirror_unflushed (m)));
  /* Since that was first so it was not written but to be mended: it is one loss.  What is
   * new for those that recover since is found by mirror_rewrite.
   */
  if (f->shown != 0 || (mirror_unflushed (m) & last && f->op == DM_IO_FLUSH))
    return f->legs & mirror_used (m) & ~last;
  if (has_lost_writes (m, FIRST (last), f))
    mirror_note_loss (m);
  distrust (m, last, f);
  return mirror_used (m) & ~last;
}

/*----------------------------------------------------------------------*/

int
mirror_failed (struct dm_mirror *m, const struct mirror_failure *f)
{
  unsigned long dropped;
  int r;

  pthread_mutex_lock (&m->state_lock);
  if (is_change (f->op))
    mirror_doubt (m, f);
  dropped = choose_dropped (m, f);
  set_failed (m, f, dropped);
  r = dm_log_drop (m->log, dropped);
  pthread_cond_broadcast (&m->state_changed);
  pthread_mutex_unlock (&m->state_lock);

  if (is_change (f->op))
    mirror_wake (m);            /* it may have to be reconciled */
  log_failures (m, f, dropped);
  FOR_EACH_LEG (i, dropped)
    mirror_report (m, i, "has failed");
  return r;
}

/* Called with state_lock: revive the leg, and nothing else is in sync then. */
static bool
revive_alone (struct dm_mirror *m, unsigned int leg)
{
  unsigned long in_sync = mirror_in_sync (m), partial = m->partial;

  /* Another file in its place has nothing of it. */
  if (!mirror_is_outage (m) || !(in_sync & 1UL << leg) ||
      bdev_place (m->legs[leg].region.bdev) != BDEV_IN_PLACE)
    return false;
  /* So that none of the others is read if it can be reached just now. */
  __atomic_store_n (&m->in_sync, 1UL << leg, __ATOMIC_RELEASE);
  mirror_set_partial (m, 0);
  if (bdev_revive (m->legs[leg].region.bdev) == 0)
    return true;
  __atomic_store_n (&m->in_sync, in_sync, __ATOMIC_RELEASE);
  mirror_set_partial (m, partial);
  return false;
}

bool
mirror_go_on_with (struct dm_mirror *m, unsigned int leg)
{
  unsigned long others;
  bool ok;

  pthread_mutex_lock (&m->state_lock);
  others = mirror_used (m) & ~(1UL << leg);
  ok = revive_alone (m, leg);
  if (ok) {
    /* A flush that has just succeeded hears of it: it waits for the lock. */
    mirror_note_loss (m);
    FOR_EACH_LEG (i, others)
      fail_leg (m, i, "another was back before it");
    mirror_set_unflushed (m, leg);      /* nobody has heard what it could not keep */
    dm_log_drop (m->log, others);
    pthread_cond_broadcast (&m->state_changed);
  }
  pthread_mutex_unlock (&m->state_lock);
  if (!ok)
    return false;
  FOR_EACH_LEG (i, others)
    mirror_report (m, i, "has failed");
  return true;
}

/* Who takes a leg out of the sets holds the lock until the log knows. */
int
mirror_settle (struct dm_mirror *m)
{
  pthread_mutex_lock (&m->state_lock);
  pthread_mutex_unlock (&m->state_lock);
  return dm_log_drop (m->log, 0);
}

void
mirror_failed_flush (struct dm_mirror *m, unsigned int leg, int error)
{
  struct dm_io_result results[DM_IO_MAX_REGIONS] = { 0 };
  const struct mirror_failure failure = {
    .op = DM_IO_FLUSH, .legs = 1UL << leg, .results = results,
  };

  results[leg].error = error;
  mirror_failed (m, &failure);
}

/* Called with state_lock: is no other leg in sync that can be reached? */
static bool
is_last (struct dm_mirror *m, unsigned int leg)
{
  unsigned long in_sync = mirror_in_sync (m);

  return in_sync & 1UL << leg &&
    (in_sync & ~mirror_offline (m) & ~(1UL << leg)) == 0;
}

void
mirror_displaced (struct dm_mirror *m, unsigned int leg)
{
  struct leg *l = &m->legs[leg];
  bool used, last;

  pthread_mutex_lock (&m->state_lock);
  used = mirror_used (m) & 1UL << leg;
  last = is_last (m, leg);
  if (used && !last) {
    fail_leg (m, leg, "its file was deleted or replaced");
    dm_log_drop (m->log, 1UL << leg);
    dm_log_lose (m->log, leg);
    dm_log_set_away (m->log, leg, true);
  }
  pthread_mutex_unlock (&m->state_lock);
  if (used && !last)
    mirror_report (m, leg, "has failed, as its file was deleted, moved or "
                   "replaced while it was in use");
  else if (used && !l->displaced)
    g_warning ("region %u (%s): its file was deleted, moved or replaced while "
               "it was in use, and no other is in sync: it is lost when this "
               "server ends; add another with 'dmioctl add' now", leg,
               l->name);
  l->displaced = used;
}

int
dm_mirror_fail (struct dm_mirror *m, unsigned int leg)
{
  int r = 0;

  pthread_mutex_lock (&m->state_lock);
  if (is_last (m, leg))
    r = -EBUSY;
  else if (m->legs[leg].state == DM_MIRROR_MISSING)
    r = -ENODEV;
  else {
    mirror_set_state (m, leg, DM_MIRROR_FAILED, "failed by the user");
    m->legs[leg].by_user = true;
    r = dm_log_drop (m->log, 1UL << leg);
    if (r == 0)
      r = dm_log_set_failed (m->log, leg, true);
  }
  pthread_mutex_unlock (&m->state_lock);
  if (r < 0)
    return r;
  mirror_report (m, leg, "is not used any more, as the user wishes");
  clock_await_tick ();          /* so that an edit from now on shows */
  return 0;
}

/*----------------------------------------------------------------------
 * What legs are like that are not used any more
 *
 * A change since they left is somebody else's, so the log gets to know what they are
 * like now (S4).  What they were sent before may change them still: then that is done
 * again.  No flush: what they have not made durable they lack.
 */

void
mirror_note_left (struct leg *l)
{
  __atomic_store_n (&l->left, clock_date (), __ATOMIC_RELAXED);
  __atomic_store_n (&l->unstamped, true, __ATOMIC_RELEASE);
}

/* Called with state_lock. */
static bool
is_away (struct dm_mirror *m, unsigned int leg)
{
  const struct leg *l = &m->legs[leg];

  return l->region.bdev != NULL && !(mirror_used (m) & 1UL << leg);
}

void
mirror_stamp_left (struct dm_mirror *m, unsigned int leg)
{
  struct leg *l = &m->legs[leg];
  struct bdev_stamp stamp;
  unsigned int recoveries;
  uint64_t left;
  bool away;
  int r;

  pthread_mutex_lock (&m->state_lock);
  recoveries = l->recoveries;
  away = is_away (m, leg);
  pthread_mutex_unlock (&m->state_lock);
  if (!away || !bdev_shows_changes (l->region.bdev) ||
      !__atomic_exchange_n (&l->unstamped, false, __ATOMIC_ACQUIRE))
    return;
  left = __atomic_load_n (&l->left, __ATOMIC_RELAXED);
  bdev_glance (l->region.bdev, &stamp);
  if (bdev_touched (l->region.bdev, left))
    stamp.valid = false;        /* by whom? */
  pthread_mutex_lock (&m->state_lock);
  if (l->recoveries != recoveries)
    r = is_away (m, leg) ? -EAGAIN : 0;
  else
    r = dm_log_left (m->log, leg, &stamp, left);
  pthread_mutex_unlock (&m->state_lock);
  if (r < 0)
    __atomic_store_n (&l->unstamped, true, __ATOMIC_RELAXED);
}

void
mirror_leave_recovering (struct dm_mirror *m)
{
  unsigned long legs = 0;

  pthread_mutex_lock (&m->state_lock);
  FOR_EACH_LEG (i, mirror_recovering (m))
    if (bdev_shows_changes (m->legs[i].region.bdev)) {
      mirror_set_state (m, i, DM_MIRROR_OUT_OF_SYNC, "the server ends");
      legs |= 1UL << i;
    }
  if (legs != 0)
    dm_log_drop (m->log, legs);
  pthread_mutex_unlock (&m->state_lock);
}

/*----------------------------------------------------------------------
 * Recovering
 */

/* Is a leg without times like one that has been in sync?  0, 1 if not, or a negative
 * errno.  One that has a bad sector is copied to as a whole, too.
 */
static int
look_for_difference (struct dm_mirror *m, unsigned int leg)
{
  unsigned long sources = mirror_in_sync (m) & ~mirror_offline (m);
  sector_t at;
  int r;

  if (sources == 0)
    return -ENOTCONN;
  r = mirror_compare (m, FIRST (sources), leg, &at);
  if (r == -EIO) {
    g_warning ("region %u (%s) has blocks that cannot be read: all of it is "
               "copied", leg, m->legs[leg].name);
    return 1;
  }
  if (r > 0)
    g_warning ("region %u (%s) is not what it was when it was used last: it "
               "differs in the block at offset %" PRIu64 ", for one; all of it "
               "is copied", leg, m->legs[leg].name, at * DM_IO_SECTOR_SIZE);
  return r;
}

/* It is not used until somebody could.  A lost connection says so itself. */
static void
cannot_look (struct dm_mirror *m, unsigned int leg, int error)
{
  bool failed = false;

  if (error == ENOTCONN)
    return;
  pthread_mutex_lock (&m->state_lock);
  if (is_away (m, leg) && !m->legs[leg].by_user) {
    fail_leg (m, leg, "it cannot be compared with what it was");
    failed = true;
  }
  pthread_mutex_unlock (&m->state_lock);
  if (failed)
    mirror_report (m, leg, "cannot be compared with what it was (%s), so it is not used "
                   "until it can, or until 'dmioctl add --full' copies all to it",
                   g_strerror (error));
}

/* Has somebody else written to a leg that was not used, or is it another disk now?
 * Then nothing is known of it.  False if it cannot be used now.
 */
static bool
look_at_it (struct dm_mirror *m, unsigned int leg)
{
  struct leg *l = &m->legs[leg];
  uint64_t left = __atomic_load_n (&l->left, __ATOMIC_RELAXED);
  int r;

  if (dm_log_lacking (m->log, leg) == mirror_chunks (m))
    return true;
  if (bdev_shows_changes (l->region.bdev)) {
    r = bdev_touched (l->region.bdev, left);
    if (r > 0)
      g_warning ("region %u (%s) was changed by somebody else while it was not "
                 "used: all of it is copied", leg, l->name);
  }
  else
    r = look_for_difference (m, leg);
  if (r < 0)
    cannot_look (m, leg, -r);
  return r > 0 ? dm_log_lose (m->log, leg) == 0 : r == 0;
}

bool
mirror_begin_recovery (struct dm_mirror *m, unsigned int leg)
{
  struct leg *l = &m->legs[leg];
  struct bdev_stamp stamp;
  bool ok = false;
  int stamped;

  /* First this, as bdev_stamp forgets that another file was opened; then again, so that
   * the stamp is not of somebody else's change.
   */
  if (!look_at_it (m, leg))
    return false;
  stamped = bdev_stamp (l->region.bdev, &stamp);
  if (stamped == 0 && stamp.valid && !look_at_it (m, leg))
    return false;
  pthread_mutex_lock (&m->state_lock);
  if (stamped < 0 && is_away (m, leg) && !l->by_user)
    fail_leg (m, leg, "it cannot be flushed");
  else if (is_away (m, leg) && !l->by_user) {
    l->to_copy = dm_log_lacking (m->log, leg);
    /* First this, so that no flush of clients leaves out what it was
     * written.
     */
    mirror_set_state (m, leg, DM_MIRROR_RECOVERING, NULL);
    ok = dm_log_recover (m->log, leg, &stamp) == 0;
    if (ok)
      dm_log_set_away (m->log, leg, false);
    else
      fail_leg (m, leg, "the log cannot be written");
  }
  pthread_mutex_unlock (&m->state_lock);
  if (stamped < 0)
    mirror_report (m, leg, "cannot be flushed, so it is not used");
  if (ok)
    g_warning ("region %u (%s) is being recovered: %" PRIu64 " bytes may "
               "differ and are copied to it", leg, l->name,
               MIN (l->to_copy * dm_log_chunk (m->log), m->sectors) *
               DM_IO_SECTOR_SIZE);
  return ok;
}

/* Is the leg being recovered, by the recovery of this number, and done?  Not if it may have
 * lost since what it was given (W6).
 */
static bool
is_recovered (struct dm_mirror *m, unsigned int leg, unsigned int recovery)
{
  struct leg *l = &m->legs[leg];

  return l->state == DM_MIRROR_RECOVERING && l->recoveries == recovery &&
    dm_log_lacking (m->log, leg) == 0 && !device_has_failed (m, leg);
}

/* Called with state_lock: another leg is in sync now.  Those that cannot be flushed may
 * show something else by now than when it was copied from them.
 */
static unsigned long
drop_unflushed (struct dm_mirror *m)
{
  unsigned long legs = mirror_unflushed (m);

  if (legs == 0)
    return 0;
  FOR_EACH_LEG (i, legs)
    fail_leg (m, i, "it could not be flushed, and another is in sync");
  dm_log_drop (m->log, legs);
  mirror_copy_again (m);
  return legs;
}

/* The stamp may be older than what is written meanwhile: then that is dirty, unless all
 * have been stamped since, and it is tried again.
 */
void
mirror_end_recovery (struct dm_mirror *m, unsigned int leg)
{
  struct leg *l = &m->legs[leg];
  struct bdev_stamp stamp;
  unsigned int recovery, stampings, rewrites;
  unsigned long dropped = 0;
  int r = -EAGAIN, stamped;
  bool done;

  pthread_mutex_lock (&m->state_lock);
  recovery = l->recoveries;
  stampings = m->stampings;
  rewrites = m->rewrites;
  done = is_recovered (m, leg, recovery);
  pthread_mutex_unlock (&m->state_lock);
  if (!done)
    return;
  mirror_rewrite (m);           /* or those that cannot be flushed are dropped */
  stamped = bdev_stamp (l->region.bdev, &stamp);

  pthread_mutex_lock (&m->state_lock);
  if (stamped == 0 && stampings == m->stampings && rewrites == m->rewrites &&
      is_recovered (m, leg, recovery))
    r = dm_log_join (m->log, leg, &stamp);
  if (r == 0) {
    mirror_set_state (m, leg, DM_MIRROR_IN_SYNC, NULL);
    l->delay = MIRROR_FIRST_DELAY;
    dropped = drop_unflushed (m);
  }
  pthread_mutex_unlock (&m->state_lock);
  if (r == 0) {
    mirror_report (m, leg, "is in sync");
    FOR_EACH_LEG (i, dropped)
      mirror_report (m, i, "has failed");
  }
  if (stamped < 0)
    mirror_failed_flush (m, leg, -stamped);
}
