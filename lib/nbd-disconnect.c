/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The ends of connections to an NBD server.
 *
 * One that is given up with changes in flight is not simply closed, as the
 * server may carry these out at any time, and they must not land on newer
 * data.  So nothing newer is sent before it has ended the old connection,
 * and that shows only as long as the socket is open.  libnbd closes its
 * descriptor as soon as it finds that the connection has failed; that is why
 * struct nbd_connections has another one of the same socket.  The server is
 * told that nothing more comes (SHUT_WR), and what it still sends is read and
 * thrown away, until
 *
 * - the end of the stream or a reset: the server has closed its end; or it,
 *   or its machine, has gone.  A server that has gone does nothing more.  One
 *   that lives has read all commands before the end, and nbdkit has done
 *   them too if they were whole; but qemu-nbd closes its end with requests
 *   under way, and so does nbdkit if the last command was cut off.  So
 *   a settling time has to follow.
 *
 * - another error, such as ETIMEDOUT from a cut cable or for TCP_USER_TIMEOUT:
 *   it is this machine's own conclusion, and says nothing about the server,
 *   which may have been stopped with commands in its socket.  That is what
 *   "doubtful" means.  Then the server has to connect again, so to be
 *   running, for longer than it may take for a command.
 *
 * A server that is stopped does neither: it is waited for.
 */

#include <config.h>

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include <glib.h>
#include <libnbd.h>

#include "nbd-disconnect.h"

/* Read at most this, and so many times, before others have their turn. */
#define DISCARD_BYTES 16384
#define DISCARD_TIMES 64

/*----------------------------------------------------------------------
 * At once
 */

static void
forget (struct nbd_connections *connections)
{
  unsigned int i;

  while (connections->n > 0) {
    i = --connections->n;
    nbd_close (connections->nbd[i]);
    if (connections->fds[i] != -1)
      close (connections->fds[i]);
  }
}

/* Its close throws away what has not been sent. */
static void
set_reset (int fd)
{
  const struct linger reset = { .l_onoff = 1, .l_linger = 0 };

  setsockopt (fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
}

void
nbd_connections_abort (struct nbd_connections *connections)
{
  unsigned int i;

  for (i = 0; i < connections->n; i++)
    set_reset (connections->fds[i]);
  forget (connections);
}

void
nbd_connections_close (struct nbd_connections *connections)
{
  unsigned int i;

  for (i = 0; i < connections->n; i++)
    nbd_aio_disconnect (connections->nbd[i], 0);
  forget (connections);
}

/*----------------------------------------------------------------------
 * With an eye on the server
 */

/* The connection has ended with this errno, or 0. */
static void
note_end (struct nbd_farewell *farewell, int error)
{
  if (error != 0 && error != ECONNRESET && error != EPIPE)
    farewell->doubtful = true;
}

/* The kernel knows no more of the connection; why was told to who has asked
 * first.
 */
static void
note_gone (struct nbd_farewell *farewell, int fd, int told)
{
  int error = 0;
  socklen_t length = sizeof error;

  if (getsockopt (fd, SOL_SOCKET, SO_ERROR, &error, &length) == -1 ||
      error == 0)
    error = told != 0 ? told : EIO;
  note_end (farewell, error);
}

void
nbd_farewell_begin (struct nbd_farewell *farewell,
                    struct nbd_connections *connections, int error)
{
  unsigned int i;
  int fd;

  g_assert (farewell->n == 0);
  for (i = 0; i < connections->n; i++) {
    fd = connections->fds[i];
    if (shutdown (fd, SHUT_WR) == -1) {
      note_gone (farewell, fd, error);
      continue;
    }
    connections->fds[i] = -1;
    farewell->fds[farewell->n++] = fd;
  }
  forget (connections);
}

void
nbd_farewell_poll (const struct nbd_farewell *farewell, struct pollfd *fds)
{
  unsigned int i;

  for (i = 0; i < farewell->n; i++)
    fds[i] = (struct pollfd) { .fd = farewell->fds[i], .events = POLLIN };
}

static bool
has_ended (struct nbd_farewell *farewell, int fd)
{
  char discarded[DISCARD_BYTES];
  ssize_t r = 1;
  int i;

  for (i = 0; i < DISCARD_TIMES && r > 0; i++)
    r = recv (fd, discarded, sizeof discarded, MSG_DONTWAIT);
  if (r > 0 || (r == -1 && (errno == EAGAIN || errno == EINTR)))
    return false;
  note_end (farewell, r == 0 ? 0 : errno);
  return true;
}

void
nbd_farewell_look (struct nbd_farewell *farewell)
{
  unsigned int i, n = 0;

  for (i = 0; i < farewell->n; i++)
    if (has_ended (farewell, farewell->fds[i]))
      close (farewell->fds[i]);
    else
      farewell->fds[n++] = farewell->fds[i];
  farewell->n = n;
}

void
nbd_farewell_end (struct nbd_farewell *farewell)
{
  unsigned int i;

  for (i = 0; i < farewell->n; i++) {
    set_reset (farewell->fds[i]);
    close (farewell->fds[i]);
  }
  farewell->n = 0;
}
