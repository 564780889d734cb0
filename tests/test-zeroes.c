/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* Discard and write zeroes, on devices that can do it or not (O3): the
 * same bytes on all of them; and what else a device need not have.
 */

#include <config.h>

#include "test-util.h"

#define SECTORS 64
#define SIZE (SECTORS * SECTOR)

static const struct mock_options plain;

static unsigned char data[SIZE];

/* What was asked of it last. */
static enum mock_op
last_op (const struct io_region *region)
{
  const struct mock_event *trace;
  size_t n;

  trace = mock_trace (region->bdev, &n);
  g_assert_cmpuint (n, >, 0);
  return trace[n-1].op;
}

/* Three devices with the same data, of which the last has options. */
static void
open_three (struct io_region *where, const struct mock_options *options)
{
  const struct mock_options able = { .can_punch = true, .can_zero = true };
  unsigned int i;

  fill (data, SIZE, 5);
  open_mocks (where, 2, SECTORS, &able);
  open_mocks (&where[2], 1, SECTORS, options);
  for (i = 0; i < 3; i++) {
    mock_set (where[i].bdev, 0, data, SIZE);
    where[i].sector = 3;
    where[i].count = SECTORS - 5;
  }
}

/* All of the three have zeroes in their regions and data around it. */
static void
assert_zeroed (struct io_region *where)
{
  unsigned char expected[SIZE];
  unsigned int i;

  memcpy (expected, data, SIZE);
  memset (expected + 3 * SECTOR, 0, SIZE - 5 * SECTOR);
  for (i = 0; i < 3; i++)
    assert_same (mock_data (where[i].bdev), expected, SIZE);
}

static void
test_o3_discard (void)
{
  const struct mock_options able = { .can_punch = true };
  struct io_region where[3];
  unsigned int i, async;

  for (async = 0; async < 2; async++) {
    open_three (where, &able);
    run_ok (data, DM_IO_DISCARD, 0, 3, where, async);
    assert_zeroed (where);
    for (i = 0; i < 3; i++) {
      const struct mock_event *event = trace_of (&where[i], 1);

      g_assert_cmpint (event->op, ==, MOCK_PUNCH);
      g_assert_cmpuint (event->offset, ==, 3 * SECTOR);
      g_assert_cmpuint (event->length, ==, SIZE - 5 * SECTOR);
    }
    close_mocks (where, 3);
  }
}

/* If one cannot, none does. */
static void
test_o3_discard_unsupported (void)
{
  const struct mock_options unable = { .can_zero = true };
  struct io_region where[3], reversed[3];
  unsigned int i, async;

  for (async = 0; async < 2; async++) {
    open_three (where, &unable);
    for (i = 0; i < 3; i++)
      reversed[i] = where[2-i];
    run_ok (data, DM_IO_DISCARD, 0, 3, where, async);
    run_ok (data, DM_IO_DISCARD, DM_IO_FUA, 3, reversed, async);
    for (i = 0; i < 3; i++) {
      g_assert_cmpuint (mock_count (where[i].bdev, MOCK_ANY & ~MOCK_FLUSH),
                        ==, 0);
      assert_same (mock_data (where[i].bdev), data, SIZE);
    }
    close_mocks (where, 3);
  }
}

/* It turns out when it is tried: by then others may have punched, so
 * zeroes have to be written; the next time it is known.
 */
static void
test_o3_discard_unsupported_at_run_time (void)
{
  static const struct mock_options options[] = {
    { .lies_about_punch = true },
    { .lies_about_punch = true, .can_zero = true },
    { .lies_about_punch = true, .mem_align = PAGE },
  };
  struct io_region where[3];
  unsigned int i, j;

  for (i = 0; i < G_N_ELEMENTS (options); i++) {
    open_three (where, &options[i]);
    g_assert_true (bdev_can_punch (where[2].bdev));
    run_ok (data, DM_IO_DISCARD, 0, 3, where, false);
    assert_zeroed (where);
    g_assert_cmpuint (mock_count (where[2].bdev, MOCK_PUNCH), ==, 1);
    g_assert_false (bdev_can_punch (where[2].bdev));

    for (j = 0; j < 3; j++)
      mock_set (where[j].bdev, 0, data, SIZE);
    run_ok (data, DM_IO_DISCARD, 0, 3, where, false);
    for (j = 0; j < 3; j++)
      assert_same (mock_data (where[j].bdev), data, SIZE);
    g_assert_cmpuint (mock_count (where[2].bdev, MOCK_PUNCH), ==, 1);
    close_mocks (where, 3);
  }
}

/* A range that cannot be punched, or zeroed, says nothing of others. */
static void
test_o3_unsupported_range (void)
{
  const struct mock_options able = { .can_punch = true, .can_zero = true };
  const struct mock_fault no_punch = {
    .ops = MOCK_PUNCH, .times = 1, .error = EINVAL
  };
  const struct mock_fault no_zero = {
    .ops = MOCK_ZERO, .times = 1, .error = EINVAL
  };
  struct io_region where[3];
  unsigned int i;

  for (i = 0; i < 3; i++) {
    open_three (where, &able);
    mock_fault (where[2].bdev, &no_punch);
    if (i == 1)
      mock_fault (where[2].bdev, &no_zero);
    run_ok (data, i == 2 ? DM_IO_DISCARD : DM_IO_WRITE_ZEROES, 0, 3, where,
            i % 2);
    assert_zeroed (where);
    g_assert_cmpint (last_op (&where[2]), ==, i == 1 ? MOCK_WRITE : MOCK_ZERO);
    g_assert_true (bdev_can_punch (where[2].bdev));
    run_ok (data, DM_IO_DISCARD, 0, 3, where, i % 2);
    g_assert_cmpint (last_op (&where[2]), ==, MOCK_PUNCH);
    close_mocks (where, 3);
  }
}

/* Every other error is one. */
static void
test_o3_errors (void)
{
  static const struct {
    enum dm_io_op op;
    unsigned int flags;
    enum mock_op fails;
  } cases[] = {
    { DM_IO_DISCARD, 0, MOCK_PUNCH },
    { DM_IO_WRITE_ZEROES, 0, MOCK_PUNCH },
    { DM_IO_WRITE_ZEROES, DM_IO_NO_UNMAP, MOCK_ZERO },
    { DM_IO_WRITE_ZEROES, DM_IO_FUA, MOCK_FLUSH },
  };
  const struct mock_options able = { .can_punch = true, .can_zero = true };
  struct mock_fault fault = { .error = ENOSPC };
  struct dm_io_result results[3];
  struct dm_io_request req;
  struct io_region where[3];
  unsigned int i;

  for (i = 0; i < G_N_ELEMENTS (cases); i++) {
    open_three (where, &able);
    fault.ops = cases[i].fails;
    mock_fault (where[2].bdev, &fault);
    req = flagged_request (cases[i].op, cases[i].flags, data);
    req.results = results;
    g_assert_cmphex (run_request (&req, 3, where, i % 2), ==, 1 << 2);
    g_assert_cmpint (results[0].error, ==, 0);
    g_assert_cmpint (results[2].error, ==, ENOSPC);
    close_mocks (where, 3);
  }
}

/* Whatever a device is able to do, it has the same bytes afterwards;
 * NO_UNMAP never punches; what is quick is done that way.
 */
static void
test_o3_write_zeroes (void)
{
  static const struct {
    struct mock_options options;
    enum mock_op may_unmap, no_unmap; /* what does it in the end */
  } cases[] = {
    { { .can_punch = true, .can_zero = true }, MOCK_PUNCH, MOCK_ZERO },
    { { .can_punch = true }, MOCK_PUNCH, MOCK_WRITE },
    { { .can_zero = true }, MOCK_ZERO, MOCK_ZERO },
    { { .can_punch = false }, MOCK_WRITE, MOCK_WRITE },
    { { .lies_about_punch = true }, MOCK_WRITE, MOCK_WRITE },
    { { .lies_about_punch = true, .can_zero = true }, MOCK_ZERO, MOCK_ZERO },
    { { .mem_align = PAGE }, MOCK_WRITE, MOCK_WRITE },
    { { .always_waits = true }, MOCK_WRITE, MOCK_WRITE },
  };
  struct io_region where[3];
  unsigned int i, j;

  for (i = 0; i < G_N_ELEMENTS (cases); i++)
    for (j = 0; j < 4; j++) {         /* async, NO_UNMAP */
      open_three (where, &cases[i].options);
      run_ok (data, DM_IO_WRITE_ZEROES, j & 1 ? DM_IO_NO_UNMAP : 0, 3, where,
              j & 2);
      assert_zeroed (where);
      g_assert_cmpint (last_op (&where[2]), ==,
                       j & 1 ? cases[i].no_unmap : cases[i].may_unmap);
      if (j & 1)
        g_assert_cmpuint (mock_count (where[0].bdev, MOCK_PUNCH) +
                          mock_count (where[2].bdev, MOCK_PUNCH), ==, 0);
      close_mocks (where, 3);
    }
}

/* A range larger than any buffer of zeroes that the library may have, on
 * a device that takes it in pieces, and on one with a bad sector: that
 * is not zeroed, nor what follows it in its part of at most 1 MiB.
 */
#define LONG (5 << 20)
#define BAD (1 << 20)
#define PART (1 << 20)

static void
test_o3_write_zeroes_long (void)
{
  const struct mock_fault shorter = {
    .ops = MOCK_WRITE, .shorten = true, .transfer = 100001,
  };
  const struct mock_fault bad_sector = {
    .ops = MOCK_WRITE, .offset = BAD, .length = SECTOR, .error = EIO,
  };
  const struct dm_io_request req = { .op = DM_IO_WRITE_ZEROES };
  g_autofree unsigned char *old = g_malloc (LONG);
  struct io_region where[2];
  const unsigned char *zeroed, *failed;
  unsigned int i;

  memset (old, 0xaa, LONG);
  open_mocks (where, 2, LONG / SECTOR, &plain);
  for (i = 0; i < 2; i++) {
    mock_set (where[i].bdev, 0, old, LONG);
    where[i].sector = 1;
    where[i].count -= 2;
  }
  mock_fault (where[0].bdev, &shorter);
  mock_fault (where[1].bdev, &bad_sector);
  g_assert_cmphex (run_request (&req, 2, where, false), ==, 1 << 1);

  zeroed = mock_data (where[0].bdev);
  assert_same (zeroed, old, SECTOR);
  assert_zero (zeroed + SECTOR, LONG - 2 * SECTOR);
  assert_same (zeroed + LONG - SECTOR, old, SECTOR);
  failed = mock_data (where[1].bdev);
  assert_zero (failed + SECTOR, BAD - SECTOR);
  assert_same (failed + BAD, old, SECTOR);
  assert_zero (failed + BAD + PART, LONG - BAD - PART - SECTOR);
  close_mocks (where, 2);
}

/* What a device need not have is there for all of them. */
static void
test_optional_operations (void)
{
  struct bdev_extent extent = { .hole = true };
  struct io_region where[1];

  open_mocks (where, 1, SECTORS, &plain);
  g_assert_cmpint (bdev_extents (where[0].bdev, SECTOR, 5 * SECTOR,
                                 &extent, 1), ==, 1);
  g_assert_cmpuint (extent.length, ==, 5 * SECTOR);
  g_assert_false (extent.hole);
  g_assert_cmpint (bdev_prefetch (where[0].bdev, 0, SIZE), ==, 0);
  g_assert_false (bdev_can_punch (where[0].bdev));
  close_mocks (where, 1);
}

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  g_test_add_func ("/zeroes/o3-discard", test_o3_discard);
  g_test_add_func ("/zeroes/o3-discard-unsupported",
                   test_o3_discard_unsupported);
  g_test_add_func ("/zeroes/o3-discard-unsupported-at-run-time",
                   test_o3_discard_unsupported_at_run_time);
  g_test_add_func ("/zeroes/o3-unsupported-range",
                   test_o3_unsupported_range);
  g_test_add_func ("/zeroes/o3-errors", test_o3_errors);
  g_test_add_func ("/zeroes/o3-write-zeroes", test_o3_write_zeroes);
  g_test_add_func ("/zeroes/o3-write-zeroes-long", test_o3_write_zeroes_long);
  g_test_add_func ("/zeroes/optional-operations", test_optional_operations);
  return g_test_run ();
}
