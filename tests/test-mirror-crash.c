/* dmio
 * Copyright the dmio authors
 * SPDX-License-Identifier: BSD-3-Clause
 */

/* R3: the power is lost at any operation of a mirror that is written, and each
 * sector that was not flushed keeps its new content or falls back to the old
 * one, on each device by itself.  After that, and all that follows from it, a
 * client finds what it was told to be durable, the same each time, and the
 * legs become alike.  And R13: many clients at once, with all that can
 * happen to a leg meanwhile.
 */

#include <config.h>

#include "volume.h"

/*----------------------------------------------------------------------
 * The power is lost anywhere
 */

/* What a client knows of each sector: the value that it wrote last, and a set
 * of those that it may have if the power is lost.
 */
struct known {
  int latest[SECTORS];
  unsigned long possible[SECTORS];
};

static struct known *
known_new (void)
{
  struct known *k = g_new0 (struct known, 1);
  sector_t s;

  for (s = 0; s < SECTORS; s++)
    k->possible[s] = BIT (0);
  return k;
}

static void
note_write (struct known *k, bool ok, bool fua, int byte, sector_t sector,
            sector_t count)
{
  sector_t s;

  for (s = sector; s < sector + count; s++) {
    k->latest[s] = byte;
    k->possible[s] |= BIT (byte);
    if (ok && fua)
      k->possible[s] = BIT (byte);
  }
}

static void
write_some (struct volume *v, struct known *k, bool fua, int byte,
            sector_t sector, sector_t count)
{
  bool ok = fua ? volume_write_fua (v, byte, sector, count) :
    volume_write (v, byte, sector, count);

  note_write (k, ok, fua, byte, sector, count);
}

static void
flush_all (struct volume *v, struct known *k)
{
  sector_t s;

  if (!volume_flush (v))
    return;
  for (s = 0; s < SECTORS; s++)
    k->possible[s] = BIT (k->latest[s]);
}

static void
zero_some (struct volume *v, struct known *k, sector_t sector,
           sector_t count)
{
  bool ok = dm_mirror_write (v->mirror, DM_IO_WRITE_ZEROES, DM_IO_FUA, NULL,
                             sector, count, v->results);

  note_write (k, ok, true, 0, sector, count);
}

/* Values are less than 64. */
static void
run_script (struct volume *v, struct known *k)
{
  const struct mock_fault once = {
    .ops = MOCK_WRITE, .times = 1, .error = EIO,
  };

  write_some (v, k, false, 1, 0, 4);
  write_some (v, k, false, 2, CHUNK - 2, 4);
  flush_all (v, k);
  write_some (v, k, true, 3, 2, 4);
  write_some (v, k, false, 4, 5 * CHUNK, 3);
  mock_fault (v->legs[1], &once);
  write_some (v, k, false, 5, 2 * CHUNK, 2);
  write_some (v, k, false, 6, 6 * CHUNK, 2);
  flush_all (v, k);
  zero_some (v, k, CHUNK - 1, 2);
}

/* Several values may be possible, but only one of them is seen from now on. */
static void
check_sectors (struct volume *v, struct known *k)
{
  sector_t s;
  int byte;

  for (s = 0; s < SECTORS; s++) {
    byte = volume_read (v, s);
    if (byte < 0 || !(k->possible[s] & BIT (byte)))
      g_error ("sector %d is %d; possible: 0x%lx", (int) s, byte,
               k->possible[s]);
    k->possible[s] = BIT (byte);
  }
}

/* Returns true if the power was lost before the end. */
static bool
cut_after (struct volume *v, unsigned int n, uint64_t seed)
{
  struct known *k = known_new ();
  bool cut;

  volume_again (v, LEGS, SECTORS, CHUNK, ALL_LEGS, &volume_thin);
  volume_start_quiet (v);
  mock_power_off_after (n);
  run_script (v, k);
  volume_stop (v);              /* all is flushed, and becomes clean */
  cut = mock_power_is_off ();
  volume_crash (v, seed);
  volume_heal (v);

  /* Read, then crash again: what was read stays. */
  volume_start_quiet (v);
  check_sectors (v, k);
  volume_crash (v, seed + 1);
  volume_start (v);
  check_sectors (v, k);
  volume_await_in_sync (v);
  check_sectors (v, k);
  volume_assert_alike (v, ALL_LEGS);
  volume_stop (v);
  volume_start_quiet (v);
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS);
  g_free (k);
  return cut;
}

static void
test_r3 (struct volume *v, unsigned int seed)
{
  struct rng rng = rng_random ();
  unsigned int n;

  rng.state += seed;
  for (n = 0; cut_after (v, n, rng_next (&rng)); n++)
    ;
  g_test_message ("%u operations", n);
  g_assert_cmpuint (n, >, 40);
}

/*----------------------------------------------------------------------
 * Many clients
 */

#define CLIENTS 6
#define ROUNDS 300

struct player {
  pthread_t thread;
  struct volume *v;
  unsigned int number;
  unsigned int *playing;        /* atomic */
};

static enum dm_io_op
choose_op (struct rng *rng)
{
  switch (rng_below (rng, 8)) {
  case 0:
    return DM_IO_WRITE_ZEROES;
  case 1:
    return DM_IO_DISCARD;
  case 2:
  case 3:
    return DM_IO_READ;
  case 4:
    return DM_IO_FLUSH;
  default:
    return DM_IO_WRITE;
  }
}

static bool
do_something (struct volume *v, struct rng *rng, unsigned char *buf)
{
  struct dm_io_result results[DM_IO_MAX_REGIONS];
  enum dm_io_op op = choose_op (rng);
  sector_t first = rng_below (rng, v->sectors);
  sector_t count = 1 + rng_below (rng, MIN (v->sectors - first, 40));

  switch (op) {
  case DM_IO_READ:
    return dm_mirror_read (v->mirror, buf, first, count, results);
  case DM_IO_FLUSH:
    return dm_mirror_flush (v->mirror, &v->client, results);
  default:
    fill (buf, count * SECTOR, rng_next (rng));
    return dm_mirror_write (v->mirror, op, 0, buf, first, count, results);
  }
}

static void *
play (void *arg)
{
  struct player *p = arg;
  struct rng rng = { p->number };
  unsigned char buf[40 * SECTOR];
  unsigned int i;

  for (i = 0; i < ROUNDS; i++)
    g_assert_true (do_something (p->v, &rng, buf));
  __atomic_sub_fetch (p->playing, 1, __ATOMIC_RELAXED);
  return NULL;
}

/* Legs but the first fail now and then, and are looked at. */
static void
disturb (struct volume *v, unsigned int *playing)
{
  const struct mock_fault once = {
    .ops = MOCK_WRITE | MOCK_FLUSH, .times = 1, .error = EIO,
  };
  struct rng rng = rng_random ();
  struct dm_mirror_status status;
  unsigned int leg;

  while (__atomic_load_n (playing, __ATOMIC_RELAXED) > 0) {
    leg = 1 + rng_below (&rng, LEGS - 1);
    mock_clear_faults (v->legs[leg]);
    if (rng_below (&rng, 2))
      mock_fault (v->legs[leg], &once);
    else
      mock_set_failed (v->legs[leg], true);
    dm_mirror_get_status (v->mirror, &status);
    dm_mirror_status_clear (&status);
    g_usleep (100000);
  }
}

static void
start_clients (struct volume *v, struct player *players,
               unsigned int *playing)
{
  unsigned int i;

  *playing = CLIENTS;
  for (i = 0; i < CLIENTS; i++) {
    players[i] = (struct player) {
      .v = v, .number = i, .playing = playing,
    };
    g_assert_cmpint (pthread_create (&players[i].thread, NULL, play,
                                     &players[i]), ==, 0);
  }
}

static void
end_clients (struct player *players)
{
  unsigned int i;

  for (i = 0; i < CLIENTS; i++)
    g_assert_cmpint (pthread_join (players[i].thread, NULL), ==, 0);
}

/* All of it is recovered and reconciled while clients are at work. */
static void
test_r13 (struct volume *v, unsigned int disturbed)
{
  struct mock_options options = volume_thin;
  struct mock_fault slow = { .ops = MOCK_WRITE, .msec = 1 };
  struct player players[CLIENTS];
  unsigned int playing, i;

  options.max_trace = 1;
  volume_again (v, LEGS, 40 * CHUNK + 3, CHUNK, BIT (0) | BIT (1),
                &options);
  for (i = 0; i < LEGS; i++)
    leg_set (v, i, i == 2 ? 5 : 6, 0, v->sectors);
  volume_start_quiet (v);
  for (i = 0; i < 40; i += 3)
    g_assert_true (volume_write (v, 1, i * CHUNK, 1));
  volume_crash (v, 1);
  for (i = 0; i < 40; i += 3)
    leg_set (v, 1, 7, i * CHUNK, 8);
  mock_fault (v->legs[0], &slow);
  volume_start (v);
  start_clients (v, players, &playing);
  if (disturbed)
    disturb (v, &playing);
  end_clients (players);
  volume_heal (v);
  volume_await_in_sync (v);
  volume_assert_alike (v, ALL_LEGS);
  volume_stop (v);
  volume_start_quiet (v);
  g_assert_cmpuint (volume_in_sync (v), ==, LEGS);
}

static const struct volume_test tests[] = {
  { "r3-any-operation/1", test_r3, 1, &volume_plain },
  { "r3-any-operation/2", test_r3, 2, &volume_plain },
  { "r13-clients", test_r13, false, &volume_plain },
  { "r13-clients/disturbed", test_r13, true, &volume_plain },
};

int
main (int argc, char *argv[])
{
  test_init (&argc, &argv);
  VOLUME_ADD_TESTS ("/mirror-crash/", tests);
  return g_test_run ();
}
