/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Where the copies of the log are: files, block devices or NBD servers. */

#ifndef DMIO_COPIES_H
#define DMIO_COPIES_H

#include <stdbool.h>

#include "dm-log.h"
#include "legs.h"
#include "params.h"

struct copies;

/* Find out where they are to be and open those that exist.  NULL after
 * nbdkit_error.
 */
extern struct copies *copies_open (const struct params *params,
                                   const struct legs *legs);

/* Close them; nothing may use them any more. */
extern void copies_free (struct copies *copies);

/* End the threads of the devices, so that the process can fork. */
extern void copies_rest (struct copies *copies);

/* Those that are open: how many, and up to DM_IO_MAX_REGIONS of them. */
extern unsigned int copies_get (const struct copies *copies,
                                struct dm_log_copy *list);

/* Make sure that those that exist have so many sectors, and create the
 * others, durably; these come last in copies_get.  False after nbdkit_error:
 * none was created.
 */
extern bool copies_create (struct copies *copies, sector_t sectors);

/* Remove those that were created. */
extern void copies_remove_created (struct copies *copies);

#endif /* DMIO_COPIES_H */
