/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* From the command line to a mirror: the regions, the copies of the log, and
 * what may not be put together.
 */

#ifndef DMIO_ASSEMBLE_H
#define DMIO_ASSEMBLE_H

#include "dm-mirror.h"
#include "legs.h"
#include "params.h"

struct assembly;

/* NULL after report_error: then nothing was created or changed. */
extern struct assembly *assemble (const struct params *params);

extern struct dm_mirror *assembly_mirror (const struct assembly *a);
extern struct legs *assembly_legs (const struct assembly *a);

/* End all threads that the assembling has started, so that nbdkit can fork. */
extern void assembly_rest (struct assembly *a);

/* End the mirror and close everything. */
extern void assembly_free (struct assembly *a);

#endif /* DMIO_ASSEMBLE_H */
