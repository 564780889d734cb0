/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What dm-log.c (bits and states in memory), log-reconcile.c (chunks that may differ),
 * log-new.c, log-load.c (choosing among copies), log-epochs.c (which of them knows more),
 * log-commit.c (writing them), log-join.c (those that come into use) and log-copies.c (those
 * that are not in use) share.
 */

#ifndef DMIO_LOG_PRIVATE_H
#define DMIO_LOG_PRIVATE_H

#include <pthread.h>

#include "dm-log.h"
#include "log-format.h"

/* Three images of each bitmap.  wanted: as it is known now.  disk: what the
 * copies in use have.  staged: like disk, but for blocks of the commit that
 * is under way, which get this.  A bit is durable if it is in
 * disk and staged: one that is about to be cleared is not.
 */
struct log_map {
  uint64_t *wanted, *disk, *staged;
  uint64_t *doubtful;           /* of what a leg lacks: see dm_log_doubt */
};

struct log_leg {
  char *id;
  struct log_super_leg info;    /* wanted */
  uint64_t until, stamp;        /* durable; stamp: its mtime, or 0 */
};

struct log_copy {
  struct io_region region;
  char *name;
  char *place;                  /* or NULL */
  char *leg;                    /* the same: id of that beside which it is */
  unsigned int number;          /* in log_super.copies */
  unsigned int newest;          /* which of its superblocks is */
  bool too_small;
  bool superseded;              /* others know that this one is outdated */
  bool set_back;                /* see dm_log_is_set_back */
  bool foreign;                 /* a warning says so: something else is there */
  bool displaced;               /* another file may be in its place */
  uint64_t doubt_until;         /* clock_now: not used before, see log-load.c */
  bool late;                    /* ... and what came there until then counts for nothing */
  /* The epoch by which it was seen to know more, and the legs that were in use then. */
  uint64_t other_epoch;
  unsigned long innocent;
};

/* Memory to encode and write blocks. */
#define LOG_BUFFER_BLOCKS 32
struct log_writer {
  unsigned char *buffer;
  GChecksum *checksum;
};

struct dm_log {
  /* These do not change. */
  struct log_geometry g;
  unsigned char uuid[LOG_UUID];
  char uuid_string[LOG_UUID_STRING];
  unsigned int block_words;     /* of a set of blocks */
  char *places[LOG_MAX_COPIES]; /* of copies by number, as it was loaded */

  pthread_mutex_t lock;         /* owns what follows */
  pthread_cond_t progress;      /* a commit has got on, or a write has ended */

  unsigned int num_legs;
  struct log_leg legs[LOG_MAX_LEGS];
  struct log_map dirty, lacking[LOG_MAX_LEGS];
  unsigned long absent;         /* legs */
  /* Copies, at a start: without the last superblock; with half a one beside their newest. */
  unsigned long behind, torn;
  unsigned long away;           /* legs: see dm_log_set_away */
  unsigned long unwanted;       /* copies: see log_expel */

  /* Of each chunk. */
  uint16_t *in_flight;          /* writes between begin and end */
  uint64_t *touched;            /* begun since the last clean_begin; or, if unreconciled, ever */
  uint64_t *chosen;             /* by clean_begin */
  uint64_t *unreconciled;
  uint16_t *differs;            /* how often it has become so */

  /* Blocks of a copy in which wanted has bits that disk lacks, or the
   * other way round; at most these.
   */
  uint64_t *sets, *clears;

  /* The superblock counts its changes.  staged: of the last commit. */
  uint64_t super_wanted, super_staged, super_durable;
  /* Legs have been dropped so often; durably. */
  uint64_t drops_wanted, drops_durable;
  unsigned long maybe_in_sync;  /* legs, as the copies may say */
  /* Durable, of all that are not absent: the first end of a lease, the latest
   * stamp.
   */
  uint64_t lease, latest_stamp;
  unsigned int quiet;           /* durable: log_super.quiet */

  /* Commits. */
  bool leading;                 /* one is under way */
  uint64_t begun;               /* their numbers: the last one */
  uint64_t done, done_clears;   /* the last that has got so far */
  unsigned int clear_waiters;
  bool dead;                    /* no copy is left */
  bool ended;                   /* see dm_log_rest */
  bool told;                    /* of legs, what others may not know */
  uint64_t loaded;              /* clock_now; 0: the last server ended in order */
  bool unseen;                  /* it did not, and a copy that it used was not found: nobody
                                 * knows what is under way to that */
  /* One thread looks at copies that are not in use, or adds one, and owns them; it comes
   * before leading, and others wait for progress.
   */
  bool restoring;
  uint64_t *missed;             /* blocks written since that began */
  unsigned long current;        /* copies in use */
  unsigned long last;           /* ... the last that may think they are */
  uint64_t durable_sequence;    /* of the superblock */

  /* The rest belongs to the thread that has set leading; before
   * dm_log_start, to the caller.  The copies' fields too.
   */
  unsigned int num_copies;
  struct log_copy copies[LOG_MAX_COPIES];
  struct log_super super;       /* as last written, or about to be */
  uint64_t *set_blocks, *clear_blocks; /* of this commit */
  unsigned long joining;        /* copies that are about to be in use */
  bool recovering;              /* a leg is, at this commit */
  /* Copies, by number, that surely have the epoch, and no other in either superblock; that
   * may have it; that may have the one before it.
   */
  uint64_t heard, may_have_heard, may_have_heard_last;
  struct log_writer writer;
  unsigned long unlabelled;     /* copies in use whose label is bad */
  bool copy_missing;            /* one in use was not found */
  uint64_t unaccounted;         /* ... and may have known something: numbers */
  bool starting;                /* write also what seems to be alike */
};

/* log-memory.c.  A message for the user, to be freed with g_free. */
extern void log_refuse (char **error, const char *fmt, ...)
  __attribute__ ((__format__ (__printf__, 2, 3)));
/* Images of all bitmaps but those of legs. */
extern struct dm_log *log_alloc (const struct log_geometry *g,
                                 const unsigned char *uuid);
extern bool log_map_init (struct dm_log *log, struct log_map *map);
extern void log_map_fini (struct log_map *map);
extern bool log_writer_init (struct log_writer *writer);
extern void log_writer_fini (struct log_writer *writer);
/* A copy that is not in use yet. */
extern struct log_copy *log_new_copy (struct dm_log *log,
                                      const struct dm_log_copy *copy);
/* A leg, without images. */
extern void log_new_leg (struct dm_log *log, const char *id,
                         const struct log_super_leg *info);

/* The map that a block is part of, and where in it it begins; NULL if it
 * is of no map.
 */
extern struct log_map *log_map_at (struct dm_log *log, unsigned int block,
                                   unsigned int *word);
/* The block that a bit is in. */
extern unsigned int log_block_of (const struct dm_log *log,
                                  const struct log_map *map, uint64_t bit);
static inline void
log_flag_block (uint64_t *blocks, unsigned int block)
{
  blocks[block / 64] |= UINT64_C (1) << block % 64;
}

static inline uint64_t
log_stamp_time (const struct log_super_leg *leg)
{
  return leg->stamp.valid ? leg->stamp.mtime : 0;
}

/* The lock is held. */
static inline unsigned long
log_all_legs (const struct dm_log *log)
{
  return log->num_legs == LOG_MAX_LEGS ? ~0UL : (1UL << log->num_legs) - 1;
}

/* log-lease.c, with the lock held. */
extern void log_recompute_lease (struct dm_log *log);
/* True if what is written from NOW on is durably within a lease; else that is wanted. */
extern bool log_want_lease (struct dm_log *log, uint64_t now);
extern void log_end_lease (struct dm_log *log);
extern void log_set_stamp (struct dm_log *log, unsigned int leg,
                           const struct bdev_stamp *stamp);

/* The chunks of these sectors: from *FIRST to before *END. */
extern void log_get_chunks (const struct dm_log *log, sector_t sector,
                            sector_t count, uint64_t *first, uint64_t *end);
/* dm-log.c, with the lock held. */
extern bool log_has_dirty (const struct dm_log *log);

/* log-commit.c.  The lock is held when they are called and when they return,
 * but not meanwhile.
 */

/* Wait for the commit that is under way to get on, or lead one. */
extern void log_step (struct dm_log *log);

/* What is wanted now is durable when it returns 0, with CLEARS also bits
 * that are no longer set.  -EIO: no copy is left.
 */
extern int log_commit (struct dm_log *log, bool clears);

/* Before the log is shared: copies that are behind get the superblock that rules, so
 * copies in use never differ by more than one; and all get one that is not orderly.
 * -EIO: no copy that was in use is left.
 */
extern int log_catch_up (struct dm_log *log);

/* Locked, but for the I/O.  Use these copies no more, while others are in use. */
extern void log_expel (struct dm_log *log, unsigned long copies);
/* Let no commit begin, when the one that is under way has ended. */
extern void log_wait_to_lead (struct dm_log *log);
extern void log_end_to_lead (struct dm_log *log);

/* Of commits, for log-join.c.  Write N blocks of the writer's buffer, or flush; the lock
 * need not be held.  Returns the copies that failed.
 */
extern unsigned long log_copies_io (struct dm_log *log,
                                    const struct log_writer *writer,
                                    unsigned long copies, enum dm_io_op op,
                                    unsigned int flags, unsigned int at,
                                    unsigned int n);
/* What a block becomes. */
enum log_content {
  LOG_BEFORE_CLEARING,          /* disk and staged */
  LOG_AFTER_CLEARING,           /* staged */
  LOG_AS_ON_DISK,               /* disk; by a thread that does not lead */
};
/* Not locked.  Write blocks to copies, durably.  Returns the copies that failed. */
extern unsigned long log_write_blocks (struct dm_log *log,
                                       const struct log_writer *writer,
                                       unsigned long copies,
                                       const uint64_t *blocks,
                                       enum log_content content);
/* Locked, but for the I/O, by the thread that leads.  Commit what is wanted now. */
extern void log_run_commit (struct dm_log *log);
/* Locked: no copy can be written. */
extern void log_died (struct dm_log *log);
extern uint64_t log_random (void);

/* log-join.c.  The lock is held when they are called and when they return, but not
 * meanwhile.
 */

/* Make these copies like the others, and use them; and commit.  Only one
 * thread at a time.  Returns those that are in use now, 0 also if there
 * was no memory.
 */
extern unsigned long log_bring_in (struct dm_log *log, unsigned long copies,
                                   enum log_label_state label);
/* Revive the only copy in use, which then is another file that is blank, and write all to
 * it.  False if that cannot be.
 */
extern bool log_remake (struct dm_log *log, unsigned int copy);
/* Write labels of copies in use, while no commit is under way. */
extern void log_put_labels (struct dm_log *log, unsigned long copies);
/* These copies, which are not in use, are no log any more.  False if that failed.  The
 * lock need not be held.
 */
extern bool log_erase (struct dm_log *log, const struct log_writer *writer,
                       unsigned long copies);

/* log-epochs.c.  True if all that SUPER knows of the legs is known to OTHER, or has not
 * changed since they parted.
 */
extern bool log_knows_no_more (const struct log_super *super,
                               const struct log_super *other);

/* log-copies.c.  Locked: copies that may come into use.  If none is in use, only the
 * last that were: the others know less than these, and if they came into use these
 * would not hear of it.
 */
extern unsigned long log_unused_copies (const struct dm_log *log);
/* Locked: may what was sent to any copy still be written there later? */
extern bool log_is_doubtful (const struct dm_log *log);

/* log-where.c.  Read into PLACES those that are not known yet and are on this
 * copy of the log.
 */
extern void log_read_where (const struct log_geometry *g,
                            const unsigned char *uuid,
                            const struct io_region *region,
                            const struct log_writer *writer,
                            char *places[LOG_MAX_COPIES]);
/* Write to COPIES where all are, not durably.  They must not be written to by
 * others meanwhile.  The lock need not be held.
 */
extern void log_write_where (struct dm_log *log,
                             const struct log_writer *writer,
                             unsigned long copies);

#endif /* DMIO_LOG_PRIVATE_H */
