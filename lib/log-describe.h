/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What one copy of a log says, for people: it is read, and every block of it
 * checked, but nothing is written and no other copy is needed.
 */

#ifndef DMIO_LOG_DESCRIBE_H
#define DMIO_LOG_DESCRIBE_H

#include "dm-log.h"

struct log_leg_description {
  char *id;                     /* NULL if its block is not valid */
  enum dm_log_state state;
  sector_t sectors;
  struct bdev_stamp stamp;
  uint64_t until;
  uint64_t lacking;             /* chunks; 0 if it is in sync */
};

struct log_description {
  char uuid[37];
  unsigned int version;
  uint64_t generation, sequence, epoch;
  sector_t volume, chunk;
  uint64_t chunks;
  uint64_t dirty;               /* chunks; all of those of invalid blocks */
  int copy;                     /* its number, or -1 if its label is invalid */
  uint64_t copies;              /* set of the numbers of those in use */
  char *places[DM_IO_MAX_REGIONS]; /* of copies by number; NULL: not known */
  unsigned int num_legs;
  struct log_leg_description legs[DM_IO_MAX_REGIONS];
  char **invalid;               /* what is wrong, a line each; NULL at end */
};

/* "in sync", "out of sync" or "failed" */
extern const char *log_state_name (enum dm_log_state state);

/* False with a message in *ERROR, to be freed with g_free, if it is no log, or
 * none that can be described.
 */
extern bool log_describe (const struct io_region *region,
                          struct log_description *d, char **error);
extern void log_description_clear (struct log_description *d);

#endif /* DMIO_LOG_DESCRIBE_H */
