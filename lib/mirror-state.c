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
 * that the user has failed is not, until he adds it.
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

/* The lease: how long it is, and when it is renewed. */
#define LEASE (90 * NSEC_PER_SEC)
#define LEASE_LEFT (45 * NSEC_PER_SEC)

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
  unsigned int num_legs = dm_mirror_num_legs (m);
  g_autofree char *what = NULL;
  const char *meaning = "volume is degraded; writes since now are recorded";
  va_list args;

  va_start (args, fmt);
  what = g_strdup_vprintf (fmt, args);
  va_end (args);
  if (in_sync == num_legs)
    meaning = "volume is fully mirrored";
  else if (in_sync < m->quorum)
    meaning = "these are fewer than quorum=, so writes are refused";
  g_warning ("region %u (%s) %s: %u of %u legs in sync; %s", leg,
             m->legs[leg].name, what, in_sync, num_legs, meaning);
}

static void
set_member (unsigned long *set, unsigned int leg, bool member)
{
  unsigned long bit = 1UL << leg;

  __atomic_store_n (set, member ? *set | bit : *set & ~bit, __ATOMIC_RELEASE);
}

void
mirror_set_state (struct dm_mirror *m, unsigned int leg,
                  enum dm_mirror_state state, const char *reason)
{
  struct leg *l = &m->legs[leg];

  set_member (&m->in_sync, leg, state == DM_MIRROR_IN_SYNC);
  set_member (&m->recovering, leg, state == DM_MIRROR_RECOVERING);
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
    return "it is the last one in sync, and stays so";
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
      g_strdup ("it has a write that the leg in sync could not take") :
      g_strdup_printf ("%s failed: %s", failure_log_op_name (f->op),
                       g_strerror (f->results[i].error));

    fail_leg (m, i, reason);
  }
}

/* True if what a leg took may be gone, although it stays in sync.  Perhaps
 * another joins before the next flush, and then nobody would hear of it.
 */
static bool
has_lost_writes (struct dm_mirror *m, unsigned int leg,
                 const struct mirror_failure *f)
{
  if (!(f->legs & 1UL << leg))
    return false;
  return f->op == DM_IO_FLUSH ||
    __atomic_load_n (&m->legs[leg].region.bdev->failed, __ATOMIC_RELAXED);
}

int
mirror_failed (struct dm_mirror *m, const struct mirror_failure *f)
{
  unsigned long failed = f->legs, in_sync, dropped;
  int r;

  pthread_mutex_lock (&m->state_lock);
  in_sync = mirror_in_sync (m);
  if ((in_sync & ~failed) == 0) {
    /* W4.  The last one does not have what the others have.  (After a flush
     * it has, or is dropped when another has joined.)
     */
    unsigned long last = 1UL << FIRST (preferably_not (in_sync,
                                                       mirror_offline (m)));
    if (f->op != DM_IO_FLUSH)
      failed |= f->others;
    failed &= ~last;
    if (has_lost_writes (m, FIRST (last), f))
      __atomic_store_n (&m->lost, true, __ATOMIC_RELEASE);
  }
  dropped = failed & mirror_used (m);
  set_failed (m, f, dropped);
  r = dm_log_drop (m->log, dropped);
  pthread_cond_broadcast (&m->state_changed);
  pthread_mutex_unlock (&m->state_lock);

  log_failures (m, f, dropped);
  FOR_EACH_LEG (i, dropped)
    mirror_report (m, i, "has failed");
  return r;
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

int
dm_mirror_fail (struct dm_mirror *m, unsigned int leg)
{
  int r = 0;

  pthread_mutex_lock (&m->state_lock);
  if (mirror_in_sync (m) & 1UL << leg &&
      (mirror_in_sync (m) & ~mirror_offline (m) & ~(1UL << leg)) == 0)
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
  if (r == 0)
    mirror_report (m, leg, "is not used any more, as the user wishes");
  return r;
}

/*----------------------------------------------------------------------
 * Recovering
 */

int
mirror_keep_lease (struct dm_mirror *m)
{
  uint64_t before = __atomic_load_n (&m->lease, __ATOMIC_RELAXED);
  uint64_t now = clock_date ();
  int r;

  if (before > now + LEASE_LEFT)
    return 0;
  r = dm_log_extend (m->log, now + LEASE);
  /* Unless a leg has come meanwhile. */
  if (r == 0)
    __atomic_compare_exchange_n (&m->lease, &before, now + LEASE, false,
                                 __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return r;
}

bool
mirror_begin_recovery (struct dm_mirror *m, unsigned int leg)
{
  struct leg *l = &m->legs[leg];
  bool ok = false;

  pthread_mutex_lock (&m->state_lock);
  if (l->state != DM_MIRROR_IN_SYNC && l->state != DM_MIRROR_RECOVERING &&
      !l->by_user) {
    l->to_copy = dm_log_lacking (m->log, leg);
    /* First this, so that no flush of clients leaves out what it was
     * written.
     */
    mirror_set_state (m, leg, DM_MIRROR_RECOVERING, NULL);
    dm_log_recover (m->log, leg);
    /* Its own is old.  This value is not what it was. */
    __atomic_store_n (&m->lease, ++m->leases % 2, __ATOMIC_RELAXED);
    ok = true;
  }
  pthread_mutex_unlock (&m->state_lock);
  if (ok)
    g_warning ("region %u (%s) is being recovered: %" PRIu64 " bytes may "
               "differ and are copied to it", leg, l->name,
               MIN (l->to_copy * dm_log_chunk (m->log), m->sectors) *
               DM_IO_SECTOR_SIZE);
  return ok;
}

void
mirror_end_recovery (struct dm_mirror *m, unsigned int leg)
{
  struct leg *l = &m->legs[leg];
  struct bdev_stamp stamp;
  int r = -EAGAIN, stamped = 0;

  pthread_mutex_lock (&m->state_lock);
  if (l->state == DM_MIRROR_RECOVERING &&
      dm_log_lacking (m->log, leg) == 0) {
    stamped = bdev_stamp (l->region.bdev, &stamp);
    if (stamped == 0)
      r = dm_log_join (m->log, leg, &stamp);
  }
  if (r == 0) {
    mirror_set_state (m, leg, DM_MIRROR_IN_SYNC, NULL);
    l->delay = MIRROR_FIRST_DELAY;
  }
  pthread_mutex_unlock (&m->state_lock);
  if (r == 0) {
    mirror_report (m, leg, "is in sync");
    /* One that was the last although it could not be flushed may differ. */
    mirror_flush_legs (m, mirror_in_sync (m));
  }
  if (stamped < 0)
    mirror_failed_flush (m, leg, -stamped);
}
