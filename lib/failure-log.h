/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* One log line for each failed region, without a flood: the first of its
 * kind is logged in full, repeats are counted and summed up.
 */

#ifndef DMIO_FAILURE_LOG_H
#define DMIO_FAILURE_LOG_H

#include "dm-io.h"

struct failure_log;

/* A log for n regions. */
extern struct failure_log *failure_log_new (unsigned int n);

/* To be set before the region fails.  It is copied. */
extern void failure_log_set_name (struct failure_log *log,
                                  unsigned int region, const char *name);

/* Also logs the sums that are still due. */
extern void failure_log_free (struct failure_log *log);

struct failure {
  unsigned int region;
  enum dm_io_op op;
  uint64_t offset, length;      /* bytes */
  int error;                    /* errno, positive */
  const char *consequence;      /* what becomes of the region */
};

/* Log the failure, or count it if one of the same region, operation and
 * errno was logged less than FAILURE_LOG_INTERVAL ago.
 */
#define FAILURE_LOG_INTERVAL 10 /* seconds */
extern void failure_log_add (struct failure_log *log,
                             const struct failure *failure);

extern const char *failure_log_op_name (enum dm_io_op op);

#endif /* DMIO_FAILURE_LOG_H */
