/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* A log of a small mirror, with copies on mock devices. */

#ifndef DMIO_LOG_FIXTURE_H
#define DMIO_LOG_FIXTURE_H

#include "clock.h"
#include "log-describe.h"
#include "log-lines.h"
#include "log-private.h"
#include "log-read.h"
#include "test-util.h"

#define CHUNK 128               /* sectors */
#define CHUNKS 100
#define VOLUME (CHUNKS * CHUNK - 5) /* the last one is shorter */
#define COPIES 3                /* at most */
#define LEGS 3                  /* at most */

/* Blocks of a copy of that size. */
#define DIRTY_BLOCK 3
#define LEG_BLOCK(leg) (4 + 2 * (leg))
#define LACKING_BLOCK(leg) (5 + 2 * (leg))
#define USED_BLOCKS(legs) LEG_BLOCK (legs)

#define FAR_OFF (clock_date () + 3600 * NSEC_PER_SEC)

struct logs {
  unsigned int n;
  struct io_region where[COPIES];
  struct dm_log_copy copies[COPIES];
  struct dm_log *log;
};

static inline void
open_copies (struct logs *f, unsigned int n, sector_t sectors)
{
  static const char *const names[COPIES] = { "copy-a", "copy-b", "copy-c" };
  static const struct mock_options plain = { .max_trace = 4096 };
  unsigned int i;

  memset (f, 0, sizeof *f);
  f->n = n;
  open_mocks (f->where, n, sectors, &plain);
  for (i = 0; i < n; i++)
    f->copies[i] = (struct dm_log_copy) {
      .region = f->where[i], .name = names[i],
    };
}

static inline struct dm_log *
new_log (unsigned int num_copies, const struct dm_log_copy *copies,
         unsigned int num_legs, const enum dm_log_state *states,
         char **error)
{
  static const char *const ids[LEGS] = { "/a.img", "/b.img", "/c.img" };
  struct dm_log_leg legs[LEGS] = { 0 };
  unsigned int i;

  for (i = 0; i < num_legs; i++)
    legs[i] = (struct dm_log_leg) {
      .id = (char *) ids[i], .state = states[i], .sectors = VOLUME + i,
      .until = FAR_OFF,
    };
  return dm_log_new (num_copies, copies, VOLUME, CHUNK, num_legs, legs,
                     error);
}

static const enum dm_log_state all_in_sync[LEGS]
__attribute__ ((__unused__)) = {
  DM_LOG_IN_SYNC, DM_LOG_IN_SYNC, DM_LOG_IN_SYNC,
};

/* N copies of a new log, of LEGS legs in sync, and started. */
static inline void
make_logs (struct logs *f, unsigned int n)
{
  char *error = NULL;

  open_copies (f, n, dm_log_copy_sectors (VOLUME, CHUNK));
  f->log = new_log (n, f->copies, LEGS, all_in_sync, &error);
  g_assert_cmpstr (error, ==, NULL);
  g_assert_cmpint (dm_log_start (f->log, 0, 0), ==, 0);
}

static inline void
close_logs (struct logs *f)
{
  dm_log_free (f->log);
  close_mocks (f->where, f->n);
}

/* Free the log and load it from these copies, a set.  It must work. */
static inline void
load_from (struct logs *f, unsigned int set)
{
  struct dm_log_copy copies[COPIES];
  unsigned int n = 0, i;
  char *error = NULL;

  for (i = 0; i < f->n; i++)
    if (set & 1U << i)
      copies[n++] = f->copies[i];
  dm_log_free (f->log);
  f->log = dm_log_load (n, copies, &error);
  g_assert_cmpstr (error, ==, NULL);
  g_assert_nonnull (f->log);
}

/* ... must fail with an error that says so. */
static inline void
load_refused (struct logs *f, unsigned int set, const char *pattern)
{
  struct dm_log_copy copies[COPIES];
  unsigned int n = 0, i;
  char *error = NULL;

  for (i = 0; i < f->n; i++)
    if (set & 1U << i)
      copies[n++] = f->copies[i];
  g_assert_null (dm_log_load (n, copies, &error));
  g_assert_nonnull (error);
  if (!g_pattern_match_simple (pattern, error))
    g_error ("message is not like '%s': %s", pattern, error);
  g_free (error);
}

/* Free it, load it from a set of copies, and start it with no leg absent that
 * is in sync.
 */
static inline unsigned long
out_of_sync (struct dm_log *log)
{
  struct dm_log_leg info;
  unsigned long legs = 0;
  unsigned int i;

  for (i = 0; i < dm_log_num_legs (log); i++) {
    dm_log_get_leg (log, i, &info);
    if (info.state != DM_LOG_IN_SYNC)
      legs |= 1UL << i;
  }
  return legs;
}

static inline void
restart_from (struct logs *f, unsigned int set)
{
  load_from (f, set);
  g_assert_cmpint (dm_log_start (f->log, out_of_sync (f->log), 0), ==, 0);
}

/*----------------------------------------------------------------------
 * Using it
 */

static inline unsigned long
begin_chunk (struct dm_log *log, uint64_t chunk)
{
  unsigned long absent = ~0UL;

  g_assert_cmpint (dm_log_begin (log, chunk * CHUNK, 1, &absent), ==, 0);
  return absent;
}

static inline void
write_chunk (struct dm_log *log, uint64_t chunk)
{
  begin_chunk (log, chunk);
  dm_log_end (log, chunk * CHUNK, 1);
}

static inline void
clean (struct dm_log *log)
{

  dm_log_clean_begin (log); /* forgets who was touched before */
  dm_log_clean_begin (log);
  g_assert_cmpint (dm_log_clean_end (log), ==, 0);
}

static inline bool
is_dirty (struct dm_log *log, uint64_t chunk)
{
  return log_test_bit (log->dirty.wanted, chunk);
}

static inline bool
lacks (struct dm_log *log, unsigned int leg, uint64_t chunk)
{
  return log_test_bit (log->lacking[leg].wanted, chunk);
}

static inline enum dm_log_state
state_of (struct dm_log *log, unsigned int leg)
{
  struct dm_log_leg info;

  dm_log_get_leg (log, leg, &info);
  return info.state;
}

/*----------------------------------------------------------------------
 * What is on a copy
 */

static inline unsigned char *
block_of (struct logs *f, unsigned int copy, unsigned int block)
{
  return mock_data (f->where[copy].bdev) + (size_t) block * LOG_BLOCK;
}

/* The first word of a bitmap's first block, if it is valid; else all. */
static inline uint64_t
word_on (struct logs *f, unsigned int copy, unsigned int block)
{
  const struct log_geometry *g = &f->log->g;
  g_autoptr (GChecksum) checksum = g_checksum_new (G_CHECKSUM_SHA256);
  uint64_t words[LOG_BLOCK_WORDS], sequence;

  if (log_decode_map (block_of (f, copy, block), f->log->uuid,
                      log_place (g, block), words, &sequence,
                      checksum) != LOG_VALID)
    return ~UINT64_C (0);
  return words[0];
}

/* The newest superblock of a copy. */
static inline struct log_super
super_on (struct logs *f, unsigned int copy)
{
  struct log_find find;
  struct log_writer writer = { 0 };

  g_assert_true (log_writer_init (&writer));
  log_find_copy (&f->where[copy], writer.buffer, writer.checksum, &find);
  g_assert_cmpint (find.what, ==, LOG_FIND_VALID);
  log_writer_fini (&writer);
  return find.super;
}

/* These operations of a copy fail. */
static inline void
fail_copy (struct logs *f, unsigned int copy, unsigned int ops)
{
  const struct mock_fault fault = { .ops = ops, .error = EIO };

  mock_fault (f->where[copy].bdev, &fault);
}

/* As if it had been opened again. */
static inline void
mend_copy (struct logs *f, unsigned int copy)
{
  mock_clear_faults (f->where[copy].bdev);
  g_assert_cmpint (bdev_revive (f->where[copy].bdev), ==, 0);
}

static inline unsigned int
copies_in_use (struct dm_log *log)
{
  unsigned int all;

  return dm_log_copies (log, &all);
}

#endif /* DMIO_LOG_FIXTURE_H */
