/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include <stdbool.h>
#include <string.h>

#include <glib.h>

#include "frame.h"

#define LENGTH "Content-Length:"
#define LINE_END "\r\n"

/* LINE is null-terminated.  False if it is about the length, and wrong. */
static bool
take_line (const char *line, size_t *length)
{
  g_autofree char *value = NULL;
  guint64 n;

  if (g_ascii_strncasecmp (line, LENGTH, strlen (LENGTH)) != 0)
    return true;
  value = g_strstrip (g_strdup (line + strlen (LENGTH)));
  if (!g_ascii_string_to_unsigned (value, 10, 1, FRAME_MAX, &n, NULL))
    return false;
  *length = n;
  return true;
}

static bool
take_header (const char *header, size_t n, size_t *length)
{
  g_autofree char *text = g_strndup (header, n);
  g_auto (GStrv) lines = g_strsplit (text, LINE_END, -1);
  size_t i;

  *length = 0;
  for (i = 0; lines[i] != NULL; i++)
    if (!take_line (lines[i], length))
      return false;
  return *length > 0;
}

enum frame
frame_find (const char *data, size_t n, size_t *begin, size_t *length)
{
  const char *end = memmem (data, n, LINE_END LINE_END, 4);

  if (end == NULL)
    return n < FRAME_MAX ? FRAME_CUT : FRAME_WRONG;
  *begin = end - data + 4;
  if (!take_header (data, end - data, length) ||
      *length > FRAME_MAX - *begin)
    return FRAME_WRONG;
  return *length <= n - *begin ? FRAME_COMPLETE : FRAME_CUT;
}

void
frame_append (GString *stream, const char *text, size_t length)
{
  g_string_append_printf (stream, LENGTH " %zu" LINE_END LINE_END, length);
  g_string_append_len (stream, text, length);
}
