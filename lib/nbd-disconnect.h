/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* How connections to an NBD server end. */

#ifndef DMIO_NBD_DISCONNECT_H
#define DMIO_NBD_DISCONNECT_H

#include <poll.h>
#include <stdbool.h>

#include "nbd-connect.h"

/* Take leave of the server, and close them; no commands are in flight. */
extern void nbd_connections_close (struct nbd_connections *connections);

/* Close them, as they are: nothing more is sent, and over TCP what the
 * kernel has not sent yet is thrown away.  Whether libnbd calls the completion
 * callbacks of commands in flight depends on its version, so they have to be
 * abandoned before (nbd_abandon_commands).
 */
extern void nbd_connections_abort (struct nbd_connections *connections);

/* Connections that were given up, and that the server has not ended yet: it
 * may still do what it was sent.  All zero: none.
 */
struct nbd_farewell {
  unsigned int n;
  int fds[NBD_CONNECTIONS];
  /* One has ended without a sign of the server; it stays set. */
  bool doubtful;
};

/* As abort, but what was sent stays sent, and from now on the farewell shows
 * when the server has ended them.  ERROR: the errno with which they failed,
 * or 0.
 */
extern void nbd_farewell_begin (struct nbd_farewell *farewell,
                                struct nbd_connections *connections,
                                int error);

/* What to poll, one for each connection that has not ended. */
extern void nbd_farewell_poll (const struct nbd_farewell *farewell,
                               struct pollfd *fds);

/* Find out which have ended. */
extern void nbd_farewell_look (struct nbd_farewell *farewell);

/* Care no more. */
extern void nbd_farewell_end (struct nbd_farewell *farewell);

#endif /* DMIO_NBD_DISCONNECT_H */
