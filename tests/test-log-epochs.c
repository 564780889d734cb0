/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* S2: copies of a log that were used without each other.  What one has seen and the
 * other has not is split brain, unless one of them has seen no leg change since they
 * parted.
 */

#include <config.h>

#include <errno.h>
#include <string.h>

#include "log-fixture.h"

static unsigned int
quiet_on (struct logs *f, unsigned int copy)
{
  return super_on (f, copy).quiet;
}

/* Whatever is written, it is durable before that the epoch is not quiet. */
static void
test_quiet_until_written (void)
{
  struct logs f;

  make_logs (&f, 2);
  g_assert_cmpuint (quiet_on (&f, 0), ==, 0);
  restart_from (&f, 1);
  g_assert_cmpuint (quiet_on (&f, 0), ==, 1);
  begin_chunk (f.log, 7);
  g_assert_cmpuint (quiet_on (&f, 0), ==, 0);
  dm_log_end (f.log, 7 * CHUNK, 1);
  clean (f.log);
  restart_from (&f, 1);
  g_assert_cmpuint (quiet_on (&f, 0), ==, 0);
  close_logs (&f);
}

static void
test_quiet_until_recovery (void)
{
  struct logs f;

  make_logs (&f, 2);
  g_assert_cmpint (dm_log_drop (f.log, 1 << 1), ==, 0);
  restart_from (&f, 1);
  g_assert_cmpuint (quiet_on (&f, 0), ==, 1);
  g_assert_cmpint (dm_log_recover (f.log, 1, NULL), ==, 0);
  g_assert_cmpuint (quiet_on (&f, 0), ==, 0);
  close_logs (&f);
}

/* What was dirty when the power went is made equal: the legs change. */
static void
test_not_quiet_if_dirty (void)
{
  struct logs f;

  make_logs (&f, 2);
  write_chunk (f.log, 7);
  restart_from (&f, 1);
  g_assert_cmpuint (quiet_on (&f, 0), ==, 0);
  close_logs (&f);
}

/* An epoch begins in the middle of a write, and after it. */
static void
test_copy_fails (void)
{
  struct logs f;

  make_logs (&f, 3);
  begin_chunk (f.log, 7);
  fail_copy (&f, 2, MOCK_WRITE);
  begin_chunk (f.log, 8);
  g_assert_cmpuint (copies_in_use (f.log), ==, 2);
  g_assert_cmpuint (quiet_on (&f, 0), ==, 0);
  dm_log_end (f.log, 7 * CHUNK, 1);
  dm_log_end (f.log, 8 * CHUNK, 1);
  clean (f.log);
  fail_copy (&f, 1, MOCK_WRITE);
  g_assert_cmpint (dm_log_drop (f.log, 1 << 1), ==, 0);
  g_assert_cmpuint (copies_in_use (f.log), ==, 1);
  g_assert_cmpuint (quiet_on (&f, 0), ==, 1);
  log_lines_clear ();
  mend_copy (&f, 1);
  mend_copy (&f, 2);
  close_logs (&f);
}

/*----------------------------------------------------------------------
 * Who knows what: sessions with some of the copies, at random
 */

struct knowledge {
  uint64_t seen[COPIES];        /* changes, as bits */
  unsigned int changes;
};

/* What the one of a set knows that knows all that the others do; or false. */
static bool
all_known (const struct knowledge *k, unsigned int set, uint64_t *seen)
{
  unsigned int i;

  *seen = 0;
  for (i = 0; i < COPIES; i++)
    if (set & 1U << i)
      *seen |= k->seen[i];
  for (i = 0; i < COPIES; i++)
    if (set & 1U << i && k->seen[i] == *seen)
      return true;
  return false;
}

static void
change (struct logs *f, struct knowledge *k, unsigned int set)
{
  unsigned int i;

  write_chunk (f->log, k->changes % CHUNKS);
  clean (f->log);
  for (i = 0; i < COPIES; i++)
    if (set & 1U << i)
      k->seen[i] |= UINT64_C (1) << k->changes;
  k->changes++;
}

/* One that tells nothing new. */
static void
new_superblock (struct logs *f, struct rng *rng)
{
  struct bdev_stamp stamps[LEGS] = { { 0 } };

  stamps[0] = (struct bdev_stamp) { .valid = true, .mtime = rng_next (rng) };
  g_assert_cmpint (dm_log_stamp (f->log, stamps), ==, 0);
}

/* Locks out a copy in the middle; the others go on, and it may come back. */
static unsigned int
lose_one (struct logs *f, struct knowledge *k, unsigned int set,
          struct rng *rng)
{
  unsigned int one = rng_below (rng, COPIES);

  if (!(set & 1U << one) || (set & (set - 1)) == 0)
    return set;
  fail_copy (f, one, MOCK_WRITE);
  new_superblock (f, rng);
  log_lines_clear ();
  mend_copy (f, one);
  if (rng_below (rng, 2) == 0)
    return set & ~(1U << one);
  while (!dm_log_restore (f->log))      /* of all that there are */
    g_assert_cmpuint (copies_in_use (f->log), <,
                      (unsigned int) __builtin_popcount (set));
  k->seen[one] = k->seen[__builtin_ctz (set & ~(1U << one))];
  return set;
}

static void
session (struct logs *f, struct knowledge *k, struct rng *rng)
{
  unsigned int set = 1 + rng_below (rng, (1 << COPIES) - 1), i;
  uint64_t seen;

  if (!all_known (k, set, &seen)) {
    load_refused (f, set, "*split brain*");
    return;
  }
  restart_from (f, set);
  for (i = 0; i < COPIES; i++)
    if (set & 1U << i)
      k->seen[i] = seen;
  if (rng_below (rng, 4) == 0)
    change (f, k, set);
  while (rng_below (rng, 3) == 0)
    set = lose_one (f, k, set, rng);
  if (rng_below (rng, 4) == 0)
    change (f, k, set);
}

static void
test_sessions (void)
{
  struct rng rng;
  struct logs f;
  unsigned int i, n;

  for (i = 0; i < 300; i++) {
    struct knowledge k = { .changes = 0 };

    rng.state = i;
    make_logs (&f, COPIES);
    for (n = 0; n < 25; n++)
      session (&f, &k, &rng);
    close_logs (&f);
  }
}

/*----------------------------------------------------------------------
 * While it is used
 */

/* a and b were used without each other, B_WRITES; a is used, and b turns up. */
static void
turn_up (struct logs *f, bool b_writes)
{
  make_logs (f, 2);
  restart_from (f, 2);
  if (b_writes)
    write_chunk (f->log, 3);
  restart_from (f, 1);
  write_chunk (f->log, 2);
  g_assert_cmpint (dm_log_drop (f->log, 1 << 1), ==, 0);
  dm_log_add_copy (f->log, &f->copies[1]);
}

static char *
split_brain (struct logs *f, bool overwrite)
{
  char *copy;

  g_assert_cmpint (dm_log_split_brain (f->log, 1, f->where[0].bdev, overwrite,
                                       &copy), ==, 0);
  return copy;
}

static void
test_turns_up (void)
{
  g_autofree char *first = NULL, *second = NULL;
  struct logs f;

  turn_up (&f, true);
  first = split_brain (&f, false);
  g_assert_cmpstr (first, ==, "copy-b");
  g_assert_false (dm_log_restore (f.log));
  log_lines_assert ("log copy copy-b: something else is there now*", 1);
  log_lines_clear ();
  g_assert_cmpuint (copies_in_use (f.log), ==, 1);
  load_refused (&f, 3, "*split brain*");

  /* The user gives it up. */
  second = split_brain (&f, true);
  g_assert_cmpstr (second, ==, "copy-b");
  g_assert_null (split_brain (&f, false));
  load_from (&f, 3);
  restart_from (&f, 3);
  g_assert_cmpuint (copies_in_use (f.log), ==, 2);
  close_logs (&f);
}

static void
test_turns_up_quiet (void)
{
  struct logs f;

  turn_up (&f, false);
  g_assert_null (split_brain (&f, false));
  g_assert_true (dm_log_restore (f.log));
  g_assert_cmpuint (copies_in_use (f.log), ==, 2);
  restart_from (&f, 2);
  g_assert_true (is_dirty (f.log, 2));
  close_logs (&f);
}

/* A copy that has seen more says nothing of a leg that was in use when it turned up; nor
 * when it cannot be read: then it may be known later.
 */
static void
test_innocent (void)
{
  char *copy;
  struct logs f;

  turn_up (&f, true);
  g_free (split_brain (&f, false));
  g_assert_cmpint (dm_log_drop (f.log, 1 << 2), ==, 0);
  g_assert_cmpint (dm_log_split_brain (f.log, 2, f.where[0].bdev, false,
                                       &copy), ==, 0);
  g_assert_null (copy);
  f.where[1].bdev->late = 1;
  fail_copy (&f, 1, MOCK_READ);
  g_assert_cmpint (dm_log_split_brain (f.log, 1, f.where[0].bdev, true,
                                       &copy), ==, -EAGAIN);
  g_assert_null (copy);
  mend_copy (&f, 1);
  g_free (split_brain (&f, false));
  close_logs (&f);
}

/* A copy that comes and goes while nothing is written makes nobody forget that something
 * was, in the epoch that is forgotten.
 */
static void
test_forgotten_epoch (void)
{
  struct rng rng = { 1 };
  struct logs f;
  unsigned int i;

  make_logs (&f, 3);
  fail_copy (&f, 2, MOCK_WRITE);
  write_chunk (f.log, 1);
  clean (f.log);
  g_assert_cmpuint (copies_in_use (f.log), ==, 2);
  mock_clear_faults (f.where[2].bdev);
  for (i = 0; i < 3; i++) {
    fail_copy (&f, 1, MOCK_WRITE);
    new_superblock (&f, &rng);
    g_assert_cmpuint (copies_in_use (f.log), ==, 1);
    f.copies[2].region.bdev->read_only = true;  /* that stays away */
    mend_copy (&f, 1);
    g_assert_true (dm_log_restore (f.log));
    f.copies[2].region.bdev->read_only = false;
  }
  log_lines_clear ();
  restart_from (&f, 4);
  write_chunk (f.log, 2);
  load_refused (&f, 5, "*split brain*");
  close_logs (&f);
}

/* All copies have failed, when a CHUNK was to be written, and those of a SET are back. */
static void
lose_all (struct logs *f, uint64_t chunk, unsigned int set)
{
  unsigned long absent;
  unsigned int i;

  for (i = 0; i < f->n; i++)
    fail_copy (f, i, MOCK_WRITE);
  g_assert_cmpint (dm_log_begin (f->log, chunk * CHUNK, 1, &absent), ==, -EIO);
  for (i = 0; i < f->n; i++)
    if (set & 1U << i)
      mend_copy (f, i);
}

/* A copy keeps the superblock before its newest.  If the newest is lost, as when the power
 * goes while the copy is erased, it shows an epoch that has to be known still: if it could
 * only be given one of the present epoch, too.
 */
static void
test_erased_in_part (gconstpointer superblocks)
{
  const struct mock_fault fault = {
    .ops = MOCK_WRITE, .length = LOG_LABEL_AT * LOG_BLOCK, .error = EIO,
    .after = GPOINTER_TO_UINT (superblocks),
  };
  struct logs f;

  make_logs (&f, 2);
  lose_all (&f, 1, 3);
  mock_fault (f.where[1].bdev, &fault);
  g_assert_true (dm_log_restore (f.log));
  fail_copy (&f, 1, MOCK_WRITE);
  write_chunk (f.log, 2);
  g_assert_cmpuint (copies_in_use (f.log), ==, 1);
  mock_clear_faults (f.where[1].bdev);
  memset (block_of (&f, 1, f.log->copies[1].newest), 0, LOG_BLOCK);
  log_lines_clear ();
  load_from (&f, 3);
  close_logs (&f);
}

/* The history does not grow when the copies that are there fail for ever, while another is
 * away: all at once, and then one or the other is back first; or the only one.
 */
static void
test_lost_for_ever (gconstpointer first_back)
{
  unsigned int set = GPOINTER_TO_UINT (first_back), i;
  struct logs f;

  make_logs (&f, 3);
  fail_copy (&f, 2, MOCK_WRITE);
  write_chunk (f.log, 1);
  for (i = 0; i < 10; i++) {
    lose_all (&f, 2 + i, set);
    g_assert_true (dm_log_restore (f.log));
    mend_copy (&f, 0);
    mend_copy (&f, 1);
    g_assert_true (dm_log_restore (f.log) == (set != 3));
  }
  g_assert_cmpuint (f.log->super.num_history, <=, 3);
  mend_copy (&f, 2);
  log_lines_clear ();
  load_from (&f, 7);
  close_logs (&f);
}

/* A copy beside another leg says nothing of this one. */
static void
test_of_another_leg (void)
{
  struct logs f;

  make_logs (&f, 2);
  restart_from (&f, 2);
  write_chunk (f.log, 3);
  restart_from (&f, 1);
  write_chunk (f.log, 2);
  g_assert_cmpint (dm_log_drop (f.log, 1 << 1), ==, 0);
  f.copies[1].leg = "/c.img";
  dm_log_add_copy (f.log, &f.copies[1]);
  g_assert_null (split_brain (&f, false));
  close_logs (&f);
}

/*----------------------------------------------------------------------
 * S5: what was sent to a copy before may still be written there
 */

#define LATE (NSEC_PER_SEC * 3 / 2)

static void
set_late (struct logs *f, unsigned int copies)
{
  unsigned int i;

  for (i = 0; i < COPIES; i++)
    if (copies & 1U << i)
      f->where[i].bdev->late = LATE;
}

static void
end_in_order (struct logs *f)
{
  dm_log_rest (f->log);
  g_assert_cmpint (dm_log_sync (f->log), ==, 0);
}

/* A copy that can get no old write is enough; the other is used later. */
static void
test_late_copy (void)
{
  uint64_t begun = clock_now ();
  struct logs f;

  make_logs (&f, 2);
  set_late (&f, 2);
  write_chunk (f.log, 1);
  restart_from (&f, 3);
  log_lines_assert ("log copy copy-b: writes from before the crash may still "
                    "reach it*", 1);
  log_lines_clear ();
  g_assert_true (is_dirty (f.log, 1));
  g_assert_cmpuint (copies_in_use (f.log), ==, 1);
  if (clock_now () < begun + LATE)
    g_assert_false (dm_log_restore (f.log));
  while (!dm_log_restore (f.log)) {
    g_assert_cmpuint (clock_now (), <, begun + 100 * LATE);
    g_usleep (10000);
  }
  g_assert_cmpuint (clock_now (), >=, begun + LATE);
  g_assert_cmpuint (copies_in_use (f.log), ==, 2);
  close_logs (&f);
}

/* If there is no other the start waits, and believes what is there then. */
static void
test_late_copies (void)
{
  uint64_t begun;
  struct logs f;

  make_logs (&f, 2);
  set_late (&f, 3);
  write_chunk (f.log, 1);
  begun = clock_now ();
  restart_from (&f, 3);
  g_assert_cmpuint (clock_now (), >=, begun + LATE);
  log_lines_assert ("log copy copy-?: writes from before the crash may still "
                    "reach it, and there is no other copy*", 1);
  log_lines_clear ();
  g_assert_true (is_dirty (f.log, 1));
  g_assert_cmpuint (copies_in_use (f.log), ==, 2);
  close_logs (&f);
}

/* It is durable that a server runs before anything else is written. */
static void
assert_superblock_first (struct logs *f)
{
  const struct mock_event *events;
  size_t n, i;

  mock_clear_trace (f->where[0].bdev);
  load_from (f, 3);
  g_assert_cmpint (dm_log_start (f->log, 1 << 1, 1 << 1), ==, 0);
  events = mock_trace (f->where[0].bdev, &n);
  for (i = 0; i < n && events[i].op != MOCK_WRITE; i++)
    ;
  g_assert_cmpuint (i, <, n);
  g_assert_cmpuint (events[i].offset, <, 2 * LOG_BLOCK);
}

/* Nothing is under way when a server has ended in order, if no connection was lost just
 * before.
 */
static void
test_late_orderly (void)
{
  struct logs f;

  make_logs (&f, 2);
  set_late (&f, 3);
  write_chunk (f.log, 1);
  end_in_order (&f);
  restart_from (&f, 3);
  g_assert_cmpuint (log_lines_count ("*"), ==, 0);
  g_assert_false (super_on (&f, 0).orderly);
  g_assert_cmpuint (copies_in_use (f.log), ==, 2);
  end_in_order (&f);
  assert_superblock_first (&f);
  dm_log_rest (f.log);
  f.where[1].bdev->late_until = clock_now () + 3600 * NSEC_PER_SEC;
  g_assert_cmpint (dm_log_sync (f.log), ==, 0);
  g_assert_false (super_on (&f, 0).orderly);
  close_logs (&f);
}

/* ... but another has begun since, and its first superblock was torn. */
static void
test_late_torn (void)
{
  struct logs f;

  make_logs (&f, 1);
  set_late (&f, 1);
  write_chunk (f.log, 1);
  end_in_order (&f);
  block_of (&f, 0, !f.log->copies[0].newest)[LOG_BLOCK - 1] ^= 1;
  g_assert_true (super_on (&f, 0).orderly);
  restart_from (&f, 1);
  log_lines_assert ("log copy copy-?: writes from before the crash may still "
                    "reach it, and there is no other copy*", 1);
  log_lines_clear ();
  close_logs (&f);
}

/* A server that has not seen a copy does not know what the one before it, which crashed,
 * has sent there: the next must not think that nothing is under way, but the one after
 * it may.
 */
static void
test_late_unseen (void)
{
  struct logs f;

  make_logs (&f, 3);
  set_late (&f, 1 << 2);
  write_chunk (f.log, 1);
  restart_from (&f, 3);
  end_in_order (&f);
  g_assert_false (super_on (&f, 0).orderly);
  restart_from (&f, 7);
  g_assert_cmpuint (copies_in_use (f.log), ==, 2);
  log_lines_clear ();
  end_in_order (&f);
  g_assert_false (super_on (&f, 0).orderly); /* it ends before it is sure */
  f.where[2].bdev->late = 0;
  restart_from (&f, 7);
  end_in_order (&f);
  g_assert_true (super_on (&f, 0).orderly);
  log_lines_clear ();
  close_logs (&f);
}

/* A connection was lost in the middle of a write: another does not bring the copy back
 * before that write can no longer be done.
 */
static void
test_late_connection (void)
{
  struct logs f;

  make_logs (&f, 2);
  fail_copy (&f, 1, MOCK_WRITE);
  write_chunk (f.log, 1);
  log_lines_clear ();
  mend_copy (&f, 1);
  f.where[1].bdev->late_until = clock_now () + 3600 * NSEC_PER_SEC;
  g_assert_false (dm_log_restore (f.log));
  f.where[1].bdev->late_until = clock_now ();
  g_assert_true (dm_log_restore (f.log));
  g_assert_cmpuint (copies_in_use (f.log), ==, 2);
  close_logs (&f);
}

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  log_lines_keep ();
  g_test_add_func ("/log-epochs/s2-quiet-until-written",
                   test_quiet_until_written);
  g_test_add_func ("/log-epochs/s2-quiet-until-recovery",
                   test_quiet_until_recovery);
  g_test_add_func ("/log-epochs/s2-not-quiet-if-dirty",
                   test_not_quiet_if_dirty);
  g_test_add_func ("/log-epochs/s2-copy-fails", test_copy_fails);
  g_test_add_func ("/log-epochs/s2-sessions", test_sessions);
  g_test_add_func ("/log-epochs/s2-turns-up", test_turns_up);
  g_test_add_func ("/log-epochs/s2-turns-up-quiet", test_turns_up_quiet);
  g_test_add_func ("/log-epochs/s2-of-another-leg", test_of_another_leg);
  g_test_add_func ("/log-epochs/s2-innocent", test_innocent);
  g_test_add_func ("/log-epochs/s2-forgotten-epoch", test_forgotten_epoch);
  g_test_add_data_func ("/log-epochs/s2-erased-in-part/1", GUINT_TO_POINTER (1),
                        test_erased_in_part);
  g_test_add_data_func ("/log-epochs/s2-erased-in-part/2", GUINT_TO_POINTER (2),
                        test_erased_in_part);
  g_test_add_data_func ("/log-epochs/s2-lost-for-ever/first", GUINT_TO_POINTER (1),
                        test_lost_for_ever);
  g_test_add_data_func ("/log-epochs/s2-lost-for-ever/second", GUINT_TO_POINTER (2),
                        test_lost_for_ever);
  g_test_add_data_func ("/log-epochs/s2-lost-for-ever/both", GUINT_TO_POINTER (3),
                        test_lost_for_ever);
  g_test_add_func ("/log-epochs/s5-late-copy", test_late_copy);
  g_test_add_func ("/log-epochs/s5-late-copies", test_late_copies);
  g_test_add_func ("/log-epochs/s5-late-orderly", test_late_orderly);
  g_test_add_func ("/log-epochs/s5-late-torn", test_late_torn);
  g_test_add_func ("/log-epochs/s5-late-unseen", test_late_unseen);
  g_test_add_func ("/log-epochs/s5-late-connection", test_late_connection);
  return g_test_run ();
}
