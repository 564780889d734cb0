/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include <stdbool.h>
#include <string.h>

#include <glib.h>

#include "escape.h"

/* The byte that an escape at P stands for, or -1 if there is none. */
static int
escaped_byte (const char *p)
{
  if (p[0] == '\\' && p[1] == 'x' && g_ascii_isxdigit (p[2]) &&
      g_ascii_isxdigit (p[3]))
    return g_ascii_xdigit_value (p[2]) * 16 + g_ascii_xdigit_value (p[3]);
  return -1;
}

/* json-glib escapes in messages only the control characters below. */
static bool
is_special_in_name (const char *p)
{
  return *p == '\x1f' || escaped_byte (p) != -1;
}

static bool
is_special_in_line (const char *p)
{
  return g_unichar_iscntrl (g_utf8_get_char (p));
}

/* The length of the character at P, 0 if it is none. */
static size_t
character_length (const char *p)
{
  gunichar c = g_utf8_get_char_validated (p, -1);

  return g_unichar_validate (c) ? g_unichar_to_utf8 (c, NULL) : 0;
}

static char *
escape (const char *text, bool (*is_special) (const char *p))
{
  GString *escaped = g_string_new (NULL);
  const char *p = text;
  size_t length;

  while (*p != '\0') {
    length = character_length (p);
    if (length > 0 && !is_special (p))
      g_string_append_len (escaped, p, length);
    else {
      length = 1;               /* the next ones then are no character */
      g_string_append_printf (escaped, "\\x%02x", (unsigned char) *p);
    }
    p += length;
  }
  return g_string_free (escaped, FALSE);
}

char *
escape_name (const char *name)
{
  return escape (name, is_special_in_name);
}

char *
escape_line (const char *text)
{
  return escape (text, is_special_in_line);
}

char *
escape_undo (const char *text)
{
  GString *name = g_string_new (NULL);
  const char *p = text;
  int byte;

  while (*p != '\0') {
    byte = escaped_byte (p);
    g_string_append_c (name, byte > 0 ? byte : *p);
    p += byte > 0 ? 4 : 1;
  }
  return g_string_free (name, FALSE);
}
