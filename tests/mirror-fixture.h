/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* A mirror over three mock devices, "a", "b" and "c". */

#ifndef DMIO_MIRROR_FIXTURE_H
#define DMIO_MIRROR_FIXTURE_H

#include "dm-mirror.h"
#include "test-util.h"

#define LEGS 3

struct fixture {
  struct io_region where[LEGS];
  struct dm_mirror *mirror;
  struct dm_io_result results[LEGS];
};

/* Bit i of WRITE_MOSTLY is leg i. */
static inline void
open_mirror (struct fixture *f, sector_t sectors, enum dm_mirror_read policy,
             unsigned int write_mostly, const struct mock_options *options)
{
  static const char *const names[LEGS] = { "a", "b", "c" };
  const struct dm_mirror_options mirror_options = { .policy = policy };
  struct dm_mirror_leg legs[LEGS];
  unsigned int i;

  open_mocks (f->where, LEGS, sectors, options);
  for (i = 0; i < LEGS; i++)
    legs[i] = (struct dm_mirror_leg) {
      .region = f->where[i], .name = names[i],
      .write_mostly = write_mostly & 1U << i,
    };
  f->mirror = dm_mirror_new (LEGS, legs, &mirror_options, NULL);
}

static inline void
tear_down (struct fixture *f, gconstpointer unused)
{
  dm_mirror_free (f->mirror);
  close_mocks (f->where, LEGS);
  g_test_assert_expected_messages ();
}

static inline void
expect (const char *pattern)
{
  g_test_expect_message ("dmio", G_LOG_LEVEL_WARNING, pattern);
}

/* These operations on a leg fail, a set of enum mock_op. */
static inline void
fail_leg (struct fixture *f, unsigned int leg, unsigned int ops, int error)
{
  struct mock_fault fault = { .ops = ops, .error = error };

  mock_fault (f->where[leg].bdev, &fault);
}

#endif /* DMIO_MIRROR_FIXTURE_H */
