/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Names of any bytes in messages and in lines of text: nothing that breaks
 * these gets through, and every name can be told from what is in a message.
 */

#include <config.h>

#include <string.h>

#include <glib.h>

#include "escape.h"

static const struct {
  const char *name, *in_message, *in_line;
} cases[] = {
  { "", "", "" },
  { "/a b,,c:d=e%s\"'\\", "/a b,,c:d=e%s\"'\\", "/a b,,c:d=e%s\"'\\" },
  { "gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f", "gr\xc3\xbc\xc3\x9f" },
  { "latin\xfc", "latin\\xfc", "latin\\xfc" },
  { "cut\xe2\x98", "cut\\xe2\\x98", "cut\\xe2\\x98" },
  { "\xed\xa0\x80", "\\xed\\xa0\\x80", "\\xed\\xa0\\x80" },
  { "two\nlines\t\x1b[1m\x7f", "two\nlines\t\x1b[1m\x7f",
    "two\\x0alines\\x09\\x1b[1m\\x7f" },
  { "c1\xc2\x9b", "c1\xc2\x9b", "c1\\xc2\\x9b" },
  { "\x1f", "\\x1f", "\\x1f" },
  { "\\xfc", "\\x5cxfc", "\\xfc" },
  { "\\x00\\x4", "\\x5cx00\\x4", "\\x00\\x4" },
  { "\\\xfc", "\\\\xfc", "\\\\xfc" },
};

static void
test_cases (void)
{
  size_t i;

  for (i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *name = escape_name (cases[i].name);
    g_autofree char *line = escape_line (cases[i].name);
    g_autofree char *again = escape_line (line);
    g_autofree char *undone = escape_undo (name);

    g_assert_cmpstr (name, ==, cases[i].in_message);
    g_assert_cmpstr (line, ==, cases[i].in_line);
    g_assert_cmpstr (again, ==, line);
    g_assert_cmpstr (undone, ==, cases[i].name);
  }
}

/* Of such bytes as matter. */
static void
test_random (void)
{
  static const char bytes[] = "\\\\xx05cf\n\x1f\xc3\xbc\x80\xff";
  unsigned int round, i;

  for (round = 0; round < 100000; round++) {
    g_autofree char *escaped = NULL, *line = NULL, *undone = NULL;
    char name[13] = "";

    for (i = 0; i < sizeof name - 1; i++)
      name[i] = bytes[g_test_rand_int_range (0, sizeof bytes)];
    escaped = escape_name (name);
    undone = escape_undo (escaped);
    line = escape_line (name);
    g_assert_true (g_utf8_validate (escaped, -1, NULL));
    g_assert_null (strchr (escaped, '\x1f'));
    g_assert_cmpstr (undone, ==, name);
    g_assert_true (g_utf8_validate (line, -1, NULL));
    g_assert_null (strpbrk (line, "\n\x1f"));
  }
}

int
main (int argc, char *argv[])
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/escape/cases", test_cases);
  g_test_add_func ("/escape/random", test_random);
  return g_test_run ();
}
