/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What dmioctl(1) asks the server: the methods of the control socket. */

#ifndef DMIO_CONTROL_H
#define DMIO_CONTROL_H

#include "control-socket.h"
#include "legs.h"

struct control;

/* Serve a socket, which has to stay open, in a thread of its own.  Returns
 * 0 or a negative errno.
 */
extern int control_start (struct control_socket *socket,
                          struct dm_mirror *mirror, struct legs *legs,
                          struct control **control);

/* End the thread; what it is just doing is finished.  NULL is ignored. */
extern void control_stop (struct control *control);

#endif /* DMIO_CONTROL_H */
