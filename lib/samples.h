/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* A look at some blocks of two regions that are said to be alike.  It shows a
 * wrong disk or image, not each difference.
 */

#ifndef DMIO_SAMPLES_H
#define DMIO_SAMPLES_H

#include "block-device.h"

/* What may be compared while there may be others who write: true if these sectors
 * should be alike, and nobody is writing them.
 */
struct samples_filter {
  bool (*is_quiet) (void *context, sector_t sector, sector_t count);
  void *context;
};

/* Compare up to 128 blocks of the first COUNT sectors, spread over them, that are
 * data in one of the regions.  Returns 0 if these are alike; 1 if not, *AT being the
 * first sector of the first that differs; or a negative errno if they cannot be
 * read.  FILTER NULL: nobody is writing; else bad sectors of A are left out, and if
 * there are any on B it is -EIO, but only if there is no difference; -ENXIO if they kept
 * all from being compared.
 */
extern int samples_compare (const struct io_region *a,
                            const struct io_region *b, sector_t count,
                            const struct samples_filter *filter,
                            sector_t *at);

#endif /* DMIO_SAMPLES_H */
