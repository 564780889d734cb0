/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* A real NBD server, nbdkit with a file, for a C test.  It ends with the
 * test in any case.
 */

#ifndef DMIO_NBDKIT_SERVER_H
#define DMIO_NBDKIT_SERVER_H

#include <stdbool.h>
#include <sys/types.h>

struct nbdkit_server {
  bool write_back;              /* loses what is not flushed if it is killed */
  bool tcp;                     /* not on a Unix socket */
  /* The rest is set by start. */
  pid_t pid;                    /* 0: none */
  char *file;
  unsigned int block_size;
  char *socket;                 /* or NULL and */
  unsigned int port;
  char *uri;
  char *fail;                   /* while this file exists, reads and changes
                                 * fail with EIO */
};

/* Serve FILE, in requests that are multiples of block_size, on a socket
 * beside it; wait until it listens.
 */
extern void nbdkit_server_start (struct nbdkit_server *server,
                                 const char *file, unsigned int block_size);
/* Nobody may be connected. */
extern void nbdkit_server_stop (struct nbdkit_server *server);

/* Let it do nothing, all of it, for a while. */
extern void nbdkit_server_pause (struct nbdkit_server *server);
extern void nbdkit_server_continue (struct nbdkit_server *server);

/* As at a crash; and start it again, at the same address. */
extern void nbdkit_server_kill (struct nbdkit_server *server);
extern void nbdkit_server_restart (struct nbdkit_server *server);

#endif /* DMIO_NBDKIT_SERVER_H */
