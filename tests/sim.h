/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* A deterministic simulator of a mirror with a log: what its parts share.
 *
 * The code under test is the library's own, from dm-mirror down to
 * dm-log.  What is below it (dm_io, the devices) and around it (threads,
 * locks, clocks, random numbers) is replaced: functions of the library are
 * defined here and their files not linked, since link time optimization knows
 * nothing of --wrap for those; calls of others are redirected by --wrap:
 *
 *   sim-fiber.c    threads are fibers, run by one seeded scheduler
 *   sim-memory.c   the memory that they get is given back all at once
 *   sim-sync.c     POSIX locks, conditions, threads and clocks, on fibers
 *   sim-device.c   legs and log copies with volatile caches, and faults
 *   sim-io.c       dm_io and bdev_*, in steps that the scheduler chooses
 *   sim-oracle.c   which values may be read from each sector
 *   sim-record.c   what the log copies durably say, for W1, R1 and S1
 *   sim-history.c  one generated history: cuts, restarts, the end
 *   sim-clients.c  those who read and write in it
 *   sim-faults.c   what goes wrong in it
 *   test-sim.c     many histories, and the replay of one
 *
 * All of it is one thread, so nothing here has locks.  Everything that
 * happens follows from the seed of the history alone.
 */

#ifndef DMIO_SIM_H
#define DMIO_SIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "block-device.h"
#include "dm-io.h"
#include "dm-log.h"
#include "dm-mirror.h"

/*----------------------------------------------------------------------
 * Random numbers: splitmix64, by Sebastiano Vigna, public domain
 */

struct sim_rng {
  uint64_t state;
};

static inline uint64_t
sim_next (struct sim_rng *rng)
{
  uint64_t z = (rng->state += UINT64_C (0x9e3779b97f4a7c15));

  z = (z ^ (z >> 30)) * UINT64_C (0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C (0x94d049bb133111eb);
  return z ^ (z >> 31);
}

/* From 0 to n-1, n less than 2^32. */
static inline uint32_t
sim_below (struct sim_rng *rng, uint32_t n)
{
  return (sim_next (rng) >> 32) * n >> 32;
}

static inline bool
sim_chance (struct sim_rng *rng, unsigned int percent)
{
  return sim_below (rng, 100) < percent;
}

/* One stream of numbers for each purpose, so that the same seed gives the
 * same history up to a cut that is moved.
 */
extern struct sim_rng sim_schedule, sim_media, sim_plan;

/*----------------------------------------------------------------------
 * Findings and the trace
 */

/* What a history can have in it, counted over all of them, so that a kind that
 * never happens is seen.  test-sim.c has their names.
 */
enum sim_event {
  SIM_EDIT_UNSERVED,
  SIM_EDIT_WISHED,
  SIM_EDIT_LOST,
  SIM_EDIT_REFUSED,
  SIM_BLANK_LEG,
  SIM_BLANK_COPY,
  SIM_OLD_LEG,
  SIM_OLD_COPY,
  SIM_OLD_BOTH,
  SIM_OLD_AFTER_CRASH,
  SIM_OTHER_DISK,
  SIM_OTHER_DISK_REFUSED,
  SIM_CUT_RECOVERY,
  SIM_FAULT_RECOVERY,
  SIM_WISH_RECOVERY,
  SIM_LARGE_CHUNKS,
  SIM_MANY_PIECES,
  SIM_MANY_WORDS,
  SIM_CLIENT_RETURNS,
  SIM_CLIENT_RETURNS_UNTOLD,
  SIM_FUA_FORGETS,
  SIM_SLOW_OPERATION,
  SIM_PARTIAL_READ,
  SIM_PARTIAL_QUORUM,
  SIM_LATE_AFTER_LOSS,
  SIM_LATE_AFTER_KILL,
  SIM_READ_WEAK,
  SIM_READ_PASSES,
  SIM_KILL_KEEPS,
  SIM_EVENTS
};
extern void sim_count (enum sim_event event);

/* Something is wrong: ends the history. */
extern void sim_fail (const char *fmt, ...)
  __attribute__ ((__noreturn__, __format__ (__printf__, 1, 2)));

extern bool sim_verbose;
extern void sim_trace_line (const char *fmt, ...)
  __attribute__ ((__format__ (__printf__, 1, 2)));
#define sim_trace(...) \
  do { if (sim_verbose) sim_trace_line (__VA_ARGS__); } while (0)

/*----------------------------------------------------------------------
 * Memory
 */

/* Nothing that was allocated is needed any more. */
extern void sim_memory_reset (void);

/*----------------------------------------------------------------------
 * Fibers
 */

#define SIM_NEVER UINT64_MAX

struct sim_fiber;

/* How the scheduler of a history behaves; percentages. */
struct sim_style {
  unsigned int yield;           /* a point where it may switch is one */
  unsigned int io;              /* I/O goes on, if a fiber could run too */
  unsigned int jump;            /* of a thousand: to the next timeout */
  unsigned int spurious;        /* of a thousand: wake-ups */
  unsigned int slow;            /* of a thousand: I/O takes long */
};
extern struct sim_style sim_style;

extern uint64_t sim_now;        /* nsec; virtual */
extern uint64_t sim_steps;      /* since sim_run was called */

/* Run MAIN and all fibers it starts until it returns, or until a step.
 * True if it returned.  False: the power was cut, and all fibers are gone.
 */
extern bool sim_run (void (*main) (void), uint64_t cut_at);

extern struct sim_fiber *sim_spawn (void *(*run) (void *), void *arg,
                                    const char *name);
extern void *sim_join (struct sim_fiber *fiber);
extern struct sim_fiber *sim_self (void);
extern const char *sim_fiber_name (const struct sim_fiber *fiber);

/* A point where others may run. */
extern void sim_yield (void);
/* Wait to be woken with ADDRESS, or until a time.  False: it timed out. */
extern bool sim_block (const void *address, uint64_t until,
                       const char *why);
/* Wake one, chosen at random, or all who wait with ADDRESS. */
extern void sim_wake (const void *address, bool all);
extern void sim_sleep (uint64_t nsec);
extern uint64_t sim_date (void);        /* nsec since 1970 */
extern int64_t sim_clock_error; /* that somebody has set the clock wrong by */

/*----------------------------------------------------------------------
 * Devices
 */

enum sim_kind { SIM_LEG, SIM_COPY };

#define SIM_BLOCK 4096          /* of a log copy */
#define SIM_MAX_COPIES 3
#define SIM_MAX_LEGS 7
#define SIM_MAX_CHUNKS 140      /* more than two words of a bitmap */
#define SIM_MAX_SECTORS (SIM_MAX_CHUNKS * DM_LOG_MIN_CHUNK) /* of the volume */
#define SIM_MAX_DEVICES (SIM_MAX_COPIES + SIM_MAX_LEGS)

/* What a sector of a leg holds, instead of 512 bytes: 0 if they are zero,
 * else the number of the write that wrote it.
 */
typedef uint32_t sim_value;
#define SIM_FOREIGN (UINT32_C (1) << 31) /* from this on: written by others */

/* Kinds of operations that can fail, a set. */
enum {
  SIM_FAIL_READ = 1 << 0,
  SIM_FAIL_WRITE = 1 << 1,
  SIM_FAIL_FLUSH = 1 << 2,
};

struct sim_device {
  struct block_device bdev;     /* first: what the library sees */
  enum sim_kind kind;
  unsigned int number;          /* of its kind */
  int leg;                      /* in the log, or -1: not known there */
  char name[24];
  uint32_t sectors;
  uint32_t start;               /* of the region in it */
  bool remote;                  /* as an NBD server: it has no stamps */
  bool present;                 /* it can be opened */

  /* Contents.  A leg has values; a copy has blocks of bytes, or NULL for
   * zeroes.  stable survives a power cut.
   */
  sim_value *stable, *cached;
  unsigned char **stable_block, **cached_block;
  unsigned char *flags;         /* of each sector: SIM_DIRTY, ... */
  uint32_t *done_at;            /* when a write since stable completed */
  uint32_t *dirty;              /* the sectors whose cache is not stable */
  uint32_t num_dirty;
  uint32_t num_bad;
  uint64_t mtime, stable_mtime; /* by the clock, also if it was set back */
  uint64_t mtime_set_at;        /* sim_now, when that was written */
  bool mtime_kept;              /* as some data written since is stable */
  uint64_t changed;             /* of a copy: blocks, the stable contents */

  /* Faults. */
  unsigned int failing;         /* kinds */
  unsigned int fail_chance;     /* percent */
  int fail_errno;
  uint64_t fail_until;
  bool flush_failed;            /* since it was opened or revived */
  bool is_unflushed;            /* that, and a client was told of it */
  uint64_t back_at;             /* when offline: it can be reached again */
  bool dead;                    /* never comes back */
  unsigned int write_back;      /* percent: a write is soon stable */
  uint64_t slow_until;
  bool faulty;                  /* something was wrong in this phase */
  bool leaving;                 /* the user is about to fail it */
  bool awaited;                 /* a fiber waits for the next change */
  bool lost;                    /* its cache, and the mirror goes on with it */
  unsigned int losses;          /* how often */
  bool edited;                  /* by others, since the mirror looked at it */
  bool was_used;                /* by a server, for more than a moment */
  bool set_back;                /* a copy, and it has got no superblock since */
  uint64_t set_back_to;         /* the number of the one that it had */
  bool behind;                  /* a leg was set back to what was clean */

  /* An older state of it: see sim_save. */
  bool saved;
  sim_value *saved_values;
  unsigned char **saved_block, *saved_flags;
  uint64_t saved_mtime;
};

#define SIM_DIRTY 1
#define SIM_BAD 2               /* cannot be read until it is written */
#define SIM_ALLOCATED 4
#define SIM_FORGOTTEN 8         /* dirty, but no flush makes it stable */

extern struct sim_device *sim_devices[SIM_MAX_DEVICES];
extern unsigned int sim_num_devices;

/* Devices exist until sim_devices_clear. */
extern struct sim_device *sim_device_new (enum sim_kind kind,
                                          unsigned int number,
                                          uint32_t sectors, uint32_t start);
extern void sim_devices_clear (void);
/* No sector is bad any more. */
extern void sim_device_mend (struct sim_device *dev);
/* As if just opened, with nothing wrong. */
extern void sim_device_heal (struct sim_device *dev);
extern void sim_device_blank (struct sim_device *dev);
/* Keep what is there now, and have that again. */
extern void sim_save (struct sim_device *dev);
extern void sim_set_back (struct sim_device *dev);
/* Somebody else has changed a leg, now. */
extern void sim_edited_now (struct sim_device *dev);
/* Somebody else writes to a file: its data and its time are changed, durably. */
extern void sim_edit (struct sim_device *dev, uint32_t sector, uint32_t count);
/* What is offline and can be reached again is, and what is late is done. */
extern void sim_devices_update (void);

/* Sectors, to or from a buffer. */
extern void sim_write_sector (struct sim_device *dev, uint32_t sector,
                              const void *data, uint64_t begun);
extern void sim_zero_sector (struct sim_device *dev, uint32_t sector,
                             bool unmap, uint64_t begun);
extern void sim_read_sectors (struct sim_device *dev, uint32_t sector,
                              uint32_t count, void *data);
/* Counts completions and flushes, to tell which came first. */
extern uint32_t sim_tick;
/* The writes of these sectors have completed; with FUA: are stable. */
extern void sim_complete (struct sim_device *dev, uint32_t sector,
                          uint32_t count, bool fua);
/* What had completed by that tick is stable, and some of the rest. */
extern void sim_stabilize (struct sim_device *dev, uint32_t since);
/* A flush has failed: some of what is dirty can be read as before, and no flush will
 * make it stable, unless it is written again.
 */
extern void sim_forget_dirty (struct sim_device *dev);
/* The cache is lost: each sector that is dirty is stable or not. */
extern void sim_lose_cache (struct sim_device *dev);
/* Of a history: that has happened to a leg. */
extern void sim_cache_lost (struct sim_device *dev);
/* To be called when a fault begins or ends, and before anything is judged. */
extern void sim_update_losses (void);
/* Of a history: no other leg is in sync. */
extern bool sim_is_alone (const struct sim_device *dev);
/* Of a history: a fiber could not read that sector. */
extern void sim_note_bad (struct sim_fiber *fiber, struct sim_device *dev,
                          uint32_t sector);
/* The connection is lost, until some time. */
extern void sim_disconnect (struct sim_device *dev, uint64_t until);

extern sim_value sim_value_of (const void *data);
extern void sim_encode (void *data, sim_value value, uint32_t sector);

/*----------------------------------------------------------------------
 * I/O
 */

/* Operations in flight.  Each step of one is a step of the scheduler. */
extern unsigned int sim_io_pending (void);
/* Is any part of a request that was sent to this leg as well? */
extern bool sim_is_busy (const struct sim_device *leg);
/* Make one step; or return the time when one could be made. */
extern uint64_t sim_io_step (void);
/* At a power cut, or only the end of the process: all that is in flight gets some way
 * on, and ends.
 */
extern void sim_io_cut (bool power);
/* The operations in flight on a device end with an error. */
extern void sim_io_abort (struct sim_device *dev, int error);

/* A remote leg may do a change later whose connection has ended, or whose sender was
 * killed: within bdev.late of the end, or of the next start.  Is there any to come?
 */
extern bool sim_late_pending (const struct sim_device *dev);
/* A superblock has been written late to a copy. */
extern bool sim_late_super;
/* How often clients may have had to be told of a loss. */
extern unsigned int sim_news;
/* Their time begins now; those whose time it is are done; or they are gone, with their
 * servers: those of a device, or all.
 */
extern void sim_late_begin (void);
extern void sim_late_land (void);
extern void sim_late_forget (const struct sim_device *dev);

/*----------------------------------------------------------------------
 * Oracle
 */

extern void sim_oracle_init (uint32_t sectors);
/* What the volume holds at first. */
extern void sim_oracle_set (uint32_t sector, sim_value value);

/* A write of a range, from its beginning to its end.  Returns a handle. */
extern sim_value sim_oracle_new_value (void);
extern unsigned int sim_write_begin (uint32_t sector, uint32_t count,
                                     sim_value value);
enum sim_outcome { SIM_DONE, SIM_DURABLE, SIM_MAYBE };
extern void sim_write_end (unsigned int write, enum sim_outcome outcome);

/* A read, the values that it found, each of which is checked, its end.
 * SETTLED: if this is what a power cut has left, it is for good.
 */
extern uint64_t sim_read_begin (void);
extern void sim_read_value (uint64_t begun, uint32_t sector,
                            sim_value value, bool settled);
extern void sim_read_done (uint64_t begun);

/* A flush of one of CLIENTS, a set; a failed one may have told several. */
extern uint64_t sim_flush_begin (void);
extern void sim_flush_end (uint64_t begun, unsigned int clients);
extern void sim_flush_failed (uint64_t begun, unsigned int clients);
#define SIM_ALL_CLIENTS (~0U)
/* One of them has come back.  It is another to the mirror, which does not tell it of
 * what somebody has heard.
 */
extern void sim_client_returns (unsigned int client);

/* The power was cut, and is back; or only the process has ended.  KEPT: what was not
 * flushed has all been kept.
 */
extern void sim_oracle_cut (bool power, bool kept);
/* Caches are being lost that no leg can make up for; or no longer. */
extern void sim_oracle_weak (bool weak);

/*----------------------------------------------------------------------
 * What the copies say
 */

/* As dm_log_load would see it.  A copy is current if its epoch is the newest,
 * and then has to be right on its own.
 */
struct sim_record {
  bool valid;                   /* there is a superblock */
  unsigned long current;        /* copies, a set */
  unsigned int num_legs;
  unsigned long in_sync;        /* legs, by number in the log */
  uint64_t stamp[SIM_MAX_LEGS]; /* the oldest time that one knows of a leg, or 0 */
  uint64_t latest_stamp[SIM_MAX_LEGS];
  uint64_t until[SIM_MAX_LEGS]; /* it may be written, says one; the latest */
  bool dirty;                   /* a chunk is, says a current copy; if STABLE */
  bool missing;                 /* not STABLE: copies that were in use, last */
};

/* STABLE: what a power cut would leave; else what is read now, of those
 * COPIES only.
 */
extern void sim_record_read (struct sim_record *record, bool stable,
                             unsigned long copies);
#define SIM_ALL_COPIES (~0UL)

/* Set a copy back.  If it had another number then it counts as one that is gone, as nobody
 * can tell that it is the same.  False if nobody can tell it from one that is late.
 */
extern bool sim_record_set_back (struct sim_device *dev);

/* For another history. */
extern void sim_record_init (void);

/* A leg is about to be written (W1). */
extern void sim_check_leg_write (struct sim_device *dev, uint32_t sector,
                                 uint32_t count);
/* Power has been cut: what is said to be equal is. */
extern void sim_check_cut (void);

/*----------------------------------------------------------------------
 * Histories
 */

struct sim_options {
  uint64_t seed;
  uint64_t cut_at;              /* 0: as the seed says */
  bool one_cut;                 /* no other */
};

/* Run one; returns if nothing was found. */
extern void sim_history (const struct sim_options *options);
/* Steps of the first phase of the last history. */
extern uint64_t sim_first_phase;

#endif /* DMIO_SIM_H */
