/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Names are any bytes; in messages and lines of text some of them stand as a
 * backslash, x and two hexadecimal digits.
 */

#ifndef DMIO_ESCAPE_H
#define DMIO_ESCAPE_H

/* As a string of a JSON message: UTF-8, and escape_undo makes the same name of
 * it.  To be freed with g_free, as all of these.
 */
extern char *escape_name (const char *name);
extern char *escape_undo (const char *text);

/* For people: one line, UTF-8, without control characters.  What is escaped
 * already stays as it is.
 */
extern char *escape_line (const char *text);

#endif /* DMIO_ESCAPE_H */
