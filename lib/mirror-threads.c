/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The threads of a mirror with a log.
 *
 * Copiers go through the volume together, pass after pass, each taking the
 * next chunks that have to be copied.  What one has copied becomes known to
 * the log in batches, after a flush of the targets (S1) and of the sources.  When a pass is over
 * the legs that lack nothing are in sync; if chunks are left, since they
 * were written or failed meanwhile, another pass follows.  While clients
 * are active one copier works, half of the time.
 *
 * The keeper tries failed and missing legs again (mirror-keeper.c).  The custodian cleans
 * idle chunks.  A third thread renews the lease.  They are three since opening a leg may
 * take long, and so may flushing one.
 *
 * Locks: work.lock owns the position of the copiers; below it only that of
 * the log is taken.  The other three sleep on state_changed.
 */

#include <config.h>

#include <errno.h>
#include <string.h>

#include <glib.h>

#include "mirror.h"
#include "worker.h"

/* Of work to do: at once, for one copier. */
#define ITEM_BYTES (64 * 1024 * 1024)

/* What a batch is at most: items, bytes, time. */
#define BATCH_ITEMS 256
#define BATCH_BYTES (256 * 1024 * 1024)
#define BATCH_NSEC NSEC_PER_SEC

/* How long clients count as active after a request. */
#define ACTIVE_NSEC (NSEC_PER_SEC / 10)

/* Between passes, and if something could not be copied. */
#define PAUSE_NSEC (NSEC_PER_SEC / 10)
#define STUCK_NSEC (10 * NSEC_PER_SEC)

#define CUSTODIAN_NSEC (2 * NSEC_PER_SEC)
#define LEASE_NSEC (2 * NSEC_PER_SEC)
#define RESTORE_TICKS 5

/* Copied, but not flushed and recorded. */
struct batch {
  unsigned int n;
  struct mirror_item items[BATCH_ITEMS];
  uint64_t begun;
  uint64_t copied_before;       /* of mirror->copied */
  unsigned long sources;        /* legs that were read */
  /* So that a leg that failed meanwhile is not taken for one that has it, nor what a source
   * showed that has left, or cannot be flushed any more, for what the others have.
   */
  unsigned int recoveries[DM_IO_MAX_REGIONS];
  unsigned long unflushed;
};

struct copier {
  struct dm_mirror *mirror;
  unsigned char *buffer;
  struct batch batch;
};

void
mirror_wait_until (pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t until)
{
  const struct timespec t = {
    .tv_sec = until / NSEC_PER_SEC, .tv_nsec = until % NSEC_PER_SEC,
  };

  pthread_cond_timedwait (cond, lock, &t);
}

/*----------------------------------------------------------------------
 * Pace
 */

static bool
clients_active (struct dm_mirror *m)
{
  uint64_t now = clock_now ();

  if (__atomic_exchange_n (&m->active, false, __ATOMIC_RELAXED))
    __atomic_store_n (&m->active_until, now + ACTIVE_NSEC, __ATOMIC_RELAXED);
  return now < __atomic_load_n (&m->active_until, __ATOMIC_RELAXED);
}

/* Called with work.lock. */
static uint64_t
keep_rate (struct dm_mirror *m, uint64_t now, uint64_t bytes)
{
  struct mirror_work *w = &m->work;

  if (m->options.resync_rate == 0)
    return now;
  w->rate_at = MAX (w->rate_at, now) +
    (double) bytes * NSEC_PER_SEC / m->options.resync_rate;
  return w->rate_at;
}

void
mirror_pace (struct dm_mirror *m, uint64_t begun, uint64_t bytes)
{
  struct mirror_work *w = &m->work;
  uint64_t now = clock_now (), until;

  pthread_mutex_lock (&w->lock);
  until = keep_rate (m, now, bytes);
  if (clients_active (m))
    until = MAX (until, now + MIN (now - begun, NSEC_PER_SEC));
  while (!w->stop && clock_now () < until)
    mirror_wait_until (&w->changed, &w->lock, until);
  pthread_mutex_unlock (&w->lock);
}

/*----------------------------------------------------------------------
 * What is to be copied next
 */

/* All these are called with work.lock. */

static bool
may_be_unreconciled (const struct dm_mirror *m)
{
  return __atomic_load_n (&m->unreconciled, __ATOMIC_ACQUIRE);
}

static uint64_t
next_unreconciled (struct dm_mirror *m, uint64_t from)
{
  uint64_t end = mirror_chunks (m);

  return may_be_unreconciled (m) ?
    dm_log_next_unreconciled (m->log, from, end) : end;
}

/* What is copied from a leg may become something else there. */
static bool
sources_in_doubt (const struct dm_mirror *m)
{
  return (__atomic_load_n (&m->in_doubt, __ATOMIC_ACQUIRE) &
          mirror_in_sync (m)) != 0;
}

/* The next item from the cursor on. */
static bool
find_item (struct dm_mirror *m, struct mirror_item *item)
{
  uint64_t end = mirror_chunks (m), first = m->work.cursor, after;
  uint64_t unreconciled = next_unreconciled (m, first);
  uint64_t most = MAX (ITEM_BYTES / DM_IO_SECTOR_SIZE /
                       dm_log_chunk (m->log), 1);
  unsigned long lacking;

  memset (item, 0, sizeof *item);
  if (sources_in_doubt (m))
    return false;
  if (dm_log_next_lacking (m->log, mirror_recovering (m), &first, end,
                           &after, &lacking) && first < unreconciled) {
    item->first = first;
    item->end = MIN (MIN (after, first + most), unreconciled);
    item->lacking = lacking;
    return true;
  }
  if (unreconciled == end)
    return false;
  item->first = unreconciled;
  item->end = unreconciled + 1;
  item->reconcile = true;
  item->differs = dm_log_differs (m->log, unreconciled);
  return true;
}

static bool
begin_pass (struct dm_mirror *m)
{
  struct mirror_work *w = &m->work;
  struct mirror_item item;

  if (w->in_pass || w->busy > 0 || clock_now () < w->not_before)
    return w->in_pass;
  w->cursor = 0;
  w->stuck = false;
  w->unread = 0;
  w->in_pass = mirror_recovering (m) != 0 || may_be_unreconciled (m) ||
    find_item (m, &item);
  return w->in_pass;
}

enum finding { NOTHING, ITEM, END_OF_PASS };

static enum finding
find_work (struct dm_mirror *m, struct mirror_item *item)
{
  if (!begin_pass (m))
    return NOTHING;
  if (!find_item (m, item)) {
    m->work.in_pass = false;
    return END_OF_PASS;
  }
  m->work.cursor = item->end;
  return ITEM;
}

/*----------------------------------------------------------------------
 * Batches
 */

static void
begin_batch (struct copier *c)
{
  struct dm_mirror *m = c->mirror;
  struct batch *b = &c->batch;
  unsigned int i;

  b->begun = clock_now ();
  b->sources = 0;
  b->copied_before = __atomic_load_n (&m->copied, __ATOMIC_RELAXED);
  pthread_mutex_lock (&m->state_lock);
  for (i = 0; i < m->num_legs; i++)
    b->recoveries[i] = m->legs[i].recoveries;
  b->unflushed = m->unflushed;
  pthread_mutex_unlock (&m->state_lock);
}

/* The legs that the batch was written to. */
static unsigned long
written_legs (struct copier *c)
{
  unsigned long legs = 0;
  unsigned int i;

  for (i = 0; i < c->batch.n; i++)
    legs |= c->batch.items[i].reconcile ? mirror_in_sync (c->mirror) :
      c->batch.items[i].lacking;
  return legs & mirror_used (c->mirror);
}

/* Called with state_lock: has each leg that was read been in sync all the time, and has not
 * turned out to be one that cannot be flushed?
 */
static bool
sources_have_stayed (struct copier *c)
{
  const struct batch *b = &c->batch;
  struct dm_mirror *m = c->mirror;

  FOR_EACH_LEG (i, b->sources)
    if (m->legs[i].recoveries != b->recoveries[i])
      return false;
  return (b->sources & (~m->in_sync | (m->unflushed & ~b->unflushed))) == 0;
}

/* Called with state_lock. */
static void
record_item (struct copier *c, const struct mirror_item *item, bool flushed)
{
  struct dm_mirror *m = c->mirror;

  if (item->reconcile && flushed)
    dm_log_reconciled (m->log, item->first, item->differs);
  FOR_EACH_LEG (i, item->lacking & mirror_recovering (m))
    if (m->legs[i].recoveries == c->batch.recoveries[i])
      dm_log_copied (m->log, i, item->first, item->end);
}

/* Flush and record what was copied. */
static void
end_batch (struct copier *c)
{
  struct dm_mirror *m = c->mirror;
  unsigned long sources = c->batch.sources & mirror_in_sync (m) &
    ~mirror_unflushed (m);
  bool offline = (sources & mirror_offline (m)) != 0, flushed;
  unsigned int i;

  if (c->batch.n == 0)
    return;
  /* A leg that could not be flushed is no longer recovering, and a source that has lost
   * something no longer in sync.  One that has just lost its connection may be back soon.
   */
  flushed = mirror_flush_legs (m, written_legs (c) | (offline ? 0 : sources)) == 0 ||
    mirror_cannot_flush (m);
  /* Nor may one that was dropped be the source of reconciling next time. */
  flushed = flushed && mirror_settle (m) == 0;
  pthread_mutex_lock (&m->state_lock);
  for (i = 0; i < c->batch.n && !offline && sources_have_stayed (c); i++)
    record_item (c, &c->batch.items[i], flushed);
  pthread_mutex_unlock (&m->state_lock);
  dm_log_sync (m->log);
  c->batch.n = 0;
}

static bool
is_full (const struct copier *c)
{
  const struct batch *b = &c->batch;

  return b->n == BATCH_ITEMS || clock_now () - b->begun >= BATCH_NSEC ||
    __atomic_load_n (&c->mirror->copied, __ATOMIC_RELAXED) -
    b->copied_before >= BATCH_BYTES;
}

/* What cannot be made alike cannot be copied either. */
static void
note_stuck (struct dm_mirror *m, const struct mirror_item *item)
{
  unsigned long lacking = item->lacking;
  uint64_t first = item->first, after;

  if (item->reconcile)
    dm_log_next_lacking (m->log, mirror_recovering (m), &first, item->end, &after,
                         &lacking);
  pthread_mutex_lock (&m->work.lock);
  m->work.stuck = true;
  m->work.unread |= lacking;
  pthread_mutex_unlock (&m->work.lock);
}

/* It has been copied. */
static void
add_to_batch (struct copier *c, const struct mirror_item *item)
{
  struct batch *b = &c->batch;
  struct mirror_item *last = b->n > 0 ? &b->items[b->n - 1] : NULL;

  b->sources |= item->sources;
  if (last != NULL && last->end == item->first && !last->reconcile &&
      !item->reconcile && last->lacking == item->lacking)
    last->end = item->end;
  else
    b->items[b->n++] = *item;
  if (is_full (c))
    end_batch (c);
}

/* Copy what the item says, or if that fails those of its chunks that can be
 * copied.
 */
static void
copy_into_batch (struct copier *c, struct mirror_item *item)
{
  struct dm_mirror *m = c->mirror;
  struct mirror_item one = *item;
  int r;

  if (c->batch.n == 0)
    begin_batch (c);
  if (item->reconcile)
    mirror_rewrite_several (m);
  r = dm_log_keep_lease (m->log);
  if (r == 0)
    r = mirror_copy_item (m, item, c->buffer, true);
  if (r == 0)
    add_to_batch (c, item);
  else if (!item->reconcile &&
           (item->lacking & mirror_recovering (m)) == 0)
    return;                     /* there is nobody left to copy to */
  else if (item->end - item->first == 1 || mirror_stopping (m))
    note_stuck (m, item);
  else
    for (; one.first < item->end; one.first++) {
      one.end = one.first + 1;
      copy_into_batch (c, &one);
    }
}

/* Has one of the legs begun to recover since?  What is in the batch does not count for it. */
static bool
is_of_before (const struct copier *c, unsigned long legs)
{
  struct dm_mirror *m = c->mirror;
  bool before = false;

  pthread_mutex_lock (&m->state_lock);
  FOR_EACH_LEG (i, legs)
    before = before || m->legs[i].recoveries != c->batch.recoveries[i];
  pthread_mutex_unlock (&m->state_lock);
  return before;
}

/* In steps, so that little is copied again after an interruption. */
static void
copy_in_steps (struct copier *c, const struct mirror_item *item)
{
  struct dm_mirror *m = c->mirror;
  uint64_t most = MAX (MIRROR_PIECE / dm_log_chunk (m->log), 1);
  struct mirror_item step = *item;

  for (; step.first < item->end && !mirror_stopping (m);
       step.first = step.end) {
    if (is_of_before (c, step.lacking))
      end_batch (c);
    /* Before anything is looked at: what is seen must be of this recovery. */
    if (c->batch.n == 0)
      begin_batch (c);
    step.end = item->end;
    step.sources = 0;
    step.end = mirror_zero_end (m, &step);
    if (step.end > step.first) {
      add_to_batch (c, &step);
      continue;
    }
    step.end = MIN (step.first + most, item->end);
    copy_into_batch (c, &step);
  }
}

/*----------------------------------------------------------------------
 * Copiers
 */

/* A pass is over and all that was copied in it is recorded. */
static void
end_pass (struct dm_mirror *m)
{
  FOR_EACH_LEG (i, mirror_recovering (m)) {
    mirror_end_recovery (m, i);
    mirror_use_in_part (m, i);
  }
  pthread_mutex_lock (&m->state_lock);
  if (dm_log_next_unreconciled (m->log, 0, mirror_chunks (m)) ==
      mirror_chunks (m))
    __atomic_store_n (&m->unreconciled, false, __ATOMIC_RELEASE);
  pthread_mutex_unlock (&m->state_lock);
}

static void
report_stuck (struct dm_mirror *m)
{
  FOR_EACH_LEG (i, mirror_recovering (m))
    if (dm_log_lacking (m->log, i) > 0)
      g_warning ("region %lu (%s): some of what it lacks cannot be read "
                 "from any region in sync; it stays out of sync there, and "
                 "that is tried again", i, m->legs[i].name);
}

/* Called and returns with work.lock: this copier has nothing to do.  The last
 * of them ends the pass.
 */
static void
be_idle (struct copier *c)
{
  struct dm_mirror *m = c->mirror;
  struct mirror_work *w = &m->work;
  bool stuck;

  pthread_mutex_unlock (&w->lock);
  end_batch (c);
  pthread_mutex_lock (&w->lock);
  if (w->busy > 1) {
    w->busy--;
    return;
  }
  stuck = w->stuck;
  w->not_before = clock_now () + (stuck ? STUCK_NSEC : PAUSE_NSEC);
  pthread_mutex_unlock (&w->lock);
  if (stuck)
    report_stuck (m);
  end_pass (m);
  pthread_mutex_lock (&w->lock);
  w->busy--;
  pthread_cond_broadcast (&w->changed);
}

/* While clients are active one is enough. */
static bool
is_wanted (struct dm_mirror *m, bool busy)
{
  return m->work.busy == (busy ? 1 : 0) || !clients_active (m);
}

static void *
copier_thread (void *arg)
{
  struct copier *c = arg;
  struct mirror_work *w = &c->mirror->work;
  struct mirror_item item;
  bool busy = false;
  enum finding found;

  pthread_mutex_lock (&w->lock);
  while (!w->stop) {
    found = is_wanted (c->mirror, busy) ? find_work (c->mirror, &item) :
      NOTHING;
    if (found == NOTHING && !busy) {
      mirror_wait_until (&w->changed, &w->lock, clock_now () + PAUSE_NSEC);
      continue;
    }
    w->busy += !busy;
    busy = found == ITEM;
    if (!busy) {
      be_idle (c);
      continue;
    }
    pthread_mutex_unlock (&w->lock);
    copy_in_steps (c, &item);
    pthread_mutex_lock (&w->lock);
  }
  pthread_mutex_unlock (&w->lock);
  end_batch (c);
  g_free (c->buffer);
  g_free (c);
  return NULL;
}

/*----------------------------------------------------------------------
 * The custodian
 */

/* The legs that are written, and how often they have become so or not. */
static unsigned long
get_recoveries (struct dm_mirror *m, unsigned int *recoveries)
{
  unsigned long legs;

  pthread_mutex_lock (&m->state_lock);
  legs = mirror_used (m);
  FOR_EACH_LEG (i, legs)
    recoveries[i] = m->legs[i].recoveries;
  pthread_mutex_unlock (&m->state_lock);
  return legs;
}

/* If they are the same still: one that is in sync now must not seem quiet by an
 * older stamp.
 */
static bool
record_stamps (struct dm_mirror *m, unsigned long legs,
               const unsigned int *recoveries,
               const struct bdev_stamp *stamps)
{
  bool same;

  pthread_mutex_lock (&m->state_lock);
  same = legs == mirror_used (m);
  FOR_EACH_LEG (i, legs)
    same = same && m->legs[i].recoveries == recoveries[i];
  same = same && dm_log_stamp (m->log, stamps) == 0;
  m->stampings += same;
  pthread_mutex_unlock (&m->state_lock);
  return same;
}

bool
mirror_stamp (struct dm_mirror *m)
{
  struct bdev_stamp stamps[DM_IO_MAX_REGIONS] = { 0 };
  unsigned int recoveries[DM_IO_MAX_REGIONS];
  unsigned long legs = get_recoveries (m, recoveries), failed = 0;
  int r;

  FOR_EACH_LEG (i, legs) {
    r = bdev_stamp (m->legs[i].region.bdev, &stamps[i]);
    if (r < 0) {
      failed |= 1UL << i;
      mirror_failed_flush (m, i, -r);
    }
  }
  return failed == 0 && record_stamps (m, legs, recoveries, stamps);
}

/* With stamps, also if chunks stay dirty: a file that is older than these when the
 * server has crashed lacks chunks that are clean.
 */
void
mirror_clean (struct dm_mirror *m)
{
  unsigned long legs;

  if (mirror_rewrite (m) < 0 || dm_log_clean_begin (m->log) == 0)
    return;
  /* Not while a leg becomes one that is written. */
  pthread_mutex_lock (&m->state_lock);
  legs = mirror_used (m);
  pthread_mutex_unlock (&m->state_lock);
  /* No flush of a leg proves anything if one before has failed. */
  if (mirror_flush_legs (m, legs) == 0 && mirror_unflushed (m) == 0 &&
      mirror_stamp (m))
    dm_log_clean_end (m->log);
}

static void
measure_rate (struct dm_mirror *m, uint64_t *before)
{
  uint64_t copied = __atomic_load_n (&m->copied, __ATOMIC_RELAXED);

  __atomic_store_n (&m->rate, (copied - *before) * NSEC_PER_SEC /
                    CUSTODIAN_NSEC, __ATOMIC_RELAXED);
  *before = copied;
}

static void
look_after_files (struct dm_mirror *m)
{
  FOR_EACH_LEG (i, mirror_used (m))
    if (bdev_place (m->legs[i].region.bdev) != BDEV_IN_PLACE)
      mirror_displaced (m, i);
    else
      m->legs[i].displaced = false;
  dm_log_look_after (m->log);
}

static void
tend (struct dm_mirror *m, unsigned int tick)
{
  unsigned int all;

  mirror_clean (m);
  look_after_files (m);
  if (tick % RESTORE_TICKS == 0 && dm_log_copies (m->log, &all) < all)
    dm_log_restore (m->log);
}

static void *
custodian_thread (void *arg)
{
  struct dm_mirror *m = arg;
  uint64_t copied = 0, next = clock_now ();
  unsigned int tick;

  pthread_mutex_lock (&m->state_lock);
  for (tick = 1; !m->stop; tick++) {
    next = MAX (next, clock_now ()) + CUSTODIAN_NSEC;
    while (!m->stop && clock_now () < next)
      mirror_wait_until (&m->state_changed, &m->state_lock, next);
    if (m->stop)
      break;
    pthread_mutex_unlock (&m->state_lock);
    measure_rate (m, &copied);
    tend (m, tick);
    pthread_mutex_lock (&m->state_lock);
  }
  pthread_mutex_unlock (&m->state_lock);
  return NULL;
}

/*----------------------------------------------------------------------
 * The lease
 */

static void *
lease_thread (void *arg)
{
  struct dm_mirror *m = arg;
  uint64_t next;

  pthread_mutex_lock (&m->state_lock);
  while (!m->stop) {
    next = clock_now () + LEASE_NSEC;
    while (!m->stop && clock_now () < next)
      mirror_wait_until (&m->state_changed, &m->state_lock, next);
    pthread_mutex_unlock (&m->state_lock);
    if (dm_log_is_dirty (m->log) || mirror_recovering (m) != 0)
      dm_log_keep_lease (m->log);
    pthread_mutex_lock (&m->state_lock);
  }
  pthread_mutex_unlock (&m->state_lock);
  return NULL;
}

/*----------------------------------------------------------------------
 * Beginning and end
 */

bool
mirror_stopping (struct dm_mirror *m)
{
  return __atomic_load_n (&m->work.stop, __ATOMIC_RELAXED);
}

void
mirror_wake (struct dm_mirror *m)
{
  pthread_mutex_lock (&m->work.lock);
  m->work.not_before = 0;
  pthread_cond_broadcast (&m->work.changed);
  pthread_mutex_unlock (&m->work.lock);
}

static int
start (struct dm_mirror *m, void *(*run) (void *), void *arg)
{
  int err = create_thread (&m->threads[m->num_threads], run, arg);

  if (err == 0)
    m->num_threads++;
  return -err;
}

static int
start_copier (struct dm_mirror *m)
{
  struct copier *c = g_new0 (struct copier, 1);
  int r;

  c->mirror = m;
  c->buffer = g_malloc (MIRROR_PIECE * DM_IO_SECTOR_SIZE);
  r = start (m, copier_thread, c);
  if (r < 0) {
    g_free (c->buffer);
    g_free (c);
  }
  return r;
}

int
mirror_start_threads (struct dm_mirror *m)
{
  int r = start (m, mirror_keeper, m), i;

  if (r == 0)
    r = start (m, custodian_thread, m);
  if (r == 0)
    r = start (m, lease_thread, m);
  for (i = 0; r == 0 && i < MIRROR_COPIERS; i++)
    r = start_copier (m);
  return r;
}

void
mirror_stop_threads (struct dm_mirror *m)
{
  unsigned int i;

  pthread_mutex_lock (&m->state_lock);
  m->stop = true;
  pthread_cond_broadcast (&m->state_changed);
  pthread_mutex_unlock (&m->state_lock);
  pthread_mutex_lock (&m->work.lock);
  __atomic_store_n (&m->work.stop, true, __ATOMIC_RELAXED);
  pthread_cond_broadcast (&m->work.changed);
  pthread_mutex_unlock (&m->work.lock);
  for (i = 0; i < m->num_threads; i++)
    pthread_join (m->threads[i], NULL);
}
