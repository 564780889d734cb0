/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The contract of the library, on one to three real regions of every
 * kind.
 *
 * Each case begins with new content in the files, which is also that of
 * the models, and opens the regions; each ends with a comparison.
 */

#include <config.h>

#include "kinds.h"
#include "log-lines.h"

static const struct setup setups[] = {
  { "page-cache-1", 1, { CACHED } },
  { "page-cache-2", 2, { CACHED, CACHED } },
  { "page-cache-3", 3, { CACHED, CACHED, CACHED } },
  { "direct-1", 1, { DIRECT } },
  { "direct-2", 2, { DIRECT, DIRECT } },
  { "direct-3", 3, { DIRECT, DIRECT, DIRECT } },
  { "nbd-1", 1, { NBD } },
  { "nbd-2", 2, { NBD, NBD } },
  { "nbd-3", 3, { NBD, NBD, NBD } },
  { "nbd-4k-1", 1, { NBD_4K } },
  { "mixed-2", 2, { NBD, CACHED } },
  { "mixed-3", 3, { CACHED, DIRECT, NBD } },
  { "mixed-4k-3", 3, { DIRECT, NBD_4K, CACHED } },
};

/* One case on one setup. */
struct test {
  const struct setup *setup;
  const struct world_case *c;
};

static void
run_test (gconstpointer data)
{
  const struct test *test = data;
  struct kinds *k;
  unsigned int i;

  for (i = 0; i < test->setup->n; i++)
    if (test->setup->kinds[i] == DIRECT && !kinds_have_direct ()) {
      g_test_skip ("the file system of TMPDIR has no O_DIRECT");
      return;
    }
  k = kinds_open (test->setup, test->c->sectors);
  test->c->run (&k->world);
  kinds_close (k);
}

static void
add_cases (const struct setup *setup, const struct world_case *c)
{
  for (; c->name != NULL; c++) {
    g_autofree char *path =
      g_strdup_printf ("/kinds/%s/%s", setup->name, c->name);
    struct test *test = g_new (struct test, 1);

    *test = (struct test) { setup, c };
    g_test_add_data_func_full (path, test, run_test, g_free);
  }
}

int
main (int argc, char *argv[])
{
  const struct setup *setup;
  int r;

  test_init (&argc, &argv);
  log_lines_keep ();
  kinds_begin ();
  for (setup = setups; setup < setups + G_N_ELEMENTS (setups); setup++) {
    add_cases (setup, request_cases);
    add_cases (setup, memory_cases);
    add_cases (setup, data_cases);
    add_cases (setup, callback_cases);
    if (setup->n == 1)
      add_cases (setup, very_long_cases);
  }
  r = g_test_run ();
  kinds_end ();
  return r;
}
