/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Operations on a device, as commands to its NBD server.
 *
 * An operation goes through stages: a flush if it asks for that, the data in
 * as many commands as it takes, and a flush for FUA where the server
 * knows no better.  All commands of a stage are in flight at once; the next
 * stage begins when they have ended.
 *
 * A server tells once that it could not keep something, and it may tell so any command
 * that flushes.  So a flush succeeds only when all others that were in flight with it have
 * ended, and if one has failed none succeeds until what was written is written again.
 */

#include <config.h>

#include <errno.h>
#include <string.h>

#include <glib.h>
#include <libnbd.h>

#include "nbd-bdev.h"

/* Commands in flight on a connection before the next is used: as many as
 * servers usually do at a time.
 */
#define CONNECTION_COMMANDS 16

/* Of a zero or cache command: so little that a server can be expected to do
 * it in time.
 */
#define MAX_SPAN (64 * 1024 * 1024)

/* Bytes of reads and writes in flight, but one command in any case.  The
 * time of a command begins when it is sent, so that what a slow network takes
 * for these is within the timeout.
 */
#define MAX_BYTES (32 * 1024 * 1024)

/* How soon to try again when there is no memory for a command. */
#define NO_MEMORY_DELAY (NSEC_PER_SEC / 1000)

/* Where the server has no command to zero. */
static const unsigned char zeroes[256 * 1024];

/* io->stage. */
enum stage { BEGIN, PREFLUSH, DATA, POSTFLUSH };

/*----------------------------------------------------------------------
 * Lists
 */

static void
append (struct nbd_command_list *list, struct nbd_command *c)
{
  c->prev = list->last;
  c->next = NULL;
  *(list->last == NULL ? &list->first : &list->last->next) = c;
  list->last = c;
}

static void
take_out (struct nbd_command_list *list, struct nbd_command *c)
{
  *(c->prev == NULL ? &list->first : &c->prev->next) = c->next;
  *(c->next == NULL ? &list->last : &c->next->prev) = c->prev;
}

static struct nbd_command *
take_first (struct nbd_command_list *list)
{
  struct nbd_command *c = list->first;

  if (c != NULL)
    take_out (list, c);
  return c;
}

static void
wait_for_command (struct nbd_bdev *nbd, struct bdev_io *io)
{
  io->next = NULL;
  io->waiting = true;
  *nbd->waiting_end = io;
  nbd->waiting_end = &io->next;
}

/*----------------------------------------------------------------------
 * Commands
 */

static bool
changes_data (const struct bdev_io *io)
{
  return io->op == DM_IO_WRITE || io->op == DM_IO_DISCARD ||
    io->op == DM_IO_WRITE_ZEROES;
}

static bool
is_change (const struct nbd_command *c)
{
  return !c->flush && changes_data (c->io);
}

/* May it be told of what others have lost? */
static bool
is_flushing (const struct nbd_command *c)
{
  return c->flush || c->fua;
}

/* May a command that is in flight be told of what a flush that has succeeded was not? */
static bool
is_held (const struct nbd_bdev *nbd, const struct nbd_command *flush)
{
  const struct nbd_command *c;

  for (c = nbd->flying.first; c != NULL; c = c->next)
    if (is_flushing (c) && c->number <= flush->held_by)
      return true;
  return false;
}

/* Flushes that have succeeded, and that nothing in flight can contradict any more. */
static void
release_held (struct nbd_bdev *nbd)
{
  struct nbd_command *c, *next;

  for (c = nbd->held.first; c != NULL; c = next) {
    next = c->next;
    if (is_held (nbd, c))
      continue;
    if (nbd->flush_failures != c->failures)
      c->error = nbd->flush_failure;
    else
      nbd->flushed = MAX (nbd->flushed, c->changes);
    take_out (&nbd->held, c);
    append (&nbd->ended, c);
  }
}

/* Has it failed as a flush does, or might it have been told so?  A write with FUA may fail
 * for another reason.
 */
static bool
has_not_flushed (const struct nbd_command *c)
{
  if (c->flush)
    return c->error != 0;
  return c->fua && (c->error == EIO || c->error == ENOTCONN);
}

/* The server may do a change later whose connection ends now. */
static void
note_late (struct nbd_bdev *nbd)
{
  __atomic_store_n (&nbd->common.late_until, clock_now () + nbd->common.late,
                    __ATOMIC_RELEASE);
}

static void
note_failed_flush (struct nbd_bdev *nbd, int error)
{
  nbd->flush_failures++;
  nbd->flush_failure = error;
  if (error != ENOTCONN && error != ESHUTDOWN && nbd->flush_error == 0)
    nbd->flush_error = error;
}

/* Note what the end of a command means for the device, at once: should the
 * connections be lost before it is looked at, this counts.
 */
static void
note_end (struct nbd_bdev *nbd, struct nbd_command *c)
{
  bool lost = c->error == ENOTCONN; /* libnbd says so, no server does */

  if (has_not_flushed (c))
    note_failed_flush (nbd, c->error);
  if (is_change (c)) {
    if (c->error != 0)
      nbd->missed = true;
    else if (!c->durable)
      nbd->changes++;
    if (lost)
      note_late (nbd);
  }
  if (lost && (c->flush || is_change (c)))
    nbd->cut_off = nbd->missed = true;
  if (c->error == 0)
    nbd->delay = NBD_FIRST_DELAY;
  if (c->flush && c->error == 0) {
    c->held_by = nbd->flushes;
    take_out (&nbd->ended, c);
    append (&nbd->held, c);
  }
  if (is_flushing (c))
    release_held (nbd);
}

/* A command that is in flight has ended with ERROR, an errno or 0. */
static void
set_ended (struct nbd_command *c, int error)
{
  c->error = error;
  c->flying = false;
  take_out (&c->nbd->flying, c);
  append (&c->nbd->ended, c);
}

/* A server that answers so does nothing any more, but waits until its clients
 * have left.
 */
static void
note_shutdown (struct nbd_bdev *nbd)
{
  nbd_set_broken (nbd, 0);
  if (nbd->why == NULL)
    nbd->why = g_strdup ("the server is shutting down");
}

/* Called by libnbd with the handle locked, so it only makes a note.  Libnbd
 * may forget the command then (1), unless it has failed: if the connection
 * fails while the command is sent, libnbd still looks at it after this.  A
 * read is checked by nbd_aio_command_completed later, which needs it, too.
 *
 * From version 1.18 on nbd_close calls this for all commands that libnbd
 * remembers.  They have ended before (nbd_abandon_commands), and nothing new
 * is said of them.
 */
static int
command_ended (void *user_data, int *error)
{
  struct nbd_command *c = user_data;

  if (!c->flying)
    return 1;
  set_ended (c, *error > 0 ? *error : *error < 0 ? EIO : 0);
  note_end (c->nbd, c);
  if (c->error == ESHUTDOWN)
    note_shutdown (c->nbd);
  c->remembered = c->error != 0 || (c->io->op == DM_IO_READ && !c->flush);
  return c->remembered ? 0 : 1;
}

/* The first that has something left, since a busy connection costs both
 * sides less for each command than several idle ones; else the least busy.
 */
static unsigned int
choose_connection (const struct nbd_bdev *nbd)
{
  unsigned int best = 0, i;

  for (i = 1; i < nbd->connections.n &&
         nbd->in_flight[best] >= CONNECTION_COMMANDS; i++)
    if (nbd->in_flight[i] < nbd->in_flight[best])
      best = i;
  return best;
}

/* A command for the operation, about to be sent; NULL if all are in use. */
static struct nbd_command *
new_command (struct nbd_bdev *nbd, struct bdev_io *io)
{
  struct nbd_command *c = take_first (&nbd->free);

  if (c == NULL)
    return NULL;
  c->io = io;
  c->connection = choose_connection (nbd);
  nbd->sent_at = clock_now ();
  c->deadline = nbd->sent_at + nbd->timeout * NSEC_PER_SEC;
  c->flush = c->fua = c->durable = c->remembered = false;
  c->length = 0;
  c->bounced = NULL;
  c->error = 0;
  c->flying = true;
  append (&nbd->flying, c);
  return c;
}

static void
free_command (struct nbd_bdev *nbd, struct nbd_command *c)
{
  mempool_free (&bdev_bounce_pages, c->bounced);
  append (&nbd->free, c);
}

/* It was not sent. */
static void
forget_command (struct nbd_bdev *nbd, struct nbd_command *c)
{
  c->flying = false;
  take_out (&nbd->flying, c);
  free_command (nbd, c);
  release_held (nbd);           /* what has ended while it was to be sent */
}

/* What it has to send or to receive. */
static size_t
bytes_of (const struct nbd_command *c)
{
  return c->io->op == DM_IO_READ || c->io->op == DM_IO_WRITE ? c->length : 0;
}

static void
command_failed (const struct nbd_command *c, int error)
{
  if (c->io->error == 0)
    c->io->error = error;
  if (c->io->op == DM_IO_READ && !c->flush)
    memory_clear (c->data, c->length);
}

void
nbd_set_broken (struct nbd_bdev *nbd, int error)
{
  nbd->broken = true;
  if (nbd->error == 0)
    nbd->error = error;
}

/* Take the cookie that libnbd gave for the command.  False if it was not
 * sent, but can be later: the connection has failed or there was no memory.
 * A command that libnbd will not send has failed.
 */
static bool
sent (struct nbd_bdev *nbd, struct nbd_command *c, int64_t cookie)
{
  int err = nbd_get_errno ();

  if (cookie >= 0) {
    c->cookie = cookie;
    nbd->in_flight[c->connection]++;
    nbd->bytes += bytes_of (c);
    c->io->pending++;
    return true;
  }
  if (nbd_has_failed (nbd->connections.nbd[c->connection]))
    nbd_set_broken (nbd, err);
  else if (err == ENOMEM)
    nbd->retry_at = clock_now () + NO_MEMORY_DELAY;
  else {
    g_critical ("%s: %s", nbd->common.name, nbd_get_error ());
    command_failed (c, err > 0 ? err : EIO);
    forget_command (nbd, c);
    return true;
  }
  forget_command (nbd, c);
  return false;
}

static nbd_completion_callback
completion_of (struct nbd_command *c)
{
  return (nbd_completion_callback) {
    .callback = command_ended, .user_data = c,
  };
}

static struct nbd_handle *
handle_of (const struct nbd_command *c)
{
  return c->nbd->connections.nbd[c->connection];
}

static int
extents_arrived (void *user_data, const char *context, uint64_t offset,
                 uint32_t *entries, size_t n, int *error)
{
  struct nbd_waited *w = user_data;
  size_t i;

  if (strcmp (context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0 || w->n > 0)
    return 0;
  for (i = 0; i + 1 < n && w->n < w->max; i += 2)
    if (entries[i] > 0)
      w->extents[w->n++] = (struct bdev_extent) {
        .length = entries[i],
        .hole = entries[i + 1] & LIBNBD_STATE_HOLE,
        .zero = entries[i + 1] & LIBNBD_STATE_ZERO,
      };
  return 0;
}

/* These two send one command of the operation, and return false if it
 * has to wait before that can be done.
 */
static bool
send_flush (struct nbd_bdev *nbd, struct bdev_io *io)
{
  struct nbd_command *c;

  if (nbd->flush_error != 0) {
    io->error = nbd->flush_error;
    return true;
  }
  if (!nbd->export.can_flush)
    return true;
  c = new_command (nbd, io);
  if (c == NULL)
    return false;
  c->flush = true;
  c->number = ++nbd->flushes;
  c->failures = nbd->flush_failures;
  c->changes = nbd->changes;
  return sent (nbd, c, nbd_aio_flush (handle_of (c), completion_of (c), 0));
}

/* What one command can do of the operation, other than read or write. */
static size_t
span_of (const struct nbd_bdev *nbd, const struct bdev_io *io)
{
  bool by_hand = changes_data (io) && !nbd->export.can_zero;

  if (io->op == NBD_OP_EXTENTS)
    return io->length;
  return MIN (io->length, by_hand ?
              MIN (sizeof zeroes, nbd->export.max_transfer) : MAX_SPAN);
}

/* Find the memory of a read or a write: what is contiguous and in whole
 * blocks, or else a page to bounce it through.  False if there is none.
 */
static bool
find_buffer (struct nbd_bdev *nbd, struct nbd_command *c)
{
  const struct bdev_io *io = c->io;
  struct iovec iov = { NULL, 0 };

  memory_iovecs (&io->data, MIN (io->length, nbd->export.max_transfer),
                 &iov, 1);
  c->data = io->data;
  c->buffer = iov.iov_base;
  c->length = iov.iov_len - iov.iov_len % nbd->export.block_size;
  if (c->length > 0)
    return true;

  c->length = MIN (io->length, nbd->export.block_size);
  c->buffer = c->bounced = mempool_try_alloc (&bdev_bounce_pages);
  if (c->bounced != NULL && io->op == DM_IO_WRITE)
    memory_copy_out (io->data, c->bounced, c->length);
  return c->bounced != NULL;
}

/* Returns the cookie. */
static int64_t
call_libnbd (const struct nbd_bdev *nbd, struct nbd_command *c)
{
  struct nbd_handle *h = handle_of (c);
  const struct bdev_io *io = c->io;
  nbd_completion_callback cb = completion_of (c);
  nbd_extent_callback extent = {
    .callback = extents_arrived, .user_data = (void *) io,
  };
  uint32_t fua = c->fua ? LIBNBD_CMD_FLAG_FUA : 0;
  uint32_t no_hole =
    io->flags & DM_IO_NO_UNMAP ? LIBNBD_CMD_FLAG_NO_HOLE : 0;

  switch ((int) io->op) {
  case DM_IO_READ:
    return nbd_aio_pread (h, c->buffer, c->length, io->offset, cb, 0);
  case DM_IO_WRITE:
    return nbd_aio_pwrite (h, c->buffer, c->length, io->offset, cb, fua);
  case NBD_OP_EXTENTS:
    return nbd_aio_block_status (h, c->length, io->offset, extent, cb,
                                 ((struct nbd_waited *) io)->max == 1 ?
                                 LIBNBD_CMD_FLAG_REQ_ONE : 0);
  case NBD_OP_PREFETCH:
    return nbd_aio_cache (h, c->length, io->offset, cb, 0);
  default:                      /* discard reads as zero too */
    return nbd->export.can_zero ?
      nbd_aio_zero (h, c->length, io->offset, cb, fua | no_hole) :
      nbd_aio_pwrite (h, zeroes, c->length, io->offset, cb, fua);
  }
}

static void
advance (struct bdev_io *io, uint64_t bytes)
{
  if (io->op == DM_IO_READ || io->op == DM_IO_WRITE)
    memory_advance (&io->data, bytes);
  io->offset += bytes;
  io->length -= bytes;
}

static bool
send_data (struct nbd_bdev *nbd, struct bdev_io *io)
{
  bool transfer = io->op == DM_IO_READ || io->op == DM_IO_WRITE;
  struct nbd_command *c = transfer && nbd->bytes >= MAX_BYTES ? NULL :
    new_command (nbd, io);
  size_t length;

  if (c == NULL)
    return false;
  c->fua = io->flags & DM_IO_FUA && nbd->export.can_fua;
  if (c->fua)
    c->number = ++nbd->flushes;
  c->durable = c->fua || !nbd->export.can_flush;
  c->length = span_of (nbd, io);
  if (transfer && !find_buffer (nbd, c)) {
    nbd->retry_at = clock_now () + NO_MEMORY_DELAY;
    forget_command (nbd, c);
    return false;
  }
  length = c->length;
  if (!sent (nbd, c, call_libnbd (nbd, c)))
    return false;
  advance (io, length);
  return true;
}

/*----------------------------------------------------------------------
 * Operations
 */

void
nbd_drop_rest (struct bdev_io *io, int error)
{
  if (io->error == 0)
    io->error = error;
  if (io->op == DM_IO_READ)
    memory_clear (io->data, io->length);
  io->length = 0;
  io->stage = POSTFLUSH;
}

/* Go on to the next stage, which begins with a flush if WITH_FLUSH.  False
 * if that has to wait.
 */
static bool
enter (struct nbd_bdev *nbd, struct bdev_io *io, enum stage stage,
       bool with_flush)
{
  if (with_flush && !send_flush (nbd, io))
    return false;
  io->stage = stage;
  return true;
}

/* All commands of a stage have ended. */
static bool
next_stage (struct nbd_bdev *nbd, struct bdev_io *io)
{
  switch ((enum stage) io->stage) {
  case BEGIN:
    return enter (nbd, io, PREFLUSH, io->op == DM_IO_FLUSH ||
                  io->flags & DM_IO_PREFLUSH);
  case PREFLUSH:
    if (io->error != 0)
      io->length = 0;
    return enter (nbd, io, DATA, false);
  default:
    return enter (nbd, io, POSTFLUSH, changes_data (io) &&
                  io->flags & DM_IO_FUA && !nbd->export.can_fua &&
                  io->error == 0);
  }
}

void
nbd_run_io (struct nbd_bdev *nbd, struct bdev_io *io)
{
  bool go_on = true;

  while (go_on) {
    if ((nbd->connections.n == 0 || nbd->failed) && io->stage != POSTFLUSH)
      nbd_drop_rest (io, nbd->failed ? EIO : ENOTCONN);
    if (io->stage == DATA && io->length > 0)
      go_on = send_data (nbd, io);
    else if (io->pending > 0)
      return;
    else if (io->stage == POSTFLUSH) {
      io->done (io, io->error);
      return;
    }
    else
      go_on = next_stage (nbd, io);
  }
  wait_for_command (nbd, io);
}

void
nbd_run_waiting (struct nbd_bdev *nbd)
{
  struct bdev_io *io = nbd->waiting, *next;

  nbd->waiting = NULL;
  nbd->waiting_end = &nbd->waiting;
  nbd->retry_at = 0;
  for (; io != NULL; io = next) {
    next = io->next;
    io->waiting = false;
    nbd_run_io (nbd, io);
  }
}

/* Let libnbd forget a command that it remembers.  A read has failed if the
 * server did not send all that it was asked for: what is not there would be
 * taken for zeroes.
 */
static void
retire (struct nbd_command *c)
{
  if (!c->remembered)
    return;
  c->remembered = false;
  if (nbd_aio_command_completed (handle_of (c), c->cookie) != 1 &&
      c->error == 0)
    c->error = EIO;
}

static void
end_command (struct nbd_bdev *nbd, struct nbd_command *c)
{
  struct bdev_io *io = c->io;

  nbd->in_flight[c->connection]--;
  nbd->bytes -= bytes_of (c);
  io->pending--;
  retire (c);
  if (c->error != 0)
    command_failed (c, c->error);
  else if (io->op == DM_IO_READ && c->bounced != NULL)
    memory_copy_in (c->data, c->bounced, c->length);
  free_command (nbd, c);
  if (!io->waiting)
    nbd_run_io (nbd, io);
}

void
nbd_end_commands (struct nbd_bdev *nbd)
{
  struct nbd_command *c;

  while ((c = take_first (&nbd->ended)) != NULL)
    end_command (nbd, c);
}

bool
nbd_are_unanswered (const struct nbd_bdev *nbd)
{
  const struct nbd_command *c;

  for (c = nbd->flying.first; c != NULL; c = c->next)
    if (c->flush || is_change (c))
      return true;
  return nbd->cut_off;
}

bool
nbd_may_differ (const struct nbd_bdev *nbd)
{
  return nbd_are_unanswered (nbd) || nbd->missed || nbd->changes != nbd->flushed;
}

void
nbd_abandon_commands (struct nbd_bdev *nbd, int error)
{
  struct nbd_command *c;

  while ((c = take_first (&nbd->held)) != NULL) {
    c->error = error;           /* the others might have been told of a loss */
    append (&nbd->ended, c);
  }
  for (c = nbd->ended.first; c != NULL; c = c->next)
    retire (c);
  while ((c = nbd->flying.first) != NULL) {
    if (is_change (c))
      note_late (nbd);
    set_ended (c, error);
  }
}

/*----------------------------------------------------------------------
 * Probes
 */

uint64_t
nbd_probe_at (const struct nbd_bdev *nbd)
{
  if (nbd->connections.n == 0 || nbd->failed || nbd->stop || nbd->probing ||
      nbd->flying.first != NULL || !nbd->export.can_block_status)
    return UINT64_MAX;
  return nbd->sent_at + NBD_PROBE_NSEC;
}

static void
probe_done (struct bdev_io *io, int error)
{
  ((struct nbd_bdev *) io->bdev)->probing = false;
}

void
nbd_probe (struct nbd_bdev *nbd)
{
  nbd->probing = true;
  nbd->probe = (struct nbd_waited) {
    .io = {
      .bdev = &nbd->common, .op = NBD_OP_EXTENTS,
      .length = nbd->export.block_size, .done = probe_done,
    },
    .extents = &nbd->probe_extent, .max = 1,
  };
  nbd_run_io (nbd, &nbd->probe.io);
}

void
nbd_commands_init (struct nbd_bdev *nbd)
{
  size_t i;

  nbd->waiting_end = &nbd->waiting;
  for (i = 0; i < G_N_ELEMENTS (nbd->commands); i++) {
    nbd->commands[i].nbd = nbd;
    append (&nbd->free, &nbd->commands[i]);
  }
}
