/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* How messages follow each other in a stream, as in the Language Server
 * Protocol: lines of a header, of which Content-Length tells how many bytes
 * follow the empty line after it.
 */

#ifndef DMIO_FRAME_H
#define DMIO_FRAME_H

#include <stddef.h>

#include <glib.h>

/* The largest message, with its header. */
#define FRAME_MAX 16384

enum frame {
  FRAME_COMPLETE,
  FRAME_CUT,                    /* there is more to come */
  FRAME_WRONG,                  /* it cannot be told where the next begins */
};

/* Look at the N bytes that have been received.  If they begin with a complete
 * message it is LENGTH bytes from BEGIN on.
 */
extern enum frame frame_find (const char *data, size_t n, size_t *begin,
                              size_t *length);

/* Append a message to what is to be sent. */
extern void frame_append (GString *stream, const char *text, size_t length);

#endif /* DMIO_FRAME_H */
