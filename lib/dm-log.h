/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The memory of a mirror: which chunks of the volume may differ between its
 * legs, and which legs are in sync, in several copies that survive a
 * crash.  The format of a copy is in dmio-log(5) and log-format.h; to look
 * at one offline there is log-describe.h.
 *
 * Legs are numbered: bit i of a set is leg i.  A leg keeps its number for ever.
 * Sectors and counts are of the volume.  Functions that return int
 * return 0 or a negative errno; all but new, load, add_copy, start and
 * free can be called by many threads at once, and wait for I/O to the
 * copies if they have to.
 *
 * For each chunk there is a bit "dirty" (a write may be on some legs only)
 * and for each leg a bit "out of sync" (the leg lacks something).  An
 * absent leg is one that writes are not sent to.
 */

#ifndef DMIO_DM_LOG_H
#define DMIO_DM_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "block-device.h"
#include "dm-io.h"

struct dm_log;

/* Chunks of a volume can be this many, at most. */
#define DM_LOG_MAX_CHUNKS (UINT64_C (1) << 23)
/* ... and these, if nothing else is said: 64 KiB of bits. */
#define DM_LOG_DEFAULT_CHUNKS (UINT64_C (1) << 19)
#define DM_LOG_MIN_CHUNK 128            /* sectors: 64 KiB */
#define DM_LOG_DEFAULT_MIN_CHUNK 2048   /* 1 MiB */
#define DM_LOG_MAX_CHUNK (UINT64_C (1) << 31) /* 1 TiB */

/* How long the id of a leg, or the place of a copy, can be, in bytes. */
#define DM_LOG_MAX_ID 3800

/* What the log remembers of a leg's state. */
enum dm_log_state {
  DM_LOG_IN_SYNC = 1,
  DM_LOG_OUT_OF_SYNC = 2,
  DM_LOG_FAILED = 3,            /* out of sync, and the user wants it so */
};

struct dm_log_leg {
  char *id;                     /* by which it is recognised */
  enum dm_log_state state;
  sector_t sectors;             /* size of its region */

  /* To notice what others do to it: what it was like when it was last
   * quiet, and until when it may have been written since.
   */
  struct bdev_stamp stamp;      /* see bdev_stamp; not valid: no such */
  uint64_t until;               /* nsec since 1970 */
};

/* A copy of the log.  The region must have dm_log_copy_sectors.  Its place is
 * recorded in all copies that have dm_log_new_copy_sectors, so that they can say
 * where others are; nothing else depends on it.
 */
struct dm_log_copy {
  struct io_region region;
  const char *name;             /* in messages; copied */
  const char *place;            /* absolute; copied; NULL: not known */
  const char *leg;              /* id of that beside which it is; copied; or NULL */
};

/* The chunk size (sectors, a power of two) if nothing else is said. */
extern sector_t dm_log_default_chunk (sector_t volume);
/* How large a copy has to be, in sectors; for any number of legs. */
extern sector_t dm_log_copy_sectors (sector_t volume, sector_t chunk);
/* ... and how large it is best made: with room for the places of copies. */
extern sector_t dm_log_new_copy_sectors (sector_t volume, sector_t chunk);

/* A log for a new mirror, on copies whose contents are overwritten; all of them
 * can be written, or it fails.  Durable when it returns.  An OUT_OF_SYNC leg
 * lacks every chunk.  NULL on error with a message in *ERROR, to be freed
 * with g_free.
 */
extern struct dm_log *dm_log_new (unsigned int num_copies,
                                  const struct dm_log_copy *copies,
                                  sector_t volume, sector_t chunk,
                                  unsigned int num_legs,
                                  const struct dm_log_leg *legs,
                                  char **error);

/* Read the copies and let the newest rule.  Nothing is written yet.  If the last server
 * has not ended in order, what it sent may still reach copies with a late time
 * (block-device.h).  These are not used before that is over; if there are no others it
 * is waited for.  NULL on
 * error, which includes: a copy of another mirror, of an unknown version,
 * copies that contradict each other (each has seen what the other has not),
 * none that is valid; and, with *ERROR NULL, if all are blank.  Copies
 * that are blank, out of date or corrupt beside a valid one are
 * rewritten by dm_log_start.
 */
extern struct dm_log *dm_log_load (unsigned int num_copies,
                                   const struct dm_log_copy *copies,
                                   char **error);

/* One more copy: before dm_log_start, which overwrites it; or later, then
 * dm_log_restore does, if it knows no more than the others.
 */
extern void dm_log_add_copy (struct dm_log *log,
                             const struct dm_log_copy *copy);

/* Before dm_log_start: true if the copy beside the leg, or on the same device, was in
 * use and is older than that can be: then the leg is, too.
 */
extern bool dm_log_is_set_back (struct dm_log *log, unsigned int leg,
                                const struct block_device *bdev);

/* Before dm_log_start: others may have written these legs, which are absent.
 * They lack every chunk, unless they have a stamp that will tell.
 */
extern void dm_log_distrust (struct dm_log *log, unsigned long legs);

/* Writes are about to begin.  These legs are absent; of them, those in LOST
 * may lack every chunk, the others what is dirty and what the log says
 * already.  All copies are brought up to date, and durable when it returns;
 * -EIO if there is none to which that could be written.  Not for
 * a new log with nothing to say: that has been written.
 */
extern int dm_log_start (struct dm_log *log, unsigned long absent,
                         unsigned long lost);

/* Ends without writing anything. */
extern void dm_log_free (struct dm_log *log);

/* What does not change. */
extern sector_t dm_log_volume (const struct dm_log *log);
extern sector_t dm_log_chunk (const struct dm_log *log);
extern const char *dm_log_uuid (const struct dm_log *log);

extern unsigned int dm_log_num_legs (struct dm_log *log);
/* As it is known now.  ID is the log's own string. */
extern void dm_log_get_leg (struct dm_log *log, unsigned int leg,
                            struct dm_log_leg *info);
/* True if any chunk is dirty. */
extern bool dm_log_is_dirty (struct dm_log *log);
/* The next dirty chunk from FIRST on, or the number of all. */
extern uint64_t dm_log_next_dirty (struct dm_log *log, uint64_t first);

/* Copies that were in use and were not among those that were loaded, or not
 * valid: they may have known more, if these had failed.  Their places, or
 * numbers, for a message, to be freed with g_free; NULL if there are none.
 */
extern char *dm_log_missing_copies (const struct dm_log *log);

/* The number of copies in use, and of all. */
extern unsigned int dm_log_copies (struct dm_log *log, unsigned int *all);

/* One of all these.  PLACE is the log's own string, or NULL. */
struct dm_log_copy_status {
  unsigned int number;          /* that it has in the log */
  const char *place;
  bool in_use;
};
extern void dm_log_get_copy (struct dm_log *log, unsigned int i,
                             struct dm_log_copy_status *status);

/*----------------------------------------------------------------------
 * Writes
 */

/* These sectors are going to be written, on all legs but *ABSENT, which it
 * sets.  When it returns 0, it is durable that their chunks are dirty, that
 * the absent legs lack them and are not in sync (W1, W3).  -EIO: no copy is
 * left; then nothing may be written.  Threads share flushes of the copies.
 */
extern int dm_log_begin (struct dm_log *log, sector_t sector, sector_t count,
                         unsigned long *absent);
/* The write has ended, one way or another; after each successful begin. */
extern void dm_log_end (struct dm_log *log, sector_t sector, sector_t count);

/* These legs have missed something (0: none more), and are absent from now
 * on: they are out of sync, and lack what is dirty now.  When it returns 0,
 * that is durable, also for legs that others have dropped meanwhile.
 */
extern int dm_log_drop (struct dm_log *log, unsigned long legs);

/*----------------------------------------------------------------------
 * Dirty chunks become clean (W2)
 */

/* Choose the dirty chunks that nobody has written since the last call, or is
 * writing.  Returns how many.
 */
extern uint64_t dm_log_clean_begin (struct dm_log *log);

/* Now all legs that were not absent at clean_begin, or since, have been flushed
 * or dropped: what was chosen and not written since is clean.
 */
extern int dm_log_clean_end (struct dm_log *log);

/* What the legs are like now that they are quiet, one for each leg: durable
 * when it returns.  To be called between clean_begin and clean_end.  Only of legs that
 * are not absent.
 */
extern int dm_log_stamp (struct dm_log *log, const struct bdev_stamp *stamps);

/* What a leg that is absent was like when it had left, and done what it was sent: who
 * changes it from now on is somebody else.  Or, if STAMP is not valid, nothing but the
 * date until which it may have been written.  Durable when it returns 0; -EAGAIN if it
 * is not absent.
 */
extern int dm_log_left (struct dm_log *log, unsigned int leg,
                        const struct bdev_stamp *stamp, uint64_t date);

/* The lease: until when the legs that are not absent may be written, so that
 * after a crash a later change is known to be somebody else's.  This renews it
 * if it ends soon; dm_log_begin does when it has to, which costs a client time.  It
 * ends when all is clean and the legs are stamped.  -EIO: no copy is left; then
 * nothing may be written.
 */
extern int dm_log_keep_lease (struct dm_log *log);

/* The end: nobody writes any more, and all legs have done what they were sent.  Those
 * without stamps, too, have no lease any more if nothing is dirty; and no old write can
 * reach the copies, unless a connection to one has failed lately.  Durable with the next
 * commit.
 */
extern void dm_log_rest (struct dm_log *log);

/*----------------------------------------------------------------------
 * After a crash, or a write that has failed everywhere (R2, W4)
 */

/* The next chunk in [first, end) that may differ between legs in sync, or be one thing
 * now and another after a crash, and has not been made equal, durably, since; or end.
 * These stay dirty.  When the log is loaded it is what is dirty.
 */
extern uint64_t dm_log_next_unreconciled (struct dm_log *log, uint64_t first,
                                          uint64_t end);
/* Of sectors that are so: has this log's user written there, or the legs become different? */
extern bool dm_log_was_written (struct dm_log *log, sector_t sector,
                                sector_t count);
/* The chunks of these sectors, which are dirty, may differ now. */
extern void dm_log_unreconcile (struct dm_log *log, sector_t sector,
                                sector_t count);
/* The chunk is alike now on all legs in sync, durably (or no flush succeeds until the only
 * one has been mended), unless it may have become different since dm_log_differs returned
 * SINCE.
 */
extern void dm_log_reconciled (struct dm_log *log, uint64_t chunk,
                               unsigned int since);
extern unsigned int dm_log_differs (struct dm_log *log, uint64_t chunk);

/*----------------------------------------------------------------------
 * Chunks in doubt (S5): what was sent to a leg before may still be written there
 */

/* These chunks are in doubt on the leg, which lacks them or is in sync.  They are not
 * copied to it, and stay lacking if they are, and dirty, until end_doubt.
 */
extern void dm_log_doubt (struct dm_log *log, unsigned int leg,
                          sector_t sector, sector_t count);
/* The same of all that is dirty, and that the leg lacks: it may just have been copied. */
extern void dm_log_doubt_all (struct dm_log *log, unsigned int leg);
extern void dm_log_end_doubt (struct dm_log *log, unsigned int leg);
/* True if any of the chunks of these sectors is in doubt on all of LEGS, which are
 * not none.
 */
extern bool dm_log_in_doubt (struct dm_log *log, unsigned long legs,
                             sector_t sector, sector_t count);

/*----------------------------------------------------------------------
 * Recovery (S1)
 */

/* The leg, which is what STAMP says, is no longer absent: it is written like the others,
 * but stays out of sync until dm_log_join.  STAMP may be NULL.  -EIO: no copy is left;
 * then it is still absent.
 */
extern int dm_log_recover (struct dm_log *log, unsigned int leg,
                           const struct bdev_stamp *stamp);

/* The next run of chunks in [*first, end) which any of LEGS lacks, without those that
 * are in doubt there, each lacked by the same of them: sets *first, *after and
 * *lacking.  False if there are none.
 */
extern bool dm_log_next_lacking (struct dm_log *log, unsigned long legs,
                                 uint64_t *first, uint64_t end,
                                 uint64_t *after, unsigned long *lacking);
/* True if no chunk of these sectors is dirty, or lacked by the leg. */
extern bool dm_log_is_quiet (struct dm_log *log, unsigned int leg,
                             sector_t sector, sector_t count);

/* The leg lacks all that is dirty again; a crash does not hide that. */
extern void dm_log_lack_dirty (struct dm_log *log, unsigned int leg);

/* True if there is something that the leg lacks, and all of that is dirty, and in doubt
 * there: not so of what may just have been copied to it when the last server was killed.
 */
extern bool dm_log_lacks_only_doubtful (struct dm_log *log, unsigned int leg);

/* Those of LEGS that lack no chunk of these sectors. */
extern unsigned long dm_log_having (struct dm_log *log, unsigned long legs,
                                    sector_t sector, sector_t count);

/* How many chunks the leg lacks. */
extern uint64_t dm_log_lacking (struct dm_log *log, unsigned int leg);

/* The leg has these chunks now, durably.  No writes to it in those chunks may
 * have been left out since they were copied.  Becomes durable with
 * the next dm_log_clean_end or dm_log_sync.  Chunks that are unreconciled
 * remain lacking: what was copied may not be what the others will have.
 */
extern void dm_log_copied (struct dm_log *log, unsigned int leg,
                           uint64_t first, uint64_t end);
extern int dm_log_sync (struct dm_log *log);

/* The leg is in sync: durable when it returns 0.  -EAGAIN if it lacks
 * something or is absent.  STAMP may be NULL.
 */
extern int dm_log_join (struct dm_log *log, unsigned int leg,
                        const struct bdev_stamp *stamp);

/*----------------------------------------------------------------------
 * Wishes of the user
 */

/* A new leg, absent, which lacks every chunk.  Returns its number, or a
 * negative errno: -ENOSPC if there are too many.
 */
extern int dm_log_add_leg (struct dm_log *log, const char *id,
                           sector_t sectors);
/* An absent leg lacks every chunk. */
extern int dm_log_lose (struct dm_log *log, unsigned int leg);
/* An absent leg is FAILED, or no longer. */
extern int dm_log_set_failed (struct dm_log *log, unsigned int leg,
                              bool failed);

/* A leg is no longer where it was, or is there again: the copy beside it is used no
 * more until then, if there is another.
 */
extern void dm_log_set_away (struct dm_log *log, unsigned int leg, bool away);

/* Are the files of the copies still where they were?  One that was deleted or replaced
 * is made anew there.  To be called every so often.
 */
extern void dm_log_look_after (struct dm_log *log);

/* Before a leg that was not used is used again: has a copy of the log that is not in
 * use, beside that leg, on the same device, or beside no leg, seen changes that this
 * log has not?  Then its name is in *COPY, to be freed with g_free, else NULL.  -EAGAIN:
 * one cannot be looked at now.  It says nothing against a leg that was in use when it was
 * first seen.  With OVERWRITE such copies are no longer copies of the log when it returns
 * 0, durably.
 */
extern int dm_log_split_brain (struct dm_log *log, unsigned int leg,
                               const struct block_device *bdev,
                               bool overwrite, char **copy);

/* Bring copies that have failed up to date, if they can be written again.
 * Returns true if one was.
 */
extern bool dm_log_restore (struct dm_log *log);

#endif /* DMIO_DM_LOG_H */
