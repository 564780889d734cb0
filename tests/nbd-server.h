/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* An NBD server of the tests' own, in threads of the test, on a Unix
 * socket.  It says about itself what the test wants, records what it is
 * asked, and misbehaves by a script.
 *
 * Of the protocol (NBD's doc/proto.md) it speaks the fixed newstyle
 * handshake and the commands that libnbd sends, with structured replies if
 * wanted.  A client that breaks the protocol, or asks for what was not
 * offered, aborts the test.
 */

#ifndef DMIO_NBD_SERVER_H
#define DMIO_NBD_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Commands, as bits of NBD_CMD_*. */
enum {
  SERVER_READ = 1 << 0,
  SERVER_WRITE = 1 << 1,
  SERVER_DISCONNECT = 1 << 2,
  SERVER_FLUSH = 1 << 3,
  SERVER_TRIM = 1 << 4,
  SERVER_CACHE = 1 << 5,
  SERVER_ZERO = 1 << 6,
  SERVER_STATUS = 1 << 7,
  SERVER_PROBE = 1 << 8,        /* block status that asks if it is there */
  SERVER_CHANGES = SERVER_WRITE | SERVER_TRIM | SERVER_ZERO,
  SERVER_ANY = 0xff & ~SERVER_DISCONNECT,
};

/* Transmission flags. */
enum {
  SERVER_READ_ONLY = 1 << 1,
  SERVER_CAN_FLUSH = 1 << 2,
  SERVER_CAN_FUA = 1 << 3,
  SERVER_ROTATIONAL = 1 << 4,
  SERVER_CAN_TRIM = 1 << 5,
  SERVER_CAN_ZERO = 1 << 6,
  SERVER_CAN_MULTI_CONN = 1 << 8,
  SERVER_CAN_CACHE = 1 << 10,
  SERVER_CAN_FAST_ZERO = 1 << 11,
  SERVER_CAN_ALL = SERVER_CAN_FLUSH | SERVER_CAN_FUA | SERVER_CAN_TRIM |
    SERVER_CAN_ZERO | SERVER_CAN_CACHE | SERVER_CAN_FAST_ZERO,
};

/* Command flags. */
enum {
  SERVER_FUA = 1 << 0,
  SERVER_NO_HOLE = 1 << 1,
  SERVER_REQ_ONE = 1 << 3,
  SERVER_FAST_ZERO = 1 << 4,
};

/* What it says about itself. */
struct nbd_server_options {
  uint64_t size;
  unsigned int flags;
  uint32_t min_block, max_block; /* both 0: not said */
  bool structured;              /* replies; else there is no block status */
};

/* One line of the script: the commands OPS that touch byte OFFSET (0: any),
 * without the first AFTER ones, and then TIMES of them (0: all).
 */
enum nbd_server_misdeed {
  SERVER_SAYS_ERROR = 1,        /* without doing it */
  SERVER_SAYS_NOTHING,          /* having done it */
  SERVER_HANGS_UP,              /* without doing it */
  SERVER_HANGS_UP_IN_REPLY,     /* having done it */
  SERVER_HANGS_UP_FIRST,        /* and does it SERVER_LATE_US later */
  SERVER_SAYS_GARBAGE,
  SERVER_SAYS_HALF,             /* of a structured read; calls that all */
};
struct nbd_server_fault {
  unsigned int ops;
  uint64_t offset;
  unsigned int after, times;
  enum nbd_server_misdeed what;
  uint32_t error;               /* an errno of those that NBD has */
};
#define SERVER_MAX_FAULTS 8
#define SERVER_LATE_US 500000

/* A command, in the order in which they came. */
struct nbd_server_event {
  unsigned int op, flags;
  uint64_t offset;
  uint32_t length;
  unsigned int connection;      /* counted from 0 */
};
#define SERVER_MAX_EVENTS 4096

/* What block status says, from the start of the export on. */
struct nbd_server_extent {
  uint32_t length, flags;
};

struct nbd_server;

extern struct nbd_server *nbd_server_start (const char *socket,
                                            const struct nbd_server_options *
                                            options);
extern void nbd_server_stop (struct nbd_server *server);

/* For connections from now on. */
extern void nbd_server_set_options (struct nbd_server *server,
                                    const struct nbd_server_options *options);
/* End all connections; accept new ones, or none until it is told again. */
extern void nbd_server_hang_up (struct nbd_server *server, bool accept);
/* The same for those that connect from now on only: end them at once. */
extern void nbd_server_accept (struct nbd_server *server, bool accept);
/* Connections that got through the handshake, ever. */
extern unsigned int nbd_server_connections (struct nbd_server *server);
/* Attempts to connect, ever. */
extern unsigned int nbd_server_attempts (struct nbd_server *server);

extern void nbd_server_fault (struct nbd_server *server,
                              const struct nbd_server_fault *fault);
extern void nbd_server_clear_faults (struct nbd_server *server);
/* Keep the next N replies, and then give them in reverse order. */
extern void nbd_server_reverse (struct nbd_server *server, unsigned int n);
/* Until it is opened again, nothing that arrives is done or answered. */
extern void nbd_server_close_gate (struct nbd_server *server, bool closed);
/* EXTENTS must live on; the last has length 0. */
extern void nbd_server_set_extents (struct nbd_server *server,
                                    const struct nbd_server_extent *extents);

/* What it holds; no command may be under way. */
extern unsigned char *nbd_server_data (struct nbd_server *server);

/* The commands OPS since the last clear, of which there must be N. */
extern const struct nbd_server_event *
nbd_server_trace (struct nbd_server *server, unsigned int ops, size_t n);
extern size_t nbd_server_count (struct nbd_server *server, unsigned int ops);
extern void nbd_server_clear_trace (struct nbd_server *server);
/* Wait until there are so many. */
extern void nbd_server_await (struct nbd_server *server, unsigned int ops,
                              size_t n);

#endif /* DMIO_NBD_SERVER_H */
