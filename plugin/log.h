/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The library's log, in nbdkit's. */

#ifndef DMIO_LOG_H
#define DMIO_LOG_H

/* Route the messages of GLib's log domain dmio to nbdkit_error (warnings
 * and worse) and nbdkit_debug (the rest), and stop doing so.
 */
extern void log_route (void);
extern void log_unroute (void);

#endif /* DMIO_LOG_H */
