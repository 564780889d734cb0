/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What the command line says. */

#ifndef DMIO_PARAMS_H
#define DMIO_PARAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "dm-mirror.h"
#include "spec.h"

enum params_init {
  INIT_NOT_SAID,
  INIT_CLEAN,                   /* the regions are alike */
  INIT_SYNC,                    /* copy the first over the others */
};

struct params {
  unsigned int given;           /* a bit for each known parameter */
  unsigned int num_regions;
  struct spec *regions[DM_IO_MAX_REGIONS];
  bool log_none;
  unsigned int num_logs;        /* 0: beside the regions */
  struct spec *logs[DM_IO_MAX_REGIONS];
  enum params_init init;
  uint64_t chunk;               /* bytes; 0: not said */
  unsigned int quorum;          /* 0: not said */
  enum dm_mirror_read read;
  unsigned int timeout;         /* seconds; 0: the default */
  bool degraded;
  char *control;                /* absolute path; NULL: no socket */
  uint64_t resync_rate;         /* bytes per second; 0: no limit */
};

/* Take one parameter.  Return 0, or -1 after report_error. */
extern int params_set (struct params *params, const char *key,
                       const char *value);
/* ... and see what they are together. */
extern int params_check (const struct params *params);
extern void params_clear (struct params *params);

/* Of --help. */
#define PARAMS_HELP                                                     \
  "[region=]SPEC  (required) A region of the mirror, up to 64 times:\n" \
  "               PATH or NBD URI, then any of\n"                       \
  "               ,sector=N ,count=N   from sector N on, N sectors of\n" \
  "                                    512 bytes\n"                     \
  "               ,direct=on|off       past the page cache or through\n" \
  "                                    it; default on for block\n"      \
  "                                    devices, off for files\n"        \
  "               ,write-mostly        read only if no other can be\n"  \
  "               ',,' stands for a comma in the path or URI.\n"        \
  "init=clean     First start of a mirror: the regions are alike, or\n" \
  "init=sync      copy the first over the others.  (One of them is\n"   \
  "               required then, and refused later.)\n"                 \
  "log=SPEC       Where a copy of the log is, up to 64 times (default\n" \
  "               PATH.dmlog beside every region that is a file), or\n" \
  "log=none       remember no failed or interrupted write.\n"           \
  "chunk=SIZE     What the log remembers is in units of SIZE, a power\n" \
  "               of two (default 1M, more for large volumes).  Only\n" \
  "               with init=.\n"                                        \
  "degraded=yes   Start although a region in sync is missing.\n"        \
  "quorum=N       So many regions in sync must have a write (default\n" \
  "               1).\n"                                                \
  "resync-rate=SIZE\n"                                                  \
  "               Copy at most SIZE per second to regions that are\n"   \
  "               out of sync (default: no limit).\n"                   \
  "control=SOCKET Unix socket for dmioctl(1).\n"                        \
  "read=balance   Read from the region that can be expected to answer\n" \
  "               first (default), or\n"                                \
  "read=first     from the first that can be read.\n"                   \
  "timeout=SECS   How long an NBD server may take to connect and to\n"  \
  "               answer a request (default 30)."

#endif /* DMIO_PARAMS_H */
