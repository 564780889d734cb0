/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* A volume that is mirrored over legs.
 *
 * With a log, a leg may fail: what it lacks is remembered, also over
 * restarts and crashes, and copied to it when it is back.  Without, the
 * mirror remembers nothing: a write that fails on any leg has failed, and
 * that leg is not read until the mirror is freed.
 *
 * Offsets and counts are in sectors of the volume.  Legs are numbered; with a
 * log these are its numbers, which may differ from the order in which
 * legs are given.  Functions that wait for I/O say so; all but new, start
 * and free can be called by many threads at once.
 */

#ifndef DMIO_DM_MIRROR_H
#define DMIO_DM_MIRROR_H

#include <stdbool.h>

#include "block-device.h"
#include "dm-io.h"
#include "dm-log.h"

struct dm_mirror;

enum dm_mirror_state {
  DM_MIRROR_IN_SYNC,            /* read and written */
  DM_MIRROR_RECOVERING,         /* written, and what it lacks is copied; read where it lacks
                                 * nothing, if it lacks only chunks in doubt */
  DM_MIRROR_OUT_OF_SYNC,        /* not used, will be recovered */
  DM_MIRROR_FAILED,             /* not used: an error, or the user's wish */
  DM_MIRROR_MISSING,            /* could not be opened, or was not given */
};
#define DM_MIRROR_STATES (DM_MIRROR_MISSING + 1)
extern const char *dm_mirror_state_name (enum dm_mirror_state state);

/* What dm_mirror_add may do to a region: copy to it what the log says that it lacks;
 * everything; and everything, although the copy of the log that belongs to it has seen
 * changes that this mirror has not.
 */
enum dm_mirror_add {
  DM_MIRROR_ADD,
  DM_MIRROR_ADD_FULL,
  DM_MIRROR_ADD_OVERWRITE,
};

/* A region that is to be a leg, and its name in messages. */
struct dm_mirror_leg {
  struct io_region region;      /* bdev NULL: it cannot be opened now */
  const char *name;
  const char *id;               /* by which the log knows it; or NULL: name */
  bool write_mostly;            /* read only if no other can be */
  enum dm_mirror_add add;       /* for dm_mirror_add */
};

/* Which of the legs that are fit to be read is. */
enum dm_mirror_read {
  DM_MIRROR_READ_BALANCE,       /* see read-balance.h */
  DM_MIRROR_READ_FIRST,         /* in the order of dm_mirror_new, then added */
};

/* Zero is what is used if nothing is said.
 * log: NULL, or what dm_log_new or dm_log_load returned.  The mirror calls
 *   dm_log_start.  It has to live as long as the mirror.
 * degraded: start although a leg in sync is missing.
 * quorum: so many legs must have a write that are in sync, or lack nothing there and
 *   elsewhere only chunks in doubt; 0 is 1.
 * resync_rate: bytes per second that are copied at most; 0: no limit.
 * reopen: called every so often, by a thread of the mirror, for a leg that is
 *   missing, with the name it was given.  Opens it and sets *REGION, or returns
 *   false.  May be NULL.
 * unopen: closes that again, if it cannot be used.
 * open_copies: called before a leg that was not used is used again, with its id: opens
 *   those copies of the log that may have been used with it and are not open, and
 *   gives them to dm_log_add_copy.  Returns 0; -EAGAIN if that is not all of them; or
 *   another negative errno, and a message in *ERROR, to be freed with g_free, if the one
 *   beside it cannot be opened.  May be NULL.
 */
struct dm_mirror_options {
  enum dm_mirror_read policy;
  struct dm_log *log;
  bool degraded;
  unsigned int quorum;
  uint64_t resync_rate;
  bool (*reopen) (void *context, const char *name, struct io_region *region);
  void (*unopen) (void *context, struct io_region *region);
  int (*open_copies) (void *context, const char *id, char **error);
  void *context;
};

/* A mirror over 1 to DM_IO_MAX_REGIONS legs.  Without a log its size is that
 * of the smallest, in whole blocks; with one, what the log says.  The names are
 * copied; the devices must stay open until dm_mirror_free, which does not
 * close them.
 *
 * With a log, the legs are compared with what it says of them, and what that
 * means is written to it.  NULL with a message in *ERROR, to be freed with
 * g_free, if the mirror must not be started like this; then nothing
 * was written.
 */
extern struct dm_mirror *
dm_mirror_new (unsigned int num_legs, const struct dm_mirror_leg *legs,
               const struct dm_mirror_options *options, char **error);

/* Let the mirror and its legs take care of themselves: start threads, so only
 * after a fork.  Returns 0 or a negative errno.
 */
extern int dm_mirror_start (struct dm_mirror *mirror);

/* End the threads, flush the legs and say so in the log. */
extern void dm_mirror_free (struct dm_mirror *mirror);

extern sector_t dm_mirror_sectors (const struct dm_mirror *mirror);

/* The largest dm_bdev_block_size: requests have to be multiples of it. */
extern unsigned int dm_mirror_block_size (const struct dm_mirror *mirror);

/*----------------------------------------------------------------------
 * Requests.  They wait for the I/O, and return true if the request
 * succeeded.  RESULTS has DM_IO_MAX_REGIONS elements: what became of each
 * leg, 0 also if it was not used.  Each failure has then been logged.  A
 * request can fail with no error of a leg: if there are fewer legs in
 * sync than the quorum, or the log cannot be written.
 */

/* Read from a leg in sync, or one that lacks only chunks in doubt elsewhere; if that fails,
 * from another; with a log the bad one is then repaired.
 */
extern bool dm_mirror_read (struct dm_mirror *mirror, void *data,
                            sector_t sector, sector_t count,
                            struct dm_io_result *results);

/* DM_IO_WRITE, DM_IO_DISCARD or DM_IO_WRITE_ZEROES to all legs; DATA is
 * of the first only.  Requests that overlap are done one after another,
 * in the same order on all legs.
 */
extern bool dm_mirror_write (struct dm_mirror *mirror, enum dm_io_op op,
                             unsigned int flags, const void *data,
                             sector_t sector, sector_t count,
                             struct dm_io_result *results);

/* One who reads and writes, such as a connection.  The last leg in sync may lose
 * what it was not told to flush; then the next flush of each client fails, once.  A
 * new one also hears of a loss of which nobody has heard yet: it may be one of the
 * others that has come back.
 */
struct dm_mirror_client {
  unsigned int told;            /* atomic: the last loss that it knows of */
};
extern void dm_mirror_client_init (struct dm_mirror *mirror,
                                   struct dm_mirror_client *client);

/* Make durable what was written.  Without a log, a leg whose flush has failed
 * fails every flush after that.
 */
extern bool dm_mirror_flush (struct dm_mirror *mirror,
                             struct dm_mirror_client *client,
                             struct dm_io_result *results);

/* The extents from a sector on, as bdev_extents, of a leg in sync, in whole
 * blocks; perhaps of less than COUNT.  Returns how many, or a negative errno.
 */
extern int dm_mirror_extents (struct dm_mirror *mirror, sector_t sector,
                              sector_t count, struct bdev_extent *extents,
                              int max);

/* Start reading into the cache what dm_mirror_read would read.  Returns
 * 0 or a negative errno.
 */
extern int dm_mirror_prefetch (struct dm_mirror *mirror, sector_t sector,
                               sector_t count);

/* True if write zeroes without DM_IO_NO_UNMAP is quick on every leg. */
extern bool dm_mirror_fast_zero (const struct dm_mirror *mirror);

/* True if writes to every leg fail. */
extern bool dm_mirror_read_only (const struct dm_mirror *mirror);

/* True if any leg is on a disk that rotates. */
extern bool dm_mirror_rotational (const struct dm_mirror *mirror);

/*----------------------------------------------------------------------
 * The state, and wishes of the user
 */

struct dm_mirror_leg_status {
  char *name;                   /* to be freed with g_free */
  enum dm_mirror_state state;
  bool by_user;                 /* FAILED since the user wants it so */
  uint64_t out_of_sync;         /* bytes it lacks, in whole chunks */
  uint64_t to_copy;             /* RECOVERING: what it lacked at its start */
  char *reason;                 /* NULL, or why it is not in sync or not used */
};

struct dm_mirror_status {
  unsigned int num_legs, in_sync, quorum;
  uint64_t size, chunk;         /* bytes */
  uint64_t to_reconcile;        /* bytes that may differ after a crash */
  uint64_t rate;                /* bytes per second copied, lately */
  unsigned int log_copies, log_copies_all; /* 0, 0: no log */
  struct dm_log_copy_status copies[DM_IO_MAX_REGIONS]; /* all */
  const char *uuid;             /* of the log, or NULL */
  struct dm_mirror_leg_status legs[DM_IO_MAX_REGIONS];
};

extern void dm_mirror_get_status (struct dm_mirror *mirror,
                                  struct dm_mirror_status *status);
extern void dm_mirror_status_clear (struct dm_mirror_status *status);

/* True if all legs are in sync and can be reached, and nothing is left to be
 * reconciled.
 */
extern bool dm_mirror_is_in_sync (struct dm_mirror *mirror);

extern unsigned int dm_mirror_num_legs (struct dm_mirror *mirror);

/* The number of the leg of this name or id, or -1. */
extern int dm_mirror_find_leg (struct dm_mirror *mirror, const char *name);

/* Use a leg no more until dm_mirror_add.  Returns 0, -EBUSY if it is the
 * last in sync that can be reached, -ENODEV if it is missing, -EIO if that
 * cannot be recorded.  If somebody changes it after that, it is copied to as a whole.
 */
extern int dm_mirror_fail (struct dm_mirror *mirror, unsigned int leg);

/* Use a leg again, or a new one, and recover it: what it lacks if the log knows it, else
 * all, or if that is wanted.  Its region is not used if the mirror has it open.  One
 * thread at a time for one leg.  Returns its number, or -1 with a message in *ERROR.
 */
extern int dm_mirror_add (struct dm_mirror *mirror,
                          const struct dm_mirror_leg *leg, char **error);

#endif /* DMIO_DM_MIRROR_H */
