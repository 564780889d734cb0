/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Exports of NBD servers, through libnbd.
 *
 * Threads: who starts an operation sends its commands, as far as the
 * sockets take them, so that this costs no change of threads; and those of
 * others that start operations meanwhile, so that these need not wait for
 * the lock.  All else is done by the owner thread of the device: it polls,
 * receives, calls io->done when all commands of an operation have ended,
 * looks at the clock and connects again.  It is started by the first
 * operation or by bdev_attend, since before a fork is too early.
 *
 * Locks: nbd->lock owns all that is below it, the connections too: nobody
 * else calls libnbd with them, but poll is called without the lock.  Under
 * it io->done is called, and inbox_lock, which owns the next three fields,
 * and the locks of mempools and attempts are taken; these are leaves.
 * open_lock owns the list of open devices; a leaf.
 *
 * Nothing hangs: each command has a deadline.  When one has passed, or a
 * connection fails, all connections are given up together and all
 * commands in flight fail; then the owner connects again, with growing
 * delay, and what comes meanwhile fails at once.
 *
 * Nothing old lands on something new: a command that changes data and was
 * in flight when the connections were given up may still be done by
 * the server at any time, and what it has acknowledged but was not told to
 * flush may be lost with it (W6).  After that the device fails everything
 * until it is opened again, so nothing newer is ever written there.
 */

#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <glib.h>
#include <libnbd.h>

#include "nbd-bdev.h"
#include "worker.h"

/* Delay before an attempt to connect: at most.  See NBD_FIRST_DELAY. */
#define LAST_DELAY (10 * NSEC_PER_SEC)

/* How long to read answers that may be there although time is up. */
#define LATE_NSEC (NSEC_PER_SEC / 4)

/* What the protocol allows a block status command to ask about. */
#define MAX_STATUS_SPAN (UINT64_C (4) * 1024 * 1024 * 1024 - DM_IO_PAGE_SIZE)

static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static struct nbd_bdev *open_nbds;

/*----------------------------------------------------------------------
 * Losing the connections, and making them again
 */

static void
set_offline (struct nbd_bdev *nbd, bool offline)
{
  __atomic_store_n (&nbd->common.offline, offline, __ATOMIC_RELAXED);
}

/* The device can be used no more.  Log why. */
static void
fail_for_good (struct nbd_bdev *nbd, const char *why)
{
  nbd->failed = true;
  set_offline (nbd, true);
  g_warning ("%s: %s; all I/O to it fails until it is opened again, which "
             "means until restart", nbd->common.name, why);
}

/* Go on without connections; what is in flight fails with ERROR. */
static void
give_up (struct nbd_bdev *nbd, int error, const char *why)
{
  g_autofree char *text = NULL;

  set_offline (nbd, true);
  nbd_connections_abort (&nbd->connections);
  nbd->broken = false;
  if (nbd_may_differ (nbd)) {
    text = g_strdup_printf ("lost its connection (%s) with changes in "
                            "flight or not flushed, which may be lost", why);
    fail_for_good (nbd, text);
  }
  else
    g_warning ("%s: lost its connection (%s); connecting again in the "
               "background", nbd->common.name, why);
  nbd->attempt_at = clock_now () + nbd->delay;
  nbd_fail_commands (nbd, error);
}

/* Give up connections of which one has failed. */
static void
give_up_broken (struct nbd_bdev *nbd)
{
  g_autofree char *why = g_steal_pointer (&nbd->why);
  bool ended = false;
  unsigned int i;

  for (i = 0; i < nbd->connections.n; i++)
    ended = ended || nbd_aio_is_closed (nbd->connections.nbd[i]);
  give_up (nbd, ENOTCONN, ended ? "the server has ended it" :
           why != NULL ? why : "the server cannot be reached");
}

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
end_attempt (struct nbd_bdev *nbd)
{
  struct nbd_connections connections;
  g_autofree char *error = NULL;
  int err = nbd_attempt_end (nbd->attempt, &connections, &error);

  nbd->attempt = NULL;
  if (err != 0) {
    report_failed_attempt (nbd, error);
    return;
  }
  g_clear_pointer (&nbd->last_error, g_free);
  if (!nbd_same_export (&connections.export, &nbd->export)) {
    nbd_connections_abort (&connections);
    fail_for_good (nbd, "the server is back with another size or other "
                   "abilities");
    return;
  }
  nbd->connections = connections;
  set_offline (nbd, false);
  g_warning ("%s: connected again", nbd->common.name);
}

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

/* Do what is due at this time. */
static void
keep_time (struct nbd_bdev *nbd)
{
  uint64_t now = clock_now ();
  g_autofree char *why = NULL;

  if (is_overdue (nbd, now)) {
    why = g_strdup_printf ("the server does not answer a command within %u "
                           "seconds", nbd->timeout);
    give_up (nbd, ETIMEDOUT, why);
  }
  if (nbd->connections.n > 0 || nbd->failed)
    return;
  if (nbd->attempt == NULL && nbd->attempt_at <= now)
    begin_attempt (nbd);
  if (nbd->attempt != NULL && nbd_attempt_ended (nbd->attempt))
    end_attempt (nbd);
}

static uint64_t
next_event (const struct nbd_bdev *nbd)
{
  uint64_t at = UINT64_MAX;

  if (nbd->flying.first != NULL)
    at = nbd->flying.first->deadline;
  if (nbd->retry_at != 0)
    at = MIN (at, nbd->retry_at);
  if (nbd->attempt != NULL)
    at = MIN (at, nbd_attempt_deadline (nbd->attempt));
  else if (nbd->connections.n == 0 && !nbd->failed)
    at = MIN (at, nbd->attempt_at);
  return at;
}

/*----------------------------------------------------------------------
 * The owner thread
 */

static void
wake (struct nbd_bdev *nbd)
{
  eventfd_write (nbd->wake_fd, 1);
}

/* True if the owner polls for less than it now should. */
static bool
has_to_wake (const struct nbd_bdev *nbd)
{
  unsigned int i;

  if (!nbd->polling)
    return false;
  if (nbd->broken || nbd->ended.first != NULL ||
      next_event (nbd) < nbd->polled_until)
    return true;
  for (i = 0; i < nbd->connections.n; i++)
    if (nbd_poll_events (nbd->connections.nbd[i]) & ~nbd->polled[i])
      return true;
  return false;
}

/* Called and returns with the lock held.  It is never asleep for longer
 * than a new command may take, so that those need not wake it.
 */
static void
wait_for_events (struct nbd_bdev *nbd)
{
  unsigned int n = nbd->connections.n, i;
  struct pollfd fds[NBD_CONNECTIONS + 1];
  eventfd_t count;
  int r;

  for (i = 0; i < n; i++) {
    nbd->polled[i] = nbd_poll_events (nbd->connections.nbd[i]);
    if (nbd->polled[i] == 0) {  /* libnbd expects nothing more from it */
      nbd->broken = true;
      return;
    }
    fds[i] = (struct pollfd) {
      .fd = nbd_aio_get_fd (nbd->connections.nbd[i]),
      .events = nbd->polled[i],
    };
  }
  fds[n] = (struct pollfd) { .fd = nbd->wake_fd, .events = POLLIN };
  nbd->polled_until = MIN (next_event (nbd),
                           clock_now () + nbd->timeout * NSEC_PER_SEC);

  nbd->polling = true;
  pthread_mutex_unlock (&nbd->lock);
  r = poll (fds, n + 1, nbd_poll_timeout (nbd->polled_until));
  pthread_mutex_lock (&nbd->lock);
  nbd->polling = false;

  if (r > 0 && fds[n].revents != 0)
    eventfd_read (nbd->wake_fd, &count);
  nbd->readable = false;
  for (i = 0; r > 0 && i < n; i++)
    nbd->readable = nbd->readable || fds[i].revents & POLLIN;
  for (i = 0; r > 0 && i < n && !nbd->broken; i++)
    if (fds[i].revents != 0 &&
        !nbd_notify (nbd->connections.nbd[i], &fds[i])) {
      nbd->broken = true;
      nbd->why = g_strdup (nbd_get_error ());
    }
}

static void *
owner_thread (void *arg)
{
  struct nbd_bdev *nbd = arg;

  pthread_mutex_lock (&nbd->lock);
  while (!nbd->stop) {
    if (nbd->broken)
      give_up_broken (nbd);
    nbd_end_commands (nbd);
    if (nbd->waiting != NULL)
      nbd_run_waiting (nbd);
    keep_time (nbd);
    if (nbd->ended.first == NULL && !nbd->broken)
      wait_for_events (nbd);
  }
  pthread_mutex_unlock (&nbd->lock);
  return NULL;
}

/* Called with the lock held.  Returns 0 or an errno. */
static int
start_thread (struct nbd_bdev *nbd)
{
  int err = 0;

  if (!nbd->has_thread)
    err = create_thread (&nbd->thread, owner_thread, nbd);
  nbd->has_thread = err == 0;
  return err;
}

/* Put it into the inbox.  True if the caller has to begin what is there. */
static bool
put_into_inbox (struct nbd_bdev *nbd, struct bdev_io *io)
{
  bool first;

  pthread_mutex_lock (&nbd->inbox_lock);
  *nbd->inbox_end = io;
  nbd->inbox_end = &io->next;
  first = !nbd->beginning;
  nbd->beginning = true;
  pthread_mutex_unlock (&nbd->inbox_lock);
  return first;
}

/* Take all that is in the inbox; when that is nothing, the next to put
 * something into it has to begin it.
 */
static struct bdev_io *
take_inbox (struct nbd_bdev *nbd)
{
  struct bdev_io *first;

  pthread_mutex_lock (&nbd->inbox_lock);
  first = nbd->inbox;
  nbd->inbox = NULL;
  nbd->inbox_end = &nbd->inbox;
  nbd->beginning = first != NULL;
  pthread_mutex_unlock (&nbd->inbox_lock);
  return first;
}

/* Called with the lock held. */
static void
begin (struct nbd_bdev *nbd, struct bdev_io *io, int err)
{
  if (err == 0)
    nbd_run_io (nbd, io);
  else {
    nbd_drop_rest (io, err);
    io->done (io, io->error);
  }
}

static void
nbd_start (struct bdev_io *io)
{
  struct nbd_bdev *nbd = (struct nbd_bdev *) io->bdev;
  struct bdev_io *next;
  int err;

  if (!put_into_inbox (nbd, io))
    return;
  pthread_mutex_lock (&nbd->lock);
  err = start_thread (nbd);
  while ((io = take_inbox (nbd)) != NULL)
    for (; io != NULL; io = next) {
      next = io->next;
      begin (nbd, io, err);
    }
  if (has_to_wake (nbd))
    wake (nbd);
  pthread_mutex_unlock (&nbd->lock);
}

static int
nbd_attend (struct block_device *bdev)
{
  struct nbd_bdev *nbd = (struct nbd_bdev *) bdev;
  int err;

  pthread_mutex_lock (&nbd->lock);
  err = start_thread (nbd);
  pthread_mutex_unlock (&nbd->lock);
  return -err;
}

/*----------------------------------------------------------------------
 * Operations that are waited for
 */

static void
waited_done (struct bdev_io *io, int error)
{
  struct nbd_waited *w = (struct nbd_waited *) io;

  pthread_mutex_lock (&w->lock);
  w->ended = true;
  w->error = error;
  pthread_cond_signal (&w->done);
  pthread_mutex_unlock (&w->lock);
}

/* Returns 0 or a negative errno. */
static int
run_waited (struct nbd_waited *w)
{
  w->io.done = waited_done;
  pthread_mutex_init (&w->lock, NULL);
  pthread_cond_init (&w->done, NULL);
  bdev_start (&w->io);
  pthread_mutex_lock (&w->lock);
  while (!w->ended)
    pthread_cond_wait (&w->done, &w->lock);
  pthread_mutex_unlock (&w->lock);
  pthread_cond_destroy (&w->done);
  pthread_mutex_destroy (&w->lock);
  return -w->error;
}

/* Cut what is beyond LENGTH.  Returns how many are left. */
static int
cut (struct bdev_extent *extents, int n, uint64_t length)
{
  int i;

  for (i = 0; i < n && length > 0; i++) {
    extents[i].length = MIN (extents[i].length, length);
    length -= extents[i].length;
  }
  return i;
}

static int
nbd_extents (struct block_device *bdev, uint64_t offset, uint64_t length,
             struct bdev_extent *extents, int max)
{
  const struct nbd_bdev *nbd = (struct nbd_bdev *) bdev;
  struct nbd_waited w = {
    .io = {
      .bdev = bdev, .op = NBD_OP_EXTENTS,
      .offset = offset, .length = MIN (length, MAX_STATUS_SPAN),
    },
    .extents = extents, .max = max,
  };
  int r;

  if (!nbd->export.can_block_status) {
    *extents = (struct bdev_extent) { .length = length };
    return 1;
  }
  r = run_waited (&w);
  if (r < 0)
    return r;
  if (w.n == 0)
    return -EIO;
  return cut (extents, bdev_round_extents (extents, w.n, DM_IO_SECTOR_SIZE),
              length);
}

static int
nbd_prefetch (struct block_device *bdev, uint64_t offset, uint64_t length)
{
  const struct nbd_bdev *nbd = (struct nbd_bdev *) bdev;
  struct nbd_waited w = {
    .io = {
      .bdev = bdev, .op = NBD_OP_PREFETCH, .offset = offset, .length = length,
    },
  };

  return nbd->export.can_cache ? run_waited (&w) : 0;
}

/*----------------------------------------------------------------------
 * Opening and closing
 */

static void
remove_open (struct nbd_bdev *nbd)
{
  struct nbd_bdev **p;

  pthread_mutex_lock (&open_lock);
  for (p = &open_nbds; *p != NULL; p = &(*p)->next_open)
    if (*p == nbd) {
      *p = nbd->next_open;
      break;
    }
  pthread_mutex_unlock (&open_lock);
}

/* False if it is open already. */
static bool
add_open (struct nbd_bdev *nbd)
{
  const struct nbd_bdev *other;

  pthread_mutex_lock (&open_lock);
  for (other = open_nbds; other != NULL; other = other->next_open)
    if (strcmp (other->export_name, nbd->export_name) == 0)
      break;
  if (other == NULL) {
    nbd->next_open = open_nbds;
    open_nbds = nbd;
  }
  pthread_mutex_unlock (&open_lock);
  return other == NULL;
}

static void
free_nbd (struct nbd_bdev *nbd)
{
  close (nbd->wake_fd);
  pthread_mutex_destroy (&nbd->lock);
  pthread_mutex_destroy (&nbd->inbox_lock);
  g_free (nbd->why);
  g_free (nbd->last_error);
  g_free (nbd->export_name);
  g_free (nbd->uri);
  g_free (nbd);
}

static void
nbd_close_bdev (struct block_device *bdev)
{
  struct nbd_bdev *nbd = (struct nbd_bdev *) bdev;
  g_autofree char *error = NULL;

  pthread_mutex_lock (&nbd->lock);
  nbd->stop = true;
  wake (nbd);
  pthread_mutex_unlock (&nbd->lock);
  if (nbd->has_thread)
    pthread_join (nbd->thread, NULL);

  if (nbd->attempt != NULL)
    nbd_attempt_end (nbd->attempt, &nbd->connections, &error);
  nbd_connections_close (&nbd->connections);
  remove_open (nbd);
  bdev_fini (bdev);
  free_nbd (nbd);
}

static const struct bdev_ops ops = {
  .start = nbd_start,
  .attend = nbd_attend,
  .extents = nbd_extents,
  .prefetch = nbd_prefetch,
  .close = nbd_close_bdev,
};

static struct nbd_bdev *
new_nbd (char *uri, unsigned int timeout)
{
  struct nbd_bdev *nbd = g_new0 (struct nbd_bdev, 1);

  nbd->uri = uri;
  nbd->export_name = nbd_export_of_uri (uri);
  nbd->timeout = timeout;
  nbd->delay = NBD_FIRST_DELAY;
  nbd->inbox_end = &nbd->inbox;
  pthread_mutex_init (&nbd->inbox_lock, NULL);
  pthread_mutex_init (&nbd->lock, NULL);
  nbd_commands_init (nbd);
  nbd->wake_fd = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);
  return nbd;
}

/* Returns 0, or an errno and a message. */
static int
connect_first (struct nbd_bdev *nbd, char **error)
{
  struct nbd_attempt *attempt = nbd->wake_fd == -1 ? NULL :
    nbd_attempt_begin (nbd->uri, nbd->timeout, nbd->wake_fd);
  int err;

  if (attempt == NULL) {
    err = errno;
    *error = g_strdup (strerror (err));
    return err;
  }
  nbd_attempt_wait (attempt);
  err = nbd_attempt_end (attempt, &nbd->connections, error);
  nbd->export = nbd->connections.export;
  return err;
}

/* Make a device of the connections.  Returns 0 or a negative errno. */
static int
init_common (struct nbd_bdev *nbd, const char *name, unsigned int flags)
{
  const struct nbd_export *export = &nbd->export;
  int r = bdev_init (&nbd->common, &ops, name, export->size);

  if (r < 0)
    return r;
  nbd->common.block_size = export->block_size;
  nbd->common.rotational = export->rotational;
  nbd->common.read_only = export->read_only || flags & DM_BDEV_READ_ONLY;
  nbd->common.can_punch =
    export->can_zero && export->can_fast_zero && !nbd->common.read_only ?
    CAN_PUNCH : CANNOT_PUNCH;
  if (!export->can_flush && !nbd->common.read_only)
    g_warning ("%s: the server has no flush command: what it has "
               "acknowledged counts as durable", name);
  return 0;
}

struct block_device *
nbd_bdev_open (const char *name, const struct dm_bdev_options *options,
               char **error)
{
  unsigned int timeout =
    options->timeout != 0 ? options->timeout : DM_BDEV_TIMEOUT;
  g_autofree char *message = NULL;
  struct nbd_bdev *nbd;
  char *uri;
  int err;

  if (options->flags & (DM_BDEV_DIRECT | DM_BDEV_BUFFERED)) {
    bdev_open_failed (EINVAL, error, "%s: direct or buffered I/O is for "
                      "files; how an NBD server does it is its own "
                      "setting", name);
    return NULL;
  }
  uri = nbd_check_uri (name, &message);
  if (uri == NULL) {
    bdev_open_failed (EINVAL, error, "%s: %s", name, message);
    return NULL;
  }

  nbd = new_nbd (uri, timeout);
  if (!add_open (nbd)) {
    bdev_open_failed (EBUSY, error, "%s: is open already; name each export "
                      "once", name);
    free_nbd (nbd);
    errno = EBUSY;
    return NULL;
  }
  err = connect_first (nbd, &message);
  if (err == 0) {
    err = -init_common (nbd, name, options->flags);
    if (err == 0)
      return &nbd->common;
    message = g_strdup (strerror (err));
  }
  nbd_connections_close (&nbd->connections);
  remove_open (nbd);
  free_nbd (nbd);
  bdev_open_failed (err, error, "%s: cannot connect: %s", name, message);
  return NULL;
}
