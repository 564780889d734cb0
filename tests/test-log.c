/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* The log of a mirror that runs: what is durable when (W1, W2, W3, R1, R2,
 * R4), how threads share commits, legs, the lease, and copies that fail
 * (R11).  What a restart makes of it is in test-log-load.c.
 */

#include <config.h>

#include "log-fixture.h"

/* The operations on a copy in the order of their beginning: a letter each,
 * w write, W with FUA, f flush, and the block that is written; reads left out.
 */
static char *
get_trace (struct logs *f, unsigned int copy)
{
  GString *s = g_string_new ("");
  const struct mock_event *trace;
  size_t n, i;

  trace = mock_trace (f->where[copy].bdev, &n);
  for (i = 0; i < n; i++)
    if (trace[i].op == MOCK_WRITE)
      g_string_append_printf (s, "%c%u ", trace[i].fua ? 'W' : 'w',
                              (unsigned) (trace[i].offset / LOG_BLOCK));
    else if (trace[i].op == MOCK_FLUSH)
      g_string_append (s, "f ");
  mock_clear_trace (f->where[copy].bdev);
  return g_string_free (s, FALSE);
}

static void
assert_trace (struct logs *f, const char *expected)
{
  unsigned int i;

  for (i = 0; i < f->n; i++) {
    g_autofree char *trace = get_trace (f, i);

    g_assert_cmpstr (trace, ==, expected);
  }
}

static void
clear_traces (struct logs *f)
{
  unsigned int i;

  for (i = 0; i < f->n; i++)
    mock_clear_trace (f->where[i].bdev);
}

/*----------------------------------------------------------------------
 * Order
 */

/* W1, R1: the bit is durable on all copies when begin returns; the second
 * write to a chunk costs nothing.
 */
static void
test_w1_dirty_is_durable (void)
{
  struct logs f;
  unsigned int i;

  make_logs (&f, 2);
  clear_traces (&f);
  g_assert_cmpuint (begin_chunk (f.log, 5), ==, 0);
  assert_trace (&f, "W3 ");
  for (i = 0; i < 2; i++) {
    mock_power_cut (f.where[i].bdev, i);
    g_assert_cmphex (word_on (&f, i, DIRTY_BLOCK), ==, 1 << 5);
  }
  g_assert_cmpuint (begin_chunk (f.log, 5), ==, 0);
  assert_trace (&f, "");
  dm_log_end (f.log, 5 * CHUNK, 1);
  dm_log_end (f.log, 5 * CHUNK, 1);
  close_logs (&f);
}

/* A write over several chunks, the last of which is shorter. */
static void
test_w1_many_chunks (void)
{
  unsigned long absent;
  struct logs f;
  unsigned int i;

  make_logs (&f, 1);
  g_assert_cmpint (dm_log_begin (f.log, 60 * CHUNK + 1, VOLUME -
                                 (60 * CHUNK + 1), &absent), ==, 0);
  for (i = 0; i < CHUNKS; i++)
    g_assert_cmpint (is_dirty (f.log, i), ==, i >= 60);
  dm_log_end (f.log, 60 * CHUNK + 1, VOLUME - (60 * CHUNK + 1));
  load_from (&f, 1);
  for (i = 0; i < CHUNKS; i++)
    g_assert_cmpint (is_dirty (f.log, i), ==, i >= 60);
  close_logs (&f);
}

/* W3, R4: bits, then a flush, then the state; all before drop returns. */
static void
test_w3_drop_is_durable (void)
{
  struct logs f;
  unsigned int i;

  make_logs (&f, 2);
  begin_chunk (f.log, 1);
  clear_traces (&f);
  g_assert_cmpint (dm_log_drop (f.log, 1 << 1), ==, 0);
  assert_trace (&f, "W7 W1 ");  /* the third superblock, in the second slot */
  for (i = 0; i < 2; i++) {
    mock_power_cut (f.where[i].bdev, i);
    g_assert_cmphex (word_on (&f, i, LACKING_BLOCK (1)), ==, 1 << 1);
    g_assert_cmpint (super_on (&f, i).legs[1].state, ==, DM_LOG_OUT_OF_SYNC);
    g_assert_cmpint (super_on (&f, i).legs[0].state, ==, DM_LOG_IN_SYNC);
  }
  dm_log_end (f.log, CHUNK, 1);

  /* From now on it lacks what is written; blocks apart need a flush. */
  g_assert_cmphex (begin_chunk (f.log, 9), ==, 1 << 1);
  assert_trace (&f, "w3 w7 f ");
  g_assert_true (lacks (f.log, 1, 9));
  g_assert_false (lacks (f.log, 0, 9));
  dm_log_end (f.log, 9 * CHUNK, 1);

  /* Of a dirty chunk only that it lacks it has to be said. */
  g_assert_cmpint (dm_log_drop (f.log, 0), ==, 0);
  assert_trace (&f, "");
  close_logs (&f);
}

/* A chunk that was dirty before the leg went is not lacking: it is said. */
static void
test_w3_absent_lacks_what_is_dirty_already (void)
{
  struct logs f;

  make_logs (&f, 1);
  write_chunk (f.log, 2);
  clean (f.log);
  g_assert_cmpint (dm_log_drop (f.log, 1 << 2), ==, 0);
  g_assert_false (lacks (f.log, 2, 2));
  write_chunk (f.log, 2);
  g_assert_cmphex (word_on (&f, 0, LACKING_BLOCK (2)), ==, 1 << 2);
  clean (f.log);
  g_assert_cmphex (word_on (&f, 0, DIRTY_BLOCK), ==, 0);
  g_assert_cmphex (word_on (&f, 0, LACKING_BLOCK (2)), ==, 1 << 2);
  close_logs (&f);
}

/* W2, R2: who is in flight or was touched since stays dirty. */
static void
test_w2_only_idle_chunks_are_cleaned (void)
{
  struct logs f;

  make_logs (&f, 1);
  write_chunk (f.log, 1);
  write_chunk (f.log, 2);
  begin_chunk (f.log, 3);
  g_assert_cmpuint (dm_log_clean_begin (f.log), ==, 0);
  g_assert_cmpuint (dm_log_clean_begin (f.log), ==, 2);
  write_chunk (f.log, 2);       /* since it was chosen */
  g_assert_cmpint (dm_log_clean_end (f.log), ==, 0);
  g_assert_cmphex (word_on (&f, 0, DIRTY_BLOCK), ==, 1 << 2 | 1 << 3);

  dm_log_end (f.log, 3 * CHUNK, 1);
  dm_log_clean_begin (f.log);
  begin_chunk (f.log, 3);
  g_assert_cmpuint (dm_log_clean_begin (f.log), ==, 1);
  dm_log_end (f.log, 3 * CHUNK, 1);
  g_assert_cmpint (dm_log_clean_end (f.log), ==, 0);
  g_assert_cmphex (word_on (&f, 0, DIRTY_BLOCK), ==, 1 << 3);
  dm_log_clean_begin (f.log);
  g_assert_cmpuint (dm_log_clean_begin (f.log), ==, 1);
  g_assert_cmpint (dm_log_clean_end (f.log), ==, 0);
  g_assert_false (dm_log_is_dirty (f.log));
  g_assert_cmphex (word_on (&f, 0, DIRTY_BLOCK), ==, 0);
  close_logs (&f);
}

/* A bit that a commit is about to clear is not durable for those who write
 * there now.
 */
struct writer {
  struct dm_log *log;
  uint64_t chunk;
  pthread_t thread;
  bool done;                    /* atomic */
};

static void *
write_one (void *context)
{
  struct writer *w = context;

  begin_chunk (w->log, w->chunk);
  __atomic_store_n (&w->done, true, __ATOMIC_SEQ_CST);
  return NULL;
}

static void
start_writer (struct writer *w, struct dm_log *log, uint64_t chunk)
{
  *w = (struct writer) { .log = log, .chunk = chunk };
  g_assert_cmpint (pthread_create (&w->thread, NULL, write_one, w), ==, 0);
}

static void *
clean_one (void *context)
{
  g_assert_cmpint (dm_log_clean_end (context), ==, 0);
  return NULL;
}

static void
test_w2_cleared_bits_are_not_durable (void)
{
  struct mock_gate gate = MOCK_GATE_INIT (0);
  const struct mock_fault hold = {
    .ops = MOCK_WRITE, .times = 1, .gate = &gate
  };
  pthread_t cleaner;
  struct writer w;
  struct logs f;

  make_logs (&f, 1);
  write_chunk (f.log, 4);
  dm_log_clean_begin (f.log);
  g_assert_cmpuint (dm_log_clean_begin (f.log), ==, 1);
  mock_fault (f.where[0].bdev, &hold);
  g_assert_cmpint (pthread_create (&cleaner, NULL, clean_one, f.log), ==, 0);
  mock_gate_await (&gate, 1);
  start_writer (&w, f.log, 4);
  g_usleep (20000);
  g_assert_false (__atomic_load_n (&w.done, __ATOMIC_SEQ_CST));
  mock_gate_open (&gate);
  pthread_join (cleaner, NULL);
  pthread_join (w.thread, NULL);
  g_assert_cmphex (word_on (&f, 0, DIRTY_BLOCK), ==, 1 << 4);
  dm_log_end (f.log, 4 * CHUNK, 1);
  close_logs (&f);
}

/* A leg that lacked the chunk before, and has come back since, must be known
 * to be out of sync again.
 */
static void *
drop_one (void *context)
{
  g_assert_cmpint (dm_log_drop (context, 1 << 1), ==, 0);
  return NULL;
}

static void
test_w3_state_is_durable_too (void)
{
  struct mock_gate gate = MOCK_GATE_INIT (0);
  const struct mock_fault hold = {
    .ops = MOCK_WRITE, .times = 1, .gate = &gate,
    .offset = 0, .length = 2 * LOG_BLOCK,
  };
  pthread_t dropper;
  struct writer w;
  struct logs f;

  make_logs (&f, 1);
  g_assert_cmpint (dm_log_drop (f.log, 1 << 1), ==, 0);
  write_chunk (f.log, 4);
  dm_log_recover (f.log, 1, NULL);
  dm_log_copied (f.log, 1, 4, 5);
  g_assert_cmpint (dm_log_join (f.log, 1, NULL), ==, 0);
  g_assert_cmphex (word_on (&f, 0, LACKING_BLOCK (1)), ==, 1 << 4);
  mock_fault (f.where[0].bdev, &hold);
  g_assert_cmpint (pthread_create (&dropper, NULL, drop_one, f.log), ==, 0);
  mock_gate_await (&gate, 1);
  start_writer (&w, f.log, 4);
  g_usleep (20000);
  g_assert_false (__atomic_load_n (&w.done, __ATOMIC_SEQ_CST));
  mock_gate_open (&gate);
  pthread_join (dropper, NULL);
  pthread_join (w.thread, NULL);
  dm_log_end (f.log, 4 * CHUNK, 1);
  close_logs (&f);
}

/* What gives way to something else goes when that has come: a chunk becomes
 * clean while a leg that had failed to flush it is being dropped.
 */
static void
test_sets_come_before_clears (void)
{
  struct logs f;

  make_logs (&f, 1);
  write_chunk (f.log, 1);
  write_chunk (f.log, 2);
  clean (f.log);
  write_chunk (f.log, 1);
  dm_log_clean_begin (f.log);
  dm_log_clean_begin (f.log);
  clear_traces (&f);
  g_assert_cmpint (dm_log_drop (f.log, 1 << 0), ==, 0);
  dm_log_recover (f.log, 0, NULL);
  g_assert_cmpint (dm_log_clean_end (f.log), ==, 0);
  assert_trace (&f, "W5 W1 W3 ");

  /* The same in one commit. */
  write_chunk (f.log, 6);
  dm_log_clean_begin (f.log);
  dm_log_clean_begin (f.log);
  dm_log_copied (f.log, 0, 1, 2);
  clear_traces (&f);
  pthread_mutex_lock (&f.log->lock);
  f.log->lacking[1].wanted[0] |= 1 << 6;
  log_flag_block (f.log->sets, LACKING_BLOCK (1));
  f.log->super_wanted++;
  pthread_mutex_unlock (&f.log->lock);
  g_assert_cmpint (dm_log_clean_end (f.log), ==, 0);
  assert_trace (&f, "W7 W1 w3 w5 f ");
  close_logs (&f);
}

/* A block in which bits are set and others cleared keeps those until all that
 * is to be set has been.
 */
static void
test_sets_come_before_clears_in_a_block (void)
{
  struct mock_gate gate = MOCK_GATE_INIT (0);
  const struct mock_fault hold = {
    .ops = MOCK_WRITE, .after = 1, .times = 1, .gate = &gate
  };
  pthread_t cleaner;
  struct logs f;

  make_logs (&f, 1);
  write_chunk (f.log, 1);
  dm_log_clean_begin (f.log);
  g_assert_cmpuint (dm_log_clean_begin (f.log), ==, 1);
  pthread_mutex_lock (&f.log->lock);
  f.log->dirty.wanted[0] |= 1 << 9;
  log_flag_block (f.log->sets, DIRTY_BLOCK);
  pthread_mutex_unlock (&f.log->lock);
  mock_fault (f.where[0].bdev, &hold);
  g_assert_cmpint (pthread_create (&cleaner, NULL, clean_one, f.log), ==, 0);
  mock_gate_await (&gate, 1);
  g_assert_cmphex (word_on (&f, 0, DIRTY_BLOCK), ==, 1 << 1 | 1 << 9);
  mock_gate_open (&gate);
  pthread_join (cleaner, NULL);
  g_assert_cmphex (word_on (&f, 0, DIRTY_BLOCK), ==, 1 << 9);
  close_logs (&f);
}

/*----------------------------------------------------------------------
 * Threads
 */

#define WRITERS 20

/* Those that come while a commit is under way share the next one. */
static void
test_writers_share_commits (void)
{
  struct mock_gate gate = MOCK_GATE_INIT (0);
  const struct mock_fault hold = {
    .ops = MOCK_WRITE, .times = 1, .gate = &gate
  };
  struct writer first, rest[WRITERS];
  struct logs f;
  unsigned int i;

  make_logs (&f, 2);
  clear_traces (&f);
  mock_fault (f.where[0].bdev, &hold);
  start_writer (&first, f.log, 0);
  mock_gate_await (&gate, 1);
  for (i = 0; i < WRITERS; i++)
    start_writer (&rest[i], f.log, 1 + i);
  g_usleep (50000);             /* that they all wait */
  for (i = 0; i < WRITERS; i++)
    g_assert_false (__atomic_load_n (&rest[i].done, __ATOMIC_SEQ_CST));
  mock_gate_open (&gate);
  pthread_join (first.thread, NULL);
  for (i = 0; i < WRITERS; i++)
    pthread_join (rest[i].thread, NULL);
  g_assert_cmpuint (mock_count (f.where[0].bdev, MOCK_WRITE), <, WRITERS / 2);
  g_assert_cmpuint (mock_count (f.where[1].bdev, MOCK_WRITE), <, WRITERS / 2);
  for (i = 0; i <= WRITERS; i++)
    dm_log_end (f.log, i * CHUNK, 1);
  close_logs (&f);
}

/* Threads that do everything, and each time that begin returns the bit is
 * there, on the disk, as well as for legs that are absent.
 */
#define RACERS 4
#define ROUNDS 300

struct race {
  struct logs logs;
  pthread_mutex_t chunks[CHUNKS]; /* as the range locks of a mirror */
  uint64_t seed;                /* atomic: of the next thread */
  bool stop;                    /* atomic */
};

static struct rng
race_rng (struct race *race)
{
  return (struct rng) {
    __atomic_add_fetch (&race->seed, 1, __ATOMIC_SEQ_CST)
  };
}

static bool
bit_is_durable (struct dm_log *log, struct log_map *map, uint64_t chunk)
{
  return log_test_bit (map->disk, chunk) && log_test_bit (map->staged, chunk);
}

static void *
race_to_write (void *context)
{
  struct race *race = context;
  struct dm_log *log = race->logs.log;
  struct rng rng = race_rng (race);
  unsigned long absent;
  unsigned int i, leg;
  uint64_t chunk;

  for (i = 0; i < ROUNDS; i++) {
    chunk = rng_below (&rng, CHUNKS);
    pthread_mutex_lock (&race->chunks[chunk]);
    absent = begin_chunk (log, chunk);
    pthread_mutex_lock (&log->lock);
    g_assert_true (bit_is_durable (log, &log->dirty, chunk));
    for (leg = 0; leg < LEGS; leg++)
      if (absent & log->absent & 1UL << leg) {
        g_assert_true (bit_is_durable (log, &log->lacking[leg], chunk));
        g_assert_cmpint (log->legs[leg].info.state, !=, DM_LOG_IN_SYNC);
      }
    pthread_mutex_unlock (&log->lock);
    dm_log_end (log, chunk * CHUNK, 1);
    pthread_mutex_unlock (&race->chunks[chunk]);
  }
  return NULL;
}

static void *
race_to_clean (void *context)
{
  struct race *race = context;

  while (!__atomic_load_n (&race->stop, __ATOMIC_SEQ_CST)) {
    dm_log_clean_begin (race->logs.log);
    g_assert_cmpint (dm_log_clean_end (race->logs.log), ==, 0);
    g_usleep (500);
  }
  return NULL;
}

/* Legs 1 and 2 come and go. */
static void *
race_to_drop (void *context)
{
  struct race *race = context;
  struct dm_log *log = race->logs.log;
  struct rng rng = race_rng (race);
  unsigned long lacking;
  uint64_t first, after;
  unsigned int leg;

  while (!__atomic_load_n (&race->stop, __ATOMIC_SEQ_CST)) {
    leg = 1 + rng_below (&rng, 2);
    g_assert_cmpint (dm_log_drop (log, 1UL << leg), ==, 0);
    g_usleep (300);
    dm_log_recover (log, leg, NULL);
    for (first = 0; dm_log_next_lacking (log, 1UL << leg, &first, CHUNKS,
                                         &after, &lacking); first++) {
      pthread_mutex_lock (&race->chunks[first]);
      dm_log_copied (log, leg, first, first + 1);
      pthread_mutex_unlock (&race->chunks[first]);
    }
    dm_log_join (log, leg, NULL);
  }
  return NULL;
}

static void *
race_to_restore (void *context)
{
  struct race *race = context;
  struct block_device *bdev = race->logs.where[1].bdev;
  const struct mock_fault once = { .ops = MOCK_ANY, .times = 1, .error = EIO };
  unsigned int n = 0;

  while (!__atomic_load_n (&race->stop, __ATOMIC_SEQ_CST)) {
    if (n++ < 50) {
      mock_clear_faults (bdev);
      mock_fault (bdev, &once);
    }
    g_usleep (1000);
    dm_log_restore (race->logs.log);
  }
  return NULL;
}

static void
test_threads (void)
{
  static void *(*const others[]) (void *) = {
    race_to_clean, race_to_drop, race_to_restore,
  };
  pthread_t writers[RACERS], threads[G_N_ELEMENTS (others)];
  struct race race = { .seed = rng_random ().state };
  unsigned int i;

  make_logs (&race.logs, 2);
  for (i = 0; i < CHUNKS; i++)
    pthread_mutex_init (&race.chunks[i], NULL);
  for (i = 0; i < RACERS; i++)
    g_assert_cmpint (pthread_create (&writers[i], NULL, race_to_write, &race),
                     ==, 0);
  for (i = 0; i < G_N_ELEMENTS (others); i++)
    g_assert_cmpint (pthread_create (&threads[i], NULL, others[i], &race),
                     ==, 0);
  for (i = 0; i < RACERS; i++)
    pthread_join (writers[i], NULL);
  __atomic_store_n (&race.stop, true, __ATOMIC_SEQ_CST);
  for (i = 0; i < G_N_ELEMENTS (others); i++)
    pthread_join (threads[i], NULL);

  /* All copies are alike. */
  mock_clear_faults (race.logs.where[1].bdev);
  while (copies_in_use (race.logs.log) < 2)
    g_assert_true (dm_log_restore (race.logs.log));
  g_assert_cmpint (dm_log_sync (race.logs.log), ==, 0);
  assert_same (block_of (&race.logs, 0, DIRTY_BLOCK) + 64,
               block_of (&race.logs, 1, DIRTY_BLOCK) + 64, 4000);
  for (i = 0; i < LEGS; i++)
    assert_same (block_of (&race.logs, 0, LACKING_BLOCK (i)) + 64,
                 block_of (&race.logs, 1, LACKING_BLOCK (i)) + 64, 4000);
  close_logs (&race.logs);
  log_lines_clear ();
}

/*----------------------------------------------------------------------
 * Legs
 */

static void
test_s1_recovery (void)
{
  unsigned long lacking;
  uint64_t first = 0, after;
  struct logs f;

  make_logs (&f, 1);
  g_assert_cmpint (dm_log_drop (f.log, 1 << 1 | 1 << 2), ==, 0);
  write_chunk (f.log, 10);
  write_chunk (f.log, 11);
  dm_log_recover (f.log, 2, NULL);
  g_assert_cmphex (begin_chunk (f.log, 70), ==, 1 << 1);
  dm_log_end (f.log, 70 * CHUNK, 1);
  g_assert_cmpuint (dm_log_lacking (f.log, 1), ==, 3);
  g_assert_cmpuint (dm_log_lacking (f.log, 2), ==, 2);

  g_assert_true (dm_log_next_lacking (f.log, 1 << 1 | 1 << 2, &first, CHUNKS,
                                      &after, &lacking));
  g_assert_cmpuint (first, ==, 10);
  g_assert_cmpuint (after, ==, 12);
  g_assert_cmphex (lacking, ==, 1 << 1 | 1 << 2);
  first = after;
  g_assert_true (dm_log_next_lacking (f.log, 1 << 1 | 1 << 2, &first, CHUNKS,
                                      &after, &lacking));
  g_assert_cmpuint (first, ==, 70);
  g_assert_cmpuint (after, ==, 71);
  g_assert_cmphex (lacking, ==, 1 << 1);
  first = 0;
  g_assert_false (dm_log_next_lacking (f.log, 1 << 2, &first, 10, &after,
                                       &lacking));

  dm_log_copied (f.log, 2, 10, 11);
  g_assert_cmpint (dm_log_join (f.log, 2, NULL), ==, -EAGAIN);
  g_assert_cmpint (dm_log_join (f.log, 1, NULL), ==, -EAGAIN);
  dm_log_copied (f.log, 2, 11, 12);
  dm_log_copied (f.log, 1, 0, CHUNKS);
  g_assert_cmpint (dm_log_join (f.log, 1, NULL), ==, -EAGAIN);
  g_assert_cmpint (dm_log_join (f.log, 2, NULL), ==, 0);
  mock_power_cut (f.where[0].bdev, 1);
  load_from (&f, 1);
  g_assert_cmpint (state_of (f.log, 2), ==, DM_LOG_IN_SYNC);
  g_assert_cmpint (state_of (f.log, 1), ==, DM_LOG_OUT_OF_SYNC);
  close_logs (&f);
}

/* R6: what was copied stays copied. */
static void
test_s1_copied_is_durable_after_sync (void)
{
  struct logs f;
  unsigned int i;

  make_logs (&f, 1);
  g_assert_cmpint (dm_log_drop (f.log, 1 << 1), ==, 0);
  g_assert_cmpint (dm_log_lose (f.log, 1), ==, 0);
  dm_log_recover (f.log, 1, NULL);
  dm_log_copied (f.log, 1, 0, 77);
  g_assert_cmpint (dm_log_sync (f.log), ==, 0);
  mock_power_cut (f.where[0].bdev, 1);
  load_from (&f, 1);
  g_assert_cmpuint (dm_log_lacking (f.log, 1), ==, CHUNKS - 77);
  for (i = 0; i < CHUNKS; i++)
    g_assert_cmpint (lacks (f.log, 1, i), ==, i >= 77);
  close_logs (&f);
}

/* What is dirty after a crash may differ between the legs in sync, so it is
 * not copied before it has been decided what it is.
 */
static void
test_r2_unreconciled (void)
{
  struct logs f;

  make_logs (&f, 1);
  write_chunk (f.log, 3);
  write_chunk (f.log, 80);
  g_assert_cmpint (dm_log_drop (f.log, 1 << 2), ==, 0);
  load_from (&f, 1);
  g_assert_cmpint (dm_log_start (f.log, 1 << 2, 0), ==, 0);
  g_assert_cmpuint (dm_log_next_unreconciled (f.log, 0, CHUNKS), ==, 3);
  g_assert_cmpuint (dm_log_next_unreconciled (f.log, 4, CHUNKS), ==, 80);
  g_assert_cmpuint (dm_log_next_unreconciled (f.log, 4, 80), ==, 80);
  dm_log_clean_begin (f.log);
  g_assert_cmpuint (dm_log_clean_begin (f.log), ==, 0);
  dm_log_recover (f.log, 2, NULL);
  dm_log_copied (f.log, 2, 3, 4);
  g_assert_true (lacks (f.log, 2, 3));
  dm_log_reconciled (f.log, 3, 0);
  dm_log_copied (f.log, 2, 3, 4);
  g_assert_false (lacks (f.log, 2, 3));
  g_assert_true (is_dirty (f.log, 3));
  g_assert_cmpuint (dm_log_clean_begin (f.log), ==, 1);
  g_assert_cmpint (dm_log_clean_end (f.log), ==, 0);
  g_assert_false (is_dirty (f.log, 3));
  g_assert_cmpuint (dm_log_next_unreconciled (f.log, 0, CHUNKS), ==, 80);

  /* The leg that goes lacks it, but what is known of it stays. */
  g_assert_cmpint (dm_log_drop (f.log, 1 << 1), ==, 0);
  g_assert_cmpuint (dm_log_next_unreconciled (f.log, 0, CHUNKS), ==, 80);
  g_assert_true (lacks (f.log, 1, 80));

  /* Nor is it known if the only leg in sync has kept what it shows. */
  load_from (&f, 1);
  g_assert_true (is_dirty (f.log, 80));
  g_assert_cmpuint (dm_log_next_unreconciled (f.log, 0, CHUNKS), ==, 80);
  close_logs (&f);
}

/* New legs, as many as there can be.  The superblock names them last. */
static void
test_add_legs (void)
{
  unsigned int i;
  struct logs f;
  char id[64];

  make_logs (&f, 1);
  clear_traces (&f);
  g_assert_cmpint (dm_log_add_leg (f.log, "/d.img", 4711), ==, 3);
  assert_trace (&f, "W10 W1 ");
  for (i = 4; i < 64; i++) {
    g_snprintf (id, sizeof id, "nbd://host%u", i);
    g_assert_cmpint (dm_log_add_leg (f.log, id, i), ==, i);
  }
  g_assert_cmpint (dm_log_add_leg (f.log, "/65.img", 1), ==, -ENOSPC);
  g_assert_cmphex (begin_chunk (f.log, 9), ==, ~0UL << 3);
  dm_log_end (f.log, 9 * CHUNK, 1);
  dm_log_recover (f.log, 63, NULL);
  dm_log_copied (f.log, 63, 0, CHUNKS);
  g_assert_cmpint (dm_log_join (f.log, 63, NULL), ==, 0);
  g_assert_cmpint (dm_log_sync (f.log), ==, 0);
  g_assert_cmpint (dm_log_set_failed (f.log, 62, true), ==, 0);

  restart_from (&f, 1);
  g_assert_cmpuint (dm_log_num_legs (f.log), ==, 64);
  for (i = 3; i < 64; i++) {
    struct dm_log_leg info;

    dm_log_get_leg (f.log, i, &info);
    g_assert_cmpuint (info.sectors, ==, i == 3 ? 4711 : i);
    g_assert_cmpint (info.state, ==, i == 63 ? DM_LOG_IN_SYNC :
                     i == 62 ? DM_LOG_FAILED : DM_LOG_OUT_OF_SYNC);
    g_snprintf (id, sizeof id, "nbd://host%u", i);
    g_assert_cmpstr (info.id, ==, i == 3 ? "/d.img" : id);
    g_assert_cmpuint (dm_log_lacking (f.log, i), ==, i == 63 ? 0 : CHUNKS);
  }
  g_assert_cmpint (dm_log_set_failed (f.log, 62, false), ==, 0);
  g_assert_cmpint (super_on (&f, 0).legs[62].state, ==, DM_LOG_OUT_OF_SYNC);
  close_logs (&f);
}

static void
test_lost_leg (void)
{
  struct logs f;

  make_logs (&f, 1);
  write_chunk (f.log, 1);
  load_from (&f, 1);
  g_assert_cmpint (dm_log_start (f.log, 1 << 0 | 1 << 1, 1 << 1), ==, 0);
  g_assert_cmpint (state_of (f.log, 0), ==, DM_LOG_OUT_OF_SYNC);
  g_assert_cmpuint (dm_log_lacking (f.log, 0), ==, 1);
  g_assert_cmpuint (dm_log_lacking (f.log, 1), ==, CHUNKS);
  load_from (&f, 1);
  g_assert_cmpint (state_of (f.log, 1), ==, DM_LOG_OUT_OF_SYNC);
  g_assert_cmpint (state_of (f.log, 2), ==, DM_LOG_IN_SYNC);
  g_assert_cmpuint (dm_log_lacking (f.log, 0), ==, 1);
  g_assert_cmpuint (dm_log_lacking (f.log, 1), ==, CHUNKS);
  close_logs (&f);
}

/*----------------------------------------------------------------------
 * The lease, and stamps
 */

/* Begin renews what has run out, before the leg is written. */
static void
test_lease_is_renewed (void)
{
  const uint64_t soon = clock_date () + 10 * NSEC_PER_SEC;
  struct dm_log_leg info;
  struct logs f;

  make_logs (&f, 1);
  clear_traces (&f);
  pthread_mutex_lock (&f.log->lock);
  f.log->legs[1].info.until = f.log->legs[1].until = 1;
  log_recompute_lease (f.log);
  pthread_mutex_unlock (&f.log->lock);
  begin_chunk (f.log, 1);
  assert_trace (&f, "W3 W1 ");
  g_assert_cmpuint (super_on (&f, 0).legs[1].until, >, soon);
  begin_chunk (f.log, 2);
  assert_trace (&f, "W3 ");
  dm_log_end (f.log, CHUNK, 2 * CHUNK);

  /* The lease of a leg that is dropped ends. */
  g_assert_cmpint (dm_log_drop (f.log, 1 << 2), ==, 0);
  g_assert_cmpuint (super_on (&f, 0).legs[2].until, <, soon);
  dm_log_get_leg (f.log, 2, &info);
  clear_traces (&f);
  pthread_mutex_lock (&f.log->lock);
  f.log->legs[0].info.until = f.log->legs[0].until = 1;
  log_recompute_lease (f.log);
  pthread_mutex_unlock (&f.log->lock);
  g_assert_cmpint (dm_log_keep_lease (f.log), ==, 0);
  assert_trace (&f, "W1 ");
  g_assert_cmpuint (super_on (&f, 0).legs[0].until, >, soon);
  g_assert_cmpuint (super_on (&f, 0).legs[2].until, ==, info.until);
  g_assert_cmpint (dm_log_keep_lease (f.log), ==, 0);
  assert_trace (&f, "");

  /* ... until it is written again. */
  pthread_mutex_lock (&f.log->lock);
  f.log->legs[2].info.until = f.log->legs[2].until = 1;
  pthread_mutex_unlock (&f.log->lock);
  begin_chunk (f.log, 2);
  assert_trace (&f, "");
  dm_log_recover (f.log, 2, NULL);
  begin_chunk (f.log, 2);
  assert_trace (&f, "W0 ");
  g_assert_cmpuint (f.log->legs[2].until, >, soon);
  dm_log_end (f.log, 2 * CHUNK, 1);
  dm_log_end (f.log, 2 * CHUNK, 1);
  close_logs (&f);
}

/* A disk may hang as long as the lease is: who writes after that needs a new one, or
 * what is written seems to be somebody else's if it ends there.
 */
static void
test_lease_of_slow_copy (void)
{
  const struct mock_fault slow = {
    .ops = MOCK_WRITE, .times = 1, .msec = 12000
  };
  struct logs f;

  make_logs (&f, 1);
  pthread_mutex_lock (&f.log->lock);
  f.log->legs[0].info.until = f.log->legs[0].until = 1;
  log_recompute_lease (f.log);
  pthread_mutex_unlock (&f.log->lock);
  mock_fault (f.where[0].bdev, &slow);
  g_assert_cmpint (dm_log_keep_lease (f.log), ==, 0);
  g_assert_cmpuint (super_on (&f, 0).legs[0].until, >,
                    clock_date () + 5 * NSEC_PER_SEC);
  close_logs (&f);
}

/* It ends when all is clean and the legs are stamped, whatever the clock was when
 * it was renewed; a write then renews it before a leg is written.
 */
static void
test_lease_ends (void)
{
  const struct bdev_stamp stamps[LEGS] = {
    { true, 100, 1000 }, { true, 100, 1000 }, { false, 0, 0 },
  };
  struct logs f;

  make_logs (&f, 1);
  write_chunk (f.log, 1);
  dm_log_clean_begin (f.log);
  dm_log_clean_begin (f.log);
  g_assert_cmpint (dm_log_stamp (f.log, stamps), ==, 0);
  g_assert_cmpuint (super_on (&f, 0).legs[0].until, >, clock_date ());
  g_assert_cmpint (dm_log_clean_end (f.log), ==, 0);
  g_assert_cmpuint (super_on (&f, 0).legs[0].until, ==, 0);
  g_assert_cmpuint (super_on (&f, 0).legs[1].until, ==, 0);
  clear_traces (&f);
  begin_chunk (f.log, 1);
  assert_trace (&f, "W3 W1 ");
  g_assert_cmpuint (super_on (&f, 0).legs[0].until, >, clock_date ());
  g_assert_cmpuint (super_on (&f, 0).legs[0].until, <,
                    clock_date () + 16 * NSEC_PER_SEC);

  /* Not while something is dirty. */
  g_assert_cmpint (dm_log_stamp (f.log, stamps), ==, 0);
  g_assert_cmpuint (super_on (&f, 0).legs[0].until, >, clock_date ());
  dm_log_end (f.log, CHUNK, 1);
  close_logs (&f);
}

/* The clock was set back: writes from now on are not older than the stamp. */
static void
test_clock_set_back (void)
{
  const struct bdev_stamp stamps[LEGS] = { { true, 1, FAR_OFF } };
  struct logs f;

  make_logs (&f, 1);
  g_assert_cmpint (dm_log_stamp (f.log, stamps), ==, 0);
  write_chunk (f.log, 1);
  g_assert_cmpuint (super_on (&f, 0).legs[0].stamp.mtime, <, clock_date ());
  g_assert_true (super_on (&f, 0).legs[0].stamp.valid);
  clear_traces (&f);
  write_chunk (f.log, 1);
  assert_trace (&f, "");
  close_logs (&f);
}

static void
test_stamps (void)
{
  struct bdev_stamp stamps[LEGS] = {
    { true, 100, 1000 }, { false, 0, 0 }, { true, 300, 3000 },
  };
  struct dm_log_leg info;
  struct logs f;

  make_logs (&f, 2);
  clear_traces (&f);
  g_assert_cmpint (dm_log_stamp (f.log, stamps), ==, 0);
  assert_trace (&f, "W1 ");
  g_assert_cmpint (dm_log_stamp (f.log, stamps), ==, 0);
  assert_trace (&f, "");
  g_assert_cmpint (dm_log_drop (f.log, 1 << 2), ==, 0);
  stamps[0].mtime = stamps[2].mtime = 5000;
  g_assert_cmpint (dm_log_stamp (f.log, stamps), ==, 0);
  load_from (&f, 3);
  dm_log_get_leg (f.log, 0, &info);
  g_assert_true (info.stamp.valid);
  g_assert_cmpuint (info.stamp.size, ==, 100);
  g_assert_cmpuint (info.stamp.mtime, ==, 5000);
  dm_log_get_leg (f.log, 1, &info);
  g_assert_false (info.stamp.valid);
  dm_log_get_leg (f.log, 2, &info);
  g_assert_cmpuint (info.stamp.mtime, ==, 3000);

  g_assert_cmpint (dm_log_start (f.log, 1 << 2, 0), ==, 0);
  dm_log_recover (f.log, 2, NULL);
  dm_log_copied (f.log, 2, 0, CHUNKS);
  g_assert_cmpint (dm_log_join (f.log, 2, &stamps[2]), ==, 0);
  g_assert_cmpuint (super_on (&f, 1).legs[2].stamp.mtime, ==, 5000);
  close_logs (&f);
}

/*----------------------------------------------------------------------
 * Copies that fail
 */

/* R11: the others carry on, and know it before anything else happens. */
static void
check_copy_fails (unsigned int ops)
{
  uint64_t epoch;
  struct logs f;

  make_logs (&f, 3);
  epoch = super_on (&f, 0).epoch;
  fail_copy (&f, 1, ops);
  g_assert_cmpint (dm_log_drop (f.log, 1 << 0), ==, 0);
  write_chunk (f.log, 20);      /* two blocks, so there is a flush */
  log_lines_assert ("log copy copy-b: * failed: Input/output error; *", 1);
  log_lines_clear ();
  g_assert_cmpuint (copies_in_use (f.log), ==, 2);
  g_assert_cmpuint (super_on (&f, 0).generation, ==, 2);
  g_assert_cmphex (super_on (&f, 0).copies, ==, 5);
  g_assert_cmphex (super_on (&f, 2).epoch, !=, epoch);
  g_assert_cmphex (super_on (&f, 2).history[0], ==, epoch);
  mock_clear_trace (f.where[1].bdev);
  write_chunk (f.log, 21);
  g_assert_cmpuint (mock_count (f.where[1].bdev, MOCK_WRITE | MOCK_FLUSH), ==,
                    0);
  if (ops & MOCK_WRITE) {
    g_assert_false (dm_log_restore (f.log));
    log_lines_clear ();
  }

  /* It is out of date, whatever order it is named in. */
  mend_copy (&f, 1);
  load_from (&f, 7);
  g_assert_true (is_dirty (f.log, 21));
  g_assert_cmpuint (copies_in_use (f.log), ==, 2);
  g_assert_cmpint (dm_log_start (f.log, 1 << 0, 0), ==, 0);
  g_assert_cmpuint (copies_in_use (f.log), ==, 3);
  g_assert_cmphex (super_on (&f, 0).copies, ==, 7);
  g_assert_cmphex (super_on (&f, 1).epoch, ==, super_on (&f, 0).epoch);
  load_from (&f, 2);
  g_assert_true (is_dirty (f.log, 21));
  close_logs (&f);
}

static void
test_r11_write_fails (void)
{
  check_copy_fails (MOCK_WRITE);
}

static void
test_r11_flush_fails (void)
{
  check_copy_fails (MOCK_FLUSH);
}

/* A copy that fails while bits are cleared. */
static void
test_r11_clear_fails (void)
{
  struct logs f;

  make_logs (&f, 2);
  write_chunk (f.log, 1);
  fail_copy (&f, 0, MOCK_WRITE);
  clean (f.log);
  log_lines_clear ();
  g_assert_cmphex (word_on (&f, 0, DIRTY_BLOCK), ==, 2);
  g_assert_cmphex (word_on (&f, 1, DIRTY_BLOCK), ==, 0);
  g_assert_cmphex (super_on (&f, 1).copies, ==, 2);
  g_assert_cmpuint (super_on (&f, 1).generation, ==, 2);
  close_logs (&f);
}

/* None is left: nothing may be written, until one is back. */
static void
test_r11_all_fail (void)
{
  unsigned long absent;
  struct logs f;

  make_logs (&f, 2);
  write_chunk (f.log, 1);
  fail_copy (&f, 0, MOCK_WRITE);
  fail_copy (&f, 1, MOCK_WRITE);
  g_assert_cmpint (dm_log_begin (f.log, 2 * CHUNK, 1, &absent), ==, -EIO);
  g_assert_cmpuint (log_lines_count ("no copy of the log can be written: *"),
                    ==, 1);
  log_lines_clear ();
  g_assert_cmpuint (copies_in_use (f.log), ==, 0);
  g_assert_cmpint (dm_log_begin (f.log, CHUNK, 1, &absent), ==, -EIO);
  g_assert_cmpint (dm_log_drop (f.log, 1 << 1), ==, -EIO);
  g_assert_cmpint (dm_log_sync (f.log), ==, -EIO);
  g_assert_cmpint (dm_log_keep_lease (f.log), ==, -EIO); /* so nothing is copied */
  g_assert_cmpint (dm_log_add_leg (f.log, "/d.img", 1), ==, -EIO);
  g_assert_false (dm_log_restore (f.log));
  log_lines_clear ();

  mend_copy (&f, 1);
  g_assert_true (dm_log_restore (f.log));
  log_lines_clear ();
  g_assert_cmpuint (copies_in_use (f.log), ==, 1);
  g_assert_cmpint (super_on (&f, 1).legs[1].state, ==, DM_LOG_OUT_OF_SYNC);
  g_assert_cmphex (super_on (&f, 1).copies, ==, 2);
  write_chunk (f.log, 3);
  g_assert_cmphex (word_on (&f, 1, DIRTY_BLOCK) & 0xa, ==, 0xa);
  mend_copy (&f, 0);
  restart_from (&f, 3);         /* no split brain */
  g_assert_cmpint (state_of (f.log, 1), ==, DM_LOG_OUT_OF_SYNC);
  g_assert_true (is_dirty (f.log, 3));
  close_logs (&f);
}

/* A leg that could not be recorded as being in sync is not, also when a copy is back: it
 * may lack something by then.
 */
static void
test_r11_fails_while_joining (void)
{
  struct logs f;

  make_logs (&f, 1);
  g_assert_cmpint (dm_log_drop (f.log, 1 << 1), ==, 0);
  write_chunk (f.log, 4);
  dm_log_recover (f.log, 1, NULL);
  dm_log_copied (f.log, 1, 0, CHUNKS);
  fail_copy (&f, 0, MOCK_WRITE);
  g_assert_cmpint (dm_log_join (f.log, 1, NULL), ==, -EIO);
  g_assert_cmpint (state_of (f.log, 1), ==, DM_LOG_OUT_OF_SYNC);
  mend_copy (&f, 0);
  g_assert_true (dm_log_restore (f.log));
  log_lines_clear ();
  g_assert_cmpint (super_on (&f, 0).legs[1].state, ==, DM_LOG_OUT_OF_SYNC);
  g_assert_cmpint (dm_log_join (f.log, 1, NULL), ==, 0);
  close_logs (&f);
}

/* What was to be written when the last copy failed is written when it is
 * back.
 */
static void
test_r11_fails_while_dropping (void)
{
  struct logs f;

  make_logs (&f, 1);
  write_chunk (f.log, 4);
  fail_copy (&f, 0, MOCK_WRITE);
  g_assert_cmpint (dm_log_drop (f.log, 1 << 1), ==, -EIO);
  mend_copy (&f, 0);
  g_assert_true (dm_log_restore (f.log));
  log_lines_clear ();
  g_assert_cmphex (word_on (&f, 0, LACKING_BLOCK (1)), ==, 1 << 4);
  g_assert_cmpint (super_on (&f, 0).legs[1].state, ==, DM_LOG_OUT_OF_SYNC);
  close_logs (&f);
}

/* A copy comes back: it is told last that it is in use. */
static void
test_r11_restore (void)
{
  const struct mock_event *a, *b;
  struct logs f;

  make_logs (&f, 2);
  fail_copy (&f, 1, MOCK_WRITE);
  write_chunk (f.log, 1);
  log_lines_clear ();
  mend_copy (&f, 1);
  clear_traces (&f);
  g_assert_true (dm_log_restore (f.log));
  a = trace_of (&f.where[0], 1);
  b = trace_of (&f.where[1], 4);
  g_assert_cmpuint (a[0].end, <, b[3].begin);
  {
    g_autofree char *old = get_trace (&f, 0), *new = get_trace (&f, 1);

    g_assert_cmpstr (old, ==, "W1 ");
    g_assert_cmpstr (new, ==, "W0 W3 W1 ");
  }
  g_assert_false (dm_log_restore (f.log));
  g_assert_cmpuint (copies_in_use (f.log), ==, 2);
  write_chunk (f.log, 2);
  g_assert_cmphex (word_on (&f, 1, DIRTY_BLOCK), ==, 6);
  load_from (&f, 2);
  g_assert_cmphex (f.log->super.copies, ==, 3);
  close_logs (&f);
}

/* Writes that come while a copy is written anew reach it as well. */
static void *
restore_one (void *context)
{
  g_assert_true (dm_log_restore (context));
  return NULL;
}

static void
test_r11_restore_and_write (void)
{
  struct mock_gate gate = MOCK_GATE_INIT (0);
  const struct mock_fault hold = {
    .ops = MOCK_WRITE, .after = 1, .times = 1, .gate = &gate
  };
  pthread_t thread;
  struct logs f;

  make_logs (&f, 2);
  fail_copy (&f, 1, MOCK_WRITE);
  write_chunk (f.log, 1);
  log_lines_clear ();
  mend_copy (&f, 1);
  mock_fault (f.where[1].bdev, &hold);
  g_assert_cmpint (pthread_create (&thread, NULL, restore_one, f.log), ==, 0);
  mock_gate_await (&gate, 1);
  write_chunk (f.log, 2);       /* does not wait for it */
  clean (f.log);
  g_assert_cmpint (dm_log_drop (f.log, 1 << 1), ==, 0);
  write_chunk (f.log, 3);
  g_assert_cmpint (dm_log_add_leg (f.log, "/d.img", 7), ==, LEGS);
  mock_gate_open (&gate);
  pthread_join (thread, NULL);
  mend_copy (&f, 1);
  load_from (&f, 2);
  g_assert_cmpuint (dm_log_num_legs (f.log), ==, LEGS + 1);
  g_assert_false (is_dirty (f.log, 2));
  g_assert_true (is_dirty (f.log, 3));
  g_assert_true (lacks (f.log, 1, 3));
  g_assert_cmpuint (dm_log_lacking (f.log, LEGS), ==, CHUNKS);
  close_logs (&f);
}

/* The last copy in use fails, and only one that was not in use any more can be
 * written again: it may not go on alone, or the other would know nothing of it
 * and yet seem to be right when it is found alone.
 */
static void
test_s2_only_the_last_can_go_on (void)
{
  struct logs f;

  make_logs (&f, 2);
  fail_copy (&f, 1, MOCK_WRITE);
  write_chunk (f.log, 1);
  fail_copy (&f, 0, MOCK_WRITE);
  g_assert_cmpint (dm_log_drop (f.log, 1 << 1), ==, -EIO);
  mend_copy (&f, 1);
  log_lines_clear ();
  g_assert_false (dm_log_restore (f.log));
  g_assert_cmpint (dm_log_drop (f.log, 1 << 1), ==, -EIO);
  g_assert_cmpuint (copies_in_use (f.log), ==, 0);

  mend_copy (&f, 0);
  g_assert_true (dm_log_restore (f.log));
  g_assert_cmpuint (copies_in_use (f.log), ==, 1);
  g_assert_cmphex (super_on (&f, 0).copies, ==, 1);
  g_assert_cmpint (super_on (&f, 0).legs[1].state, ==, DM_LOG_OUT_OF_SYNC);
  g_assert_true (dm_log_restore (f.log));
  g_assert_cmpuint (copies_in_use (f.log), ==, 2);
  restart_from (&f, 2);
  g_assert_cmpint (state_of (f.log, 1), ==, DM_LOG_OUT_OF_SYNC);
  close_logs (&f);
}

/* Both fail, but only one of them when it was told that the other is out of use:
 * it may know that, so the other may not go on alone.
 */
static void
test_s2_the_last_was_told (void)
{
  const struct mock_fault late = {
    .ops = MOCK_WRITE, .after = 1, .error = EIO,
  };
  struct logs f;

  make_logs (&f, 2);
  write_chunk (f.log, 1);
  fail_copy (&f, 0, MOCK_WRITE);
  mock_fault (f.where[1].bdev, &late);
  g_assert_cmpint (dm_log_drop (f.log, 1 << 1), ==, -EIO);
  mend_copy (&f, 0);
  log_lines_clear ();
  g_assert_false (dm_log_restore (f.log));
  mend_copy (&f, 1);
  g_assert_true (dm_log_restore (f.log));
  g_assert_cmphex (super_on (&f, 1).copies, ==, 2);
  close_logs (&f);
}

/* The last one in use fails in the very commit in which another joins. */
static void
test_s2_last_fails_while_another_joins (void)
{
  struct logs f;

  make_logs (&f, 2);
  fail_copy (&f, 1, MOCK_WRITE);
  write_chunk (f.log, 1);
  mend_copy (&f, 1);
  fail_copy (&f, 0, MOCK_WRITE);
  log_lines_clear ();
  g_assert_false (dm_log_restore (f.log));
  g_assert_cmpuint (log_lines_count ("no copy of the log can be written: *"),
                    ==, 1);
  g_assert_cmpint (dm_log_drop (f.log, 1 << 1), ==, -EIO);
  mend_copy (&f, 0);
  g_assert_true (dm_log_restore (f.log));
  g_assert_cmphex (super_on (&f, 0).copies, ==, 1);
  close_logs (&f);
}

/* A copy fails and comes back again and again while another is away: that one is
 * known to be out of date all the same.
 */
static void
test_s2_flapping_copy (void)
{
  struct bdev_stamp stamps[LEGS] = { { true, 1, 1 } };
  struct logs f;
  unsigned int i;

  make_logs (&f, 3);
  fail_copy (&f, 2, MOCK_WRITE);
  write_chunk (f.log, 1);
  for (i = 0; i < LOG_HISTORY + 2; i++) {
    fail_copy (&f, 1, MOCK_WRITE);
    stamps[0].mtime++;
    g_assert_cmpint (dm_log_stamp (f.log, stamps), ==, 0);
    mend_copy (&f, 1);
    stamps[0].mtime += i % 3 == 0; /* it may also miss more than one */
    g_assert_cmpint (dm_log_stamp (f.log, stamps), ==, 0);
    g_assert_true (dm_log_restore (f.log));
    g_assert_cmpuint (copies_in_use (f.log), ==, 2);
    log_lines_clear ();
  }
  g_assert_cmpuint (super_on (&f, 0).num_history, <=, 3);
  write_chunk (f.log, 2);
  mend_copy (&f, 2);
  restart_from (&f, 7);
  g_assert_cmpuint (copies_in_use (f.log), ==, 3);
  g_assert_true (is_dirty (f.log, 2));
  close_logs (&f);
}

/* The only copy fails and is back.  When all have failed some may know what others do
 * not, so it has to be told from what it was.
 */
static void
test_s2_all_failed (void)
{
  struct logs f;
  unsigned long absent;
  uint64_t epoch;

  make_logs (&f, 1);
  epoch = super_on (&f, 0).epoch;
  fail_copy (&f, 0, MOCK_WRITE);
  g_assert_cmpint (dm_log_begin (f.log, 0, 1, &absent), ==, -EIO);
  mend_copy (&f, 0);
  g_assert_true (dm_log_restore (f.log));
  g_assert_cmpuint (super_on (&f, 0).epoch, !=, epoch);
  g_assert_cmpuint (super_on (&f, 0).history[0], ==, epoch);
  write_chunk (f.log, 0);
  close_logs (&f);
}

static bool
remake (struct logs *f)
{
  bool ok;

  pthread_mutex_lock (&f->log->lock);
  ok = log_remake (f->log, 0);
  pthread_mutex_unlock (&f->log->lock);
  return ok;
}

/* The only copy is made anew, and cannot be written: what was there is gone, so no write
 * may count on it.  Then it can be.
 */
static void
test_remake_fails (gconstpointer ops)
{
  struct logs f;
  unsigned long absent;

  make_logs (&f, 1);
  write_chunk (f.log, 3);
  fail_copy (&f, 0, GPOINTER_TO_UINT (ops));
  g_assert_false (remake (&f));
  g_assert_cmpuint (copies_in_use (f.log), ==, 0);
  g_assert_cmpint (dm_log_begin (f.log, 3 * CHUNK, 1, &absent), ==, -EIO);
  mend_copy (&f, 0);
  memset (block_of (&f, 0, 0), 0, f.where[0].count * SECTOR);
  g_assert_true (dm_log_restore (f.log));
  write_chunk (f.log, 4);
  load_from (&f, 1);
  g_assert_true (is_dirty (f.log, 3));
  g_assert_true (is_dirty (f.log, 4));
  close_logs (&f);
}

/* A copy that has failed returns with the log of another mirror, as the disk of a server
 * may: that is not overwritten.
 */
static void
test_returns_as_another (void)
{
  struct logs f, other;
  g_autofree unsigned char *data = NULL;
  size_t size;

  make_logs (&other, 1);
  make_logs (&f, 2);
  size = f.where[1].count * SECTOR;
  fail_copy (&f, 1, MOCK_WRITE);
  write_chunk (f.log, 1);
  g_assert_cmpuint (copies_in_use (f.log), ==, 1);
  data = g_memdup2 (block_of (&other, 0, 0), size);
  memcpy (block_of (&f, 1, 0), data, size);
  mend_copy (&f, 1);
  g_assert_false (dm_log_restore (f.log));
  g_assert_false (dm_log_restore (f.log));
  assert_same (block_of (&f, 1, 0), data, size);
  g_assert_cmpuint (log_lines_count ("*copy-b*something else*"), ==, 1);

  memset (block_of (&f, 1, 0), 0, size);
  g_assert_true (dm_log_restore (f.log));
  g_assert_cmpuint (copies_in_use (f.log), ==, 2);
  close_logs (&f);
  close_logs (&other);
}

static uint64_t
lease_of (struct dm_log *log, unsigned int leg)
{
  struct dm_log_leg info;

  dm_log_get_leg (log, leg, &info);
  return info.until;
}

/* Legs that have no stamps: at an orderly end, with nothing dirty, their lease ends, too,
 * so that the next start knows that nothing is on its way to them.  With something in
 * doubt it does not.
 */
static void
test_lease_at_rest (void)
{
  struct logs f;

  make_logs (&f, 1);
  write_chunk (f.log, 0);
  dm_log_rest (f.log);
  g_assert_cmpuint (lease_of (f.log, 0), !=, 0);
  clean (f.log);
  g_assert_cmpuint (lease_of (f.log, 0), !=, 0);
  dm_log_doubt (f.log, 1, 0, 1);
  dm_log_rest (f.log);
  g_assert_cmpint (dm_log_sync (f.log), ==, 0);
  load_from (&f, 1);
  g_assert_cmpuint (lease_of (f.log, 0), ==, 0);
  g_assert_cmpuint (lease_of (f.log, 1), !=, 0);
  g_assert_cmpuint (lease_of (f.log, 2), ==, 0);
  close_logs (&f);
}

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  log_lines_keep ();
  g_test_add_func ("/log/w1-dirty-is-durable", test_w1_dirty_is_durable);
  g_test_add_func ("/log/w1-many-chunks", test_w1_many_chunks);
  g_test_add_func ("/log/w3-drop-is-durable", test_w3_drop_is_durable);
  g_test_add_func ("/log/w3-absent-lacks-what-is-dirty-already",
                   test_w3_absent_lacks_what_is_dirty_already);
  g_test_add_func ("/log/w2-only-idle-chunks-are-cleaned",
                   test_w2_only_idle_chunks_are_cleaned);
  g_test_add_func ("/log/w2-cleared-bits-are-not-durable",
                   test_w2_cleared_bits_are_not_durable);
  g_test_add_func ("/log/w3-state-is-durable-too",
                   test_w3_state_is_durable_too);
  g_test_add_func ("/log/sets-come-before-clears",
                   test_sets_come_before_clears);
  g_test_add_func ("/log/sets-come-before-clears-in-a-block",
                   test_sets_come_before_clears_in_a_block);
  g_test_add_func ("/log/writers-share-commits", test_writers_share_commits);
  g_test_add_func ("/log/threads", test_threads);
  g_test_add_func ("/log/s1-recovery", test_s1_recovery);
  g_test_add_func ("/log/s1-copied-is-durable-after-sync",
                   test_s1_copied_is_durable_after_sync);
  g_test_add_func ("/log/r2-unreconciled", test_r2_unreconciled);
  g_test_add_func ("/log/add-legs", test_add_legs);
  g_test_add_func ("/log/lost-leg", test_lost_leg);
  g_test_add_func ("/log/lease-is-renewed", test_lease_is_renewed);
  g_test_add_func ("/log/lease-of-slow-copy", test_lease_of_slow_copy);
  g_test_add_func ("/log/lease-ends", test_lease_ends);
  g_test_add_func ("/log/clock-set-back", test_clock_set_back);
  g_test_add_func ("/log/stamps", test_stamps);
  g_test_add_func ("/log/r11-write-fails", test_r11_write_fails);
  g_test_add_func ("/log/r11-flush-fails", test_r11_flush_fails);
  g_test_add_func ("/log/r11-clear-fails", test_r11_clear_fails);
  g_test_add_func ("/log/r11-all-fail", test_r11_all_fail);
  g_test_add_func ("/log/r11-fails-while-joining",
                   test_r11_fails_while_joining);
  g_test_add_func ("/log/r11-fails-while-dropping",
                   test_r11_fails_while_dropping);
  g_test_add_func ("/log/r11-restore", test_r11_restore);
  g_test_add_func ("/log/r11-restore-and-write", test_r11_restore_and_write);
  g_test_add_func ("/log/s2-only-the-last-can-go-on",
                   test_s2_only_the_last_can_go_on);
  g_test_add_func ("/log/s2-the-last-was-told", test_s2_the_last_was_told);
  g_test_add_func ("/log/s2-last-fails-while-another-joins",
                   test_s2_last_fails_while_another_joins);
  g_test_add_func ("/log/s2-flapping-copy", test_s2_flapping_copy);
  g_test_add_func ("/log/s2-all-failed", test_s2_all_failed);
  g_test_add_data_func ("/log/remake-fails/write",
                        GUINT_TO_POINTER (MOCK_WRITE), test_remake_fails);
  g_test_add_data_func ("/log/remake-fails/flush",
                        GUINT_TO_POINTER (MOCK_WRITE | MOCK_FLUSH),
                        test_remake_fails);
  g_test_add_func ("/log/returns-as-another", test_returns_as_another);
  g_test_add_func ("/log/lease-at-rest", test_lease_at_rest);
  return g_test_run ();
}
