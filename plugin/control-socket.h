/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The Unix socket of control=, which only its owner can connect to. */

#ifndef DMIO_CONTROL_SOCKET_H
#define DMIO_CONTROL_SOCKET_H

struct control_socket;

/* Make it and listen.  One that is left over from a server that has ended is
 * replaced.  NULL after report_error.
 */
extern struct control_socket *control_socket_new (const char *path);

extern int control_socket_fd (const struct control_socket *socket);

/* Close it, and remove it if it is still the one that was made. */
extern void control_socket_free (struct control_socket *socket);

#endif /* DMIO_CONTROL_SOCKET_H */
