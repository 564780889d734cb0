/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Reading one copy of a log: what it is, by its first blocks. */

#ifndef DMIO_LOG_READ_H
#define DMIO_LOG_READ_H

#include "log-format.h"

enum log_found {
  LOG_FIND_UNREADABLE,
  LOG_FIND_BLANK,               /* or was being made */
  LOG_FIND_CORRUPT,             /* something else, or without superblock */
  LOG_FIND_UNKNOWN,             /* of another version */
  LOG_FIND_VALID,
};

struct log_find {
  enum log_found what;
  int error;                    /* UNREADABLE: errno, positive */
  uint32_t version;             /* UNKNOWN */

  /* VALID: the newer superblock that is, and where. */
  struct log_super super;
  unsigned int newest;
  bool labelled;
  unsigned int number;          /* of the copy, if it is labelled */
  unsigned char label_uuid[LOG_UUID];

  enum log_verdict supers[2], label;
  bool current, set_back, doubtful; /* for log-load.c */
};

/* Read N blocks into the buffer.  Returns 0 or an errno, positive: EFBIG
 * if the region ends before.
 */
extern int log_read_blocks (const struct io_region *region,
                            unsigned int block, unsigned int n,
                            void *buffer);

/* BUFFER has LOG_BUFFER_BLOCKS. */
extern void log_find_copy (const struct io_region *region,
                           unsigned char *buffer, GChecksum *checksum,
                           struct log_find *find);

#endif /* DMIO_LOG_READ_H */
