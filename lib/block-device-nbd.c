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
 * delay, and what comes meanwhile fails at once.  That, and what
 * becomes of changes that may be lost, is in nbd-reconnect.c.
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

static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static struct nbd_bdev *open_nbds;

/*----------------------------------------------------------------------
 * The owner thread
 */

void
nbd_wake (struct nbd_bdev *nbd)
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
      nbd_next_event (nbd) < nbd->polled_until)
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
  unsigned int n = nbd->connections.n, old = nbd->farewell.n, i;
  struct pollfd fds[2 * NBD_CONNECTIONS + 1];
  eventfd_t count;
  int r;

  for (i = 0; i < n; i++) {
    nbd->polled[i] = nbd_poll_events (nbd->connections.nbd[i]);
    if (nbd->polled[i] == 0) {  /* libnbd expects nothing more from it */
      nbd_set_broken (nbd, 0);
      return;
    }
    fds[i] = (struct pollfd) {
      .fd = nbd_aio_get_fd (nbd->connections.nbd[i]),
      .events = nbd->polled[i],
    };
  }
  fds[n] = (struct pollfd) { .fd = nbd->wake_fd, .events = POLLIN };
  nbd_farewell_poll (&nbd->farewell, &fds[n + 1]);
  nbd->polled_until = MIN (nbd_next_event (nbd),
                           clock_now () + nbd->timeout * NSEC_PER_SEC);

  nbd->polling = true;
  pthread_mutex_unlock (&nbd->lock);
  r = poll (fds, n + 1 + old, nbd_poll_timeout (nbd->polled_until));
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
      nbd_set_broken (nbd, nbd_get_errno ());
      if (nbd->why == NULL)     /* the server may have said it */
        nbd->why = g_strdup (nbd_get_error ());
    }
}

static void *
owner_thread (void *arg)
{
  struct nbd_bdev *nbd = arg;

  pthread_mutex_lock (&nbd->lock);
  while (!nbd->stop || nbd->probing) {
    if (nbd->broken)
      nbd_give_up_broken (nbd);
    nbd_end_commands (nbd);
    if (nbd->waiting != NULL)
      nbd_run_waiting (nbd);
    nbd_keep_time (nbd);
    if (nbd->ended.first == NULL && !nbd->broken)
      wait_for_events (nbd);
  }
  pthread_mutex_unlock (&nbd->lock);
  return NULL;
}

int
nbd_start_thread (struct nbd_bdev *nbd)
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
  err = nbd_start_thread (nbd);
  while ((io = take_inbox (nbd)) != NULL)
    for (; io != NULL; io = next) {
      next = io->next;
      begin (nbd, io, err);
    }
  if (has_to_wake (nbd))
    nbd_wake (nbd);
  pthread_mutex_unlock (&nbd->lock);
}

static int
nbd_attend (struct block_device *bdev)
{
  struct nbd_bdev *nbd = (struct nbd_bdev *) bdev;
  int err;

  pthread_mutex_lock (&nbd->lock);
  err = nbd_start_thread (nbd);
  pthread_mutex_unlock (&nbd->lock);
  return -err;
}

static void
end_thread (struct nbd_bdev *nbd)
{
  bool has_thread;

  pthread_mutex_lock (&nbd->lock);
  has_thread = nbd->has_thread;
  nbd->stop = true;
  nbd_wake (nbd);
  pthread_mutex_unlock (&nbd->lock);
  if (has_thread)
    pthread_join (nbd->thread, NULL);
  nbd->has_thread = false;
}

/* An attempt has a thread too. */
static void
nbd_rest (struct block_device *bdev)
{
  struct nbd_bdev *nbd = (struct nbd_bdev *) bdev;

  end_thread (nbd);
  pthread_mutex_lock (&nbd->lock);
  if (nbd->attempt != NULL)
    nbd_end_attempt (nbd);
  nbd->stop = false;
  pthread_mutex_unlock (&nbd->lock);
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

  end_thread (nbd);
  if (nbd->attempt != NULL)
    nbd_attempt_end (nbd->attempt, &nbd->connections, &error);
  nbd_connections_close (&nbd->connections);
  nbd_farewell_end (&nbd->farewell);
  remove_open (nbd);
  bdev_fini (bdev);
  free_nbd (nbd);
}

static const struct bdev_ops ops = {
  .start = nbd_start,
  .attend = nbd_attend,
  .rest = nbd_rest,
  .revive = nbd_revive,
  .flush_again = nbd_flush_again,
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

/* Make a device of the connections.  Returns 0 or a negative errno. */
static int
init_common (struct nbd_bdev *nbd, const char *name, unsigned int flags)
{
  const struct nbd_export *export = &nbd->export;
  int r = bdev_init (&nbd->common, &ops, name, export->size);

  if (r < 0)
    return r;
  nbd->common.late = nbd->timeout * NSEC_PER_SEC;
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

/* Returns 0, or an errno and a message. */
static int
begin_to_connect (struct nbd_bdev *nbd, const char *name, char **error)
{
  int err;

  if (!add_open (nbd)) {
    bdev_open_failed (EBUSY, error, "%s: is open already; name each export "
                      "once", name);
    return EBUSY;
  }
  if (nbd->wake_fd != -1)
    nbd->attempt = nbd_attempt_begin (nbd->uri, nbd->timeout, nbd->wake_fd);
  if (nbd->attempt != NULL)
    return 0;
  err = errno;
  bdev_open_failed (err, error, "%s: cannot connect: %s", name,
                    strerror (err));
  remove_open (nbd);
  return err;
}

struct block_device *
nbd_bdev_begin (const char *name, const struct dm_bdev_options *options,
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
  err = begin_to_connect (nbd, name, error);
  if (err == 0)
    return &nbd->common;
  free_nbd (nbd);
  errno = err;
  return NULL;
}

/* Returns 0, or an errno and a message. */
static int
take_first_attempt (struct nbd_bdev *nbd, char **error)
{
  int err = nbd_attempt_end (nbd->attempt, &nbd->connections, error);

  nbd->attempt = NULL;
  nbd->export = nbd->connections.export;
  return err;
}

static void
drop (struct nbd_bdev *nbd)
{
  nbd_connections_close (&nbd->connections);
  remove_open (nbd);
  free_nbd (nbd);
}

struct block_device *
nbd_bdev_end (struct block_device *bdev, const char *name,
              const struct dm_bdev_options *options, char **error)
{
  struct nbd_bdev *nbd = (struct nbd_bdev *) bdev;
  g_autofree char *message = NULL;
  int err;

  nbd_attempt_wait (nbd->attempt);
  err = take_first_attempt (nbd, &message);
  if (err == 0) {
    err = -init_common (nbd, name, options->flags);
    if (err == 0)
      return bdev;
    message = g_strdup (strerror (err));
  }
  drop (nbd);
  bdev_open_failed (err, error, "%s: cannot connect: %s", name, message);
  return NULL;
}

void
nbd_bdev_cancel (struct block_device *bdev)
{
  struct nbd_bdev *nbd = (struct nbd_bdev *) bdev;
  g_autofree char *message = NULL;

  take_first_attempt (nbd, &message);
  drop (nbd);
}
