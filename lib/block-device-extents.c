/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

#include <config.h>

#include "block-device.h"

int
bdev_round_extents (struct bdev_extent *extents, int n, uint64_t block_size)
{
  /* What the beginning of a block is like, before the current extent. */
  struct bdev_extent begun = { .hole = true, .zero = true };
  uint64_t at = 0, end = 0;
  int i, rounded = 0;

  for (i = 0; i < n; i++) {
    struct bdev_extent e = extents[i];
    uint64_t odd;

    end += e.length;
    e.hole = e.hole && begun.hole;
    e.zero = e.zero && begun.zero;
    if (end <= at)              /* it was all in a block of data */
      continue;
    e.length = end - at;
    odd = e.length % block_size;
    if (odd > 0 && !e.hole && !e.zero) {
      e.length += block_size - odd;
      odd = 0;
    }
    e.length -= odd;
    begun = odd > 0 ? e : (struct bdev_extent) { .hole = true, .zero = true };
    at += e.length;
    if (e.length > 0)
      extents[rounded++] = e;
  }
  if (rounded == 0)             /* less than a block */
    extents[rounded++] = (struct bdev_extent) { .length = block_size };
  return rounded;
}
