/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Where the copies of a log are, as they say: for people only, so whatever
 * becomes of that, the log is as good as without it.
 */

#include <config.h>

#include <string.h>

#include "log-fixture.h"

#define SECTOR DM_IO_SECTOR_SIZE

/* Of a copy of that size. */
#define SHORT_BLOCKS 132
#define WHERE_BLOCK(copy) (SHORT_BLOCKS + (copy))

static const char *const places[COPIES] = {
  "/a.dmlog", "/b,,b.dmlog,sector=8", "nbd://c/log",
};

/* Copies in SHORT, a set, were made before there were places. */
static void
make_placed (struct logs *f, unsigned int n, unsigned int short_ones)
{
  char *error = NULL;
  unsigned int i;

  open_copies (f, n, dm_log_new_copy_sectors (VOLUME, CHUNK));
  for (i = 0; i < n; i++) {
    f->copies[i].place = places[i];
    if (short_ones & 1U << i)
      f->copies[i].region.count = dm_log_copy_sectors (VOLUME, CHUNK);
  }
  f->log = new_log (n, f->copies, LEGS, all_in_sync, &error);
  g_assert_cmpstr (error, ==, NULL);
  g_assert_cmpint (dm_log_start (f->log, 0, 0), ==, 0);
}

static void
assert_missing (struct logs *f, unsigned int set, const char *expected)
{
  g_autofree char *missing = NULL;

  load_from (f, set);
  missing = dm_log_missing_copies (f->log);
  g_assert_cmpstr (missing, ==, expected);
}

/* Copy number N is said to be there, by one copy.  Nothing is wrong with it. */
static void
assert_place (struct logs *f, unsigned int copy, unsigned int n,
              const char *expected)
{
  struct log_description d;
  char *error;

  g_assert_true (log_describe (&f->copies[copy].region, &d, &error));
  g_assert_cmpuint (g_strv_length (d.invalid), ==, 0);
  g_assert_cmpstr (d.places[n], ==, expected);
  log_description_clear (&d);
}

static void
test_sizes (void)
{
  g_assert_cmpuint (dm_log_copy_sectors (VOLUME, CHUNK), ==,
                    SHORT_BLOCKS * LOG_BLOCK_SECTORS);
  g_assert_cmpuint (dm_log_new_copy_sectors (VOLUME, CHUNK), ==,
                    (SHORT_BLOCKS + 64) * LOG_BLOCK_SECTORS);
  g_assert_cmpuint (dm_log_new_copy_sectors (VOLUME, CHUNK - 1), ==, 0);
}

static void
test_recorded (void)
{
  struct dm_log_copy_status status;
  struct logs f;
  unsigned int i, j;

  make_placed (&f, 3, 0);
  for (i = 0; i < 3; i++) {
    for (j = 0; j < 3; j++)
      assert_place (&f, i, j, places[j]);
    assert_place (&f, i, 3, NULL);
    dm_log_get_copy (f.log, i, &status);
    g_assert_cmpuint (status.number, ==, i);
    g_assert_cmpstr (status.place, ==, places[i]);
    g_assert_true (status.in_use);
  }
  assert_missing (&f, 7, NULL);
  assert_missing (&f, 1, "/b,,b.dmlog,sector=8, nbd://c/log");
  assert_missing (&f, 6, "/a.dmlog");
  close_logs (&f);
}

/* Each byte of a block is zero: they are where dmio-log(5) says. */
static void
test_format (void)
{
  const unsigned char *block;
  struct logs f;

  make_placed (&f, 2, 0);
  block = block_of (&f, 0, WHERE_BLOCK (1));
  g_assert_cmpmem (block, 8, "DMIO LOG", 8);
  g_assert_cmpuint (block[12], ==, 6);
  g_assert_cmpuint (block[32], ==, 0);
  g_assert_cmpuint (block[40], ==, 1);
  g_assert_cmpuint (block[64], ==, strlen (places[1]));
  g_assert_cmpmem (block + 68, strlen (places[1]) + 1, places[1],
                   strlen (places[1]) + 1);
  close_logs (&f);
}

/* What is short is as valid as ever, and no byte behind it is touched. */
static void
test_short (void)
{
  unsigned char zeroes[LOG_BLOCK] = { 0 };
  struct logs f;

  make_placed (&f, 3, 1 | 4);
  g_assert_cmpuint (copies_in_use (f.log), ==, 3);
  assert_place (&f, 0, 0, NULL);
  assert_place (&f, 1, 0, places[0]);
  assert_place (&f, 1, 2, places[2]);
  assert_missing (&f, 1, "copy number 1, copy number 2");
  assert_missing (&f, 1 | 2, places[2]);
  restart_from (&f, 7);
  g_assert_cmpuint (copies_in_use (f.log), ==, 3);
  g_assert_cmpmem (block_of (&f, 0, WHERE_BLOCK (0)), LOG_BLOCK, zeroes,
                   LOG_BLOCK);
  close_logs (&f);
}

/* It is named by another name at a start, and then all know that. */
static void
test_moved (void)
{
  struct logs f;

  make_placed (&f, 3, 0);
  f.copies[1].place = "/moved.dmlog";
  load_from (&f, 7);
  assert_place (&f, 0, 1, places[1]);   /* nothing is written yet */
  restart_from (&f, 7);
  assert_place (&f, 0, 1, "/moved.dmlog");
  assert_place (&f, 2, 1, "/moved.dmlog");
  assert_missing (&f, 1, "/moved.dmlog, nbd://c/log");
  close_logs (&f);
}

/* What is torn is not known, and that is all; until the next start. */
static void
test_torn (void)
{
  struct logs f;

  make_placed (&f, 2, 0);
  block_of (&f, 0, WHERE_BLOCK (1))[100] ^= 1;
  assert_place (&f, 0, 1, NULL);
  assert_missing (&f, 1, "copy number 1");
  g_assert_false (dm_log_is_dirty (f.log));
  assert_missing (&f, 3, NULL);
  restart_from (&f, 3);
  g_assert_false (dm_log_is_dirty (f.log));
  assert_place (&f, 0, 1, places[1]);
  assert_missing (&f, 1, places[1]);
  close_logs (&f);
}

/* Nothing is written at a start where nothing has changed. */
static void
test_unchanged (void)
{
  const struct mock_event *events;
  struct logs f;
  size_t n, i;

  make_placed (&f, 2, 0);
  load_from (&f, 3);
  mock_clear_trace (f.where[0].bdev);
  g_assert_cmpint (dm_log_start (f.log, 0, 0), ==, 0);
  events = mock_trace (f.where[0].bdev, &n);
  g_assert_cmpuint (n, >, 0);
  for (i = 0; i < n; i++)
    g_assert_true (events[i].op != MOCK_WRITE ||
                   events[i].offset < SHORT_BLOCKS * LOG_BLOCK);
  close_logs (&f);
}

/* A copy that is made from others, at a start, or written again later. */
static void
test_comes_in (void)
{
  struct logs f;

  make_placed (&f, 2, 0);
  memset (mock_data (f.where[1].bdev), 0, f.where[1].count * SECTOR);
  restart_from (&f, 3);
  g_assert_cmpuint (copies_in_use (f.log), ==, 2);
  assert_place (&f, 1, 0, places[0]);
  assert_place (&f, 1, 1, places[1]);

  fail_copy (&f, 1, MOCK_WRITE);
  write_chunk (f.log, 1);
  g_assert_cmpuint (copies_in_use (f.log), ==, 1);
  memset (block_of (&f, 1, WHERE_BLOCK (0)), 0, LOG_BLOCK);
  mend_copy (&f, 1);
  g_assert_true (dm_log_restore (f.log));
  assert_place (&f, 1, 0, places[0]);
  log_lines_clear ();
  close_logs (&f);
}

/* Another copy gets the number of one that is gone. */
static void
test_number_again (void)
{
  struct logs f;

  make_placed (&f, 3, 0);
  load_from (&f, 1);
  f.copies[2].place = NULL;
  memset (mock_data (f.where[2].bdev), 0, f.where[2].count * SECTOR);
  dm_log_add_copy (f.log, &f.copies[2]);
  g_assert_cmpint (dm_log_start (f.log, 0, 0), ==, 0);
  assert_place (&f, 0, 0, places[0]);
  assert_place (&f, 0, 1, NULL);        /* it was that of copy-b */
  assert_place (&f, 0, 2, places[2]);   /* it is no longer in use, but known */
  assert_place (&f, 2, 2, places[2]);
  close_logs (&f);
}

/* Writing it fails, and nothing else. */
static void
test_cannot_be_written (void)
{
  const struct mock_fault fault = {
    .ops = MOCK_READ | MOCK_WRITE, .error = EIO,
    .offset = WHERE_BLOCK (0) * LOG_BLOCK, .length = 64 * LOG_BLOCK,
  };
  struct logs f;

  make_placed (&f, 2, 0);
  f.copies[0].place = "/moved.dmlog";
  mock_fault (f.where[0].bdev, &fault);
  restart_from (&f, 3);
  g_assert_cmpuint (copies_in_use (f.log), ==, 2);
  mock_clear_faults (f.where[0].bdev);
  assert_place (&f, 0, 0, places[0]);
  assert_place (&f, 1, 0, "/moved.dmlog");
  close_logs (&f);
}

int
main (int argc, char *argv[])
{
  g_test_init (&argc, &argv, NULL);
  log_lines_keep ();
  g_test_add_func ("/log-where/sizes", test_sizes);
  g_test_add_func ("/log-where/recorded", test_recorded);
  g_test_add_func ("/log-where/format", test_format);
  g_test_add_func ("/log-where/short", test_short);
  g_test_add_func ("/log-where/moved", test_moved);
  g_test_add_func ("/log-where/torn", test_torn);
  g_test_add_func ("/log-where/unchanged", test_unchanged);
  g_test_add_func ("/log-where/comes-in", test_comes_in);
  g_test_add_func ("/log-where/number-again", test_number_again);
  g_test_add_func ("/log-where/cannot-be-written", test_cannot_be_written);
  return g_test_run ();
}
