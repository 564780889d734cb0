/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* What is made of the copies of a log at start: which one rules (S2), what
 * is refused (R12), and that nothing that may differ is ever taken for
 * clean, whatever instant the power was cut at (S3).
 */

#include <config.h>

#include "log-fixture.h"

/*----------------------------------------------------------------------
 * Nothing there, something else there
 */

static void
test_blank (void)
{
  struct dm_log *log;
  char *error = NULL;
  struct logs f;

  open_copies (&f, 2, dm_log_copy_sectors (VOLUME, CHUNK));
  log = dm_log_load (2, f.copies, &error);
  g_assert_null (log);
  g_assert_null (error);
  close_logs (&f);
}

/* Copies that are blank beside a valid one are written. */
static void
test_blank_beside_valid (void)
{
  struct logs f;

  make_logs (&f, 3);
  write_chunk (f.log, 1);
  memset (mock_data (f.where[0].bdev), 0, f.where[0].count * SECTOR);
  restart_from (&f, 7);
  g_assert_cmpuint (copies_in_use (f.log), ==, 3);
  write_chunk (f.log, 2);
  load_from (&f, 1);
  g_assert_true (is_dirty (f.log, 1));
  g_assert_true (is_dirty (f.log, 2));
  g_assert_cmphex (f.log->super.copies, ==, 7);
  close_logs (&f);
}

static void
test_r12_something_else (void)
{
  struct logs f;

  make_logs (&f, 2);
  fill (mock_data (f.where[0].bdev), 4 * LOG_BLOCK, 1);
  load_refused (&f, 1, "log copy copy-a: it has no valid superblock and is not "
                "empty; *remove*");
  load_from (&f, 3);
  log_lines_assert ("log copy copy-a: it has no valid superblock; it will be "
                    "written anew", 1);
  log_lines_clear ();
  g_assert_cmpint (dm_log_start (f.log, 0, 0), ==, 0);
  load_from (&f, 1);

  /* Data after emptiness is data. */
  memset (mock_data (f.where[0].bdev), 0, f.where[0].count * SECTOR);
  mock_data (f.where[0].bdev)[1000000 / 2] = 1;
  load_refused (&f, 1, "log copy copy-a: it has no valid superblock and is not "
                "empty; *");
  close_logs (&f);
}

static void
test_r12_bad_magic (void)
{
  struct logs f;
  unsigned int i;

  make_logs (&f, 1);
  for (i = 0; i < 2; i++)
    block_of (&f, 0, i)[0] ^= 1;
  load_refused (&f, 1, "log copy copy-a: it has no valid superblock and *");
  close_logs (&f);
}

static void
test_r12_unknown_version (void)
{
  struct logs f;
  unsigned int i;

  make_logs (&f, 2);
  for (i = 0; i < 2; i++)
    block_of (&f, 0, i)[8] = 2;
  load_refused (&f, 3, "log copy copy-a: it has format version 2, but this "
                "program knows only version 1; use a newer program");
  load_refused (&f, 1, "*version 2*");
  load_from (&f, 2);
  close_logs (&f);
}

static void
test_r12_other_mirror (void)
{
  struct dm_log *other;
  char *error = NULL;
  struct logs f;

  make_logs (&f, 2);
  other = new_log (1, &f.copies[1], LEGS, all_in_sync, &error);
  load_refused (&f, 3, "log copies copy-? and copy-? are of different mirrors, "
                "*-*-4*-*-* and *-*-4*-*-*; leave out or "
                "remove the one that does not belong here");
  dm_log_free (other);
  close_logs (&f);
}

static void
test_r12_other_geometry (void)
{
  g_autoptr (GChecksum) checksum = g_checksum_new (G_CHECKSUM_SHA256);
  struct log_super super;
  struct logs f;

  make_logs (&f, 2);
  super = super_on (&f, 1);
  super.chunk *= 2;
  log_encode_super (block_of (&f, 1, 0), &super, checksum);
  load_refused (&f, 3, "log copies copy-* are of one mirror, but say different "
                "things of the volume: *; remove the wrong one");

  /* What makes no sense is not believed. */
  super.chunk = 100;
  log_encode_super (block_of (&f, 1, 0), &super, checksum);
  load_refused (&f, 2, "*no valid superblock*");
  super.chunk = CHUNK;
  super.legs[1].state = 9;
  log_encode_super (block_of (&f, 1, 0), &super, checksum);
  load_refused (&f, 2, "*no valid superblock*");
  close_logs (&f);
}

/* R12: a copy that has shrunk still tells what it can, but is not used. */
static void
test_r12_too_small (void)
{
  struct logs f;

  make_logs (&f, 2);
  write_chunk (f.log, 1);
  f.copies[0].region.count -= 8;
  load_from (&f, 3);
  log_lines_assert ("log copy copy-a: it is not used: it has 1048 sectors, but "
                    "1056 are needed", 1);
  log_lines_clear ();
  g_assert_true (is_dirty (f.log, 1));
  g_assert_cmpint (dm_log_start (f.log, 0, 0), ==, 0);
  g_assert_cmphex (super_on (&f, 1).copies, ==, 2);
  g_assert_cmpuint (super_on (&f, 1).generation, ==, 2);
  g_assert_false (dm_log_restore (f.log));
  load_refused (&f, 1, "log copy copy-a: it is smaller than it was: *");
  log_lines_clear ();
  f.copies[0].region.count = 16;
  load_refused (&f, 1, "log copy copy-a: it cannot be read: *");
  close_logs (&f);
}

/* R11: a copy that cannot be read is as good as missing. */
static void
test_r11_read_fails (void)
{
  struct logs f;

  make_logs (&f, 2);
  write_chunk (f.log, 1);
  fail_copy (&f, 1, MOCK_READ);
  load_refused (&f, 2, "log copy copy-b: it cannot be read: Input/output "
                "error; name a copy of the log that can");
  load_from (&f, 3);
  log_lines_assert ("log copy copy-b: it cannot be read: *", 1);
  log_lines_clear ();
  g_assert_true (is_dirty (f.log, 1));
  fail_copy (&f, 1, MOCK_WRITE);
  g_assert_cmpint (dm_log_start (f.log, 0, 0), ==, 0);
  log_lines_clear ();
  g_assert_cmpuint (copies_in_use (f.log), ==, 1);
  g_assert_cmpuint (super_on (&f, 0).generation, ==, 2);
  close_logs (&f);
}

/* Blocks that cannot be read are taken from other copies, or all bits are
 * set; they are written at start.
 */
static void
test_s3_block_cannot_be_read (void)
{
  const struct mock_fault fault = {
    .ops = MOCK_READ, .offset = LACKING_BLOCK (1) * LOG_BLOCK, .length = 512,
    .error = EIO,
  };
  struct logs f;

  make_logs (&f, 2);
  write_chunk (f.log, 1);
  g_assert_cmpint (dm_log_drop (f.log, 1 << 1), ==, 0);
  mock_fault (f.where[0].bdev, &fault);
  load_from (&f, 3);
  g_assert_cmpuint (dm_log_lacking (f.log, 1), ==, 1);
  load_from (&f, 1);
  g_assert_cmpuint (dm_log_lacking (f.log, 1), ==, CHUNKS);
  g_assert_true (is_dirty (f.log, 1));
  g_assert_false (is_dirty (f.log, 2));
  mock_clear_trace (f.where[0].bdev);
  mend_copy (&f, 0);
  g_assert_cmpint (dm_log_start (f.log, 1 << 1, 0), ==, 0);
  load_from (&f, 1);
  g_assert_cmpuint (dm_log_lacking (f.log, 1), ==, CHUNKS);
  close_logs (&f);
}

/* S3: each block, corrupt. */
static void
test_s3_corrupt_blocks (void)
{
  unsigned int block, i;
  struct logs f;

  for (block = DIRTY_BLOCK; block < USED_BLOCKS (LEGS); block++) {
    make_logs (&f, 2);
    write_chunk (f.log, 1);
    g_assert_cmpint (dm_log_drop (f.log, 1 << 1), ==, 0);
    block_of (&f, 0, block)[100 + block] ^= 4;
    load_from (&f, 3);
    g_assert_cmpuint (dm_log_lacking (f.log, 1), ==, 1);
    g_assert_true (is_dirty (f.log, 1));
    g_assert_false (is_dirty (f.log, 2));
    if (block == LEG_BLOCK (0) || block == LEG_BLOCK (1) ||
        block == LEG_BLOCK (2)) {
      load_refused (&f, 1, "log copy copy-a: the block with the name of region "
                    "? is damaged; *");
      g_assert_cmpint (dm_log_start (f.log, 1 << 1, 0), ==, 0);
      load_from (&f, 1);
      close_logs (&f);
      continue;
    }
    load_from (&f, 1);
    for (i = 0; i < CHUNKS; i++) {
      g_assert_cmpint (is_dirty (f.log, i), ==,
                       i == 1 || block == DIRTY_BLOCK);
      g_assert_cmpint (lacks (f.log, 1, i), ==,
                       i == 1 || block == DIRTY_BLOCK ||
                       block == LACKING_BLOCK (1));
    }
    g_assert_cmpint (dm_log_start (f.log, 1 << 1, 0), ==, 0);
    load_from (&f, 1);
    g_assert_cmpint (is_dirty (f.log, 2), ==, block == DIRTY_BLOCK);
    close_logs (&f);
  }
}

/* What may differ since a crash was written by another server, until this one writes there:
 * it stays so when other chunks become clean.
 */
static void
test_r2_was_written (void)
{
  struct logs f;

  make_logs (&f, 1);
  write_chunk (f.log, 1);
  write_chunk (f.log, 2);
  restart_from (&f, 1);
  g_assert_false (dm_log_was_written (f.log, CHUNK, 2 * CHUNK));
  write_chunk (f.log, 1);
  clean (f.log);
  g_assert_true (dm_log_was_written (f.log, CHUNK, 1));
  g_assert_false (dm_log_was_written (f.log, 2 * CHUNK, 1));
  dm_log_unreconcile (f.log, 2 * CHUNK, 1);
  g_assert_true (dm_log_was_written (f.log, 2 * CHUNK, 1));
  dm_log_reconciled (f.log, 1, 0);
  clean (f.log);
  g_assert_false (dm_log_was_written (f.log, CHUNK, 1));
  close_logs (&f);
}

/* A label says only which of the copies this is. */
static void
test_s3_corrupt_label (void)
{
  struct log_description d;
  char *error;
  struct logs f;

  make_logs (&f, 2);
  write_chunk (f.log, 1);
  block_of (&f, 0, LOG_LABEL_AT)[20] ^= 1;
  load_from (&f, 1);
  g_assert_true (is_dirty (f.log, 1));
  restart_from (&f, 3);
  g_assert_cmpuint (copies_in_use (f.log), ==, 2);
  g_assert_cmphex (super_on (&f, 1).copies, ==, 3);
  g_assert_true (log_describe (&f.where[0], &d, &error));
  g_assert_cmpint (d.copy, ==, 0);
  g_assert_cmpuint (g_strv_length (d.invalid), ==, 0);
  log_description_clear (&d);
  close_logs (&f);
}

/* A block in another's place is not valid. */
static void
test_s3_misplaced_block (void)
{
  struct logs f;

  make_logs (&f, 1);
  g_assert_cmpint (dm_log_drop (f.log, 1 << 1), ==, 0);
  write_chunk (f.log, 1);
  memcpy (block_of (&f, 0, LACKING_BLOCK (1)),
          block_of (&f, 0, LACKING_BLOCK (2)), LOG_BLOCK);
  load_from (&f, 1);
  g_assert_cmpuint (dm_log_lacking (f.log, 1), ==, CHUNKS);
  memcpy (block_of (&f, 0, DIRTY_BLOCK),
          block_of (&f, 0, LACKING_BLOCK (2)), LOG_BLOCK);
  load_from (&f, 1);
  g_assert_true (is_dirty (f.log, 99));
  close_logs (&f);
}

/* A superblock that was durable once and is lost: who is in sync, then? */
static void
test_s3_lost_superblock (void)
{
  struct logs f;

  make_logs (&f, 2);
  g_assert_cmpint (dm_log_drop (f.log, 1 << 1), ==, 0);
  write_chunk (f.log, 1);
  block_of (&f, 0, 1)[70] ^= 1;
  load_refused (&f, 1, "log copy copy-a: its newest superblock is damaged: "
                "number 2 has been there, but 1 is the newest that is valid; "
                "*");
  load_from (&f, 3);
  g_assert_cmpint (state_of (f.log, 1), ==, DM_LOG_OUT_OF_SYNC);
  close_logs (&f);
}

/* S2: half a superblock was the last that was written, and of the next one, in the same
 * place, perhaps the other half.  The two must not be one that is valid.
 */
static void
test_s2_two_halves (void)
{
  struct mock_fault fault = {
    .ops = MOCK_WRITE, .after = 1, .error = EIO, .length = LOG_BLOCK,
  };
  unsigned char torn[LOG_BLOCK];
  struct logs f;
  unsigned int older, i;

  make_logs (&f, 2);
  write_chunk (f.log, 1);
  older = !f.log->copies[0].newest;
  memcpy (torn, block_of (&f, 0, older), LOG_BLOCK);
  memset (torn, 0, DM_IO_SECTOR_SIZE);
  torn[LOG_BLOCK / 2] = 1;
  memcpy (block_of (&f, 0, older), torn, LOG_BLOCK);
  fault.offset = older * LOG_BLOCK;
  mock_fault (f.where[0].bdev, &fault);
  restart_from (&f, 3);
  g_assert_cmpuint (copies_in_use (f.log), ==, 1);
  for (i = 0; i < LOG_BLOCK; i += DM_IO_SECTOR_SIZE)
    g_assert_true (memcmp (block_of (&f, 0, older) + i, torn + i,
                           DM_IO_SECTOR_SIZE) != 0);
  log_lines_clear ();
  close_logs (&f);
}

/*----------------------------------------------------------------------
 * Which one rules
 */

/* R5, S2: out of date copies never rule, whatever their order. */
static void
test_s2_outdated_copies (void)
{
  static const unsigned int orders[][3] = {
    { 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 }, { 1, 2, 0 }, { 2, 0, 1 },
    { 2, 1, 0 },
  };
  struct dm_log_copy copies[3];
  unsigned int i, j;
  struct logs f;
  char *error;

  make_logs (&f, 3);
  write_chunk (f.log, 50);
  restart_from (&f, 3);         /* without copy-c */
  clean (f.log);
  g_assert_cmpint (dm_log_drop (f.log, 1 << 0), ==, 0);
  restart_from (&f, 1);         /* without copy-b */
  write_chunk (f.log, 51);
  for (i = 0; i < G_N_ELEMENTS (orders); i++) {
    for (j = 0; j < 3; j++)
      copies[j] = f.copies[orders[i][j]];
    dm_log_free (f.log);
    f.log = dm_log_load (3, copies, &error);
    g_assert_nonnull (f.log);
    g_assert_cmpuint (copies_in_use (f.log), ==, 1);
    g_assert_cmpint (state_of (f.log, 0), ==, DM_LOG_OUT_OF_SYNC);
    g_assert_true (lacks (f.log, 0, 51));
    g_assert_true (is_dirty (f.log, 51));
  }
  g_assert_cmpint (dm_log_start (f.log, 1 << 0, 0), ==, 0);
  g_assert_cmpuint (copies_in_use (f.log), ==, 3);
  load_from (&f, 4);
  g_assert_true (lacks (f.log, 0, 51));
  close_logs (&f);
}

/* S2: each has gone on without the other. */
static void
test_s2_split_brain (void)
{
  struct logs f;

  make_logs (&f, 2);
  write_chunk (f.log, 1);
  restart_from (&f, 1);
  write_chunk (f.log, 2);
  restart_from (&f, 2);
  write_chunk (f.log, 3);
  load_refused (&f, 3, "log copies copy-? and copy-? contradict each other: *"
                "(split brain)*move the other copy away*");

  /* Also if one of them has gone on further. */
  restart_from (&f, 2);
  fail_copy (&f, 0, MOCK_ANY);
  restart_from (&f, 2);
  mend_copy (&f, 0);
  pthread_mutex_lock (&f.log->lock);
  f.log->copy_missing = true;
  f.log->super_wanted++;
  pthread_mutex_unlock (&f.log->lock);
  g_assert_cmpint (dm_log_sync (f.log), ==, 0);
  g_assert_cmpuint (super_on (&f, 1).generation, ==, 3);
  load_refused (&f, 3, "log copies copy-a and copy-b contradict each other: *");
  close_logs (&f);
}

/* A copy that takes the number of one that is missing does not hide that. */
static void
test_s2_missing_copy_replaced (void)
{
  char *error;
  struct logs f;

  open_copies (&f, 3, dm_log_copy_sectors (VOLUME, CHUNK));
  f.log = new_log (2, f.copies, LEGS, all_in_sync, &error);
  g_assert_cmpstr (error, ==, NULL);
  restart_from (&f, 1 | 4);
  g_assert_cmphex (super_on (&f, 2).copies, ==, 3);
  g_assert_cmpuint (super_on (&f, 2).generation, ==, 2);
  write_chunk (f.log, 1);
  restart_from (&f, 2);
  write_chunk (f.log, 2);
  load_refused (&f, 7, "* contradict each other: *");
  close_logs (&f);
}

/* The history does not go back for ever. */
static void
test_s2_too_old (void)
{
  struct logs f;
  unsigned int i;

  make_logs (&f, 2);
  restart_from (&f, 1);
  for (i = 0; i < LOG_HISTORY; i++) {
    load_from (&f, 3);
    pthread_mutex_lock (&f.log->lock);
    f.log->num_copies--;
    f.log->copy_missing = true;
    pthread_mutex_unlock (&f.log->lock);
    g_assert_cmpint (dm_log_start (f.log, 0, 0), ==, 0);
    f.log->num_copies++;
  }
  g_assert_cmpuint (super_on (&f, 0).generation, ==, LOG_HISTORY + 2);
  g_assert_cmpuint (super_on (&f, 0).num_history, ==, LOG_HISTORY);
  load_refused (&f, 3, "log copy copy-b is so much older than copy-a that *; "
                "if it does not, remove it");
  close_logs (&f);
}

/* A copy of a copy. */
static void
test_twins (void)
{
  struct logs f;

  make_logs (&f, 2);
  restart_from (&f, 1);
  memcpy (mock_data (f.where[1].bdev), mock_data (f.where[0].bdev),
          f.where[0].count * SECTOR);
  write_chunk (f.log, 7);
  restart_from (&f, 3);
  g_assert_cmpuint (copies_in_use (f.log), ==, 2);
  g_assert_cmphex (super_on (&f, 0).copies, ==, 3);
  load_from (&f, 2);
  g_assert_true (is_dirty (f.log, 7));
  close_logs (&f);
}

/* A crash between the copies: both count, in any order. */
static void
test_bitmaps_are_ored (void)
{
  struct dm_log_copy reversed[2];
  struct dm_log *log;
  char *error;
  struct logs f;

  make_logs (&f, 2);
  write_chunk (f.log, 1);
  mock_power_off_after (1);     /* only one of them has it */
  {
    unsigned long absent;

    g_assert_cmpint (dm_log_begin (f.log, 2 * CHUNK, 1, &absent), ==, -EIO);
  }
  mock_power_on ();
  log_lines_clear ();
  reversed[0] = f.copies[1];
  reversed[1] = f.copies[0];
  log = dm_log_load (2, reversed, &error);
  g_assert_nonnull (log);
  g_assert_true (is_dirty (log, 1));
  g_assert_true (is_dirty (log, 2));
  dm_log_free (log);
  load_from (&f, 3);
  g_assert_true (is_dirty (f.log, 1));
  g_assert_true (is_dirty (f.log, 2));
  g_assert_cmpint (dm_log_start (f.log, 0, 0), ==, 0);
  g_assert_cmphex (word_on (&f, 0, DIRTY_BLOCK), ==, 6);
  g_assert_cmphex (word_on (&f, 1, DIRTY_BLOCK), ==, 6);
  close_logs (&f);
}

/* What was read may not have been durable: the server was killed before it
 * could flush, and the power goes now.
 */
static void
test_s3_what_is_read_is_flushed (void)
{
  const struct mock_fault killed = { .ops = MOCK_FLUSH, .error = EIO };
  const struct mock_event *trace;
  struct logs f;
  size_t n, i;

  make_logs (&f, 1);
  mock_fault (f.where[0].bdev, &killed);
  g_assert_cmpint (dm_log_drop (f.log, 1 << 1), ==, 0);
  {
    unsigned long absent;

    g_assert_cmpint (dm_log_begin (f.log, CHUNK, 1, &absent), ==, -EIO);
  }
  log_lines_clear ();
  mend_copy (&f, 0);
  load_from (&f, 1);
  g_assert_true (is_dirty (f.log, 1));
  mock_clear_trace (f.where[0].bdev);
  g_assert_cmpint (dm_log_start (f.log, 1 << 1, 0), ==, 0);
  trace = mock_trace (f.where[0].bdev, &n);
  for (i = 0; i < n && trace[i].op == MOCK_READ; i++)
    ;
  g_assert_cmpint (trace[i].op, ==, MOCK_FLUSH);
  mock_power_cut (f.where[0].bdev, 1);
  load_from (&f, 1);
  g_assert_true (is_dirty (f.log, 1));
  g_assert_true (lacks (f.log, 1, 1));
  close_logs (&f);
}

/* So it is if the last server had ended in order, or another has begun since, when a
 * superblock is written first.
 */
static void
test_flushed_first (gconstpointer torn)
{
  const struct mock_event *trace;
  struct logs f;
  size_t n, i;

  make_logs (&f, 1);
  write_chunk (f.log, 1);
  dm_log_rest (f.log);
  g_assert_cmpint (dm_log_sync (f.log), ==, 0);
  if (torn != NULL)
    block_of (&f, 0, !f.log->copies[0].newest)[LOG_BLOCK - 1] ^= 1;
  load_from (&f, 1);
  mock_clear_trace (f.where[0].bdev);
  g_assert_cmpint (dm_log_start (f.log, 0, 0), ==, 0);
  trace = mock_trace (f.where[0].bdev, &n);
  for (i = 0; i < n && trace[i].op == MOCK_READ; i++)
    ;
  g_assert_cmpint (trace[i].op, ==, MOCK_FLUSH);
  close_logs (&f);
}

/* The copy in use cannot be flushed: what was read of it may be gone. */
static void
test_flushed_first_fails (void)
{
  const struct mock_fault once = { .ops = MOCK_FLUSH, .times = 1, .error = EIO };
  struct logs f;

  make_logs (&f, 2);
  restart_from (&f, 1);
  load_from (&f, 1);
  dm_log_add_copy (f.log, &f.copies[1]);
  mock_fault (f.where[0].bdev, &once);
  g_assert_cmpint (dm_log_start (f.log, 0, 0), ==, -EIO);
  g_assert_cmpuint (copies_in_use (f.log), ==, 0);
  close_logs (&f);
}

/* One more copy than there were. */
static void
test_add_copy (void)
{
  struct logs f;

  make_logs (&f, 2);
  write_chunk (f.log, 1);
  restart_from (&f, 1);
  load_from (&f, 1);
  dm_log_add_copy (f.log, &f.copies[1]);
  g_assert_cmpint (dm_log_start (f.log, 0, 0), ==, 0);
  g_assert_cmpuint (copies_in_use (f.log), ==, 2);
  load_from (&f, 2);
  g_assert_true (is_dirty (f.log, 1));
  g_assert_cmphex (f.log->super.copies, ==, 3);
  close_logs (&f);
}

/*----------------------------------------------------------------------
 * Power cuts
 */

/* What must not be forgotten. */
struct model {
  unsigned int legs;
  bool dirty[CHUNKS];
  bool out[LEGS];               /* not in sync */
  bool lacks[LEGS][CHUNKS];
  unsigned int in_flight[CHUNKS];
};

static void
assert_remembered (struct dm_log *log, const struct model *m)
{
  unsigned int i, leg;

  for (i = 0; i < CHUNKS; i++)
    if (m->dirty[i])
      g_assert_true (is_dirty (log, i));
  for (leg = 0; leg < LEGS; leg++) {
    if (!m->out[leg])
      continue;
    g_assert_cmpint (state_of (log, leg), !=, DM_LOG_IN_SYNC);
    for (i = 0; i < CHUNKS; i++)
      if (m->lacks[leg][i])
        g_assert_true (lacks (log, leg, i));
  }
}

/* Steps of a history.  Each returns false if the power has gone; what it
 * takes back is no longer owed from when it begins, what it gives is
 * owed from when it returns.
 */
static bool
step_write (struct logs *f, struct model *m, struct rng *rng)
{
  uint64_t first = rng_below (rng, CHUNKS);
  uint64_t n = 1 + rng_below (rng, MIN (CHUNKS - first, 3)), i;
  sector_t count = MIN (n * CHUNK, VOLUME - first * CHUNK);
  unsigned long absent;
  unsigned int leg;

  if (dm_log_begin (f->log, first * CHUNK, count, &absent) < 0)
    return false;
  for (i = first; i < first + n; i++) {
    m->dirty[i] = true;
    for (leg = 0; leg < LEGS; leg++)
      if (absent & 1UL << leg)
        m->out[leg] = m->lacks[leg][i] = true;
  }
  if (rng_below (rng, 8) == 0)  /* never ends */
    for (i = first; i < first + n; i++)
      m->in_flight[i]++;
  else
    dm_log_end (f->log, first * CHUNK, count);
  return true;
}

static bool
step_drop (struct logs *f, struct model *m, struct rng *rng)
{
  unsigned int leg = 1 + rng_below (rng, LEGS - 1), i;

  if (dm_log_drop (f->log, 1UL << leg) < 0)
    return false;
  m->out[leg] = true;
  for (i = 0; i < CHUNKS; i++)
    if (m->dirty[i])
      m->lacks[leg][i] = true;
  return true;
}

static bool
step_clean (struct logs *f, struct model *m, struct rng *rng)
{
  unsigned int i;

  for (i = 0; i < CHUNKS; i++)
    if (m->in_flight[i] == 0)
      m->dirty[i] = false;
  dm_log_clean_begin (f->log);
  dm_log_clean_begin (f->log);
  return dm_log_clean_end (f->log) == 0;
}

static bool
step_recover (struct logs *f, struct model *m, struct rng *rng)
{
  unsigned int leg = 1 + rng_below (rng, LEGS - 1), i, end;

  if (state_of (f->log, leg) == DM_LOG_IN_SYNC)
    return true;
  dm_log_recover (f->log, leg, NULL);
  end = rng_below (rng, 3) == 0 ? rng_below (rng, CHUNKS) : CHUNKS;
  for (i = 0; i < end; i++)
    m->lacks[leg][i] = false;
  dm_log_copied (f->log, leg, 0, end);
  if (rng_below (rng, 2) == 0)
    return dm_log_sync (f->log) == 0;
  if (dm_log_lacking (f->log, leg) > 0)
    return true;
  m->out[leg] = false;
  return dm_log_join (f->log, leg, NULL) == 0;
}

static bool
step_other (struct logs *f, struct model *m, struct rng *rng)
{
  struct bdev_stamp stamps[LEGS] = { { true, 1, rng_next (rng) } };

  switch (rng_below (rng, 3)) {
  case 0:
    return dm_log_keep_lease (f->log) == 0;
  case 1:
    return dm_log_stamp (f->log, stamps) == 0;
  default:
    return dm_log_sync (f->log) == 0;
  }
}

/* A copy fails, or comes back. */
static bool
step_copy (struct logs *f, struct model *m, struct rng *rng)
{
  const struct mock_fault once = { .ops = MOCK_WRITE | MOCK_FLUSH,
                                   .times = 1, .error = EIO };

  if (f->n < 2)
    return true;
  if (copies_in_use (f->log) < f->n)
    dm_log_restore (f->log);
  else {
    mock_clear_faults (f->where[1].bdev);
    mock_fault (f->where[1].bdev, &once);
  }
  return copies_in_use (f->log) > 0;
}

static bool
run_step (struct logs *f, struct model *m, struct rng *rng)
{
  static bool (*const steps[]) (struct logs *, struct model *,
                                struct rng *) = {
    step_write, step_write, step_write, step_write, step_write, step_drop,
    step_clean, step_recover, step_recover, step_other, step_copy,
  };

  return steps[rng_below (rng, G_N_ELEMENTS (steps))] (f, m, rng);
}

#define STEPS 40

/* Any copy in use has it all; others may be named as well. */
static unsigned int
copies_to_load (struct logs *f, struct rng *rng)
{
  unsigned long in_use = f->log->current, all = (1UL << f->n) - 1, set;

  do
    set = 1 + rng_below (rng, all);
  while (in_use != 0 ? (set & in_use) == 0 : set != all);
  return set;
}

static void
lose_power (struct logs *f, struct rng *rng)
{
  unsigned int i;

  for (i = 0; i < f->n; i++) {
    mend_copy (f, i);
    mock_power_cut (f->where[i].bdev, rng_next (rng));
  }
  log_lines_clear ();
}

/* The log is loaded, started while the power goes again, and loaded.  Copies
 * that died together, at the very end, are all needed.
 */
static void
check_after_power_cut (struct logs *f, const struct model *m,
                       struct rng *rng)
{
  unsigned int i;

  load_from (f, f->log->current == 0 || f->n == 1 ? (1U << f->n) - 1 :
             copies_to_load (f, rng));
  assert_remembered (f->log, m);
  for (i = 0; i < 2; i++) {
    mock_power_off_after (rng_below (rng, 12));
    dm_log_start (f->log, out_of_sync (f->log), 0);
    mock_power_on ();
    lose_power (f, rng);
    load_from (f, (1U << f->n) - 1);
    assert_remembered (f->log, m);
  }
  g_assert_cmpint (dm_log_start (f->log, out_of_sync (f->log), 0), ==, 0);
  assert_remembered (f->log, m);
}

/* Returns false if the power lasted. */
static bool
cut_after (unsigned int n, unsigned int copies, uint64_t seed)
{
  struct model m = { .legs = LEGS };
  struct rng rng = { seed };
  unsigned int i;
  struct logs f;
  bool gone;

  make_logs (&f, copies);
  mock_power_off_after (n);
  for (i = 0; i < STEPS; i++)
    if (!run_step (&f, &m, &rng))
      break;
  gone = mock_power_is_off ();
  mock_power_on ();
  lose_power (&f, &rng);
  check_after_power_cut (&f, &m, &rng);
  close_logs (&f);
  log_lines_clear ();
  return gone;
}

static void
check_power_cuts (unsigned int copies)
{
  uint64_t seed = rng_random ().state;
  unsigned int i, n;

  for (i = 0; i < 5; i++)
    for (n = 0; cut_after (n, copies, seed + i); n++)
      ;
}

static void
test_s3_power_cuts_one_copy (void)
{
  check_power_cuts (1);
}

static void
test_s3_power_cuts_three_copies (void)
{
  check_power_cuts (3);
}

/* Two copies that could not be read while the log was loaded, so that they get
 * the numbers of each other, are written again at the start, and the power goes
 * at each moment of that: of all copies together none that is in use is missed
 * after that.
 */
static void
test_s2_power_cuts_unreadable_copies (void)
{
  struct rng rng = rng_random ();
  struct dm_log_copy first;
  bool gone = true;
  unsigned int n;
  struct logs f;

  for (n = 0; gone; n++) {
    make_logs (&f, 3);
    fail_copy (&f, 0, MOCK_READ);
    fail_copy (&f, 1, MOCK_READ);
    first = f.copies[0];
    f.copies[0] = f.copies[1];
    f.copies[1] = first;
    load_from (&f, 7);
    mend_copy (&f, 0);
    mend_copy (&f, 1);
    mock_power_off_after (n);
    dm_log_start (f.log, 0, 0);
    gone = mock_power_is_off ();
    mock_power_on ();
    lose_power (&f, &rng);
    load_from (&f, 7);
    g_assert_cmpstr (dm_log_missing_copies (f.log), ==, NULL);
    close_logs (&f);
    log_lines_clear ();
  }
  g_assert_cmpuint (n, >, 5);
}

/* The power goes while leg 1 is dropped, and again while the log is started;
 * then only one copy is left.
 */
static bool
check_survivor (unsigned int first, unsigned int second,
                unsigned int survivor, struct rng *rng)
{
  struct logs f;
  bool gone, dropped;

  make_logs (&f, 2);
  write_chunk (f.log, 1);
  mock_power_off_after (first);
  dropped = dm_log_drop (f.log, 1 << 1) == 0;
  gone = mock_power_is_off ();
  mock_power_on ();
  lose_power (&f, rng);
  load_from (&f, 3);
  mock_power_off_after (second);
  dm_log_start (f.log, out_of_sync (f.log) | 1 << 2, 0);
  gone = gone && mock_power_is_off ();
  mock_power_on ();
  lose_power (&f, rng);
  load_from (&f, 1U << survivor);
  g_assert_true (is_dirty (f.log, 1));
  g_assert_true (!dropped || state_of (f.log, 1) == DM_LOG_OUT_OF_SYNC);
  close_logs (&f);
  log_lines_clear ();
  return gone;
}

static void
test_s2_power_cuts_and_one_copy_left (void)
{
  struct rng rng = rng_random ();
  unsigned int first, second, survivor, n = 0;

  for (first = 0; first < 8; first++)
    for (second = 0; second < 16; second++)
      for (survivor = 0; survivor < 2; survivor++)
        n += check_survivor (first, second, survivor, &rng);
  g_assert_cmpuint (n, >, 30);
}

/* One operation of a copy fails. */
static void
fail_once (struct logs *f, struct rng *rng)
{
  const struct mock_fault once = {
    .ops = rng_below (rng, 2) ? MOCK_WRITE : MOCK_FLUSH, .times = 1,
    .after = rng_below (rng, 3), .error = EIO,
  };

  mock_fault (f->where[rng_below (rng, 2)].bdev, &once);
}

/* The power goes in one start after another: no copy ever looks as if it had been set
 * back, which test-other-disk.sh does.  Nor if copies also fail.
 */
static void
test_s2_set_back (const void *fail)
{
  struct rng rng = rng_random ();
  unsigned int n, i;
  struct logs f;

  for (n = 0; n < 300; n++) {
    make_logs (&f, 2);
    write_chunk (f.log, 1);
    for (i = 0; i < 8; i++) {
      if (fail != NULL)
        fail_once (&f, &rng);
      mock_power_off_after (rng_below (&rng, 12));
      dm_log_start (f.log, out_of_sync (f.log), 0);
      mock_power_on ();
      mend_copy (&f, 0);
      mend_copy (&f, 1);
      lose_power (&f, &rng);
      load_from (&f, 3);
      g_assert_false (f.log->copies[0].set_back);
      g_assert_false (f.log->copies[1].set_back);
    }
    close_logs (&f);
    log_lines_clear ();
  }
}

/* The N-th write reaches only so many sectors, then the power is gone.
 * Returns false if there is no such write.
 */
static bool
tear (unsigned int n, unsigned int sectors, uint64_t seed)
{
  const struct mock_fault shorten = {
    .ops = MOCK_WRITE, .after = n, .times = 1, .shorten = true,
    .transfer = sectors * SECTOR,
  };
  const struct mock_fault off = {
    .ops = MOCK_WRITE, .after = n + 1, .error = EIO,
  };
  struct model m = { .legs = LEGS };
  struct rng rng = { seed };
  unsigned int i;
  struct logs f;
  bool ok = true;

  make_logs (&f, 1);
  mock_fault (f.where[0].bdev, &shorten);
  mock_fault (f.where[0].bdev, &off);
  for (i = 0; i < STEPS && ok; i++)
    ok = run_step (&f, &m, &rng);
  lose_power (&f, &rng);
  load_from (&f, 1);
  assert_remembered (f.log, &m);
  close_logs (&f);
  log_lines_clear ();
  return !ok;
}

static void
test_s3_torn_writes (void)
{
  uint64_t seed = rng_random ().state;
  unsigned int n, sectors;

  for (n = 0; tear (n, 1, seed); n++)
    for (sectors = 2; sectors <= 8; sectors++)
      tear (n, sectors, seed);
}

/* A new log is there or is not, but is never half a log. */
static void
test_s3_power_cut_while_new (void)
{
  unsigned int n, loaded = 0, none = 0;
  struct dm_log *log;
  bool gone = true;
  struct logs f;
  char *error;

  for (n = 0; gone; n++) {
    open_copies (&f, 2, dm_log_copy_sectors (VOLUME, CHUNK));
    mock_power_off_after (n);
    log = new_log (2, f.copies, LEGS, all_in_sync, &error);
    g_assert_cmpint (log == NULL, ==, error != NULL);
    g_free (error);
    dm_log_free (log);
    gone = mock_power_is_off ();
    mock_power_on ();
    mock_power_cut (f.where[0].bdev, n);
    mock_power_cut (f.where[1].bdev, n);
    log_lines_clear ();
    f.log = dm_log_load (2, f.copies, &error);
    g_assert_null (error);
    log_lines_clear ();
    loaded += f.log != NULL;
    none += f.log == NULL;
    if (f.log != NULL)
      g_assert_cmpint (dm_log_start (f.log, 0, 0), ==, 0);
    close_logs (&f);
  }
  g_assert_cmpuint (none, >, 2);
  g_assert_cmpuint (loaded, >, 1);
}

/*----------------------------------------------------------------------
 * Sizes
 */

static void
test_sizes (void)
{
  static const struct {
    sector_t volume, chunk;
  } cases[] = {
    { 1, 2048 }, { 2048 * 10240, 2048 },
    { UINT64_C (1) << 30, 2048 },               /* 512 GiB */
    { (UINT64_C (1) << 30) + 1, 4096 },
    { UINT64_C (1) << 35, UINT64_C (1) << 16 }, /* 16 TiB */
    { INT64_MAX / 512, DM_LOG_MAX_CHUNK },
  };
  sector_t chunk;
  unsigned int i;

  for (i = 0; i < G_N_ELEMENTS (cases); i++) {
    chunk = dm_log_default_chunk (cases[i].volume);
    g_assert_cmpuint (chunk, ==, cases[i].chunk);
    g_assert_cmpuint (dm_log_copy_sectors (cases[i].volume, chunk), >, 0);
  }
  g_assert_cmpuint (dm_log_copy_sectors (VOLUME, CHUNK), ==, 132 * 8);
  g_assert_cmpuint (dm_log_copy_sectors (VOLUME, CHUNK - 1), ==, 0);
  g_assert_cmpuint (dm_log_copy_sectors (VOLUME, 64), ==, 0);
  g_assert_cmpuint (dm_log_copy_sectors (UINT64_C (1) << 35, 128), ==, 0);
}

/* One chunk; and as many as there can be, of which few are set. */
static void
check_geometry (sector_t volume, sector_t chunk)
{
  static const struct mock_options plain = { 0 };
  const uint64_t chunks = volume / chunk + (volume % chunk != 0);
  const sector_t last = volume - 1;
  struct dm_log_leg legs[] = {
    { .id = (char *) "/a", .state = DM_LOG_IN_SYNC, .until = FAR_OFF },
    { .id = (char *) "/b", .state = DM_LOG_OUT_OF_SYNC, .until = FAR_OFF },
  };
  unsigned long absent, lacking;
  struct io_region where[1];
  struct dm_log_copy copy = { .name = "copy" };
  uint64_t first = 0, after = 0;
  struct dm_log *log;
  char *error;

  open_mocks (where, 1, dm_log_copy_sectors (volume, chunk), &plain);
  copy.region = where[0];
  log = dm_log_new (1, &copy, volume, chunk, 2, legs, &error);
  g_assert_cmpstr (error, ==, NULL);
  g_assert_cmpuint (dm_log_lacking (log, 1), ==, chunks);
  dm_log_copied (log, 1, 0, chunks);
  g_assert_cmpint (dm_log_start (log, 1 << 1, 0), ==, 0);
  g_assert_cmpint (dm_log_begin (log, last, 1, &absent), ==, 0);
  dm_log_end (log, last, 1);
  g_assert_cmpint (dm_log_sync (log), ==, 0);
  dm_log_free (log);

  log = dm_log_load (1, &copy, &error);
  g_assert_cmpstr (error, ==, NULL);
  g_assert_cmpint (dm_log_start (log, 1 << 1, 0), ==, 0);
  g_assert_cmpuint (dm_log_lacking (log, 1), ==, 1);
  g_assert_true (dm_log_next_lacking (log, 1 << 1, &first, chunks, &after,
                                      &lacking));
  g_assert_cmpuint (first, ==, chunks - 1);
  g_assert_cmpuint (after, ==, chunks);
  g_assert_true (is_dirty (log, chunks - 1));
  dm_log_free (log);
  close_mocks (where, 1);
}

static void
test_one_chunk (void)
{
  check_geometry (1, 128);
  check_geometry (128, 128);
}

static void
test_many_chunks (void)
{
  check_geometry (DM_LOG_MAX_CHUNKS * 128 - 1, 128);
  check_geometry (UINT64_C (32000) * 128, 128);
  check_geometry (UINT64_C (32000) * 128 + 1, 128);
}

/*----------------------------------------------------------------------
 * New logs, and descriptions
 */

static void
new_refused (struct logs *f, unsigned int num_copies, unsigned int num_legs,
             const char *pattern)
{
  char *error = NULL;

  g_assert_null (new_log (num_copies, f->copies, num_legs, all_in_sync,
                          &error));
  g_assert_nonnull (error);
  if (!g_pattern_match_simple (pattern, error))
    g_error ("message is not like '%s': %s", pattern, error);
  g_free (error);
}

static void
test_new_refused (void)
{
  struct logs f;

  open_copies (&f, 2, dm_log_copy_sectors (VOLUME, CHUNK));
  new_refused (&f, 0, 1, "a log has 1 to 64 copies, not 0");
  new_refused (&f, 1, 0, "a mirror has 1 to 64 regions, not 0");
  f.copies[1].region.count--;
  new_refused (&f, 2, 1, "log copy copy-b: it has 1055 sectors, but 1056 are "
               "needed; *");
  f.copies[1].region.count++;
  fail_copy (&f, 1, MOCK_WRITE);
  new_refused (&f, 2, 1, "log copy copy-b: it cannot be written, so the new "
               "log was not made; *");
  log_lines_clear ();
  mend_copy (&f, 1);
  {
    char *error = NULL;         /* and it was not */

    f.log = dm_log_load (2, f.copies, &error);
    g_assert_null (f.log);
    g_assert_null (error);
  }
  close_logs (&f);
}

static void
test_describe (void)
{
  struct log_description d;
  char *error;
  struct logs f;

  make_logs (&f, 2);
  write_chunk (f.log, 1);
  write_chunk (f.log, 2);
  g_assert_cmpint (dm_log_drop (f.log, 1 << 1), ==, 0);
  block_of (&f, 1, LACKING_BLOCK (2))[1000] ^= 1;
  g_assert_true (log_describe (&f.where[1], &d, &error));
  g_assert_cmpstr (d.uuid, ==, dm_log_uuid (f.log));
  g_assert_cmpuint (d.generation, ==, 1);
  g_assert_cmpuint (d.sequence, ==, 2);
  g_assert_cmpuint (d.volume, ==, VOLUME);
  g_assert_cmpuint (d.chunk, ==, CHUNK);
  g_assert_cmpuint (d.chunks, ==, CHUNKS);
  g_assert_cmpuint (d.dirty, ==, 2);
  g_assert_cmpint (d.copy, ==, 1);
  g_assert_cmphex (d.copies, ==, 3);
  g_assert_cmpuint (d.num_legs, ==, 3);
  g_assert_cmpstr (d.legs[1].id, ==, "/b.img");
  g_assert_cmpstr (log_state_name (d.legs[1].state), ==, "out of sync");
  g_assert_cmpuint (d.legs[1].lacking, ==, 2);
  g_assert_cmpuint (d.legs[0].lacking, ==, 0);
  g_assert_cmpuint (g_strv_length (d.invalid), ==, 1);
  g_assert_cmpstr (d.invalid[0], ==, "bitmap of what region 2 lacks, block 0: "
                   "torn or corrupt, it lacks all");
  log_description_clear (&d);

  memset (mock_data (f.where[1].bdev), 0, f.where[1].count * SECTOR);
  g_assert_false (log_describe (&f.where[1], &d, &error));
  g_assert_cmpstr (error, ==, "mock1: it is empty, there is no log in it");
  g_free (error);
  close_logs (&f);
}

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  log_lines_keep ();
  g_test_add_func ("/log-load/blank", test_blank);
  g_test_add_func ("/log-load/blank-beside-valid", test_blank_beside_valid);
  g_test_add_func ("/log-load/r12-something-else", test_r12_something_else);
  g_test_add_func ("/log-load/r12-bad-magic", test_r12_bad_magic);
  g_test_add_func ("/log-load/r12-unknown-version",
                   test_r12_unknown_version);
  g_test_add_func ("/log-load/r12-other-mirror", test_r12_other_mirror);
  g_test_add_func ("/log-load/r12-other-geometry", test_r12_other_geometry);
  g_test_add_func ("/log-load/r12-too-small", test_r12_too_small);
  g_test_add_func ("/log-load/r11-read-fails", test_r11_read_fails);
  g_test_add_func ("/log-load/s3-block-cannot-be-read",
                   test_s3_block_cannot_be_read);
  g_test_add_func ("/log-load/s3-corrupt-blocks", test_s3_corrupt_blocks);
  g_test_add_func ("/log-load/r2-was-written", test_r2_was_written);
  g_test_add_func ("/log-load/s3-corrupt-label", test_s3_corrupt_label);
  g_test_add_func ("/log-load/s2-two-halves", test_s2_two_halves);
  g_test_add_func ("/log-load/s3-misplaced-block", test_s3_misplaced_block);
  g_test_add_func ("/log-load/s3-lost-superblock", test_s3_lost_superblock);
  g_test_add_func ("/log-load/s2-outdated-copies", test_s2_outdated_copies);
  g_test_add_func ("/log-load/s2-split-brain", test_s2_split_brain);
  g_test_add_func ("/log-load/s2-missing-copy-replaced",
                   test_s2_missing_copy_replaced);
  g_test_add_func ("/log-load/s2-too-old", test_s2_too_old);
  g_test_add_func ("/log-load/twins", test_twins);
  g_test_add_func ("/log-load/bitmaps-are-ored", test_bitmaps_are_ored);
  g_test_add_func ("/log-load/s3-what-is-read-is-flushed",
                   test_s3_what_is_read_is_flushed);
  g_test_add_data_func ("/log-load/flushed-first/orderly", NULL, test_flushed_first);
  g_test_add_data_func ("/log-load/flushed-first/torn", "torn", test_flushed_first);
  g_test_add_func ("/log-load/flushed-first/fails", test_flushed_first_fails);
  g_test_add_func ("/log-load/add-copy", test_add_copy);
  g_test_add_func ("/log-load/s3-power-cuts-one-copy",
                   test_s3_power_cuts_one_copy);
  g_test_add_func ("/log-load/s3-power-cuts-three-copies",
                   test_s3_power_cuts_three_copies);
  g_test_add_func ("/log-load/s2-power-cuts-unreadable-copies",
                   test_s2_power_cuts_unreadable_copies);
  g_test_add_data_func ("/log-load/s2-set-back", NULL, test_s2_set_back);
  g_test_add_data_func ("/log-load/s2-set-back/fails", "", test_s2_set_back);
  g_test_add_func ("/log-load/s2-power-cuts-and-one-copy-left",
                   test_s2_power_cuts_and_one_copy_left);
  g_test_add_func ("/log-load/s3-torn-writes", test_s3_torn_writes);
  g_test_add_func ("/log-load/s3-power-cut-while-new",
                   test_s3_power_cut_while_new);
  g_test_add_func ("/log-load/sizes", test_sizes);
  g_test_add_func ("/log-load/one-chunk", test_one_chunk);
  g_test_add_func ("/log-load/many-chunks", test_many_chunks);
  g_test_add_func ("/log-load/new-refused", test_new_refused);
  g_test_add_func ("/log-load/describe", test_describe);
  return g_test_run ();
}
