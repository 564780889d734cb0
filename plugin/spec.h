/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* A region, or a copy of the log, as named by the user: a path or an NBD
 * URI, and options.
 */

#ifndef DMIO_SPEC_H
#define DMIO_SPEC_H

#include <stdbool.h>

#include "dm-io.h"

/* Does not change; it lives as long as there are references to it. */
struct spec {
  const char *what;             /* "region" or "log copy" */
  char *text;                   /* as given, its name in messages */
  char *device;                 /* path or URI */
  const char *options;          /* the rest of text, from its comma on */
  char *absolute;               /* like device, wherever nbdkit is */
  bool is_log;                  /* a log copy */
  bool is_uri;
  bool has_sector, has_count;
  sector_t sector, count;       /* 0 if not given */
  unsigned int direct;          /* 0, DM_BDEV_DIRECT or DM_BDEV_BUFFERED */
  bool write_mostly;
};

/* Parse TEXT.  Returns NULL, and a message in *ERROR to be freed with
 * g_free, if it is wrong.  A log has fewer options than a region.
 */
extern struct spec *spec_parse_region (const char *text, char **error);
extern struct spec *spec_parse_log (const char *text, char **error);
extern struct spec *spec_ref (struct spec *spec);
extern void spec_unref (struct spec *spec);

/* The path without symbolic links and the like, as far as it exists.
 * To be freed with g_free.
 */
extern char *spec_canonical_path (const struct spec *spec);

/* A SPEC that means the same in every directory, to be freed with g_free. */
extern char *spec_absolute_text (const struct spec *spec);

/* By what the log recognises a region: always the same for the same sectors of
 * the same file.  To be freed with g_free.
 */
extern char *spec_id (const struct spec *spec);

/* Find out which sectors of the open device it means.  Returns false,
 * and a message like above, if there are no such.
 */
extern bool spec_resolve (const struct spec *spec, struct block_device *bdev,
                          struct io_region *region, char **error);

#endif /* DMIO_SPEC_H */
