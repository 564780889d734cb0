/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The regions that are the legs of the mirror: open, or missing. */

#ifndef DMIO_LEGS_H
#define DMIO_LEGS_H

#include <stdbool.h>

#include "dm-mirror.h"
#include "params.h"

struct legs;

/* Begin to open the regions, so that all servers are connected to at once. */
extern struct legs *legs_begin (const struct params *params);

/* Wait for that.  One that cannot be reached is missing, unless there is to be
 * no log, or a new one.  False after report_error.
 */
extern bool legs_open (struct legs *legs, const struct params *params);

/* Close them; nothing may use them any more. */
extern void legs_free (struct legs *legs);

/* End the threads of the devices, so that the process can fork. */
extern void legs_rest (struct legs *legs);

/* These do not change what was there before. */
extern unsigned int legs_count (const struct legs *legs);
extern const struct spec *legs_spec (const struct legs *legs, unsigned int i);
extern struct dm_mirror_leg legs_get (const struct legs *legs,
                                      unsigned int i);

/* Those that are missing, such as "region 'a.img', region 'b.img'", to be freed
 * with g_free; NULL if there are none.
 */
extern char *legs_missing (const struct legs *legs);

/* What dm_mirror_options wants: try again to open one that is missing, and close it
 * since it cannot be used.
 */
extern bool legs_reopen (struct legs *legs, const char *name,
                         struct io_region *region);
extern void legs_unopen (struct legs *legs, struct io_region *region);

/* Give one that has failed or is missing back to the mirror, or a new one.
 * TEXT is its number or a SPEC.  Returns its number,
 * or -1 with a message in *ERROR, to be freed with g_free.  May take as long as
 * opening it.
 */
extern int legs_add (struct legs *legs, struct dm_mirror *mirror,
                     const char *text, enum dm_mirror_add add, char **error);

/* At any time: the specs of all, each to be freed with spec_unref.  Returns how many,
 * up to DM_IO_MAX_REGIONS.
 */
extern unsigned int legs_specs (struct legs *legs, struct spec **specs);
/* That of the one with this id, the same; or NULL. */
extern struct spec *legs_find_spec (struct legs *legs, const char *id);


/* True if the errno of dm_bdev_open says that the device may be back later,
 * rather than that it is not what was meant or belongs to somebody else.
 */
extern bool may_come_back (const struct spec *spec, int err);

#endif /* DMIO_LEGS_H */
