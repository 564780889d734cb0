/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What the owner thread of an NBD device does when connections are lost:
 * see block-device-nbd.c for the threads and locks.
 *
 * What was lost is known: what the server has acknowledged but was not told
 * to flush may be lost with the connections, and so may what was in flight
 * (W6).  After that the device fails everything until it is revived, by
 * somebody who has taken note and will write it again.
 *
 * Nothing old lands on something new: a command that changes data and was in
 * flight when the connections were given up may still be done by the server
 * at any time.  So the device is not connected again before the server has
 * ended all of the old connections (nbd-disconnect.c), and not revived before
 * it has been connected for a settling time: a short one, for servers that
 * end a connection before they have done all that came from it; or as long as
 * a command may take, if one did take that long, or nothing is known of how
 * the old ones have ended.  So it is for a flush: the server tells once of what it could not
 * keep, and must not tell a flush of old connections, whose answer nobody hears, of something
 * new.  Who is revived without having had a change or a flush in flight need not settle, and
 * who has lost nothing need not be revived.
 *
 * A device that has failed connects again only if somebody wants to revive
 * it.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>

#include <glib.h>
#include <libnbd.h>

#include "nbd-bdev.h"

/* Delay before an attempt to connect: at most.  See NBD_FIRST_DELAY. */
#define LAST_DELAY (10 * NSEC_PER_SEC)

/* How long the new connections must have lasted, in the good case, after the
 * old ones had changes in flight.
 */
#define SETTLE_NSEC NSEC_PER_SEC

/* How long to read answers that may be there although time is up. */
#define LATE_NSEC (NSEC_PER_SEC / 4)

/*----------------------------------------------------------------------
 * Losing the connections
 */

static void
set_offline (struct nbd_bdev *nbd, bool offline)
{
  __atomic_store_n (&nbd->common.offline, offline, __ATOMIC_RELAXED);
}

static void
set_failed (struct nbd_bdev *nbd, bool failed)
{
  nbd->failed = failed;
  __atomic_store_n (&nbd->common.failed, failed, __ATOMIC_RELAXED);
}

/* The device can be used no more.  Log why. */
static void
fail_for_good (struct nbd_bdev *nbd, const char *why)
{
  nbd->for_good = true;
  set_failed (nbd, true);
  set_offline (nbd, true);
  g_warning ("%s: %s; all I/O to it fails until it is opened again, which "
             "means until restart", nbd->common.name, why);
}

/* Part with the connections: at once, if that does no harm.  Commands in flight
 * end before, so that what libnbd says of them when it closes comes too late.
 */
static void
disconnect (struct nbd_bdev *nbd, bool late)
{
  bool unanswered = nbd_are_unanswered (nbd);

  nbd_abandon_commands (nbd, late ? ETIMEDOUT : ENOTCONN);
  if (unanswered) {
    nbd_farewell_begin (&nbd->farewell, &nbd->connections, nbd->error);
    nbd->farewell.doubtful = nbd->farewell.doubtful || late;
    nbd->must_settle = true;
  }
  else
    nbd_connections_abort (&nbd->connections);
  nbd->broken = nbd->cut_off = false;
  nbd->error = 0;
}

/* Say so, unless it had failed before. */
static void
report_lost (struct nbd_bdev *nbd, const char *why)
{
  if (nbd->failed)
    return;
  if (!nbd_may_differ (nbd)) {
    g_warning ("%s: lost its connection (%s); connecting again in the "
               "background", nbd->common.name, why);
    return;
  }
  set_failed (nbd, true);
  g_warning ("%s: lost its connection (%s) with changes or a flush in flight, or "
             "not flushed, so changes may be lost; all I/O to it fails until its "
             "region is recovered, or without a log until restart",
             nbd->common.name, why);
}

/* Go on without connections: one has failed, or a command is late. */
static void
give_up (struct nbd_bdev *nbd, bool late, const char *why)
{
  set_offline (nbd, true);
  report_lost (nbd, why);
  disconnect (nbd, late);
  nbd->attempt_at = clock_now () + nbd->delay;
  nbd_end_commands (nbd);
  nbd_run_waiting (nbd);
}

void
nbd_give_up_broken (struct nbd_bdev *nbd)
{
  g_autofree char *why = g_steal_pointer (&nbd->why);
  bool ended = false;
  unsigned int i;

  for (i = 0; i < nbd->connections.n; i++)
    ended = ended || nbd_aio_is_closed (nbd->connections.nbd[i]);
  give_up (nbd, false, ended ? "the server has ended it" :
           why != NULL ? why : "the server cannot be reached");
}

/*----------------------------------------------------------------------
 * Making them again
 */

/* The delay is from the beginning of one to that of the next. */
static void
begin_attempt (struct nbd_bdev *nbd)
{
  nbd->delay = MIN (2 * nbd->delay, LAST_DELAY);
  nbd->attempt = nbd_attempt_begin (nbd->uri, nbd->timeout, nbd->wake_fd);
  nbd->attempt_at = clock_now () + nbd->delay;
}

/* Say why it takes long, but not all the time. */
static void
report_failed_attempt (struct nbd_bdev *nbd, const char *error)
{
  if (nbd->delay < LAST_DELAY || g_strcmp0 (error, nbd->last_error) == 0)
    return;
  g_warning ("%s: still cannot connect again: %s", nbd->common.name, error);
  g_free (nbd->last_error);
  nbd->last_error = g_strdup (error);
}

static void
set_online (struct nbd_bdev *nbd)
{
  set_offline (nbd, false);
  g_warning ("%s: connected again", nbd->common.name);
}

/* When connections made now can be relied on, see above. */
static uint64_t
settled_at (const struct nbd_bdev *nbd)
{
  if (!nbd->must_settle)
    return 0;
  return clock_now () + (nbd->farewell.doubtful ?
                         nbd->timeout * NSEC_PER_SEC : SETTLE_NSEC);
}

/* Use these connections from now on, or as soon as the device is revived. */
static void
take_connections (struct nbd_bdev *nbd,
                  struct nbd_connections *connections)
{
  g_clear_pointer (&nbd->last_error, g_free);
  if (!nbd_same_export (&connections->export, &nbd->export)) {
    nbd_connections_abort (connections);
    fail_for_good (nbd, "the server is back with another size or other "
                   "abilities");
    return;
  }
  nbd->connections = *connections;
  nbd->settled_at = settled_at (nbd);
  if (!nbd->failed)
    set_online (nbd);
}

void
nbd_end_attempt (struct nbd_bdev *nbd)
{
  struct nbd_connections connections;
  g_autofree char *error = NULL;
  int err = nbd_attempt_end (nbd->attempt, &connections, &error);

  nbd->attempt = NULL;
  if (err == 0)
    take_connections (nbd, &connections);
  else if (!nbd->stop)
    report_failed_attempt (nbd, error);
}

/* True if there are no connections, and it makes sense to make some. */
static bool
is_connecting (const struct nbd_bdev *nbd)
{
  return nbd->connections.n == 0 && nbd->farewell.n == 0 &&
    (!nbd->failed || (nbd->reviving && !nbd->for_good));
}

/*----------------------------------------------------------------------
 * The clock
 */

/* True if a command is not answered in time.  Its answer may be there and
 * only not have been read, if this process was stopped for a while; so what
 * there is to read comes first, but not for ever.
 */
static bool
is_overdue (struct nbd_bdev *nbd, uint64_t now)
{
  const struct nbd_command *oldest = nbd->flying.first;

  if (nbd->connections.n == 0 || oldest == NULL || oldest->deadline > now) {
    nbd->overdue_since = 0;
    return false;
  }
  if (nbd->overdue_since == 0) {
    nbd->overdue_since = now;
    nbd->readable = true;       /* until poll has said otherwise */
  }
  return !nbd->readable || now - nbd->overdue_since >= LATE_NSEC;
}

void
nbd_keep_time (struct nbd_bdev *nbd)
{
  uint64_t now = clock_now ();
  g_autofree char *why = NULL;

  if (is_overdue (nbd, now)) {
    why = g_strdup_printf ("the server does not answer a command within %u "
                           "seconds", nbd->timeout);
    give_up (nbd, true, why);
  }
  nbd_farewell_look (&nbd->farewell);
  if (nbd_probe_at (nbd) <= now)
    nbd_probe (nbd);
  if (!is_connecting (nbd))
    return;
  if (nbd->attempt == NULL && nbd->attempt_at <= now)
    begin_attempt (nbd);
  if (nbd->attempt != NULL && nbd_attempt_ended (nbd->attempt))
    nbd_end_attempt (nbd);
}

uint64_t
nbd_next_event (const struct nbd_bdev *nbd)
{
  uint64_t at = UINT64_MAX;

  if (nbd->flying.first != NULL)
    at = nbd->flying.first->deadline;
  at = MIN (at, nbd_probe_at (nbd));
  if (nbd->retry_at != 0)
    at = MIN (at, nbd->retry_at);
  if (nbd->attempt != NULL)
    at = MIN (at, nbd_attempt_deadline (nbd->attempt));
  else if (is_connecting (nbd))
    at = MIN (at, nbd->attempt_at);
  return at;
}

/*----------------------------------------------------------------------
 * Reviving
 */

/* Called with the lock held, and connections that can be relied on. */
static void
use_again (struct nbd_bdev *nbd)
{
  if (nbd->failed) {
    nbd->must_settle = nbd->farewell.doubtful = nbd->reviving = false;
    nbd->flushed = nbd->changes;
    set_failed (nbd, false);
    set_online (nbd);
  }
  nbd->missed = false;
}

/* The first call makes a device that has failed connect again. */
int
nbd_revive (struct block_device *bdev)
{
  struct nbd_bdev *nbd = (struct nbd_bdev *) bdev;
  int r = 0;

  pthread_mutex_lock (&nbd->lock);
  if (nbd->for_good)
    r = -EIO;
  else if (nbd->connections.n == 0 || nbd->broken ||
           nbd->settled_at > clock_now ())
    r = -EAGAIN;
  else
    use_again (nbd);
  if (r == -EAGAIN && nbd->failed && !nbd->reviving) {
    nbd->reviving = true;
    nbd_start_thread (nbd);     /* or later, with the next operation */
    nbd_wake (nbd);
  }
  pthread_mutex_unlock (&nbd->lock);
  return r;
}

void
nbd_flush_again (struct block_device *bdev)
{
  struct nbd_bdev *nbd = (struct nbd_bdev *) bdev;

  pthread_mutex_lock (&nbd->lock);
  nbd->flush_error = 0;
  pthread_mutex_unlock (&nbd->lock);
}
