/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The start of a mirror with a log: which legs are believed (S2), which are
 * refused (S3), and which were changed while they were not served (S4).
 */

#include <config.h>

#include "clock.h"
#include "log-format.h"
#include "volume.h"

/* Leg LEG misses a write to this chunk, and the mirror is stopped. */
static void
make_stale (struct volume *v, unsigned int leg, uint64_t chunk)
{
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, chunk * CHUNK, 1));
  volume_fail (v, leg, MOCK_WRITE, EIO, 0, 0);
  g_assert_true (volume_write (v, 2, chunk * CHUNK, 1));
  volume_heal (v);
  volume_stop (v);
}

static void
assert_dropped (struct volume *v, unsigned int leg)
{
  unsigned int i;

  for (i = 0; i < LEGS; i++)
    g_assert_cmpint (leg_state (v, i) == DM_MIRROR_IN_SYNC, ==, i != leg);
}

/* Leg 0 is the source, and the others lack everything. */
static void
assert_only_first (struct volume *v)
{
  unsigned int i;

  g_assert_cmpint (leg_state (v, 0), ==, DM_MIRROR_IN_SYNC);
  for (i = 1; i < LEGS; i++)
    g_assert_cmpuint (leg_lacks (v, i), ==, SECTORS * SECTOR);
  g_assert_cmpuint (volume_in_sync (v), ==, 1);
}

/* The legs have to be made equal by copying the right one. */
static void
assert_recovers (struct volume *v, int byte, sector_t sector)
{
  unsigned int i;

  g_assert_cmpint (dm_mirror_start (v->mirror), ==, 0);
  volume_await_in_sync (v);
  for (i = 0; i < LEGS; i++)
    g_assert_cmpint (leg_byte (v, i, sector), ==, byte);
  volume_assert_alike (v, ALL_LEGS);
}

/*----------------------------------------------------------------------
 * Legs that missed something
 */

/* R5: a leg that missed a write comes back, and is named first.  It is not
 * read, and gets what it lacks, no more.
 */
static void
test_r5_stale (struct volume *v, unsigned int leg)
{
  make_stale (v, leg, 3);
  v->backwards = leg == LEGS - 1;
  volume_clear_traces (v);
  volume_start_quiet (v);
  assert_dropped (v, leg);
  g_assert_cmpint (volume_read (v, 3 * CHUNK), ==, 2);
  g_assert_cmpint (volume_read (v, 0), ==, 0);
  g_assert_cmpuint (mock_count (v->legs[leg], MOCK_READ), ==, 0);
  assert_recovers (v, 2, 3 * CHUNK);
  g_assert_cmpuint (mock_changed (v->legs[leg]), ==, CHUNK * SECTOR);
  volume_stop (v);
  volume_start_quiet (v);
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS);
}

/* It is all there is, whatever the user says. */
static void
test_r5_stale_alone (struct volume *v, unsigned int unused)
{
  make_stale (v, 0, 0);
  v->options.degraded = true;
  v->given = BIT (0);
  volume_refused (v, "no region that is in sync is there");
  volume_refused (v, "leg1, leg2");
  v->given = ALL_LEGS;
  v->closed = BIT (1) | BIT (2);
  volume_refused (v, "leg1, leg2");
}

/* S2: a leg is missing of which the log does not know that it has failed: the
 * user has to say so.  That is remembered then.
 */
static void
test_degraded (struct volume *v, unsigned int closed)
{
  if (closed)
    v->closed = BIT (0);
  else
    v->given = ALL_LEGS & ~BIT (0);
  volume_refused (v, "degraded=yes");
  volume_refused (v, "leg0");
  v->options.degraded = true;
  volume_start_quiet (v);
  assert_dropped (v, 0);
  g_assert_cmpint (leg_state (v, 0), ==, DM_MIRROR_MISSING);
  g_assert_cmpuint (log_lines_count ("*leg0*is missing*2 of 3 legs*"), ==, 1);
  volume_crash (v, 1);

  v->options.degraded = false;
  volume_start_quiet (v);
  g_assert_cmpint (log_state (v, 0), ==, DM_LOG_OUT_OF_SYNC);
  g_assert_true (volume_write (v, 5, 6 * CHUNK, 1));
  volume_stop (v);

  /* Back: it gets what was written. */
  v->given = ALL_LEGS;
  v->closed = 0;
  volume_clear_traces (v);
  volume_start_quiet (v);
  assert_dropped (v, 0);
  g_assert_cmpuint (leg_lacks (v, 0), ==, CHUNK * SECTOR);
  assert_recovers (v, 5, 6 * CHUNK);
  g_assert_cmpuint (mock_changed (v->legs[0]), ==, CHUNK * SECTOR);
}

/* After a crash a leg that is missing lacks what was dirty. */
static void
test_degraded_dirty (struct volume *v, unsigned int unused)
{
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 2 * CHUNK, 1));
  volume_crash (v, 1);
  v->closed = BIT (2);
  v->options.degraded = true;
  volume_start_quiet (v);
  g_assert_true (log_lacks (v, 2, 2));
  g_assert_false (log_lacks (v, 2, 3));
}

/* R9: the only leg in sync is gone. */
static void
test_r9_source_gone (struct volume *v, unsigned int unused)
{
  make_stale (v, 1, 0);
  make_stale (v, 2, 1);
  v->options.degraded = true;
  v->closed = BIT (0);
  volume_refused (v, "would be leg0, but there is only: leg1, leg2");
}

/* Two legs failed at different times: each gets what it lacks. */
static void
test_two_stale (struct volume *v, unsigned int unused)
{
  make_stale (v, 1, 0);
  make_stale (v, 2, 1);
  volume_start_quiet (v);
  g_assert_true (log_lacks (v, 1, 0));
  g_assert_true (log_lacks (v, 1, 1));
  g_assert_false (log_lacks (v, 2, 0));
  volume_clear_traces (v);
  assert_recovers (v, 2, 0);
  g_assert_cmpint (leg_byte (v, 1, CHUNK), ==, 2);
  g_assert_cmpuint (mock_changed (v->legs[1]), ==, 2 * CHUNK * SECTOR);
  g_assert_cmpuint (mock_changed (v->legs[2]), ==, CHUNK * SECTOR);
}

/*----------------------------------------------------------------------
 * What is refused
 */

/* R12: a leg that has shrunk or grown. */
static void
test_r12_sizes (struct volume *v, unsigned int unused)
{
  v->odd_count = SECTORS - 1;
  volume_refused (v, "less than the volume");
  v->odd_count = SECTORS + 8;
  volume_refused (v, ",count=1024 ");
  v->odd_count = 0;
  volume_start_quiet (v);
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS);
}

static void
test_r12_stranger (struct volume *v, unsigned int unused)
{
  unsigned int leg = volume_add_device (v, &volume_plain);

  v->given |= BIT (leg);
  volume_refused (v, "'leg3' is not a leg of this mirror, whose legs are "
                  "leg0, leg1, leg2");
}

static void
test_r12_twice (struct volume *v, unsigned int unused)
{
  const struct dm_mirror_leg legs[2] = {
    { .region = volume_region (v, 0), .name = "leg0" },
    { .region = volume_region (v, 1), .name = "other", .id = "leg0" },
  };
  g_autofree char *error = NULL;

  v->options.degraded = true;
  v->options.log = v->log;
  g_assert_null (dm_mirror_new (2, legs, &v->options, &error));
  g_assert_cmpstr (error, ==, "region 'other' is given twice");
}

static void
test_r12_read_only (struct volume *v, unsigned int unused)
{
  v->legs[2]->read_only = true;
  volume_refused (v, "'leg2' is read-only");
  v->legs[2]->read_only = false;
}

static void
test_r12_block_size (struct volume *v, unsigned int unused)
{
  volume_again (v, LEGS, SECTORS - 1, CHUNK, ALL_LEGS, &volume_plain);
  v->legs[1]->block_size = 4096;
  volume_refused (v, "'leg1' has a block size of 4096 bytes");
  v->legs[1]->block_size = SECTOR;
}

/* The log cannot be written: nothing starts. */
static void
test_r11_no_copy (struct volume *v, unsigned int unused)
{
  const struct mock_fault fault = { .ops = CHANGES, .error = EIO };
  unsigned int i;

  make_stale (v, 0, 0);
  for (i = 0; i < VOLUME_COPIES; i++)
    mock_fault (v->copies[i], &fault);
  v->closed = BIT (1);
  v->options.degraded = true;
  volume_load (v);
  volume_refused (v, "the log cannot be written");
}

/*----------------------------------------------------------------------
 * Copies of the log
 */

static void
spoil_block (struct volume *v, unsigned int copy, unsigned int block)
{
  unsigned char *data = mock_data (v->copies[copy]) + block * LOG_BLOCK;
  unsigned char byte = data[100] ^ 0x55;

  mock_set (v->copies[copy], block * LOG_BLOCK + 100, &byte, 1);
}

/* R12, S3: a bitmap that is torn on all copies means that everything may
 * differ; on one of two it does not.
 */
static void
test_r12_torn_map (struct volume *v, unsigned int copies)
{
  unsigned int i;

  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  volume_stop (v);
  if (copies == VOLUME_COPIES)  /* else they are known to be alike there */
    leg_set (v, 1, 7, 5 * CHUNK, 1);
  for (i = 0; i < copies; i++)
    spoil_block (v, i, LOG_DIRTY_AT);
  volume_start_quiet (v);
  g_assert_cmpint (log_is_dirty (v, 5), ==, copies == VOLUME_COPIES);
  if (copies == VOLUME_COPIES)
    assert_recovers (v, 0, 5 * CHUNK);
}

/* Legs without times, in sync, of which one was replaced by an old copy while
 * nobody served them.  Nobody knows which is right.  But what was dirty may differ.
 */
static void
test_s4_old_disk (struct volume *v, unsigned int leg)
{
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS));
  volume_stop (v);
  leg_set (v, leg, 0, 5 * CHUNK, 1);
  volume_refused (v, "differ in the block at offset");
  v->options.degraded = true;
  volume_refused (v, "differ in the block at offset");
  v->closed = BIT (leg);
  volume_start_quiet (v);
  assert_dropped (v, leg);
}

static void
test_s4_old_disk_dirty (struct volume *v, unsigned int unused)
{
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 5 * CHUNK, CHUNK));
  volume_crash (v, 1);
  leg_set (v, 1, 0, 5 * CHUNK, 1);
  volume_start (v);
  volume_await_in_sync (v);
  volume_assert_alike (v, ALL_LEGS);
}

/* The same of what a leg lacks. */
static void
test_r12_torn_leg (struct volume *v, unsigned int copies)
{
  struct log_geometry g;
  unsigned int i;

  g_assert_true (log_geometry_init (&g, SECTORS, CHUNK));
  make_stale (v, 1, 0);
  leg_set (v, 1, 7, 5 * CHUNK, 1);
  for (i = 0; i < copies; i++)
    spoil_block (v, i, log_leg_at (&g, 1) + 1);
  volume_start_quiet (v);
  g_assert_true (log_lacks (v, 1, 0));
  g_assert_true (log_lacks (v, 1, 5) == (copies == VOLUME_COPIES));
  assert_dropped (v, 1);
}

/* A superblock that is torn on one copy, in both places. */
static void
test_r12_torn_super (struct volume *v, unsigned int copy)
{
  make_stale (v, 1, 0);
  spoil_block (v, copy, LOG_SUPER_AT);
  spoil_block (v, copy, LOG_SUPER_AT + 1);
  volume_refused (v, "a copy of the log that was in use is missing or not");
  v->options.degraded = true;
  volume_start_quiet (v);
  assert_only_first (v);
  g_assert_true (volume_write (v, 3, 0, 1));
  volume_stop (v);

  /* It has been written again. */
  v->copies_given = BIT (copy);
  volume_start_quiet (v);
  assert_only_first (v);
}

/* One copy is not given, which the user has to want: it may be the one that
 * knows most.  Then it is the only one: it does not know what the other does,
 * but was told when it was given again.
 */
static void
test_r11_old_copy (struct volume *v, unsigned int unused)
{
  v->copies_given = BIT (0);
  volume_load (v);
  volume_refused (v, "a copy of the log that was in use is missing");
  v->options.degraded = true;
  volume_start_quiet (v);
  assert_only_first (v);
  g_assert_true (volume_write (v, 2, 0, 1));
  volume_stop (v);
  v->options.degraded = false;
  v->copies_given = BIT (0) | BIT (1);
  volume_start_quiet (v);
  assert_only_first (v);
  volume_stop (v);
  v->copies_given = BIT (1);
  volume_refused (v, "a copy of the log that was in use is missing");
  v->options.degraded = true;
  volume_start_quiet (v);
  assert_only_first (v);
}

/* S2: leg 1, which was out of sync, is recovered and then goes on alone, while
 * copy 0 of the log hears of nothing.  That one holds the others for in sync, and
 * nobody has written them since; but they lack what was acknowledged.
 */
static void
test_s2_took_over (struct volume *v, unsigned int there)
{
  const struct mock_fault fault = { .ops = CHANGES, .error = EIO };

  make_stale (v, 1, 0);
  volume_start_quiet (v);
  mock_fault (v->copies[0], &fault);
  g_assert_cmpint (dm_mirror_start (v->mirror), ==, 0);
  volume_await_in_sync (v);
  volume_kill (v, 0, CHANGES, EIO);
  volume_kill (v, 2, CHANGES, EIO);
  g_assert_true (volume_write (v, 7, 0, 1));
  g_assert_true (volume_flush (v));
  volume_heal (v);
  volume_stop (v);

  v->copies_given = BIT (0);
  v->closed = there ? 0 : BIT (1);
  volume_refused (v, "a copy of the log that was in use is missing");

  /* The user decides for the others. */
  v->options.degraded = true;
  volume_start_quiet (v);
  g_assert_cmpint (volume_read (v, 0), ==, 2);
  if (!there) {
    volume_stop (v);
    v->closed = 0;
    volume_start_quiet (v);
  }
  g_assert_cmpuint (leg_lacks (v, 1), ==, SECTORS * SECTOR);
  assert_recovers (v, 2, 0);
}

/* The source, which the user has named first, shows no changes, so it may have gone on
 * with the copy that is missing: the others are not what it is, whatever they show.
 */
static void
test_s2_source_unknown (struct volume *v, unsigned int unused)
{
  volume_again (v, LEGS, SECTORS, CHUNK, ALL_LEGS, &volume_stamped);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  volume_stop (v);
  mock_hide_times (v->legs[0]);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  volume_stop (v);
  leg_set (v, 0, 9, 3 * CHUNK, 1);
  v->copies_given = BIT (0);
  v->options.degraded = true;
  volume_start_quiet (v);
  assert_only_first (v);
  assert_recovers (v, 9, 3 * CHUNK);
}

/* A copy of the log is missing, and so is leg 2: it may have gone on with it. */
static void
test_s2_distrusted (struct volume *v, unsigned int changed)
{
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  volume_stop (v);
  v->copies_given = BIT (0);
  v->closed = BIT (2);
  v->options.degraded = true;
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 2, 5 * CHUNK, 1));
  volume_stop (v);
  if (changed)
    mock_touch (v->legs[2], clock_date ()); /* in the time of the lease */
  v->closed = 0;
  v->copies_given = BIT (0) | BIT (1);
  volume_start_quiet (v);
  assert_dropped (v, 2);
  g_assert_cmpuint (leg_lacks (v, 2), ==,
                    (changed ? SECTORS : CHUNK) * SECTOR);
  assert_recovers (v, 2, 5 * CHUNK);
}

/* The times of the legs show that none has been written since: then no other
 * copy can know more.
 */
static void
test_r11_vouched (struct volume *v, unsigned int unused)
{
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  volume_stop (v);
  v->copies_given = BIT (0);
  volume_start_quiet (v);
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS);
  g_assert_true (volume_write (v, 1, 0, 1));
}

/*----------------------------------------------------------------------
 * Legs that were changed while they were not served (R16)
 */

static uint64_t
mtime_of (struct volume *v, unsigned int leg)
{
  struct bdev_stamp stamp;

  g_assert_cmpint (bdev_stamp (v->legs[leg], &stamp), ==, 0);
  g_assert_true (stamp.valid);
  return stamp.mtime;
}

/* Somebody else writes to it.  Its time is then AFTER nsec after what it is. */
static void
change_leg (struct volume *v, unsigned int leg, int64_t after)
{
  uint64_t mtime = mtime_of (v, leg);

  leg_set (v, leg, 0x77, 7 * CHUNK, 2);
  mock_touch (v->legs[leg], mtime + after);
}

/* All of the leg is copied. */
static void
assert_lost (struct volume *v, unsigned int leg)
{
  volume_start_quiet (v);
  assert_dropped (v, leg);
  g_assert_cmpuint (leg_lacks (v, leg), ==, SECTORS * SECTOR);
  g_assert_cmpuint (log_lines_count ("*changed while it was not served*"), ==,
                    1);
  assert_recovers (v, 0, 7 * CHUNK);
}

/* Unchanged: nothing is copied. */
static void
test_r16_unchanged (struct volume *v, unsigned int unused)
{
  unsigned int i;

  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS));
  volume_stop (v);
  volume_clear_traces (v);
  volume_start (v);
  volume_await_in_sync (v);
  for (i = 0; i < LEGS; i++)
    g_assert_cmpuint (mock_count (v->legs[i], CHANGES), ==, 0);
}

static void
test_r16_changed (struct volume *v, unsigned int leg)
{
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  volume_stop (v);
  change_leg (v, leg, leg == 1 ? -1 : 1);
  assert_lost (v, leg);
  volume_stop (v);
  volume_start_quiet (v);
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS);
}

/* It was stopped without having been written. */
static void
test_r16_idle (struct volume *v, unsigned int unused)
{
  volume_start_quiet (v);
  volume_stop (v);
  change_leg (v, 1, 1000);
  assert_lost (v, 1);
}

static void
test_r16_all_changed (struct volume *v, unsigned int unused)
{
  unsigned int i;

  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  volume_stop (v);
  for (i = 0; i < LEGS; i++)
    change_leg (v, i, 1);
  volume_refused (v, "leg0, leg1, leg2: changed while the mirror was not "
                  "served");
}

/* A crash: something was written, so the time may be any up to which the
 * server was going to write; but no other.
 */
static void
test_r16_crash (struct volume *v, unsigned int when)
{
  struct dm_log_leg info;
  unsigned int i;
  uint64_t now;

  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  now = clock_date ();
  volume_crash (v, 1);
  volume_load (v);
  dm_log_get_leg (v->log, 2, &info);
  g_assert_cmpuint (info.until, >=, now);
  g_assert_cmpuint (info.until, <, now + 600 * NSEC_PER_SEC);
  g_assert_cmpuint (info.stamp.mtime, <=, now);
  switch (when) {
  case 0:
    for (i = 0; i < LEGS; i++)
      mock_touch (v->legs[i], now + i * NSEC_PER_SEC);
    volume_start_quiet (v);
    g_assert_cmpuint (volume_in_sync (v), ==, LEGS);
    break;
  case 1:
    change_leg (v, 2, info.until + 1 - mtime_of (v, 2));
    assert_lost (v, 2);
    break;
  case 2:
    change_leg (v, 2, info.stamp.mtime - 1 - mtime_of (v, 2));
    assert_lost (v, 2);
    break;
  }
}

/* A crash, after which a leg is as it was when the mirror was quiet last, times and all,
 * or as it was some time before the others: it may be an old copy, so it is no source.
 * Before the last cleaning of any chunk: it lacks everything.
 */
enum behind { AS_WHEN_QUIET, SOME_TIME, BEFORE_CLEANING };

static void
test_s4_behind (struct volume *v, unsigned int behind)
{
  struct dm_log_leg info;
  unsigned int i;
  uint64_t mtime;

  volume_start_quiet (v);
  g_assert_true (volume_write (v, 1, 0, SECTORS));
  mtime = mtime_of (v, 1) - 200 * NSEC_PER_SEC;
  for (i = 0; i < LEGS; i++)
    mock_touch (v->legs[i], mtime);
  volume_stop (v);
  volume_start_quiet (v);
  g_assert_true (volume_write (v, 2, 3 * CHUNK, 1));
  g_assert_true (volume_flush (v));
  volume_crash (v, 1);
  volume_load (v);
  dm_log_get_leg (v->log, 0, &info);
  leg_set (v, 0, 1, 3 * CHUNK, 1);
  mock_touch (v->legs[0], behind == AS_WHEN_QUIET ? info.stamp.mtime :
              behind == SOME_TIME ? mtime + 100 * NSEC_PER_SEC :
              info.stamp.mtime - 1);
  volume_start (v);
  g_assert_cmpint (volume_read (v, 3 * CHUNK), ==, 2);
  volume_await_in_sync (v);
  g_assert_cmpint (volume_read (v, 3 * CHUNK), ==, 2);
  volume_assert_alike (v, ALL_LEGS);
  g_assert_cmpuint (log_lines_count ("*leg0*is out of sync*"), ==, 1);
  g_assert_cmpuint (log_lines_count (behind == BEFORE_CLEANING ?
                                     "*leg0*changed while*" :
                                     "*leg0*may be an old copy*"), ==, 1);
}

/* Stamps are taken whenever chunks are cleaned, also while others stay dirty. */
static void
test_s4_stamps (struct volume *v, unsigned int unused)
{
  struct dm_log_leg info;
  uint64_t mtime;
  int byte = 2;

  volume_start (v);
  g_assert_true (volume_write (v, 1, 0, 1));
  mtime = mtime_of (v, 0);
  do {
    g_assert_true (volume_write (v, byte++ % 100, 5 * CHUNK, 1));
    g_usleep (20000);
    dm_log_get_leg (v->log, 0, &info);
  } while (info.stamp.mtime <= mtime && byte < 3000);
  g_assert_cmpuint (info.stamp.mtime, >, mtime);
  g_assert_true (dm_log_is_dirty (v->log));
}

/* A leg that is out of sync, and changed: it lacks everything.  Not changed: as
 * before.
 */
static void
test_r16_stale (struct volume *v, unsigned int changed)
{
  struct dm_log_leg info;

  make_stale (v, 1, 0);
  volume_load (v);
  dm_log_get_leg (v->log, 1, &info);
  if (changed) {
    change_leg (v, 1, info.until + 1 - mtime_of (v, 1));
    assert_lost (v, 1);
    return;
  }
  volume_start_quiet (v);
  assert_dropped (v, 1);
  g_assert_cmpuint (leg_lacks (v, 1), ==, CHUNK * SECTOR);
  assert_recovers (v, 2, 0);
}

static const struct volume_test tests[] = {
  { "r5-stale-leg/named-first", test_r5_stale, 0, &volume_plain },
  { "r5-stale-leg/second", test_r5_stale, 1, &volume_plain },
  { "r5-stale-leg/backwards", test_r5_stale, 2, &volume_plain },
  { "r5-stale-leg-alone", test_r5_stale_alone, 0, &volume_plain },
  { "degraded/not-given", test_degraded, false, &volume_plain },
  { "degraded/closed", test_degraded, true, &volume_plain },
  { "degraded/dirty", test_degraded_dirty, 0, &volume_plain },
  { "r9-source-gone", test_r9_source_gone, 0, &volume_plain },
  { "two-stale-legs", test_two_stale, 0, &volume_plain },
  { "r12-sizes", test_r12_sizes, 0, &volume_plain },
  { "r12-stranger", test_r12_stranger, 0, &volume_plain },
  { "r12-twice", test_r12_twice, 0, &volume_plain },
  { "r12-read-only", test_r12_read_only, 0, &volume_plain },
  { "r12-block-size", test_r12_block_size, 0, &volume_plain },
  { "s4-old-disk/0", test_s4_old_disk, 0, &volume_plain },
  { "s4-old-disk/1", test_s4_old_disk, 1, &volume_plain },
  { "s4-old-disk/dirty", test_s4_old_disk_dirty, 0, &volume_plain },
  { "r12-torn-map/1", test_r12_torn_map, 1, &volume_plain },
  { "r12-torn-map/2", test_r12_torn_map, 2, &volume_plain },
  { "r12-torn-leg-map/1", test_r12_torn_leg, 1, &volume_plain },
  { "r12-torn-leg-map/2", test_r12_torn_leg, 2, &volume_plain },
  { "r12-torn-superblock/0", test_r12_torn_super, 0, &volume_plain },
  { "r12-torn-superblock/1", test_r12_torn_super, 1, &volume_plain },
  { "r11-no-copy", test_r11_no_copy, 0, &volume_plain },
  { "r11-old-copy", test_r11_old_copy, 0, &volume_plain },
  { "r11-copy-missing", test_r11_vouched, 0, &volume_stamped },
  { "s2-took-over/away", test_s2_took_over, false, &volume_stamped },
  { "s2-took-over/there", test_s2_took_over, true, &volume_stamped },
  { "s2-source-unknown", test_s2_source_unknown, 0, &volume_stamped },
  { "s2-distrusted/unchanged", test_s2_distrusted, false, &volume_stamped },
  { "s2-distrusted/changed", test_s2_distrusted, true, &volume_stamped },
  { "r16-unchanged", test_r16_unchanged, 0, &volume_stamped },
  { "r16-changed/0", test_r16_changed, 0, &volume_stamped },
  { "r16-changed/1", test_r16_changed, 1, &volume_stamped },
  { "r16-changed/idle", test_r16_idle, 0, &volume_stamped },
  { "r16-changed/all", test_r16_all_changed, 0, &volume_stamped },
  { "s4-behind/as-when-quiet", test_s4_behind, AS_WHEN_QUIET,
    &volume_stamped },
  { "s4-behind/some-time", test_s4_behind, SOME_TIME, &volume_stamped },
  { "s4-behind/before-cleaning", test_s4_behind, BEFORE_CLEANING,
    &volume_stamped },
  { "s4-stamps", test_s4_stamps, 0, &volume_stamped },
  { "r16-crash/in-time", test_r16_crash, 0, &volume_stamped },
  { "r16-crash/later", test_r16_crash, 1, &volume_stamped },
  { "r16-crash/earlier", test_r16_crash, 2, &volume_stamped },
  { "r16-stale-leg/unchanged", test_r16_stale, false, &volume_stamped },
  { "r16-stale-leg/changed", test_r16_stale, true, &volume_stamped },
};

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  VOLUME_ADD_TESTS ("/mirror-start/", tests);
  return g_test_run ();
}
