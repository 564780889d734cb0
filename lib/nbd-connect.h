/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Connections to an NBD server: how they are made, within a time. */

#ifndef DMIO_NBD_CONNECT_H
#define DMIO_NBD_CONNECT_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

#include <libnbd.h>

/* What the server says about the export. */
struct nbd_export {
  uint64_t size;                /* bytes */
  unsigned int block_size;      /* of requests, at least a sector */
  uint32_t max_transfer;        /* bytes of a read or a write */
  bool read_only, rotational;
  bool can_flush, can_fua, can_zero, can_fast_zero, can_cache;
  bool can_block_status;        /* with base:allocation */
  bool can_multi_conn;
};

/* True if nothing that matters is different. */
extern bool nbd_same_export (const struct nbd_export *a,
                             const struct nbd_export *b);

/* All connections to one export, ready to be used, and all alike.  More
 * than one only if the server allows that.
 */
#define NBD_CONNECTIONS 4
struct nbd_connections {
  unsigned int n;
  struct nbd_handle *nbd[NBD_CONNECTIONS];
  int fds[NBD_CONNECTIONS];     /* their sockets too; see nbd-disconnect.c */
  struct nbd_export export;
};

/* Check URI, and make the paths in it absolute.  Returns NULL and a
 * message in *ERROR to be freed with g_free, if it is wrong or asks for a
 * connection that libnbd would not authenticate.
 */
extern char *nbd_check_uri (const char *uri, char **error);

/* The same for all URIs, checked, of one export, to be freed with g_free. */
extern char *nbd_export_of_uri (const char *uri);

/* An attempt to connect. */
struct nbd_attempt;

/* Begin to connect to URI, which has been checked, for at most TIMEOUT
 * seconds.  When that has ended WAKE_FD, an eventfd, is written to.
 * Returns NULL with errno set if no thread can be started.
 */
extern struct nbd_attempt *nbd_attempt_begin (const char *uri,
                                              unsigned int timeout,
                                              int wake_fd);

/* True if it has ended, or hangs.  One that takes too long is called off
 * here, and only hangs if it has not ended some time after that.
 */
extern bool nbd_attempt_ended (struct nbd_attempt *attempt);

/* When to ask again, on clock_now, unless WAKE_FD was written to. */
extern uint64_t nbd_attempt_deadline (const struct nbd_attempt *attempt);

/* Wait until it has ended, or should have. */
extern void nbd_attempt_wait (struct nbd_attempt *attempt);

/* Take the connections, and free the attempt.  If it has not ended it is
 * called off, and if it hangs left to itself.  Returns 0, or an errno and
 * a message in *ERROR, to be freed with g_free.
 */
extern int nbd_attempt_end (struct nbd_attempt *attempt,
                            struct nbd_connections *connections,
                            char **error);

/* What to poll the socket of the handle for. */
extern short nbd_poll_events (struct nbd_handle *nbd);

/* Tell libnbd what poll has found, with these events: callbacks may be
 * called.  False if the connection has failed, or ended.
 */
extern bool nbd_notify (struct nbd_handle *nbd, const struct pollfd *fd);
extern bool nbd_has_failed (struct nbd_handle *nbd);

/* Milliseconds until then on clock_now, at most a minute. */
extern int nbd_poll_timeout (uint64_t until);

#endif /* DMIO_NBD_CONNECT_H */
