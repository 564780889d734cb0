/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Which sectors of open devices are in use: a device can be a region in one
 * part and hold copies of the log in others.
 */

#ifndef DMIO_PART_H
#define DMIO_PART_H

#include <stdbool.h>

#include "spec.h"

/* Take the sectors that SPEC means, of a device that was opened in parts
 * (BDEV_IN_PARTS), so that nobody else does.  Returns false, and a message in
 * *ERROR to be freed with g_free, if SPEC is wrong or somebody has some of
 * them.
 */
extern bool part_take (const struct spec *spec, struct block_device *bdev,
                       struct io_region *region, char **error);

/* Close the device and give back what was taken of it.  NULL is ignored. */
extern void part_close (struct block_device *bdev);

#endif /* DMIO_PART_H */
