/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include <errno.h>
#include <stdbool.h>

#include <glib.h>

#include "reply.h"

/* Those that nbdkit passes on.  It would turn others into EINVAL, which
 * tells a client that the request was wrong.
 */
static bool
has_nbd_error (int error)
{
  switch (error) {
  case EPERM: case EROFS: case EIO: case ENOMEM:
  case ENOSPC: case EDQUOT: case EFBIG:
    return true;
  default:
    return false;
  }
}

/* All the same: that.  ENOSPC and EIO mixed: ENOSPC, which a client can
 * do something about.  Any other mixture: EIO.
 */
int
reply_errno (const struct dm_io_result *results, unsigned int n)
{
  bool same = true, space = true;
  int first = 0, error;
  unsigned int i;

  for (i = 0; i < n; i++) {
    error = results[i].error;
    if (error == 0)
      continue;
    if (first == 0)
      first = error;
    same = same && error == first;
    space = space && (error == ENOSPC || error == EIO);
  }

  if (same && has_nbd_error (first))
    return first;
  return !same && space ? ENOSPC : EIO;
}
