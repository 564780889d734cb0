/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The table of errors in nbdkit-dmio-plugin(1): what the client is told
 * for each combination of errnos of the regions.
 */

#include <config.h>

#include <errno.h>

#include <glib.h>

#include "reply.h"

static int
reply_to (int a, int b, int c)
{
  struct dm_io_result results[3] = {
    { .error = a }, { .error = b }, { .error = c },
  };

  return reply_errno (results, 3);
}

static void
test_one_kind (void)
{
  static const int passed[] = {
    EPERM, EROFS, EIO, ENOMEM, ENOSPC, EDQUOT, EFBIG,
  };
  size_t i;

  for (i = 0; i < G_N_ELEMENTS (passed); i++) {
    g_assert_cmpint (reply_to (passed[i], 0, 0), ==, passed[i]);
    g_assert_cmpint (reply_to (0, 0, passed[i]), ==, passed[i]);
    g_assert_cmpint (reply_to (passed[i], 0, passed[i]), ==, passed[i]);
    g_assert_cmpint (reply_to (passed[i], passed[i], passed[i]), ==,
                     passed[i]);
  }
}

static void
test_mixed (void)
{
  g_assert_cmpint (reply_to (ENOSPC, EIO, 0), ==, ENOSPC);
  g_assert_cmpint (reply_to (0, EIO, ENOSPC), ==, ENOSPC);
  g_assert_cmpint (reply_to (EIO, ENOSPC, EIO), ==, ENOSPC);
  g_assert_cmpint (reply_to (EROFS, EIO, 0), ==, EIO);
  g_assert_cmpint (reply_to (ENOSPC, EROFS, 0), ==, EIO);
  g_assert_cmpint (reply_to (ENOSPC, EIO, EROFS), ==, EIO);
  g_assert_cmpint (reply_to (ENOSPC, EDQUOT, 0), ==, EIO);
}

/* nbdkit would make EINVAL of these. */
static void
test_others (void)
{
  static const int folded[] = {
    ETIMEDOUT, ENOTCONN, ECONNRESET, EBADF, EINVAL, EOPNOTSUPP, EAGAIN,
  };
  size_t i;

  for (i = 0; i < G_N_ELEMENTS (folded); i++) {
    g_assert_cmpint (reply_to (folded[i], 0, 0), ==, EIO);
    g_assert_cmpint (reply_to (folded[i], folded[i], folded[i]), ==, EIO);
    g_assert_cmpint (reply_to (folded[i], 0, ENOSPC), ==, EIO);
  }
}

int
main (int argc, char *argv[])
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/reply/one-kind", test_one_kind);
  g_test_add_func ("/reply/mixed", test_mixed);
  g_test_add_func ("/reply/others", test_others);
  return g_test_run ();
}
