/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* A mirror as its parts see it: dm-mirror.c has the writes and flushes,
 * mirror-read.c the reads, mirror-state.c what becomes of legs, mirror-assemble.c the start,
 * mirror-copy.c recovery and reconciling, mirror-doubt.c chunks in doubt,
 * mirror-partial.c legs that lack only these, mirror-rewrite.c what could not be
 * flushed, mirror-keeper.c legs that have failed, mirror-threads.c who does it.
 * The comment in dm-mirror.c tells about locks.
 */

#ifndef DMIO_MIRROR_H
#define DMIO_MIRROR_H

#include <pthread.h>

#include "clock.h"
#include "dm-mirror.h"
#include "failure-log.h"
#include "range-lock.h"
#include "read-balance.h"

/* Threads that copy. */
#define MIRROR_COPIERS 4

/* Copied at once, under one range lock: sectors. */
#define MIRROR_PIECE 2048

/* The first thing that FAILED and MISSING legs wait for, and the longest. */
#define MIRROR_FIRST_DELAY NSEC_PER_SEC
#define MIRROR_LAST_DELAY (60 * NSEC_PER_SEC)

struct leg {
  struct io_region region;      /* set before the leg is used first */
  char *name, *id;
  unsigned int place;           /* in the order in which legs were given */
  bool given;                   /* may be reopened */
  bool was_written;             /* perhaps, until the last server ended */

  /* Owned by state_lock. */
  enum dm_mirror_state state;
  bool by_user;                 /* FAILED, and not to be tried again */
  char *reason;                 /* NULL, or why it is not in sync */
  uint64_t retry_at, delay;     /* FAILED, MISSING: nsec, clock_now */
  uint64_t unseen_since;        /* since when a copy of the log is waited for; or 0 */
  unsigned int recoveries;      /* how many were begun or broken off */
  uint64_t to_copy;             /* chunks, when this recovery began */
  uint64_t doubt_until;         /* clock_now: chunks are in doubt since the start */

  bool displaced;               /* the custodian's: a warning says so */

  /* Atomic: when it was written last, or not used any more (clock_date).  What is
   * newer is from somebody else.
   */
  uint64_t left;
  bool unstamped;               /* atomic: the log does not know what it is like since */
};

/* What the copiers share. */
struct mirror_work {
  pthread_mutex_t lock;         /* owns the rest; a leaf but for the log's */
  pthread_cond_t changed;       /* something to do, or stop */
  bool stop;                    /* atomic */
  uint64_t cursor;              /* chunks before it are done in this pass */
  bool in_pass;
  unsigned int busy;            /* copiers with something not yet recorded */
  bool stuck;                   /* this pass had to leave something out, */
  unsigned long unread;         /* that these legs lack */
  uint64_t not_before;          /* when the next pass may begin */
  uint64_t rate_at;             /* resync_rate: when the next may be copied */
};

struct dm_mirror {
  unsigned int num_legs;        /* atomic; grows, under state_lock */
  unsigned int num_given;       /* of them; owned by state_lock */
  sector_t sectors;
  unsigned int block_size;
  struct dm_log *log;           /* or NULL */
  struct dm_mirror_options options;
  unsigned int quorum;
  struct range_locks ranges;
  struct range_locks reconciling; /* chunks, by who wants to read them */
  struct failure_log *failures;
  struct read_balance balance;

  pthread_mutex_t state_lock;
  pthread_cond_t state_changed; /* for the keeper, or stop */
  unsigned long in_sync;        /* atomic: bit i is leg i */
  unsigned long recovering;     /* the same */
  unsigned int stampings;       /* owned by state_lock: see mirror_stamp */
  unsigned int rewrites;        /* the same: tries of mirror_rewrite */
  unsigned long in_doubt;       /* atomic: legs with such chunks (S5) */
  unsigned long partial;        /* atomic: of those recovering, that lack nothing else */
  unsigned int partial_changes; /* atomic: how often that has changed */
  uint64_t doubt_ended;         /* clock_now; owned by state_lock */
  /* Atomic: legs in sync that may show what they have not kept, as a flush has failed since
   * the start: they count for no quorum, and nothing becomes clean, until mirror_rewrite
   * has made them good again.  They are the only ones in sync, or a write with FUA has failed
   * on all.
   */
  unsigned long unflushed;
  unsigned long write_mostly;   /* atomic */
  bool active;                  /* atomic: a request came since it was reset */
  uint64_t active_until;        /* atomic: clients count as active */
  /* Atomic: how often legs that stayed in sync may have lost writes, and the last
   * of these that some client was told of.
   */
  unsigned int losses, losses_told;
  unsigned int differences;     /* atomic: writes that all in sync have refused */
  uint64_t started;             /* clock_now, when it was assembled */
  uint64_t outage_since;        /* the keeper's: it has seen one since; or 0 */
  bool unreconciled;            /* atomic: there may be such chunks */
  uint64_t copied;              /* atomic: bytes */
  uint64_t rate;                /* atomic: bytes per second */

  pthread_mutex_t rewriting;    /* owns these; see mirror_rewrite */
  uint64_t rewrite_at, rewrite_delay; /* as those of a leg */

  struct mirror_work work;
  bool stop;                    /* owned by state_lock: all but copiers */
  unsigned int num_threads;
  pthread_t threads[MIRROR_COPIERS + 3];
  struct leg legs[DM_IO_MAX_REGIONS];
};

/* Called with state_lock. */
static inline void
mirror_set_member (unsigned long *set, unsigned int leg, bool member)
{
  unsigned long bit = 1UL << leg;

  __atomic_store_n (set, member ? *set | bit : *set & ~bit, __ATOMIC_RELEASE);
}

#define FIRST(set) ((unsigned int) __builtin_ctzl (set))
#define COUNT(set) ((unsigned int) __builtin_popcountl (set))
#define FOR_EACH_LEG(i, set)                                            \
  for (unsigned long i##_left = (set), i = 0;                           \
       i##_left != 0 && (i = FIRST (i##_left), 1);                      \
       i##_left &= i##_left - 1)

/*----------------------------------------------------------------------
 * dm-mirror.c
 */

static inline unsigned long
mirror_in_sync (const struct dm_mirror *m)
{
  return __atomic_load_n (&m->in_sync, __ATOMIC_ACQUIRE);
}

static inline unsigned long
mirror_recovering (const struct dm_mirror *m)
{
  return __atomic_load_n (&m->recovering, __ATOMIC_ACQUIRE);
}

static inline unsigned long
mirror_unflushed (const struct dm_mirror *m)
{
  return __atomic_load_n (&m->unflushed, __ATOMIC_ACQUIRE);
}

/* Legs that are written. */
static inline unsigned long
mirror_used (const struct dm_mirror *m)
{
  /* First this: a leg that joins is in both for a moment, never in none. */
  unsigned long recovering = mirror_recovering (m);

  return mirror_in_sync (m) | recovering;
}

/* A AND NOT B, unless that is nothing. */
static inline unsigned long
preferably_not (unsigned long a, unsigned long b)
{
  return (a & ~b) != 0 ? a & ~b : a;
}

static inline uint64_t
mirror_chunks (const struct dm_mirror *m)
{
  return (m->sectors + dm_log_chunk (m->log) - 1) / dm_log_chunk (m->log);
}

/* A leg comes after all that were given before it.  Called with state_lock, or
 * before there are threads, and before the leg is used.
 */
extern void mirror_give (struct dm_mirror *m, unsigned int leg);

/* A client has asked for something. */
extern void mirror_note_request (struct dm_mirror *m);

/* The sectors of the volume on a leg. */
extern struct io_region mirror_on_leg (const struct dm_mirror *m,
                                       unsigned int leg, sector_t sector,
                                       sector_t count);

extern unsigned long mirror_offline (const struct dm_mirror *m);

/* One dm-io request for a set of legs.  Returns those that failed; the
 * results of the others are 0.
 */
extern unsigned long mirror_run (struct dm_mirror *m,
                                 const struct dm_io_request *req,
                                 unsigned long legs, sector_t sector,
                                 sector_t count,
                                 struct dm_io_result *results);

/*----------------------------------------------------------------------
 * mirror-read.c
 */

/* The one of LEGS that was given first. */
extern unsigned int mirror_given_first (const struct dm_mirror *m,
                                        unsigned long legs);

/* About half of so many sectors, in whole blocks; 0 if they are one. */
extern sector_t mirror_half (const struct dm_mirror *m, sector_t count);

/* Read from one leg.  Returns 0 or an errno, positive. */
extern int mirror_read_leg (struct dm_mirror *m, unsigned int leg, void *data,
                            sector_t sector, sector_t count,
                            struct dm_io_result *result);

/*----------------------------------------------------------------------
 * mirror-state.c
 */

/* What a set of legs has failed to do. */
struct mirror_failure {
  enum dm_io_op op;
  sector_t sector, count;
  unsigned long legs;           /* those that failed */
  unsigned long others;         /* that did what the legs have not */
  bool fua;                     /* it was to be made durable */
  unsigned long shown;          /* they were to be given what this one of them shows, so
                                 * it is nothing new; or 0 */
  const struct dm_io_result *results;
};

/* With a log: legs that failed are out of sync from now on; but not all in sync (W4):
 * see choose_dropped.  Logs all that.  Returns 0 when it is durable, or a negative
 * errno.
 */
extern int mirror_failed (struct dm_mirror *m,
                          const struct mirror_failure *failure);

/* Wait until all legs that have left the sets are recorded.  0 or -EIO. */
extern int mirror_settle (struct dm_mirror *m);

/* Called with state_lock: a leg that stays in sync may have lost what was not flushed.
 * Whoever wrote hears of it, by a write or flush that is under way or else by the next
 * flush (F1).
 */
extern void mirror_note_loss (struct dm_mirror *m);

/* No leg in sync can be reached (W4).  Then mirror_go_on_with uses one that has
 * failed again, and drops the others; false if it cannot be used now.  Only for the
 * thread that uses legs again.
 */
extern bool mirror_is_outage (const struct dm_mirror *m);
extern bool mirror_go_on_with (struct dm_mirror *m, unsigned int leg);

/* The file of a leg is not where it was.  What is there, or comes there, lacks
 * everything.
 */
extern void mirror_displaced (struct dm_mirror *m, unsigned int leg);

/* The same as mirror_failed, of a flush of one leg. */
extern void mirror_failed_flush (struct dm_mirror *m, unsigned int leg,
                                 int error);

/* One line on what became of a leg, and what that means for the volume. */
extern void mirror_report (struct dm_mirror *m, unsigned int leg,
                           const char *fmt, ...)
  __attribute__ ((__format__ (__printf__, 3, 4)));

/* Called with state_lock: a leg leaves or enters the sets. */
extern void mirror_set_state (struct dm_mirror *m, unsigned int leg,
                              enum dm_mirror_state state, const char *reason);

/* A leg is not used any more, or has done by now what it was sent when it was. */
extern void mirror_note_left (struct leg *l);
/* Nobody writes any more: those that are recovered are used no longer either. */
extern void mirror_leave_recovering (struct dm_mirror *m);
/* Tell the log what a leg is like that is not used any more, if it has yet to be told. */
extern void mirror_stamp_left (struct dm_mirror *m, unsigned int leg);
/* Begin to recover a leg that is not used.  False if that cannot be now. */
extern bool mirror_begin_recovery (struct dm_mirror *m, unsigned int leg);
/* It lacks nothing any more: make it one in sync. */
extern void mirror_end_recovery (struct dm_mirror *m, unsigned int leg);

/*----------------------------------------------------------------------
 * mirror-assemble.c
 */

extern bool mirror_assemble (struct dm_mirror *m, unsigned int num_legs,
                             const struct dm_mirror_leg *legs, char **error);

/* True if the open region can be this leg.  Sets *CHANGE: has it changed while it
 * was not served?  And *STAMP: what it is like.
 */
enum mirror_change { MIRROR_UNCHANGED, MIRROR_CHANGED, MIRROR_NOT_KNOWN };
extern bool mirror_check_leg (struct dm_mirror *m, unsigned int leg,
                              const struct io_region *region,
                              enum mirror_change *change,
                              struct bdev_stamp *stamp, char **error);

/* Compare blocks of a leg with a source where they should be alike and nobody writes.
 * As samples_compare.
 */
extern int mirror_compare (struct dm_mirror *m, unsigned int source,
                           unsigned int leg, sector_t *at);

/* May a leg that is not used be used again, with what copies of the log know that belong
 * to it?  Not after a split brain: that is for the user to decide; nor at once if that
 * cannot be found out now.  *ERROR is a message, or NULL if a copy on a server cannot be
 * reached, which may be back soon after the leg, or never.
 */
enum mirror_return { MIRROR_RETURN, MIRROR_RETURN_LATER, MIRROR_SPLIT_BRAIN };
extern enum mirror_return mirror_may_return (struct dm_mirror *m,
                                             unsigned int leg,
                                             const struct block_device *bdev,
                                             char **error);

/* Let a leg be recovered that was missing, from this region. */
extern bool mirror_readmit (struct dm_mirror *m, unsigned int leg,
                            const struct io_region *region, char **error);

/*----------------------------------------------------------------------
 * mirror-rewrite.c
 */

/* Called with state_lock: the flush of a leg that stays in sync has failed. */
extern void mirror_set_unflushed (struct dm_mirror *m, unsigned int leg);
/* These legs in sync are taken for ones whose flush has failed. */
extern void mirror_distrust (struct dm_mirror *m, unsigned long legs);
/* Write what is dirty again to the legs whose flush has failed, from another leg in
 * sync or from what they show themselves, and flush it: then it is durable, and they
 * count again.  Who calls meanwhile waits.  0, also if there are none; or -EIO, also if
 * that has failed lately.
 */
extern int mirror_rewrite (struct dm_mirror *m);
/* The same before legs in sync are made equal: or that would drop all but one, when they
 * are flushed.
 */
extern void mirror_rewrite_several (struct dm_mirror *m);

/* Is the only leg in sync one that cannot be flushed?  There nothing has to be made equal,
 * and what is read may be lost: everybody hears of that.
 */
extern bool mirror_cannot_flush (const struct dm_mirror *m);

/* Called with state_lock: legs that recover may have been copied to from some that show
 * something else by now; they lack again what is dirty.
 */
extern void mirror_copy_again (struct dm_mirror *m);

/*----------------------------------------------------------------------
 * mirror-doubt.c
 */

/* Called with state_lock: a change has failed on legs; where their connections have ended it
 * may still be done, so its chunks are in doubt there.
 */
extern void mirror_doubt (struct dm_mirror *m,
                          const struct mirror_failure *failure);

/* Chunks in doubt (S5).  Before a write to these sectors or a read: if each leg in sync
 * may still get an older write there, wait until that is over.  begin_doubt is for
 * the start after a crash, and legs that turn up soon after it: all that was being
 * written or copied, on these legs; with state_lock, if there are threads.  end_doubt is
 * called every so often.
 */
extern void mirror_await_doubt (struct dm_mirror *m, sector_t sector,
                                sector_t count);
extern void mirror_begin_doubt (struct dm_mirror *m, unsigned long legs,
                                uint64_t until);
extern void mirror_end_doubt (struct dm_mirror *m);

/*----------------------------------------------------------------------
 * mirror-partial.c
 */

/* Legs that have these sectors, so that they count for quorum= there: those in sync, and
 * some that lack only chunks in doubt; with COUNT 0, those that have all.
 */
extern unsigned long mirror_in_sync_for (const struct dm_mirror *m,
                                         sector_t sector, sector_t count);

/* Before SECTOR and COUNT are read: sets LEGS, from which they can be; and afterwards,
 * which may wait for writes: is what this leg said to be believed?
 */
struct mirror_reading {
  sector_t sector, count;
  unsigned long legs, in_sync;
  unsigned int changes;
};
extern void mirror_begin_reading (const struct dm_mirror *m,
                                  struct mirror_reading *reading);
extern bool mirror_is_right (struct dm_mirror *m,
                             const struct mirror_reading *reading,
                             unsigned int leg);

/* If nothing can be read: is it worth another try, since others could be read by now? */
extern bool mirror_may_read_again (const struct dm_mirror *m,
                                   const struct mirror_reading *reading);

/* A leg that recovers is used in part, if it lacks only chunks in doubt. */
extern void mirror_use_in_part (struct dm_mirror *m, unsigned int leg);
/* Called with state_lock: these are the legs that are used in part. */
extern void mirror_set_partial (struct dm_mirror *m, unsigned long legs);

/* Before a write to these sectors or, with COUNT 0, a flush; with no range locked.  If there
 * is no quorum for it as it concerns chunks in doubt, wait until these have been copied.
 */
extern void mirror_await_part (struct dm_mirror *m, sector_t sector,
                               sector_t count);

/*----------------------------------------------------------------------
 * mirror-keeper.c
 */

/* The thread, of a mirror with a log. */
extern void *mirror_keeper (void *mirror);

/*----------------------------------------------------------------------
 * mirror-copy.c
 */

/* Chunks that are alike in what has to be copied to where. */
struct mirror_item {
  uint64_t first, end;
  bool reconcile;               /* one chunk, to all legs that are used, the source, too */
  bool rewrite;                 /* the same, to the source only if a flush has failed */
  unsigned int differs;         /* then: dm_log_differs before it was copied */
  unsigned long lacking;        /* else to these */
  unsigned long sources;        /* legs that have been read for it */
};

/* The first chunk of the item that is not zero on the source and the targets,
 * or its end: a thin volume is mostly zero, and quickly done.
 */
extern uint64_t mirror_zero_end (struct dm_mirror *m,
                                 struct mirror_item *item);

/* Copy what the item says; not flushed yet.  0, also if a target has failed, as
 * its state says; -ENODATA if something could not be read; or -EIO if something else
 * could not be copied, or nobody is left to copy to.  If the only leg in sync cannot be
 * written it is distrusted, and 0.
 */
extern int mirror_copy_item (struct dm_mirror *m,
                             struct mirror_item *item,
                             void *buffer, bool paced);

/* Those that fail are out of sync.  0, or -EIO if any has failed. */
extern int mirror_flush_legs (struct dm_mirror *m, unsigned long legs);

/* Before a chunk of these sectors is read: make it equal on all legs in sync
 * if it may not be so since a crash (R2).
 */
extern int mirror_reconcile (struct dm_mirror *m, sector_t sector,
                             sector_t count);

/* The same, if that has failed, for these sectors alone: others of their chunks
 * may be unreadable.
 */
extern int mirror_reconcile_part (struct dm_mirror *m, sector_t sector,
                                  sector_t count);

/* How many sectors from here on are equal: at least those of the first chunk,
 * which is made so; or 0 if that fails.
 */
extern sector_t mirror_alike (struct dm_mirror *m, sector_t sector,
                              sector_t count);

/* Rewrite on these legs what could not be read there (R1). */
extern void mirror_repair (struct dm_mirror *m, unsigned long legs,
                           sector_t sector, sector_t count);

/*----------------------------------------------------------------------
 * mirror-threads.c
 */

extern int mirror_start_threads (struct dm_mirror *m);
extern void mirror_stop_threads (struct dm_mirror *m);

/* True if copiers should come to an end. */
extern bool mirror_stopping (struct dm_mirror *m);

/* Wait for COND until that time, by clock_now. */
extern void mirror_wait_until (pthread_cond_t *cond, pthread_mutex_t *lock,
                               uint64_t until);
/* Wake the copiers. */
extern void mirror_wake (struct dm_mirror *m);

/* Flush the legs and clear what is dirty and idle (W2). */
extern void mirror_clean (struct dm_mirror *m);
/* Tell the log what the legs are like now that they are quiet.  False if that
 * cannot be done, or others have become legs that are written.
 */
extern bool mirror_stamp (struct dm_mirror *m);

/* Let a copier that has worked since BEGUN and copied so many bytes wait, so that
 * clients keep their half and resync_rate is kept.
 */
extern void mirror_pace (struct dm_mirror *m, uint64_t begun, uint64_t bytes);

#endif /* DMIO_MIRROR_H */
