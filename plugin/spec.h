/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* A region as named on the command line: a path or an NBD URI, and options. */

#ifndef DMIO_SPEC_H
#define DMIO_SPEC_H

#include <stdbool.h>

#include "dm-io.h"

struct spec {
  char *text;                   /* as given, the region's name in messages */
  char *device;                 /* path or URI */
  bool has_sector, has_count;
  sector_t sector, count;       /* 0 if not given */
  unsigned int direct;          /* 0, DM_BDEV_DIRECT or DM_BDEV_BUFFERED */
  bool write_mostly;
};

/* Parse TEXT.  Returns NULL, and a message in *ERROR to be freed with
 * g_free, if it is wrong.
 */
extern struct spec *spec_parse (const char *text, char **error);
extern void spec_free (struct spec *spec);

/* Find out which sectors of the open device it means.  Returns false,
 * and a message like above, if there are no such.
 */
extern bool spec_resolve (const struct spec *spec, struct block_device *bdev,
                          struct io_region *region, char **error);

#endif /* DMIO_SPEC_H */
