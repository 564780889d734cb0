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

/* Begin to open those that log= names, after legs_begin: both wait for servers
 * at the same time.  LEGS must live as long.
 */
extern struct copies *copies_begin (const struct params *params,
                                    struct legs *legs);

/* Wait for that or, if none was named, open those beside the legs, which are
 * open.  False after report_error.
 */
extern bool copies_open (struct copies *copies, const struct params *params);

/* Later, by any thread: those that are not open and may have been used with the leg of
 * this id are opened and given to LOG.  0; -EAGAIN if one that was named cannot be opened
 * now; or another negative errno, with a message in *ERROR, if the one beside the leg is
 * there and cannot be.
 */
extern int copies_open_later (struct copies *copies, struct dm_log *log,
                              const char *id, char **error);

/* With log=none: does the log beside LEGS, if there is one, hold all of them for
 * alike?  False after report_error.
 */
extern bool copies_allow_none (const struct legs *legs);

/* Close them; nothing may use them any more. */
extern void copies_free (struct copies *copies);

/* End the threads of the devices, so that the process can fork. */
extern void copies_rest (struct copies *copies);

/* Those that are open: how many, and up to DM_IO_MAX_REGIONS of them. */
extern unsigned int copies_get (const struct copies *copies,
                                struct dm_log_copy *list);

/* The names of all, for a message, to be freed with g_free. */
extern char *copies_names (const struct copies *copies);

/* Make sure that those that exist have at least LEAST sectors, and create the
 * others with SECTORS, durably; these come last in copies_get.  False after
 * report_error: none was created.
 */
extern bool copies_create (struct copies *copies, sector_t least,
                           sector_t sectors);

/* Remove those that were created. */
extern void copies_remove_created (struct copies *copies);

#endif /* DMIO_COPIES_H */
