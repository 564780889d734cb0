/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What is in a message: JSON. */

#ifndef DMIO_MESSAGE_H
#define DMIO_MESSAGE_H

#include <stddef.h>

#include <glib.h>

/* Returns NULL, and why in *ERROR, to be freed with g_free, if it is no JSON.
 * It should not be long, as the parser recurses.
 */
extern GVariant *message_parse (const char *text, size_t length,
                                char **error);

/* A string and a name, which need not be UTF-8, as something that can be sent:
 * see escape.h.
 */
extern GVariant *message_string (const char *s);
extern GVariant *message_name (const char *name);

#endif /* DMIO_MESSAGE_H */
