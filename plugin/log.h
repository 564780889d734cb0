/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What is logged, by the library and by the plugin, in nbdkit's log. */

#ifndef DMIO_LOG_H
#define DMIO_LOG_H

/* Route the messages of GLib's log domain dmio to nbdkit_error (warnings
 * and worse) and nbdkit_debug (the rest), and stop doing so.
 */
extern void log_route (void);
extern void log_unroute (void);

/* nbdkit_error, of which a name with line feeds makes no second line: the
 * plugin calls only this.
 */
extern void report_error (const char *fmt, ...)
  __attribute__ ((__format__ (__printf__, 1, 2)));

#endif /* DMIO_LOG_H */
